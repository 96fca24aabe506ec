//! Every user's conversations: where a turn goes on, how it is kept, and what was said before it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::conversation::{About, Conversation, Summary, Turn};
use super::lasting::{Lasting, Place};
use super::replay::Replays;
use super::shelf::{Found, Rest, Spot};
use super::store::{self, Durable, Id};
use super::user::{Resting, User};
use crate::request::{Message, Origin, Refusal, Token};

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
        self.sessions
            .with(self.uid, |user| user.shelf().let_go(&self.id));
    }
}

/// A turn, and the conversation's tokens up to its end as they were fed and drawn; empty where that
/// is not known.
pub struct Ended {
    pub claim: Claim,
    pub turn: Turn,
    pub tokens: Vec<Token>,
}

/// Says that a turn which was to be kept is kept: on disk, if it is to outlive the process. Only
/// [`Sessions::settle`] gives it out, so whoever must show one cannot say too early that an answer
/// is over.
#[derive(Debug)]
pub struct Receipt(Option<Durable>);

impl Receipt {
    /// Whether it is on disk.
    pub fn is_durable(&self) -> bool {
        self.0.is_some()
    }
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

    /// Where a turn from `origin` goes on. In a session one follows the other; from an answer many
    /// may go on at once.
    pub fn claim(self: &Arc<Self>, uid: u32, origin: &Origin) -> Result<Claim, Refusal> {
        let (conversation, history, alone) = self.named(uid, |user| match origin {
            Origin::New | Origin::Replayed => Ok((None, Vec::new(), false)),
            Origin::Answer(id) => {
                let (of, history) = user.shelf().up_to(id)?;
                Ok((Some(of), history, false))
            }
            Origin::Session { who, alone } => {
                let mut shelf = user.shelf();
                let alone = *alone && shelf.take(who)?;
                let (id, history) = shelf.look(who)?;
                Ok((Some(id), history, alone))
            }
        })?;
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
    /// own that shares what came before, where others went on meanwhile. What is to last is on disk
    /// when this returns. Without a turn there is nothing to keep.
    pub fn settle(ended: Option<Ended>) -> Receipt {
        let Some(Ended {
            claim,
            turn,
            tokens,
        }) = ended
        else {
            return Receipt(None);
        };
        let Claim {
            sessions,
            uid,
            conversation,
            history,
            alone,
        } = claim;
        let durable = sessions.with(uid, |user| {
            let is_alone = alone.is_some();
            let spot = user
                .shelf()
                .spot(conversation.as_deref(), is_alone, history.len());
            match (spot, conversation) {
                (
                    Spot::End {
                        on_disk,
                        tokens: before,
                    },
                    Some(id),
                ) => {
                    let durable = on_disk.and_then(|d| user.append(&d, &before, &turn, &tokens));
                    user.shelf().push(&id, turn, tokens, durable.is_some());
                    user.shelf().let_go(&id);
                    durable
                }
                (Spot::Nowhere, _) => None,
                (Spot::Beside { on_disk }, _) => {
                    let about = About {
                        lasting: true,
                        ..About::default()
                    };
                    let n = history.len();
                    let from = on_disk.map(|id| (id, n));
                    let begun = Conversation::new(about, history);
                    user.go_on(begun, from, turn, tokens)
                }
                (Spot::End { .. }, None) => None,
            }
        });
        drop(alone);
        Receipt(durable)
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
        let (turn, tokens) = (Turn::said(said), Vec::new());
        Ok(Sessions::settle(Some(Ended {
            claim,
            turn,
            tokens,
        })))
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

    /// Where a claim's conversation lies on disk, and its tokens.
    pub fn place(&self, claim: &Claim) -> Option<(Id, Vec<Token>)> {
        let who = claim.conversation.as_deref()?;
        let rests = self.rests(claim.uid, who).ok().flatten()?;
        Some((rests.id, rests.tokens))
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

impl Claim {
    /// What was said before, oldest first.
    pub fn history(&self) -> Vec<Message> {
        self.history.iter().flat_map(|t| t.messages()).collect()
    }

    /// Its conversation was read to its end, and was these tokens.
    pub fn was_read(self, tokens: Vec<Token>) {
        let Some(who) = &self.conversation else {
            return;
        };
        let n = self.history.len();
        self.sessions
            .with(self.uid, |user| user.was_read(who, n, tokens));
    }

    /// Writes a piece of the running answer, so that a process that is killed loses nothing that was
    /// seen. Of conversations on disk that somebody goes on with alone.
    pub fn partial(&self, piece: &Turn, is_first: bool) {
        let Some(alone) = &self.alone else { return };
        self.sessions
            .with(self.uid, |user| user.partial(&alone.id, piece, is_first));
    }
}
