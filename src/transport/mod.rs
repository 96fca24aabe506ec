//! Doors: wire formats and sockets, nothing else. Every request goes through `service`.

pub mod fields;
pub mod http;
mod metrics;
pub mod openai;
pub mod peer;
mod replies;
mod routes;
pub mod socket;
mod stall;

#[cfg(test)]
mod tests;
