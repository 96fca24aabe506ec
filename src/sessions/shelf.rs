//! One user's conversations, found by the ids of their answers. Bounded: the one that was not used
//! for longest goes first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::conversation::{Conversation, Turn};
use super::fresh_id;
use crate::request::Refusal;

/// Conversations that nobody named. OpenAI's clients keep every answer unless told otherwise, so
/// these grow by one with every question that begins anew.
const MAX_UNNAMED: usize = 1024;

#[derive(Default)]
pub(super) struct Shelf {
    conversations: HashMap<String, Conversation>,
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
    pub fn up_to(&mut self, id: &str) -> Result<(Option<String>, Vec<Arc<Turn>>), Refusal> {
        let (name, at) = self.answers.get(id).ok_or_else(|| unknown(id))?.clone();
        self.clock += 1;
        let clock = self.clock;
        let kept = self.conversations.get_mut(&name);
        let kept = kept.ok_or_else(|| unknown(id))?;
        kept.used = clock;
        let turns = kept.turns.iter().take(at + 1).cloned();
        Ok((Some(name), turns.collect()))
    }

    pub fn add(&mut self, conversation: Option<String>, history: Vec<Arc<Turn>>, turn: Turn) {
        self.clock += 1;
        // Who went on meanwhile stays; so does this, beside it.
        let ends_there = |name: &String| {
            let kept = self.conversations.get(name);
            kept.is_some_and(|c| c.turns.len() == history.len())
        };
        let name = match conversation.filter(ends_there) {
            Some(name) => name,
            None => {
                let name = fresh_id("sess_");
                self.make_room();
                let begun = Conversation {
                    turns: history,
                    forgotten: HashSet::new(),
                    used: self.clock,
                };
                self.conversations.insert(name.clone(), begun);
                name
            }
        };
        if let Some(kept) = self.conversations.get_mut(&name) {
            kept.used = self.clock;
            let place = (name, kept.turns.len());
            self.answers.insert(turn.id.clone(), place);
            kept.turns.push(Arc::new(turn));
        }
    }

    pub fn forget(&mut self, id: &str) -> Result<(), Refusal> {
        let (name, _) = self.answers.remove(id).ok_or_else(|| unknown(id))?;
        for kept in self.conversations.values_mut() {
            if kept.turns.iter().any(|t| t.id == id) {
                kept.forgotten.insert(id.to_owned());
            }
        }
        if self
            .conversations
            .get(&name)
            .is_some_and(|c| !c.is_reachable())
        {
            self.conversations.remove(&name);
        }
        Ok(())
    }

    fn make_room(&mut self) {
        while self.conversations.len() >= MAX_UNNAMED {
            let oldest = self.conversations.iter().min_by_key(|(_, c)| c.used);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.remove(&name);
        }
    }

    fn remove(&mut self, name: &str) {
        self.conversations.remove(name);
        self.answers.retain(|_, (at, _)| at != name);
        // What it shared with others can still be named.
        for (other, kept) in &self.conversations {
            for (at, turn) in kept.turns.iter().enumerate() {
                if !kept.forgotten.contains(&turn.id) && !self.answers.contains_key(&turn.id) {
                    self.answers.insert(turn.id.clone(), (other.clone(), at));
                }
            }
        }
    }
}
