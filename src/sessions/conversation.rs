//! A conversation: turns in their order, each made once and never changed. Two that began alike
//! share what they have in common.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::Answer;
use crate::request::{FinishReason, Message, Token, Usage};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Whole(FinishReason),
    /// The caller left, or the daemon was stopped.
    Cut,
}

/// What was said to the model, and what it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Of the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub input: Vec<Message>,
    pub answer: Answer,
    pub ending: Ending,
    pub usage: Usage,
    /// The conversation up to its end, as it was fed and drawn; empty where that is not known.
    pub tokens: Vec<Token>,
    /// What the door that it came by wants back with it.
    pub face: Value,
}

impl Turn {
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        let answer = std::iter::once_with(|| self.answer.message());
        self.input.iter().cloned().chain(answer)
    }
}

#[derive(Debug)]
pub(super) struct Conversation {
    pub turns: Vec<Arc<Turn>>,
    /// Answers whose ids name nothing any more.
    pub forgotten: HashSet<String>,
    /// By the shelf's clock.
    pub used: u64,
}

impl Conversation {
    /// Whether any of its answers can still be named.
    pub fn is_reachable(&self) -> bool {
        self.turns.iter().any(|t| !self.forgotten.contains(&t.id))
    }
}
