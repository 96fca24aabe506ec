//! Every user's conversations: made, forked, listed, deleted, and their states on disk.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::conversation::{About, Summary, Turn};
use super::lasting::{Lasting, Place};
use super::replay::Replays;
use super::shelf::{Found, Rest};
use super::store::{self, Id};
use super::user::{Resting, User};
use crate::request::{Message, Refusal, Token};

/// All users' conversations.
#[derive(Default)]
pub struct Sessions {
    users: Mutex<HashMap<u32, Arc<OnceLock<User>>>>,
    /// `None`: they live in memory.
    pub(super) lasting: Option<Lasting>,
    pub replays: Replays,
    /// Users who have a file on its way.
    pub(super) carrying: Mutex<HashSet<u32>>,
}

impl Sessions {
    /// Conversations that are to last are kept there.
    pub fn new(lasting: Option<Lasting>) -> Sessions {
        Sessions {
            lasting,
            ..Sessions::default()
        }
    }

    pub(super) fn with<T>(&self, uid: u32, look: impl FnOnce(&User) -> T) -> T {
        let cell = {
            let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.entry(uid).or_default().clone()
        };
        look(cell.get_or_init(|| User::open(uid, self.lasting.as_ref(), &self.replays)))
    }

    /// As [`Sessions::with`], where a session or an answer is named: one that lies on disk and cannot
    /// be taken up is refused by the reason.
    pub(super) fn named<T>(
        &self,
        uid: u32,
        look: impl FnOnce(&User) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.with(uid, |user| look(user).map_err(|e| user.refused(e)))
    }

    /// Users who have conversations on disk.
    pub fn users_on_disk(&self) -> Vec<u32> {
        self.lasting.as_ref().map_or_else(Vec::new, Lasting::users)
    }

    /// Bytes that were written for conversations to be kept since this began.
    pub fn written(&self) -> u64 {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let users = users.values().filter_map(|cell| cell.get());
        users
            .filter_map(User::store)
            .map(store::Store::written)
            .sum()
    }

    /// Whether a state that is written is one less in memory.
    pub fn has_disk(&self) -> bool {
        let place = self.lasting.as_ref().map(|lasting| &lasting.place);
        matches!(place, Some(Place::Disk(_)))
    }

    /// A new session that begins with these messages.
    pub fn create(&self, uid: u32, about: About, said: Vec<Message>) -> Result<Summary, Refusal> {
        let turns = (!said.is_empty()).then(|| Arc::new(Turn::said(said)));
        let turns = turns.into_iter().collect();
        self.with(uid, |user| user.create(about, turns, Vec::new(), None))
    }

    /// A new session that begins with what was said in another, up to an answer or to its end.
    pub fn fork(
        &self,
        uid: u32,
        who: &str,
        at: Option<&str>,
        about: About,
    ) -> Result<Summary, Refusal> {
        self.named(uid, |user| {
            let (id, mut turns) = user.shelf().look(who)?;
            let mut tokens = user.shelf().tokens(&id)?;
            if let Some(at) = at {
                let up_to = user.shelf().up_to_in(&id, at)?;
                if up_to.len() < turns.len() {
                    tokens = Vec::new();
                }
                turns = up_to;
            }
            let from = user.shelf().on_disk(&id)?;
            let from = from.map(|on_disk| (on_disk, turns.len()));
            user.create(about, turns, tokens, from)
        })
    }

    pub fn list(&self, uid: u32) -> Vec<Summary> {
        self.with(uid, |user| user.shelf().list())
    }

    /// The session of that id or name.
    pub fn summary(&self, uid: u32, who: &str) -> Result<Summary, Refusal> {
        self.named(uid, |user| user.shelf().summary(who))
    }

    /// What was said in it.
    pub fn messages(&self, uid: u32, who: &str) -> Result<Vec<Message>, Refusal> {
        let (_, turns) = self.named(uid, |user| user.shelf().look(who))?;
        Ok(turns.iter().flat_map(|t| t.messages()).collect())
    }

    /// Ends a session; its id. Whoever answers in it answers on, and nothing of that is kept.
    pub fn delete(&self, uid: u32, who: &str) -> Result<String, Refusal> {
        self.with(uid, |user| user.delete(who))
    }

    /// The answer of that id.
    pub fn answer(&self, uid: u32, id: &str) -> Result<Found, Refusal> {
        self.named(uid, |user| user.shelf().answer(id))
    }

    /// The id names nothing any more; what went on from there keeps its own history.
    pub fn forget_answer(&self, uid: u32, id: &str) -> Result<(), Refusal> {
        self.with(uid, |user| user.forget(id))
    }

    /// Conversations on disk that nobody answers in and that have something to save or to let go, of
    /// users who were here. Each is told once.
    pub fn resting(&self, rest: Rest) -> Vec<Resting> {
        let users: Vec<_> = {
            let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            users
                .iter()
                .map(|(uid, user)| (*uid, user.clone()))
                .collect()
        };
        let each = users
            .iter()
            .filter_map(|(uid, user)| Some((*uid, user.get()?)));
        each.flat_map(|(uid, user)| user.resting(uid, rest))
            .collect()
    }

    /// As [`Sessions::resting`], of the session of that id or name; `None` if it is in memory.
    pub fn rests(&self, uid: u32, who: &str) -> Result<Option<Resting>, Refusal> {
        self.named(uid, |user| {
            let mut shelf = user.shelf();
            let (id, tokens) = (shelf.on_disk(who)?, shelf.tokens(who)?);
            Ok(id.map(|id| Resting {
                uid,
                id,
                tokens,
                leaves: false,
            }))
        })
    }

    /// Its last turn's tokens.
    pub fn tokens(&self, uid: u32, who: &str) -> Result<Vec<Token>, Refusal> {
        self.named(uid, |user| user.shelf().tokens(who))
    }

    /// The conversation on disk that goes along with a prompt furthest, and its tokens.
    pub fn nearest(&self, uid: u32, prompt: &[Token]) -> Option<(Id, Vec<Token>)> {
        self.lasting.as_ref()?;
        self.with(uid, |user| user.shelf().nearest(prompt))
    }

    /// What a user has on disk is known from then on.
    pub fn open(&self, uid: u32) {
        self.with(uid, |_| ());
    }

    /// How many tokens the newest state on disk has seen.
    pub fn saved(&self, uid: u32, id: &Id) -> usize {
        self.with(uid, |user| user.store().map_or(0, |store| store.saved(id)))
    }

    /// Writes a state that has seen `tokens`. Why not, if it could not be; then the next process
    /// reads the conversation again.
    pub fn save(
        &self,
        uid: u32,
        id: &Id,
        tokens: &[Token],
        state: &dyn store::State,
    ) -> Result<u64, String> {
        self.with(uid, |user| match user.store() {
            None => Err("there is no disk for conversations".to_owned()),
            Some(store) => match store.checkpoint(id, tokens, state) {
                Ok(written) => Ok(written.bytes),
                Err(e) => Err(e.to_string()),
            },
        })
    }

    /// The newest state of the beginning of `tokens`.
    pub fn load(&self, uid: u32, id: &Id, tokens: &[Token]) -> Option<store::Loaded> {
        self.with(uid, |user| {
            let (state, wrong) = user.store()?.state(id, tokens).ok()?;
            for why in wrong {
                log::warn!("session {id}: a state is read anew: {why}");
            }
            state
        })
    }
}
