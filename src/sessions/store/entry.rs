//! What records hold, to bytes and back. Pure. Whatever does not add up is `None`: the hash was
//! right, so somebody else wrote it.

use serde::{Deserialize, Serialize};

use super::id::Id;
use super::identity::Identity;
use crate::request::Token;

/// One exchange: what was said, and what the model was fed and gave for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// The response's id, by which a client names this turn.
    pub response: String,
    /// Its messages, the question's and the answer's, as JSON.
    pub messages: String,
    /// Tokens of the conversation before that are still its beginning; the rest were replaced.
    pub kept: usize,
    /// The tokens behind those.
    pub tokens: Vec<Token>,
    /// What it was asked with, as JSON.
    pub options: String,
    /// Milliseconds since 1970, by the clock of the machine.
    pub at: u64,
}

/// What is said of a session; the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub name: Option<String>,
    #[serde(default)]
    pub pinned: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Milliseconds since 1970.
    pub created: u64,
    pub identity: Identity,
}

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The file `rows.<segment>`.
    pub segment: u32,
    /// Which of its blocks.
    pub index: u32,
    /// xxh3-128 of the block's bytes.
    pub hash: u128,
}

/// A state that is whole on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Turns that had been written before it.
    pub turns: u32,
    /// Tokens that it has seen.
    pub tokens: u32,
    /// xxh3-64 of those, as little-endian numbers of four bytes.
    pub tokens_hash: u64,
    /// The file `state.<file>`.
    pub file: u32,
    pub block_bytes: u64,
    pub state_bytes: u64,
    pub state_hash: u128,
    /// Blocks of the checkpoint before that are this one's too.
    pub first: u32,
    /// The blocks behind those.
    pub blocks: Vec<Place>,
}

/// Whose child a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    pub parent: Id,
    pub turns: u32,
    /// Segments below this are others' too: never written here.
    pub first_own: u32,
}

impl Turn {
    pub fn to_bytes(&self) -> Vec<u8> {
        let texts = [&self.response, &self.messages, &self.options];
        let mut bytes = Vec::new();
        bytes.extend(self.at.to_le_bytes());
        bytes.extend((self.kept as u32).to_le_bytes());
        bytes.extend((self.tokens.len() as u32).to_le_bytes());
        for text in texts {
            bytes.extend((text.len() as u32).to_le_bytes());
        }
        bytes.extend([0; 4]);
        for text in texts {
            bytes.extend(text.as_bytes());
        }
        bytes.extend(self.tokens.iter().flat_map(|t| t.to_le_bytes()));
        bytes
    }

    pub fn of(bytes: &[u8]) -> Option<Turn> {
        let mut from = Bytes(bytes);
        let (at, kept, tokens) = (from.u64()?, from.u32()?, from.u32()?);
        let lengths = [from.u32()?, from.u32()?, from.u32()?];
        from.zeros(4)?;
        let mut text = |len: u32| String::from_utf8(from.take(len as usize)?.to_vec()).ok();
        let [response, messages, options] = lengths.map(&mut text);
        let tokens = from.take((tokens as usize).checked_mul(4)?)?;
        from.end()?;
        let (tokens, _) = tokens.as_chunks::<4>();
        Some(Turn {
            response: response?,
            messages: messages?,
            options: options?,
            kept: kept as usize,
            tokens: tokens.iter().map(|t| Token::from_le_bytes(*t)).collect(),
            at,
        })
    }
}

impl Meta {
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and truths are JSON")
    }

    pub fn of(bytes: &[u8]) -> Option<Meta> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Checkpoint {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + 24 * self.blocks.len());
        for number in [self.turns, self.tokens, self.file, self.first] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [self.tokens_hash, self.block_bytes, self.state_bytes] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.state_hash.to_le_bytes());
        bytes.extend((self.blocks.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        for block in &self.blocks {
            bytes.extend(block.segment.to_le_bytes());
            bytes.extend(block.index.to_le_bytes());
            bytes.extend(block.hash.to_le_bytes());
        }
        bytes
    }

    pub fn of(bytes: &[u8]) -> Option<Checkpoint> {
        let mut from = Bytes(bytes);
        let [turns, tokens, file, first] = [from.u32()?, from.u32()?, from.u32()?, from.u32()?];
        let [tokens_hash, block_bytes, state_bytes] = [from.u64()?, from.u64()?, from.u64()?];
        let state_hash = from.u128()?;
        let count = from.u32()? as usize;
        from.zeros(4)?;
        if from.0.len() != count.checked_mul(24)? {
            return None;
        }
        let mut blocks = Vec::with_capacity(count);
        for _ in 0..count {
            blocks.push(Place {
                segment: from.u32()?,
                index: from.u32()?,
                hash: from.u128()?,
            });
        }
        Some(Checkpoint {
            turns,
            tokens,
            tokens_hash,
            file,
            block_bytes,
            state_bytes,
            state_hash,
            first,
            blocks,
        })
    }
}

impl Fork {
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.parent.0.to_vec();
        bytes.extend(self.turns.to_le_bytes());
        bytes.extend(self.first_own.to_le_bytes());
        bytes
    }

    pub fn of(bytes: &[u8]) -> Option<Fork> {
        let mut from = Bytes(bytes);
        let mut parent = [0; 16];
        parent.copy_from_slice(from.take(16)?);
        let (turns, first_own) = (from.u32()?, from.u32()?);
        from.end()?;
        Some(Fork {
            parent: Id(parent),
            turns,
            first_own,
        })
    }
}

/// xxh3-64 of tokens as they lie in a turn.
pub fn tokens_hash(tokens: &[Token]) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for some in tokens.chunks(1024) {
        let bytes: Vec<u8> = some.iter().flat_map(|t| t.to_le_bytes()).collect();
        hash.update(&bytes);
    }
    hash.digest()
}

/// Takes numbers from the front.
pub(super) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(front)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
    /// Bytes that mean nothing yet.
    pub fn zeros(&mut self, n: usize) -> Option<()> {
        self.take(n)?.iter().all(|b| *b == 0).then_some(())
    }
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
