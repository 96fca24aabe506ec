//! What the scheduler needs of an engine, so that its decisions can be tested without one.

use crate::engine::{Engine, EngineError, Sequence, Snapshot, Want};
use crate::request::Token;

/// Runs passes over sequences. One thread owns it.
pub trait Model {
    type Sequence;
    type Snapshot;

    fn sequence(&mut self) -> Result<Self::Sequence, EngineError>;
    /// Feeds `tokens`; `row` gets the logits (`[n_vocab]`) of each wanted position, oldest first.
    fn forward(
        &mut self,
        sequence: &mut Self::Sequence,
        tokens: &[Token],
        want: Want,
        row: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError>;
    fn snapshot(&mut self, sequence: &Self::Sequence) -> Result<Self::Snapshot, EngineError>;
    fn restore(&mut self, snapshot: &Self::Snapshot) -> Result<Self::Sequence, EngineError>;
    /// Bytes of state that the sequence, or a snapshot of it, holds now.
    fn bytes(sequence: &Self::Sequence) -> usize;
}

impl Model for Engine {
    type Sequence = Sequence;
    type Snapshot = Snapshot;

    fn sequence(&mut self) -> Result<Sequence, EngineError> {
        Engine::sequence(self)
    }

    fn forward(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[Token],
        want: Want,
        row: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError> {
        let logits = Engine::forward(self, sequence, tokens, want)?;
        logits.rows().for_each(row);
        Ok(())
    }

    fn snapshot(&mut self, sequence: &Sequence) -> Result<Snapshot, EngineError> {
        Engine::snapshot(self, sequence)
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<Sequence, EngineError> {
        Engine::restore(self, snapshot)
    }

    fn bytes(sequence: &Sequence) -> usize {
        sequence.bytes()
    }
}
