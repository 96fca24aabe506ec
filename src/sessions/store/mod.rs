//! Conversations on disk: a log of turns that is never rewritten, rows beside it that are never
//! rewritten either, and a state per checkpoint. `docs/sessions.md` has the format byte by byte.
//!
//! Owns what is on disk of one user. A turn is acknowledged ([`Durable`]) once it is there to stay;
//! a state may lag, which costs reading again, never content. Refuses by name what is another
//! model's, another version's, another session's or damaged ([`Refusal`]). Knows no HTTP, no text,
//! and of a state only its bytes.
//!
//! | file | job | touches the disk |
//! |---|---|---|
//! | `id`, `identity`, `error` | names, what belongs together, what is refused | no |
//! | `record` | the log's bytes: whole, torn or damaged | no |
//! | `entry` | what records hold | no |
//! | `known` | a session as its records tell it | no |
//! | `quota` | what is given up first | no |
//! | `disk`, `files` | what a disk does; a real one | yes |
//! | `handed` | memory that somebody else holds too, in a disk's place | no |
//! | `session` | one directory's log | yes |
//! | `checkpoint`, `loaded` | its rows and states, out and in | yes |
//! | `told` | what is said of a session, and what it is told | no |
//! | `tip` | the engine's states | no |
//! | `transfer`, `received` | a session as one file for others, and as strangers send it | what it is given |
//! | `user`, `keep` | the sessions of a user | through those |

mod checkpoint;
mod disk;
mod entry;
mod error;
mod files;
mod handed;
mod id;
mod identity;
mod keep;
mod known;
mod loaded;
mod quota;
mod received;
mod record;
mod session;
#[cfg(test)]
mod tests;
mod tip;
mod told;
mod transfer;
mod user;

pub use checkpoint::State;
pub use disk::{Disk, Entry, File, How};
pub use entry::Turn;
pub use error::{Piece, Refusal, StoreError};
pub use files::Files;
pub use handed::{Hands, InHands, Keeper};
pub use id::{Id, NoId};
pub use identity::{Differs, Digest, Identity};
pub use loaded::Loaded;
pub use quota::Quota;
pub use received::{Received, Source, examine};
pub use tip::Tip;
pub use told::{About, Durable, Listed, Opened, Written};
pub use transfer::Carried;
pub use user::Store;
