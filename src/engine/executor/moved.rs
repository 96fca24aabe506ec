//! The least that a pass moves, and the arithmetic that it does: every weight and every row of state
//! once, however they are read. Counts for any executor; what is multiplied where is its own matter.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::sync::Arc;

use ggml_kernels::cpu::kda::KdaShape;
use quantize::schema::Mla;

use crate::engine::layers::Mlp;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moved {
    pub bytes: u64,
    /// Multiplications and additions.
    pub operations: u64,
}

/// A matrix, or several of one size.
pub(super) trait Weighed {
    fn count(&self) -> usize;
    /// Of one of them.
    fn values(&self) -> usize;
    fn bytes(&self) -> usize;
}

impl<W: Weighed> Weighed for Arc<W> {
    fn count(&self) -> usize {
        (**self).count()
    }
    fn values(&self) -> usize {
        (**self).values()
    }
    fn bytes(&self) -> usize {
        (**self).bytes()
    }
}

/// A lane's rows that look at the cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looking {
    /// Tokens before the first of them.
    pub past: usize,
    pub rows: usize,
}

impl Looking {
    /// Rows of the cache that some row sees.
    pub fn seen(&self) -> usize {
        match self.rows {
            0 => 0,
            rows => self.past + rows,
        }
    }

    /// Pairs of a row and one that it sees.
    pub fn pairs(&self) -> usize {
        self.rows * self.past + self.rows * (self.rows + 1) / 2
    }
}

impl Moved {
    fn of(bytes: usize, operations: usize) -> Moved {
        Moved {
            bytes: bytes as u64,
            operations: operations as u64,
        }
    }
}

impl AddAssign for Moved {
    fn add_assign(&mut self, more: Moved) {
        self.bytes += more.bytes;
        self.operations += more.operations;
    }
}

/// Products of so many rows with each of some matrices.
pub(super) fn products<'w, W: Weighed + 'w>(
    rows: usize,
    matrices: impl IntoIterator<Item = &'w W>,
) -> Moved {
    let mut moved = Moved::default();
    for matrix in matrices {
        let count = if rows == 0 { 0 } else { matrix.count() };
        let operations = 2 * rows * count * matrix.values();
        moved += Moved::of(count * matrix.bytes(), operations);
    }
    moved
}

/// An expert's matrices are read once, however many rows chose it.
pub(super) fn experts<W: Weighed>(parts: &Mlp<W>, ids: &[u32]) -> Moved {
    let chosen = ids.iter().collect::<BTreeSet<_>>().len();
    let mut moved = Moved::default();
    for stack in [&parts.gate, &parts.up, &parts.down] {
        moved += Moved::of(chosen * stack.bytes(), 2 * ids.len() * stack.values());
    }
    moved
}

/// Each lane's states are read and written; a token decays, reads and corrects each, and reads it
/// once more.
pub(super) fn kda(shape: &KdaShape, lanes: usize, tokens: usize) -> Moved {
    let state = shape.inner() * shape.head_dim;
    Moved::of(lanes * 2 * state * size_of::<f32>(), tokens * 7 * state)
}

/// Each lane's rows of the cache are read; every head of a token scores those before it and sums them
/// up.
pub(super) fn mla(mla: &Mla, row_bytes: usize, lanes: impl IntoIterator<Item = Looking>) -> Moved {
    let pair = 2 * mla.heads * (mla.latent() + mla.kv_lora_rank);
    look(row_bytes, pair, lanes)
}

/// As [`mla`], over keys and values that the rows were expanded to.
pub(super) fn mla_expanded(
    mla: &Mla,
    row_bytes: usize,
    lanes: impl IntoIterator<Item = Looking>,
) -> Moved {
    let pair = 2 * mla.heads * (mla.qk() + mla.v);
    look(row_bytes, pair, lanes)
}

fn look(row_bytes: usize, pair: usize, lanes: impl IntoIterator<Item = Looking>) -> Moved {
    let mut moved = Moved::default();
    for lane in lanes {
        moved += Moved::of(lane.seen() * row_bytes, lane.pairs() * pair);
    }
    moved
}
