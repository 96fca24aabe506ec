//! OpenAI's `/v1/responses` over the same requests and events: reads its body, writes its answer
//! and its stream, and an answer that was kept. Keeps nothing itself.

mod answer;
mod echo;
mod items;
mod read;

pub use answer::{Answer, Fate, stored};
pub use items::{stored_input, stored_item};
pub use read::read;
