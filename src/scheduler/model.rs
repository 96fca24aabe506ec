//! What the scheduler needs of an engine, so that its decisions can be tested without one.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{
    Engine, HostState, Lane, Logits, PassError, Sequence, Snapshot, Spare, StateError,
};
use crate::sessions::store::{State, Tip};
use crate::text::ConstraintError;

/// Runs passes over any number of lanes. One thread owns it.
pub trait Model {
    type Sequence;
    /// A reference to what it holds: to clone it copies nothing.
    type Snapshot: Send + Clone;

    fn sequence(&mut self) -> Result<Self::Sequence, StateError>;
    /// Feeds every lane; each lane's wanted logits.
    fn forward(&mut self, lanes: &mut [Lane<'_, Self::Sequence>])
    -> Result<Vec<Logits>, PassError>;
    fn snapshot(&mut self, sequence: &Self::Sequence) -> Self::Snapshot;
    fn restore(&mut self, snapshot: &Self::Snapshot) -> Result<Self::Sequence, StateError>;
    /// The snapshot for the disk, by reference.
    fn outward(snapshot: &Self::Snapshot) -> Outward;
    /// The snapshot that a state from the disk was.
    fn adopt(&self, state: &HostState) -> Result<Self::Snapshot, StateError>;
    /// What it lies in was damaged: it cannot be restored any more.
    fn is_lost(snapshot: &Self::Snapshot) -> bool;
    /// Bytes of state that the sequence, or a snapshot of it, holds now.
    fn bytes(sequence: &Self::Sequence) -> usize;
    /// Bytes of a snapshot that another one does not hold too.
    fn held(snapshot: &Self::Snapshot, other: Option<&Self::Snapshot>) -> usize;
    /// Why no pass can be believed any more, if that is so.
    fn lost(&self) -> Option<String>;
    /// Bytes of the state of a sequence of so many tokens.
    fn state_bytes(&self, tokens: usize) -> usize;
    /// What lies ready for the next sequences.
    fn spare(&self) -> Option<Arc<dyn Spare>>;
    /// Logits are the same bits whoever else is in the pass and however the prompt was cut.
    fn is_batch_invariant(&self) -> bool;
}

/// A state on its way to the disk.
pub type Outward = Box<dyn State + Send>;

/// A snapshot that belongs to nobody else.
struct Owned(Snapshot);

impl Owned {
    fn tip(&self) -> Tip<'_> {
        Tip {
            snapshot: &self.0,
            next: &[],
        }
    }
}

impl State for Owned {
    fn blocks(&self) -> usize {
        self.tip().blocks()
    }

    fn block_bytes(&self) -> usize {
        self.tip().block_bytes()
    }

    fn block(&self, at: usize) -> Bytes {
        self.tip().block(at)
    }

    fn slot(&self) -> Bytes {
        self.tip().slot()
    }

    fn tail(&self) -> Bytes {
        self.tip().tail()
    }

    fn next(&self) -> Bytes {
        self.tip().next()
    }
}

/// Why one request cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    #[error("the pass failed for all who were in it: {0}")]
    Together(String),
    #[error("no token can follow: no logits, or the grammar allows none")]
    NoToken,
}

impl Model for Engine {
    type Sequence = Sequence;
    type Snapshot = Snapshot;

    fn sequence(&mut self) -> Result<Sequence, StateError> {
        Engine::sequence(self)
    }

    fn forward(&mut self, lanes: &mut [Lane<'_>]) -> Result<Vec<Logits>, PassError> {
        Engine::forward(self, lanes)
    }

    fn snapshot(&mut self, sequence: &Sequence) -> Snapshot {
        Engine::snapshot(self, sequence)
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<Sequence, StateError> {
        Engine::restore(self, snapshot)
    }

    fn outward(snapshot: &Snapshot) -> Outward {
        Box::new(Owned(snapshot.clone()))
    }

    fn adopt(&self, state: &HostState) -> Result<Snapshot, StateError> {
        Engine::adopt(self, state)
    }

    fn is_lost(snapshot: &Snapshot) -> bool {
        snapshot.is_lost()
    }

    fn lost(&self) -> Option<String> {
        self.damaged().map(|cause| cause.to_string())
    }

    fn bytes(sequence: &Sequence) -> usize {
        sequence.bytes()
    }

    fn held(snapshot: &Snapshot, other: Option<&Snapshot>) -> usize {
        other.map_or(snapshot.bytes(), |other| snapshot.bytes_beside(other))
    }

    fn state_bytes(&self, tokens: usize) -> usize {
        Engine::state_bytes(self, tokens)
    }

    fn spare(&self) -> Option<Arc<dyn Spare>> {
        Engine::spare(self)
    }

    fn is_batch_invariant(&self) -> bool {
        Engine::is_batch_invariant(self)
    }
}
