//! The single door: validates, renders the template, tokenizes and admits, whatever transport a
//! request came by. What it lets through needs no second check. Writes no wire format and runs
//! nothing itself.
//!
//! | file | job |
//! |---|---|
//! | `house` | the service: what it was made of, and what it tells |
//! | `submit` | a request admitted |
//! | `checks` | what a request asks for, held against what may be asked |
//! | `prompt` | from what was said to tokens, as they were where they are known |
//! | `conversations` | conversations that are kept: gone on with, saved, measured, carried |
//! | [`events`] | an answer heard out, and kept |
//! | `held`, [`groups`] | memory by kind; who is in a group |

mod checks;
mod conversations;
pub mod events;
pub mod groups;
mod held;
mod house;
mod prompt;
mod submit;

pub use held::Held;
pub use house::{Admission, Card, Pressure, Service};
pub use submit::Generation;

pub use crate::scheduler::Size;
pub use crate::sessions::{
    About, Answer, Block, Ending, Found, Incoming, MAX_HELD, Outgoing, Receipt, Rest, Step,
    Summary, Turn, Untaken, fresh_id, now,
};
pub use crate::text::Specials;
