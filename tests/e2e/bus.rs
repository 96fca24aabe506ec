//! The daemon on D-Bus, as desktop programs see it: a private bus, the built binary, a converted
//! checkpoint.

mod answers;
mod desktop;
mod killed;
mod owners;
mod pressure;
mod private;
mod search;
mod sessions;
mod sizes;
mod window;
