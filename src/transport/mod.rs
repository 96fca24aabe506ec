//! Doors: wire formats and sockets, nothing else. Every request goes through `service`.

mod answers;
mod background;
mod body;
mod cached;
mod carry;
pub mod door;
mod error;
pub mod fields;
pub mod http;
mod kept;
pub mod limits;
pub mod messages;
mod metrics;
pub mod openai;
pub mod peer;
mod reading;
mod render;
mod replies;
pub mod responses;
mod routes;
mod seats;
mod sessions;
pub mod socket;
mod stall;
#[cfg(test)]
mod tests;
mod turn;
