//! A sequence's state in ggml's tensors: what KDA remembers (fixed size) and the rows that MLA looks
//! at (grow with the text). Kept and restored by copying, never cut: KDA cannot be rewound.

use ggml_kernels::backend::Backend;
use ggml_kernels::quant::TensorType;
use ggml_kernels::storage::{self, Placement, StorageError};
use quantize::schema::{Hparams, Mixer};

use super::ready::Ready;
use super::work::{STEP, bucket};
use crate::engine::error::Cause;
use crate::engine::{BLOCK, HostState};

/// Tensors that a KDA layer has in [`State::fixed`]: the convolution tails of q, k and v
/// (`[conv - 1, d_inner]`), then S transposed (`[d, d, heads]`), all f32.
pub(super) const KDA_TENSORS: usize = 4;

#[derive(Debug)]
pub(in crate::engine) struct State {
    /// [`KDA_TENSORS`] a KDA layer, in layer order.
    pub(super) fixed: storage::State,
    /// A tensor `[latent, capacity]` a MLA layer, in layer order.
    pub(super) rows: storage::State,
    capacity: usize,
    shape: Shape,
    /// The last short pass, which has these tensors' addresses in it.
    pub(super) ready: Option<Ready>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    fixed: Vec<Placement>,
    mla_layers: usize,
    latent: usize,
    ty: TensorType,
}

impl Shape {
    pub fn new(h: &Hparams, ty: TensorType) -> Self {
        let kda = h.layers.iter().filter(|l| l.mixer == Mixer::Kda).count();
        let tail = [h.kda.conv - 1, h.kda.d_inner(), 1, 1];
        let state = [h.kda.head_dim, h.kda.head_dim, h.kda.heads, 1];
        let place = |what: &str, ne| Placement {
            name: what.into(),
            ty: TensorType::F32,
            ne,
        };
        let layer = [
            place("tail_q", tail),
            place("tail_k", tail),
            place("tail_v", tail),
            place("state", state),
        ];
        Self {
            fixed: std::iter::repeat_n(layer, kda).flatten().collect(),
            mla_layers: h.layers.len() - kda,
            latent: h.mla.latent(),
            ty,
        }
    }

    fn row_bytes(&self) -> usize {
        self.ty.row_bytes(self.latent).unwrap_or(0)
    }

    /// Bytes of a state of so many tokens.
    pub fn bytes(&self, tokens: usize) -> usize {
        let fixed: usize = self.fixed.iter().filter_map(Placement::bytes).sum();
        fixed + self.mla_layers * self.row_bytes() * bucket(tokens)
    }

    fn rows(&self, backend: &Backend, capacity: usize) -> Result<storage::State, StorageError> {
        let place = Placement {
            name: "rows".into(),
            ty: self.ty,
            ne: [self.latent, capacity, 1, 1],
        };
        storage::State::zeroed(backend, &vec![place; self.mla_layers])
    }
}

/// A state at one moment, in the host's memory; restores any number of times.
#[derive(Debug)]
pub(in crate::engine) struct Kept {
    shape: Shape,
    len: usize,
    fixed: Vec<Vec<u8>>,
    rows: Vec<Vec<u8>>,
}

impl Kept {
    pub fn bytes(&self) -> usize {
        self.fixed.iter().chain(&self.rows).map(Vec::len).sum()
    }

    pub fn block_bytes(&self) -> usize {
        self.shape.mla_layers * BLOCK * self.shape.row_bytes()
    }

    /// Rows from `from` up to `to` of every layer.
    fn gathered(&self, from: usize, to: usize) -> Vec<u8> {
        let row = self.shape.row_bytes();
        let layers = self.rows.iter();
        let rows = layers.flat_map(|layer| &layer[from * row..to * row]);
        rows.copied().collect()
    }

    /// As in [`HostState`].
    pub fn block(&self, at: usize) -> Vec<u8> {
        self.gathered(at * BLOCK, (at + 1) * BLOCK)
    }

    pub fn tail(&self) -> Vec<u8> {
        self.gathered(self.len / BLOCK * BLOCK, self.len)
    }

    pub fn slot(&self) -> Vec<u8> {
        let tensors = self.fixed.iter().zip(&self.shape.fixed);
        let turned = tensors.flat_map(|(bytes, place)| transposed(bytes, place.ne[0], place.ne[1]));
        turned.collect()
    }

