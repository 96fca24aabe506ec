//! Ways to run a model. An executor owns the weights in the form that it computes on, and knows
//! what a sequence's state looks like there; the engine above checks, cuts and adopts.

use std::sync::Arc;

use bytes::Bytes;
use ggml_kernels::graph::Outline;

use crate::request::Token;

use super::error::Cause;
use super::meter::Meter;
use super::tap::Listener;
use super::{Drawn, HostState, Want};

pub(super) mod cpu;
pub(super) mod cuda;
mod moved;
pub(super) mod stock;

/// One lane's share of a pass.
pub(super) struct Share<'a> {
    pub state: &'a mut State,
    /// Tokens that the state holds.
    pub past: usize,
    /// At least one, all inside the vocabulary.
    pub tokens: &'a [Token],
    pub want: Want,
}

/// Who looks on.
#[derive(Default)]
pub(super) struct Watch<'w> {
    pub listener: Option<&'w mut dyn Listener>,
    pub meter: Option<&'w mut Meter>,
}

impl Watch<'_> {
    /// The same, for one pass of several.
    pub fn again(&mut self) -> Watch<'_> {
        Watch {
            listener: self
                .listener
                .as_mut()
                .map(|l| &mut **l as &mut dyn Listener),
            meter: self.meter.as_deref_mut(),
        }
    }
}

/// A sequence's state, where its executor keeps it.
#[derive(Debug)]
pub(super) enum State {
    Cpu(cpu::Held),
    Cuda(cuda::Held),
    Stock(Box<stock::State>),
}

/// A state at one moment, read-only and shared.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    Cpu(cpu::Held),
    Cuda(cuda::Kept),
    Stock(std::sync::Arc<stock::Kept>),
}

impl Kept {
    pub fn bytes(&self) -> usize {
        match self {
            Kept::Cpu(state) => state.bytes(),
            Kept::Cuda(kept) => kept.bytes(),
            Kept::Stock(kept) => kept.bytes(),
        }
    }

    /// Bytes that `other` does not hold too.
    pub fn bytes_beside(&self, other: &Kept) -> usize {
        match (self, other) {
            (Kept::Cpu(state), Kept::Cpu(other)) => state.bytes_beside(other),
            (Kept::Cuda(kept), Kept::Cuda(other)) => kept.bytes_beside(other),
            // Copied whole.
            _ => self.bytes(),
        }
    }

    pub fn block_bytes(&self) -> usize {
        match self {
            Kept::Cpu(state) => state.block_bytes(),
            Kept::Cuda(kept) => kept.block_bytes(),
            Kept::Stock(kept) => kept.block_bytes(),
        }
    }

    /// A whole block, in the form of [`HostState`], as are the next two.
    pub fn block(&self, at: usize) -> Bytes {
        match self {
            Kept::Cpu(state) => state.block(at),
            Kept::Cuda(kept) => or_nothing(kept.block(at)),
            Kept::Stock(kept) => kept.block(at).into(),
        }
    }

    pub fn slot(&self) -> Vec<u8> {
        match self {
            Kept::Cpu(state) => state.slot(),
            Kept::Cuda(kept) => or_nothing(kept.slot()),
            Kept::Stock(kept) => kept.slot(),
        }
    }

    /// `len` tokens are in it.
    pub fn tail(&self, len: usize) -> Vec<u8> {
        match self {
            Kept::Cpu(state) => state.tail(len),
            Kept::Cuda(kept) => or_nothing(kept.tail(len)),
            Kept::Stock(kept) => kept.tail(),
        }
    }
}

/// What a card that is lost does not give any more is empty: nobody takes it for a state.
fn or_nothing<T: Default>(read: Result<T, ggml_kernels::cuda::driver::CudaError>) -> T {
    read.unwrap_or_else(|why| {
        log::error!("a state on the card cannot be read: {why}");
        T::default()
    })
}

impl State {
    pub fn bytes(&self) -> usize {
        match self {
            State::Cpu(state) => state.bytes(),
            State::Cuda(state) => state.bytes(),
            State::Stock(state) => state.bytes(),
        }
    }
}

/// What lies ready to be had again, for a thread that has nothing else of the executor.
pub trait Spare: std::fmt::Debug + Send + Sync {
    fn give_back(&self);
}

pub(super) trait Executor: std::fmt::Debug + Send {
    /// The device that it runs on, as people know it.
    fn device(&self) -> &str;

    /// A token's logits are the same bits whoever else is in the pass and however its prompt was
    /// cut.
    fn is_batch_invariant(&self) -> bool;

    fn is_on_cpu(&self) -> bool;

    /// Bytes a second that its device's memory moves at most, read and written, measured now. `None`:
    /// it computes on the processor, or has no way to measure.
    fn copy_rate(&self) -> Option<Result<f64, Cause>> {
        None
    }

    /// Rows of a pass that suit it.
    fn rows(&self) -> usize;

    /// `None`: nothing lies ready in this process's memory.
    fn spare(&self) -> Option<Arc<dyn Spare>> {
        None
    }

    fn state(&self) -> Result<State, Cause>;
    /// `len` tokens are in it.
    fn keep(&self, state: &State, len: usize) -> Kept;
    /// `None`: of another shape.
    fn take_up(&self, kept: &Kept) -> Option<Result<State, Cause>>;

    /// What was in a file; `len / BLOCK` blocks are there. `None`: of another shape.
    fn adopt(&self, state: &HostState) -> Option<Result<Kept, Cause>>;

    /// What it adopts it reads where it lies, for as long as it is of use; otherwise it copies.
    fn lends(&self) -> bool {
        false
    }

    /// Bytes of the state of a sequence of so many tokens.
    fn state_bytes(&self, tokens: usize) -> usize;

    /// What a pass of `tokens` behind `past` others consists of; `None`: nothing that ggml knows.
    fn outline(&self, past: usize, tokens: usize) -> Option<Result<Outline, Cause>>;

    /// Runs every share and returns what it wanted. After a failure that came too late for the states
    /// to be as they were, says so.
    fn pass(&mut self, shares: &mut [Share<'_>], watch: Watch<'_>) -> Result<Vec<Came>, Broken>;
}

/// What came of a share.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Came {
    /// `[wanted, n_vocab]`.
    Logits(Vec<f32>),
    Drawn(Drawn),
}

/// A pass that failed, and whether the states are still what they were.
pub(super) struct Broken {
    pub cause: Cause,
    pub states_are_whole: bool,
}
