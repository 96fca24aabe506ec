//! The right to add a turn to a conversation, and what is done with the turn once it is over.

use std::sync::Arc;

use super::all::Sessions;
use super::conversation::{About, Conversation, Turn};
use super::shelf::Spot;
use super::store::{Durable, Id};
use crate::request::{Message, Origin, Refusal, Token};

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

    /// Where a claim's conversation lies on disk, and its tokens.
    pub fn place(&self, claim: &Claim) -> Option<(Id, Vec<Token>)> {
        let who = claim.conversation.as_deref()?;
        let rests = self.rests(claim.uid, who).ok().flatten()?;
        Some((rests.id, rests.tokens))
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
