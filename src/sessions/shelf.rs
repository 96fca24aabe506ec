//! One user's conversations, found by their ids and names and by the ids of their answers. Bounded:
//! of those that nobody holds, the one that was not used for longest goes first.

use std::collections::HashMap;
use std::sync::Arc;

use super::conversation::{About, Conversation, Summary, Turn};
use super::ids::{ID, fresh_id, id_of, now};
use super::lasting;
use super::store::Id;

use crate::request::{Refusal, Token};

/// Conversations that nobody holds. OpenAI's clients keep every answer unless told otherwise, so
/// these grow by one with every question that begins anew.
const MAX_PASSING: usize = 1024;
/// Conversations that a user holds: an assistant that forgets to end them fills no memory for ever.
pub const MAX_HELD: usize = 256;
/// Bytes of a name.
const LONGEST_NAME: usize = 64;

#[derive(Default)]
pub(super) struct Shelf {
    conversations: HashMap<String, Conversation>,
    names: HashMap<String, String>,
    /// The conversation that an answer was given in, and its number there.
    answers: HashMap<String, (String, usize)>,
    clock: u64,
    /// The model's name.
    model: String,
}

/// Where a turn goes.
pub(super) enum Spot {
    /// To the conversation's end, which is taken until it is let go.
    End {
        on_disk: Option<Id>,
        tokens: Vec<Token>,
    },
    /// Into a conversation of its own that shares what came before.
    Beside {
        on_disk: Option<Id>,
    },
    Nowhere,
}

/// What is to be said on disk of a forgotten answer.
pub(super) struct Forgotten {
    /// Of conversations that had it.
    pub notes: Vec<(Id, String)>,
    /// One that cannot be named any more.
    pub gone: Option<Id>,
}

/// A conversation that nobody answers in.
pub(super) struct Resting {
    pub on_disk: Id,
    pub tokens: Vec<Token>,
    /// It goes from memory.
    pub leaves: bool,
}

/// After how many seconds without a turn a state is saved, and leaves memory.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    pub save: u64,
    pub leave: Option<u64>,
}

/// An answer that was looked up.
#[derive(Debug, Clone)]
pub struct Found {
    pub turn: Arc<Turn>,
    pub conversation: String,
}

fn unknown(id: &str) -> Refusal {
    Refusal::NoSuchAnswer { id: id.to_owned() }
}

impl Shelf {
    pub fn of(model: String) -> Shelf {
        Shelf {
            model,
            ..Shelf::default()
        }
    }

    pub fn answer(&mut self, id: &str) -> Result<Found, Refusal> {
        let (conversation, at) = self.answers.get(id).ok_or_else(|| unknown(id))?;
        let kept = self.conversations.get(conversation);
        let turn = kept.and_then(|c| c.turns.get(*at));
        Ok(Found {
            turn: turn.ok_or_else(|| unknown(id))?.clone(),
            conversation: conversation.clone(),
        })
    }

    /// The conversation that holds that answer, and its turns up to it.
    pub fn up_to(&mut self, id: &str) -> Result<(String, Vec<Arc<Turn>>), Refusal> {
        let (name, at) = self.answers.get(id).ok_or_else(|| unknown(id))?.clone();
        let kept = self.conversations.get(&name);
        let turns = kept.ok_or_else(|| unknown(id))?.turns.iter();
        let turns = turns.take(at + 1).cloned().collect();
        self.touch(&name);
        Ok((name, turns))
    }

    /// The turns of that session up to an answer of its own, or one that it shares with others.
    pub fn up_to_in(&mut self, who: &str, answer: &str) -> Result<Vec<Arc<Turn>>, Refusal> {
        let (_, kept) = self.get(who)?;
        let is = |t: &Arc<Turn>| t.id == answer && t.answer.is_some();
        let place = kept.turns.iter().position(is);
        let place = place.filter(|_| !kept.forgotten.contains(answer));
        let place = place.ok_or_else(|| unknown(answer))?;
        Ok(kept.turns[..=place].to_vec())
    }

    fn touch(&mut self, id: &str) {
        self.clock += 1;
        if let Some(kept) = self.conversations.get_mut(id) {
            kept.used = self.clock;
            kept.asked = now();
        }
    }

    /// The id behind an id or a name.
    fn id(&self, who: &str) -> Result<String, Refusal> {
        let named = self.names.get(who).map_or(who, String::as_str);
        match self.conversations.get(named) {
            Some(kept) if kept.is_reachable() => Ok(named.to_owned()),
            _ => Err(Refusal::NoSuchSession { who: who.into() }),
        }
    }

    fn get(&mut self, who: &str) -> Result<(String, &mut Conversation), Refusal> {
        let id = self.id(who)?;
        let unknown = || Refusal::NoSuchSession { who: who.into() };
        let kept = self.conversations.get_mut(&id).ok_or_else(unknown)?;
        Ok((id, kept))
    }

