//! Conversations: what was said, by whom it may be gone on with, and which tokens it was. Kept by
//! user; never shared between two. Runs nothing and renders nothing.
//!
//! | file | job |
//! |---|---|
//! | `answer` | an answer put together from its parts |
//! | `conversation` | turns, and where a new one is put |
//! | `shelf` | one user's conversations, by id, by name and by answer |
//! | `replay` | which tokens a conversation that comes back as text had been |
//! | [`store`] | a user's conversations on disk |

mod answer;
mod conversation;
mod replay;
mod shelf;
pub mod store;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub use answer::Answer;
pub use conversation::{Ending, Turn};
pub use replay::{Key, Replays};
pub use shelf::Found;

use crate::request::{Message, Origin, Refusal};
use shelf::Shelf;

/// All users' conversations.
#[derive(Default)]
pub struct Sessions {
    shelves: Mutex<HashMap<u32, Shelf>>,
    pub replays: Replays,
}

/// The right to add one turn. Dropped, nothing was added.
pub struct Claim {
    sessions: Arc<Sessions>,
    uid: u32,
    /// Where it goes on, as that was when the claim was made.
    conversation: Option<String>,
    history: Vec<Arc<Turn>>,
}

/// Says that a turn which was to be kept is kept. Only [`Sessions::settle`] gives it out, so whoever
/// must show one cannot say too early that an answer is over.
#[derive(Debug)]
pub struct Receipt(());

impl Sessions {
    fn with<T>(&self, uid: u32, look: impl FnOnce(&mut Shelf) -> T) -> T {
        look(self.lock().entry(uid).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a turn from `origin` goes on.
    pub fn claim(self: &Arc<Self>, uid: u32, origin: &Origin) -> Result<Claim, Refusal> {
        let (conversation, history) = match origin {
            Origin::New => (None, Vec::new()),
            Origin::Answer(id) => self.with(uid, |shelf| shelf.up_to(id))?,
        };
        Ok(Claim {
            sessions: self.clone(),
            uid,
            conversation,
            history,
        })
    }

    /// Keeps the turn where its claim says: at the conversation's end, or in a conversation of its
    /// own that shares what came before, where others went on meanwhile. Without a claim there is
    /// nothing to keep.
    pub fn settle(turn: Option<(Claim, Turn)>) -> Receipt {
        if let Some((claim, turn)) = turn {
            let Claim {
                sessions,
                uid,
                conversation,
                history,
            } = claim;
            sessions.with(uid, |shelf| shelf.add(conversation, history, turn));
        }
        Receipt(())
    }

    /// The answer of that id.
    pub fn answer(&self, uid: u32, id: &str) -> Result<Found, Refusal> {
        self.with(uid, |shelf| shelf.answer(id))
    }

    /// The id names nothing any more; what went on from there keeps its own history.
    pub fn forget_answer(&self, uid: u32, id: &str) -> Result<(), Refusal> {
        self.with(uid, |shelf| shelf.forget(id))
    }
}

impl Claim {
    /// What was said before, oldest first.
    pub fn history(&self) -> Vec<Message> {
        self.history.iter().flat_map(|t| t.messages()).collect()
    }
}

/// Not secret, only different each time: every look asks whose it is.
pub fn fresh_id(kind: &str) -> String {
    let half = || RandomState::new().hash_one(Instant::now());
    format!("{kind}{:016x}{:016x}", half(), half())
}

/// In seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests;
