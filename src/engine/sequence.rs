//! One conversation's state and its moments. Offers snapshot and restore, never truncate: KDA
//! cannot be rewound.

use super::Lent;
use super::executor::{Kept, State};

/// Tells opened models apart: a state is of use to the one that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ModelId(u64);

impl ModelId {
    pub fn next() -> ModelId {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ModelId(NEXT.fetch_add(1, Relaxed))
    }
}

/// A sequence of one engine. Dropping it frees its memory.
#[derive(Debug)]
pub struct Sequence {
    pub(super) state: State,
    /// Where it may read rows.
    pub(super) lent: Lent,
    pub(super) len: usize,
    pub(super) model: ModelId,
    /// A pass failed half-way: the state is of no use any more.
    pub(super) broken: bool,
}

impl Sequence {
    /// Tokens fed so far.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Bytes of state held now, shared ones too.
    pub fn bytes(&self) -> usize {
        self.state.bytes()
    }
}

/// A sequence's state at one moment; restores any number of times.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) kept: Kept,
    pub(super) lent: Lent,
    pub(super) len: usize,
    pub(super) model: ModelId,
}

impl Snapshot {
    /// A file that its rows lie in was damaged: no sequence goes on from it any more.
    pub fn is_lost(&self) -> bool {
        self.lent.damaged().is_some()
    }
    /// Tokens fed before it was taken.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Bytes of state held, shared ones too.
    pub fn bytes(&self) -> usize {
        self.kept.bytes()
    }
    /// Bytes of state held that `other` does not hold too.
    pub fn bytes_beside(&self, other: &Snapshot) -> usize {
        self.kept.bytes_beside(&other.kept)
    }
}