    /// `None`: of another shape.
    pub(super) fn adopted(shape: &Shape, from: &HostState) -> Option<Kept> {
        let row = shape.row_bytes();
        let (whole, rest) = (BLOCK * row, from.len % BLOCK * row);
        let fits = from
            .blocks
            .iter()
            .all(|b| b.len() == shape.mla_layers * whole);
        if !fits || from.tail.len() != shape.mla_layers * rest {
            return None;
        }
        let layer = |at: usize| {
            let mut rows = Vec::with_capacity(from.len * row);
            for block in &from.blocks {
                rows.extend_from_slice(&block[at * whole..(at + 1) * whole]);
            }
            rows.extend_from_slice(&from.tail[at * rest..(at + 1) * rest]);
            rows
        };
        let (mut fixed, mut left) = (Vec::new(), &from.slot[..]);
        for place in &shape.fixed {
            let (bytes, after) = left.split_at_checked(place.bytes()?)?;
            fixed.push(transposed(bytes, place.ne[1], place.ne[0]));
            left = after;
        }
        left.is_empty().then(|| Kept {
            shape: shape.clone(),
            len: from.len,
            fixed,
            rows: (0..shape.mla_layers).map(layer).collect(),
        })
    }
}

/// Matrices of floats, `[.., rows, columns]` with the columns side by side, to
/// `[.., columns, rows]`: ggml's tails have time side by side, and its S is transposed.
fn transposed(bytes: &[u8], columns: usize, rows: usize) -> Vec<u8> {
    let (floats, _) = bytes.as_chunks::<4>();
    let mut turned = Vec::with_capacity(bytes.len());
    for matrix in floats.chunks_exact(rows * columns) {
        for column in 0..columns {
            let down = matrix.iter().skip(column).step_by(columns);
            turned.extend(down.flatten());
        }
    }
    turned
}

impl State {
    pub(super) fn new(shape: &Shape, backend: &Backend) -> Result<Self, StorageError> {
        Ok(Self {
            fixed: storage::State::zeroed(backend, &shape.fixed)?,
            rows: shape.rows(backend, STEP)?,
            capacity: STEP,
            shape: shape.clone(),
            ready: None,
        })
    }

    pub fn bytes(&self) -> usize {
        self.fixed.bytes() + self.rows.bytes()
    }

    /// Makes room to look at `len` rows a layer, by half again what there was; `held` are in use.
    pub(super) fn reserve(
        &mut self,
        held: usize,
        len: usize,
        backend: &Backend,
    ) -> Result<(), StorageError> {
        if bucket(len) > self.capacity {
            let capacity = bucket(len.max(self.capacity + self.capacity / 2));
            // It would hold the rows that go.
            self.ready = None;
            let mut rows = self.shape.rows(backend, capacity)?;
            for at in 0..rows.len() {
                rows.write(at, &self.rows.read(at, held * self.shape.row_bytes()))?;
            }
            self.rows = rows;
            self.capacity = capacity;
        }
        Ok(())
    }

    /// `len` tokens are in it.
    pub(super) fn keep(&self, len: usize) -> Kept {
        let rows = len * self.shape.row_bytes();
        let all = |s: &storage::State, bytes| (0..s.len()).map(|at| s.read(at, bytes)).collect();
        Kept {
            shape: self.shape.clone(),
            len,
            fixed: all(&self.fixed, usize::MAX),
            rows: all(&self.rows, rows),
        }
    }

    /// `None`: kept of another shape.
    pub(super) fn restored(
        kept: &Kept,
        shape: &Shape,
        backend: &Backend,
    ) -> Option<Result<Self, Cause>> {
        if kept.shape != *shape {
            return None;
        }
        let restore = || {
            let mut state = Self::new(shape, backend)?;
            state.reserve(0, kept.len, backend)?;
            for (at, bytes) in kept.fixed.iter().enumerate() {
                state.fixed.write(at, bytes)?;
            }
            for (at, bytes) in kept.rows.iter().enumerate() {
                state.rows.write(at, bytes)?;
            }
            Ok(state)
        };
        Some(restore())
    }
}
