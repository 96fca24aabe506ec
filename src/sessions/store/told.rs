//! What the store is told of a session, and what it tells.

use super::entry::Turn;
use super::error::Refusal;
use super::id::Id;
use super::identity::Identity;
use super::loaded::Loaded;
use crate::request::Token;

/// What a new session is.
#[derive(Debug, Clone)]
pub struct About {
    pub name: Option<String>,
    /// Whatever else is to be known of it; not read here.
    pub note: String,
    pub identity: Identity,
}

/// A session in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: Id,
    pub name: Option<String>,
    pub note: String,
    pub pinned: bool,
    pub turns: usize,
    pub tokens: usize,
    /// On disk; what is shared with forks counts in parts.
    pub bytes: u64,
    /// When the last turn ended, in milliseconds since 1970.
    pub used: u64,
    /// The session that it was forked from, and after how many turns.
    pub parent: Option<(Id, usize)>,
    /// Why it cannot be taken up, whatever the model.
    pub unusable: Option<String>,
}

/// Proof that a turn is there to stay: only the store makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Durable {
    pub(super) turn: usize,
}

impl Durable {
    /// How many turns the session has with it.
    pub fn turns(&self) -> usize {
        self.turn
    }
}

/// A session that was taken up.
#[derive(Debug)]
pub struct Opened {
    pub name: Option<String>,
    pub parent: Option<(Id, usize)>,
    pub turns: Vec<Turn>,
    /// Tokens of the whole conversation.
    pub tokens: Vec<Token>,
    /// Pieces of an answer that was cut off, oldest first.
    pub partial: Vec<Turn>,
    /// The newest state that is whole and of this conversation.
    pub state: Option<Loaded>,
    /// Tokens that the state has not seen.
    pub behind: usize,
    /// Why newer states were not taken.
    pub wrong: Vec<Refusal>,
}

/// What a checkpoint took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
}
