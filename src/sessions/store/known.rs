//! A session as its records tell it, one after another. Pure: the same records, the same session.

use super::entry::{Checkpoint, Fork, Meta, Place, Turn, tokens_hash};
use super::record::{Kind, Record};
use crate::request::Token;

/// States that are kept: the newest, and the one before, for when the newest cannot be read.
pub const POINTS: usize = 2;

/// A checkpoint with all of its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub turns: usize,
    pub tokens: usize,
    pub tokens_hash: u64,
    pub file: u32,
    pub block_bytes: u64,
    pub state_bytes: u64,
    pub state_hash: u128,
    pub blocks: Vec<Place>,
}

/// What is to be known without the turns' contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    pub meta: Option<Meta>,
    pub fork: Option<Fork>,
    /// Tokens of the conversation after each turn.
    pub turns: Vec<usize>,
    /// When it was made or its last turn ended, in milliseconds since 1970.
    pub used: u64,
    /// The newest last.
    pub points: Vec<Point>,
    /// One above every number of a state file that was ever named.
    pub next_file: u32,
}

/// A record of whole bytes says what cannot be.
#[derive(Debug, PartialEq, Eq)]
pub struct Nonsense;

impl Known {
    /// Of all records in their order; the turns come along.
    pub fn of(records: &[Record<'_>]) -> Result<(Known, Vec<Turn>), (Nonsense, usize)> {
        let (mut known, mut turns) = (Known::default(), Vec::new());
        for record in records {
            let turn = known.apply(record).map_err(|n| (n, record.at))?;
            turns.extend(turn);
        }
        match known.meta {
            Some(_) => Ok((known, turns)),
            None => Err((Nonsense, super::record::HEAD)),
        }
    }

    /// Tokens of the conversation.
    pub fn tokens(&self) -> usize {
        self.turns.last().copied().unwrap_or(0)
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<Option<Turn>, Nonsense> {
        match record.kind {
            Kind::Meta => {
                let meta = Meta::of(record.payload).ok_or(Nonsense)?;
                self.used = self.used.max(meta.created);
                self.meta = Some(meta);
            }
            Kind::Fork => self.fork = Some(Fork::of(record.payload).ok_or(Nonsense)?),
            Kind::Turn => {
                let turn = Turn::of(record.payload).ok_or(Nonsense)?;
                self.turn(&turn)?;
                return Ok(Some(turn));
            }
            Kind::Checkpoint => {
                self.checkpoint(Checkpoint::of(record.payload).ok_or(Nonsense)?)?;
            }
            Kind::Shed => self.points.clear(),
            Kind::Partial => return Err(Nonsense),
        }
        Ok(None)
    }

    pub fn turn(&mut self, turn: &Turn) -> Result<(), Nonsense> {
        if turn.kept > self.tokens() {
            return Err(Nonsense);
        }
        self.turns.push(turn.kept + turn.tokens.len());
        self.used = self.used.max(turn.at);
        Ok(())
    }

    pub fn checkpoint(&mut self, c: Checkpoint) -> Result<(), Nonsense> {
        let before = self.points.last().map_or(&[][..], |p| &p.blocks);
        let shared = before.get(..c.first as usize).ok_or(Nonsense)?;
        let mut blocks = shared.to_vec();
        blocks.extend(c.blocks);
        self.next_file = self.next_file.max(c.file.checked_add(1).ok_or(Nonsense)?);
        self.points.push(Point {
            turns: c.turns as usize,
            tokens: c.tokens as usize,
            tokens_hash: c.tokens_hash,
            file: c.file,
            block_bytes: c.block_bytes,
            state_bytes: c.state_bytes,
            state_hash: c.state_hash,
            blocks,
        });
        if self.points.len() > POINTS {
            self.points.remove(0);
        }
        Ok(())
    }

    /// Whether some point needs this file.
    pub fn names(&self, file: &str) -> bool {
        self.points.iter().any(|p| p.names(file))
    }
}

/// The tokens of the conversation after these turns.
pub fn tokens_of(turns: &[Turn]) -> Vec<Token> {
    let mut tokens = Vec::new();
    for turn in turns {
        tokens.truncate(turn.kept);
        tokens.extend(&turn.tokens);
    }
    tokens
}

impl Point {
    /// Whether it needs this file.
    pub fn names(&self, file: &str) -> bool {
        let number = |prefix: &str| file.strip_prefix(prefix)?.parse::<u32>().ok();
        let (state, rows) = (number("state."), number("rows."));
        state == Some(self.file) || self.blocks.iter().any(|b| rows == Some(b.segment))
    }

    /// Whether it is a state of the beginning of these tokens.
    pub fn is_of(&self, tokens: &[Token]) -> bool {
        let seen = tokens.get(..self.tokens);
        seen.is_some_and(|seen| tokens_hash(seen) == self.tokens_hash)
    }

    /// As a checkpoint that shares nothing with one before.
    pub fn alone(&self) -> Checkpoint {
        Checkpoint {
            turns: self.turns as u32,
            tokens: self.tokens as u32,
            tokens_hash: self.tokens_hash,
            file: self.file,
            block_bytes: self.block_bytes,
            state_bytes: self.state_bytes,
            state_hash: self.state_hash,
            first: 0,
            blocks: self.blocks.clone(),
        }
    }
}
