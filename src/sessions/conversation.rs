//! A conversation: turns in their order, each made once and never changed. Two that began alike
//! share what they have in common.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Answer;
use super::ids;
use super::store::Id;
use crate::request::{FinishReason, Message, TemplateOptions, Token, Usage};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    Whole(FinishReason),
    /// The caller left, or the daemon was stopped.
    Cut,
    /// Somebody said so.
    Cancelled,
}

/// What was said to the model, and what it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Of the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// When its answer was whole, in the same; it may not be known.
    pub ended: Option<u64>,
    pub input: Vec<Message>,
    /// `None` where nothing was asked.
    pub answer: Option<Answer>,
    pub ending: Ending,
    pub usage: Usage,
    /// What came before the conversation in its prompt, and is no part of it.
    pub before: Vec<Message>,
    /// The tools that it was told of, and what its template was told.
    pub tools: Vec<Value>,
    pub options: TemplateOptions,
    /// What the door that it came by wants back with it.
    pub face: Value,
}

impl Turn {
    /// Something that was only said.
    pub fn said(input: Vec<Message>) -> Turn {
        Turn {
            id: ids::fresh_id("turn_"),
            created: ids::now(),
            ended: None,
            input,
            answer: None,
            ending: Ending::Whole(FinishReason::Stop),
            usage: Usage::default(),
            before: Vec::new(),
            tools: Vec::new(),
            options: TemplateOptions::default(),
            face: Value::Null,
        }
    }

    pub fn messages(&self) -> impl Iterator<Item = Message> {
        let answer = self.answer.iter().map(Answer::message);
        self.input.iter().cloned().chain(answer)
    }
}

/// What a conversation is beside what was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    /// Its user's own word for it.
    pub name: Option<String>,
    /// Made by name or by itself, and not along with an answer: listed, and never given up to make
    /// room.
    pub held: bool,
    /// To be kept on disk, where there is one for it.
    pub lasting: bool,
    /// Every question goes on from where it stands now and is not kept.
    pub fixed: bool,
    /// Options of every answer; the doors' business.
    pub settings: Value,
}

#[derive(Debug)]
pub(super) struct Conversation {
    pub about: About,
    /// Seconds since 1970.
    pub created: u64,
    pub turns: Vec<Arc<Turn>>,
    /// Answers whose ids name nothing any more.
    pub forgotten: HashSet<String>,
    /// By the shelf's clock.
    pub used: u64,
    /// Somebody answers in it.
    pub busy: bool,
    /// Its last turn's tokens, as they were fed and drawn, from the beginning on; empty where that
    /// is not known.
    pub tokens: Vec<Token>,
    /// How many tokens there were after each turn; only for those that were read from disk.
    pub marks: Vec<usize>,
    pub on_disk: Option<Id>,
    /// So many tokens were there when its state was last saved, and whether it left memory then.
    pub saved: usize,
    pub away: bool,
    /// When it was last gone on with, in seconds since 1970.
    pub asked: u64,
    /// Everything of it is on disk.
    pub durable: bool,
}

/// A conversation as it stands.
#[derive(Debug, Clone)]
pub struct Summary {
    pub id: String,
    pub about: About,
    pub created: u64,
    /// When something was last said.
    pub used: u64,
    pub busy: bool,
    /// Everything of it is on disk.
    pub durable: bool,
    pub turns: usize,
    pub messages: usize,
    /// The last answer's id.
    pub last: Option<String>,
}

impl Conversation {
    pub fn new(about: About, turns: Vec<Arc<Turn>>) -> Conversation {
        Conversation {
            about,
            created: ids::now(),
            turns,
            forgotten: HashSet::new(),
            used: 0,
            busy: false,
            tokens: Vec::new(),
            marks: Vec::new(),
            on_disk: None,
            saved: 0,
            away: false,
            asked: 0,
            durable: true,
        }
    }

    /// Whether any of its answers can still be named.
    pub fn is_reachable(&self) -> bool {
        let named = |t: &Arc<Turn>| t.answer.is_some() && !self.forgotten.contains(&t.id);
        self.about.held || self.turns.iter().any(named)
    }

    pub fn summary(&self, id: &str) -> Summary {
        let last = self.turns.iter().rfind(|t| t.answer.is_some());
        let messages = |t: &Arc<Turn>| t.input.len() + usize::from(t.answer.is_some());
        Summary {
            id: id.to_owned(),
            about: self.about.clone(),
            created: self.created,
            used: self.turns.last().map_or(self.created, |t| t.created),
            busy: self.busy,
            durable: self.on_disk.is_some() && self.durable,
            turns: self.turns.len(),
            messages: self.turns.iter().map(messages).sum(),
            last: last.map(|t| t.id.clone()),
        }
    }
}