    /// The conversation and its turns.
    pub fn look(&mut self, who: &str) -> Result<(String, Vec<Arc<Turn>>), Refusal> {
        let (id, kept) = self.get(who)?;
        let turns = kept.turns.clone();
        self.touch(&id);
        Ok((id, turns))
    }

    /// As [`Shelf::look`], for one who goes on with it alone until it is let go. What is fixed needs
    /// no such order: nobody goes on there. Whether it is taken.
    pub fn take(&mut self, who: &str) -> Result<bool, Refusal> {
        let (_, kept) = self.get(who)?;
        if kept.about.fixed {
            return Ok(false);
        }
        if std::mem::replace(&mut kept.busy, true) {
            return Err(Refusal::SessionBusy { who: who.into() });
        }
        Ok(true)
    }

    pub fn let_go(&mut self, id: &str) {
        if let Some(kept) = self.conversations.get_mut(id) {
            kept.busy = false;
        }
    }

    /// Where a turn goes that was asked after `n` others; what is gone on with is taken until it is
    /// let go. `alone`: its asker had taken it already.
    pub fn spot(&mut self, conversation: Option<&str>, alone: bool, n: usize) -> Spot {
        let kept = conversation.and_then(|id| self.conversations.get_mut(id));
        match kept {
            Some(kept) if kept.turns.len() == n && !kept.about.fixed && (alone || !kept.busy) => {
                kept.busy = true;
                Spot::End {
                    on_disk: kept.on_disk,
                    tokens: kept.tokens.clone(),
                }
            }
            // Only its end can be the cause.
            _ if alone => Spot::Nowhere,
            // Who went on meanwhile stays; so does this, beside it.
            kept => Spot::Beside {
                on_disk: kept.and_then(|c| c.on_disk),
            },
        }
    }

    pub fn push(&mut self, id: &str, turn: Turn, tokens: Vec<Token>, durable: bool) {
        self.touch(id);
        let Some(kept) = self.conversations.get_mut(id) else {
            return;
        };
        if turn.answer.is_some() {
            let place = (id.to_owned(), kept.turns.len());
            self.answers.insert(turn.id.clone(), place);
        }
        kept.turns.push(Arc::new(turn));
        if !tokens.is_empty() {
            kept.tokens = tokens;
            (kept.saved, kept.away) = (0, false);
        }
        kept.durable &= durable;
    }

    /// Takes a conversation in; what is gone on with to make room for it is returned.
    pub fn insert(&mut self, conversation: Conversation) -> (String, Vec<Id>) {
        let gone = if conversation.about.held {
            Vec::new()
        } else {
            self.make_room()
        };
        let id = match conversation.on_disk {
            Some(on_disk) => id_of(&on_disk),
            None => fresh_id(ID),
        };
        let name = conversation.about.name.clone();
        self.names.extend(name.map(|name| (name, id.clone())));
        for (at, turn) in conversation.turns.iter().enumerate() {
            let named = turn.answer.is_some() && !conversation.forgotten.contains(&turn.id);
            if named && !self.answers.contains_key(&turn.id) {
                self.answers.insert(turn.id.clone(), (id.clone(), at));
            }
        }
        self.conversations.insert(id.clone(), conversation);
        self.touch(&id);
        (id, gone)
    }

    /// Whether a session like that may be made.
    pub fn check(&self, about: &About) -> Result<(), Refusal> {
        if let Some(name) = &about.name {
            check_name(name)?;
            if self.names.contains_key(name) {
                return Err(Refusal::NameTaken { name: name.clone() });
            }
        }
        let held = self.conversations.values().filter(|c| c.about.held);
        if held.count() >= MAX_HELD {
            return Err(Refusal::TooManySessions { limit: MAX_HELD });
        }
        Ok(())
    }

    /// How many turns it has, where it lies on disk, and its tokens.
    pub fn end(&mut self, id: &str) -> Option<(usize, Option<Id>, Vec<Token>)> {
        let kept = self.conversations.get(id)?;
        Some((kept.turns.len(), kept.on_disk, kept.tokens.clone()))
    }

    /// The conversation on disk that goes along with these tokens furthest, and its tokens.
    pub fn nearest(&self, tokens: &[Token]) -> Option<(Id, Vec<Token>)> {
        let along = |c: &&Conversation| {
            let both = c.tokens.iter().zip(tokens);
            both.take_while(|(a, b)| a == b).count()
        };
        let on_disk = self.conversations.values().filter(|c| c.on_disk.is_some());
        let nearest = on_disk.max_by_key(along).filter(|c| along(c) > 0)?;
        Some((nearest.on_disk?, nearest.tokens.clone()))
    }

    /// The conversation on disk of that id or name, if it is there.
    pub fn on_disk(&mut self, who: &str) -> Result<Option<Id>, Refusal> {
        Ok(self.get(who)?.1.on_disk)
    }

