//! One user's conversations, found by their ids and names and by the ids of their answers. Bounded:
//! of those that nobody holds, the one that was not used for longest goes first.

use std::collections::HashMap;
use std::sync::Arc;

use super::conversation::{About, Conversation, Summary, Turn};
use super::fresh_id;
use crate::request::Refusal;

/// Conversations that nobody holds. OpenAI's clients keep every answer unless told otherwise, so
/// these grow by one with every question that begins anew.
const MAX_PASSING: usize = 1024;
/// Conversations that a user holds: an assistant that forgets to end them fills no memory for ever.
pub const MAX_HELD: usize = 256;
/// Bytes of a name.
const LONGEST_NAME: usize = 64;
/// What ids begin with, and names do not.
const ID: &str = "sess_";

#[derive(Default)]
pub(super) struct Shelf {
    conversations: HashMap<String, Conversation>,
    names: HashMap<String, String>,
    /// The conversation that an answer was given in, and its number there.
    answers: HashMap<String, (String, usize)>,
    clock: u64,
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

    fn touch(&mut self, id: &str) {
        self.clock += 1;
        if let Some(kept) = self.conversations.get_mut(id) {
            kept.used = self.clock;
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

    /// Puts a turn at its conversation's end or, where that is not `history`'s end any more, into a
    /// conversation of its own. `alone`: then nowhere, since only an end of it can be the cause.
    pub fn add(
        &mut self,
        conversation: Option<String>,
        alone: bool,
        history: Vec<Arc<Turn>>,
        turn: Turn,
    ) {
        // Who went on meanwhile stays; so does this, beside it.
        let ends_there = |id: &String| {
            let kept = self.conversations.get(id);
            let ends = |c: &Conversation| c.turns.len() == history.len();
            kept.is_some_and(|c| ends(c) && !c.about.fixed && (alone || !c.busy))
        };
        let id = match conversation.filter(ends_there) {
            Some(id) => id,
            None if alone => return,
            None => self.insert(Conversation::new(About::default(), history)),
        };
        self.touch(&id);
        if let Some(kept) = self.conversations.get_mut(&id) {
            if turn.answer.is_some() {
                let place = (id, kept.turns.len());
                self.answers.insert(turn.id.clone(), place);
            }
            kept.turns.push(Arc::new(turn));
        }
    }

    fn insert(&mut self, conversation: Conversation) -> String {
        if !conversation.about.held {
            self.make_room();
        }
        let id = fresh_id(ID);
        self.conversations.insert(id.clone(), conversation);
        self.touch(&id);
        id
    }

    /// A conversation that is held, with these turns already in it.
    pub fn create(&mut self, about: About, turns: Vec<Arc<Turn>>) -> Result<Summary, Refusal> {
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
        let name = about.name.clone();
        let about = About {
            held: true,
            ..about
        };
        let id = self.insert(Conversation::new(about, turns));
        self.names.extend(name.map(|name| (name, id.clone())));
        self.summary(&id)
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

    pub fn delete(&mut self, who: &str) -> Result<String, Refusal> {
        let id = self.id(who)?;
        self.remove(&id);
        Ok(id)
    }

    pub fn forget(&mut self, answer: &str) -> Result<(), Refusal> {
        let (id, _) = self.answers.remove(answer).ok_or_else(|| unknown(answer))?;
        for kept in self.conversations.values_mut() {
            if kept.turns.iter().any(|t| t.id == answer) {
                kept.forgotten.insert(answer.to_owned());
            }
        }
        if self
            .conversations
            .get(&id)
            .is_some_and(|c| !c.is_reachable())
        {
            self.conversations.remove(&id);
        }
        Ok(())
    }

    fn make_room(&mut self) {
        let passing = |(_, c): &(&String, &Conversation)| !c.about.held;
        while self.conversations.iter().filter(passing).count() >= MAX_PASSING {
            let oldest = self.conversations.iter().filter(passing);
            let oldest = oldest.min_by_key(|(_, c)| c.used);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &str) {
        self.conversations.remove(id);
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
