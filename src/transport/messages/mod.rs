//! Anthropic's `/v1/messages` over the same requests and events: reads its body, writes its answer
//! and its stream.

mod answer;
mod read;

pub use answer::{Answer, envelope};
pub use read::read;