    /// Its last turn's tokens.
    pub fn tokens(&mut self, who: &str) -> Result<Vec<Token>, Refusal> {
        Ok(self.get(who)?.1.tokens.clone())
    }

    /// Nothing of its state is on disk or in memory any more; its last turn's tokens.
    pub fn unsaved(&mut self, who: &str) -> Result<Vec<Token>, Refusal> {
        let (_, kept) = self.get(who)?;
        (kept.saved, kept.away) = (0, false);
        Ok(kept.tokens.clone())
    }

    /// Those on disk that nobody answers in and that have something to save or to let go.
    pub fn resting(&mut self, rest: Rest) -> Vec<Resting> {
        let now = now();
        let mut found = Vec::new();
        for kept in self.conversations.values_mut() {
            let (Some(on_disk), Some(last)) = (kept.on_disk, kept.turns.last()) else {
                continue;
            };
            let idle = now.saturating_sub(last.created.max(kept.asked));
            let saves = idle >= rest.save && kept.saved < kept.tokens.len();
            let leaves = rest.leave.is_some_and(|after| idle >= after) && !kept.away;
            if kept.busy || kept.tokens.is_empty() || !(saves || leaves) {
                continue;
            }
            // Once is enough, whether it works or not.
            kept.saved = kept.tokens.len();
            kept.away |= leaves;
            found.push(Resting {
                on_disk,
                tokens: kept.tokens.clone(),
                leaves,
            });
        }
        found
    }

    pub fn summary(&mut self, who: &str) -> Result<Summary, Refusal> {
        let (id, kept) = self.get(who)?;
        Ok(kept.summary(&id))
    }

    /// Those that are held, the one that was used last first.
    pub fn list(&self) -> Vec<Summary> {
        let held = self.conversations.iter().filter(|(_, c)| c.about.held);
        let mut held: Vec<_> = held.collect();
        held.sort_by_key(|(_, c)| std::cmp::Reverse(c.used));
        held.into_iter().map(|(id, c)| c.summary(id)).collect()
    }

    /// Its id here, and on disk.
    pub fn delete(&mut self, who: &str) -> Result<(String, Option<Id>), Refusal> {
        let id = self.id(who)?;
        let on_disk = self.remove(&id);
        Ok((id, on_disk))
    }

    /// What is to be said on disk.
    pub fn forget(&mut self, answer: &str) -> Result<Forgotten, Refusal> {
        let (id, _) = self.answers.remove(answer).ok_or_else(|| unknown(answer))?;
        let mut notes = Vec::new();
        for kept in self.conversations.values_mut() {
            if kept.turns.iter().any(|t| t.id == answer) {
                kept.forgotten.insert(answer.to_owned());
                let note = |on_disk| (on_disk, lasting::note(kept, &self.model));
                notes.extend(kept.on_disk.map(note));
            }
        }
        let unreachable = |c: &Conversation| !c.is_reachable();
        let gone = if self.conversations.get(&id).is_some_and(unreachable) {
            self.conversations.remove(&id).and_then(|c| c.on_disk)
        } else {
            None
        };
        notes.retain(|(on_disk, _)| Some(*on_disk) != gone);
        Ok(Forgotten { notes, gone })
    }

    /// What is gone, of what was on disk.
    fn make_room(&mut self) -> Vec<Id> {
        let mut gone = Vec::new();
        let passing = |(_, c): &(&String, &Conversation)| !c.about.held;
        while self.conversations.iter().filter(passing).count() >= MAX_PASSING {
            let oldest = self.conversations.iter().filter(passing);
            let oldest = oldest.min_by_key(|(_, c)| c.used);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                break;
            };
            gone.extend(self.remove(&id));
        }
        gone
    }

    fn remove(&mut self, id: &str) -> Option<Id> {
        let removed = self.conversations.remove(id);
        self.names.retain(|_, named| named != id);
        self.answers.retain(|_, (at, _)| at != id);
        // What it shared with others can still be named.
        for (other, kept) in &self.conversations {
            for (at, turn) in kept.turns.iter().enumerate() {
                let named = turn.answer.is_some() && !kept.forgotten.contains(&turn.id);
                if named && !self.answers.contains_key(&turn.id) {
                    self.answers.insert(turn.id.clone(), (other.clone(), at));
                }
            }
        }
        removed.and_then(|c| c.on_disk)
    }
}

/// Names stand in paths and on command lines.
fn check_name(name: &str) -> Result<(), Refusal> {
    let fine = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let is_fine = name.chars().all(fine) && !name.starts_with(['.', '-']);
    if !name.is_empty() && name.len() <= LONGEST_NAME && is_fine && !name.starts_with(ID) {
        return Ok(());
    }
    Err(Refusal::Invalid {
        param: "name".into(),
        message: format!(
            "got {name:?}, want 1 to {LONGEST_NAME} bytes of letters, digits, \"-\", \"_\" and \
             \".\", beginning with a letter, a digit or \"_\", and not with {ID:?}"
        ),
    })
}
