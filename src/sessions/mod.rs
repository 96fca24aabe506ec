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
pub use conversation::{About, Ending, Summary, Turn};
pub use replay::{Key, Replays};
pub use shelf::{Found, MAX_HELD};

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
    alone: Option<Alone>,
}

/// Nobody else goes on with a conversation while this lives.
struct Alone {
    sessions: Arc<Sessions>,
    uid: u32,
    id: String,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.sessions.with(self.uid, |shelf| shelf.let_go(&self.id));
    }
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

    /// Where a turn from `origin` goes on. In a session one follows the other; from an answer many
    /// may go on at once.
    pub fn claim(self: &Arc<Self>, uid: u32, origin: &Origin) -> Result<Claim, Refusal> {
        let (conversation, history, alone) = match origin {
            Origin::New => (None, Vec::new(), false),
            Origin::Answer(id) => {
                let (of, history) = self.with(uid, |shelf| shelf.up_to(id))?;
                (Some(of), history, false)
            }
            Origin::Session { who, alone } => self.with(uid, |shelf| {
                let alone = *alone && shelf.take(who)?;
                let (id, history) = shelf.look(who)?;
                Ok((Some(id), history, alone))
            })?,
        };
        let alone = conversation.clone().filter(|_| alone).map(|id| Alone {
            sessions: self.clone(),
            uid,
            id,
        });
        Ok(Claim {
            sessions: self.clone(),
            uid,
            conversation,
            history,
            alone,
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
                alone,
            } = claim;
            let is_alone = alone.is_some();
            sessions.with(uid, |shelf| {
                shelf.add(conversation, is_alone, history, turn)
            });
        }
        Receipt(())
    }

    /// A new session that begins with these messages.
    pub fn create(&self, uid: u32, about: About, said: Vec<Message>) -> Result<Summary, Refusal> {
        let turns = (!said.is_empty()).then(|| Arc::new(Turn::said(said)));
        self.with(uid, |shelf| {
            shelf.create(about, turns.into_iter().collect())
        })
    }

    /// A new session that begins with what was said in another, up to an answer or to its end.
    pub fn fork(
        &self,
        uid: u32,
        who: &str,
        at: Option<&str>,
        about: About,
    ) -> Result<Summary, Refusal> {
        self.with(uid, |shelf| {
            let (id, mut turns) = shelf.look(who)?;
            if let Some(at) = at {
                let (of, up_to) = shelf.up_to(at)?;
                if of != id {
                    return Err(Refusal::NoSuchAnswer { id: at.into() });
                }
                turns = up_to;
            }
            shelf.create(about, turns)
        })
    }

    /// Something more was said, and nothing asked.
    pub fn append(
        self: &Arc<Self>,
        uid: u32,
        who: &str,
        said: Vec<Message>,
    ) -> Result<Receipt, Refusal> {
        if self.summary(uid, who)?.about.fixed {
            return Err(Refusal::Invalid {
                param: "id".into(),
                message: format!("session {who:?} is fixed; fork it to go on"),
            });
        }
        let (who, alone) = (who.to_owned(), true);
        let claim = self.claim(uid, &Origin::Session { who, alone })?;
        Ok(Sessions::settle(Some((claim, Turn::said(said)))))
    }

    pub fn list(&self, uid: u32) -> Vec<Summary> {
        self.with(uid, |shelf| shelf.list())
    }

    /// The session of that id or name.
    pub fn summary(&self, uid: u32, who: &str) -> Result<Summary, Refusal> {
        self.with(uid, |shelf| shelf.summary(who))
    }

    /// What was said in it.
    pub fn messages(&self, uid: u32, who: &str) -> Result<Vec<Message>, Refusal> {
        let (_, turns) = self.with(uid, |shelf| shelf.look(who))?;
        Ok(turns.iter().flat_map(|t| t.messages()).collect())
    }

    /// Ends a session; its id. Whoever answers in it answers on, and nothing of that is kept.
    pub fn delete(&self, uid: u32, who: &str) -> Result<String, Refusal> {
        self.with(uid, |shelf| shelf.delete(who))
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
