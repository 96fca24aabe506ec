//! The engine's states as the store keeps them.

use bytes::Bytes;

use super::checkpoint::State;
use super::loaded::Loaded;
use crate::engine::{HostState, Snapshot};

/// A conversation's newest moment, and the logits that were computed there.
#[derive(Debug, Clone, Copy)]
pub struct Tip<'a> {
    pub snapshot: &'a Snapshot,
    /// May be empty.
    pub next: &'a [f32],
}

impl State for Tip<'_> {
    fn blocks(&self) -> usize {
        self.snapshot.blocks()
    }
    fn block_bytes(&self) -> usize {
        self.snapshot.block_bytes()
    }
    fn block(&self, at: usize) -> Bytes {
        self.snapshot.block(at)
    }
    fn slot(&self) -> Bytes {
        self.snapshot.slot()
    }
    fn tail(&self) -> Bytes {
        self.snapshot.tail()
    }
    fn next(&self) -> Bytes {
        let bytes: Vec<u8> = self.next.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes.into()
    }
}

impl Loaded {
    /// For [`crate::engine::Engine::adopt`].
    pub fn host(&self) -> HostState {
        HostState {
            len: self.tokens,
            blocks: self.blocks.clone(),
            slot: self.slot.clone(),
            tail: self.tail.clone(),
            lent: self.lent.clone(),
        }
    }

    /// The logits that were computed there; none, if they were not kept.
    pub fn logits(&self) -> Vec<f32> {
        let (floats, _) = self.next.as_chunks::<4>();
        floats.iter().map(|x| f32::from_le_bytes(*x)).collect()
    }
}
