//! A sequence's state in ggml's tensors: what KDA remembers (fixed size) and the rows that MLA looks
//! at (grow with the text). Kept and restored by copying, never cut: KDA cannot be rewound.

use ggml_kernels::backend::Backend;
use ggml_kernels::quant::TensorType;
use ggml_kernels::storage::{self, Placement, StorageError};
use quantize::schema::{Hparams, Mixer};

use crate::engine::error::Cause;

/// Cache rows are added in steps of so many.
const ROW_STEP: usize = 256;

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
        fixed + self.mla_layers * self.row_bytes() * tokens.next_multiple_of(ROW_STEP)
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
}

impl State {
    pub(super) fn new(shape: &Shape, backend: &Backend) -> Result<Self, Cause> {
        Ok(Self {
            fixed: storage::State::zeroed(backend, &shape.fixed)?,
            rows: shape.rows(backend, ROW_STEP)?,
            capacity: ROW_STEP,
            shape: shape.clone(),
        })
    }

    pub fn bytes(&self) -> usize {
        self.fixed.bytes() + self.rows.bytes()
    }

    /// Makes room for `len` rows a layer, by half again what there was; `held` are in use.
    pub(super) fn reserve(
        &mut self,
        held: usize,
        len: usize,
        backend: &Backend,
    ) -> Result<(), Cause> {
        if len > self.capacity {
            let capacity = len.max(self.capacity + self.capacity / 2);
            let capacity = capacity.next_multiple_of(ROW_STEP);
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
