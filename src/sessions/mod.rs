//! Conversations: what was said, by whom it may be gone on with, and which tokens it was. Kept by
//! user; never shared between two. Runs nothing and renders nothing.
//!
//! | file | job |
//! |---|---|
//! | `all` | conversations of all users |
//! | `answer` | an answer put together from its parts |
//! | `carry` | conversations as files, out and in, and what could not be taken up |
//! | `claim` | the right to add a turn, and where the turn is kept |
//! | `conversation` | turns, and where a new one is put |
//! | `shelf` | one user's conversations, by id, by name and by answer |
//! | `ids` | names and the time |
//! | `replay`, `recent` | which tokens a conversation that comes back as text had been; what was used last |
//! | [`store`] | a user's conversations on disk |
//! | `lasting` | turns as the store keeps them, and back |
//! | `user` | a user's shelf and store, one in step with the other |

mod all;
mod answer;
mod carry;
mod claim;
mod conversation;
mod ids;
mod lasting;
mod recent;
mod replay;
mod shelf;
pub mod store;
mod user;

pub use all::Sessions;
pub use answer::{Answer, Block, Step};
pub use carry::{Incoming, Outgoing};
pub use claim::{Claim, Ended, Receipt};
pub use conversation::{About, Ending, Summary, Turn};
pub use ids::{fresh_id, now};
pub use lasting::{Lasting, Place, Untaken};
pub use replay::{Key, Replays};
pub use shelf::{Found, MAX_HELD, Rest};
pub use user::Resting;

#[cfg(test)]
mod tests;
