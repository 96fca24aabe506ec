//! The real daemon, as programs on the same machine see it: the built binary, a converted
//! checkpoint, a Unix socket.

mod bench;
#[cfg(target_os = "linux")]
mod bus;
mod carried;
mod cli;
mod clients;
mod conversation;
mod daemon;
mod damaged;
mod golden;
mod handed;
mod hostile;
mod http;
mod kills;
mod lasting;
mod lifecycle;
mod ling;
mod manager;
mod neighbour;
mod pressure;
mod sessions;
mod synthetic;
mod tools;
mod traces;
mod venv;
