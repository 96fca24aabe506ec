//! HTTP: its wire formats and sockets, nothing else. Every request goes through `service`.

mod answering;
mod answers;
mod background;
mod body;
mod cached;
mod carry;
mod error;
mod figures;
pub mod http;
mod kept;
pub mod messages;
mod metrics;
pub mod openai;
mod parts;
mod reading;
mod render;
mod replies;
pub mod responses;
mod routes;
mod scores;
mod seats;
mod sessions;
pub mod socket;
mod stall;
pub mod state;
#[cfg(test)]
mod tests;
