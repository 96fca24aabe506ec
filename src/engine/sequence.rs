//! One conversation's state: what KDA remembers (fixed size) and the rows that MLA looks at
//! (grow with the text). Offers snapshot and restore, never truncate: KDA cannot be rewound.

use std::sync::Arc;

use ggml_kernels::backend::Backend;
use ggml_kernels::quant::TensorType;
use ggml_kernels::storage::{Placement, Storage, StorageError};
use quantize::schema::{Hparams, Mixer};

use super::EngineError;

/// Cache rows are added in steps of so many.
const ROW_STEP: usize = 256;

/// Tensors that a KDA layer has in [`Sequence::fixed`]: the convolution tails of q, k and v
/// (`[conv - 1, d_inner]`), then S transposed (`[d, d, heads]`), all f32.
pub(super) const KDA_TENSORS: usize = 4;

/// A sequence of one engine. Dropping it frees its memory.
#[derive(Debug)]
pub struct Sequence {
    /// [`KDA_TENSORS`] a KDA layer, in layer order.
    pub(super) fixed: Storage,
    /// A tensor `[latent, capacity]` a MLA layer, in layer order.
    pub(super) rows: Storage,
    pub(super) len: usize,
    capacity: usize,
    shape: Shape,
    /// A pass failed half-way: the state is of no use any more.
    pub(super) broken: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Shape {
    fixed: Vec<Placement>,
    mla_layers: usize,
    latent: usize,
    ty: TensorType,
}

impl Shape {
    fn new(h: &Hparams, ty: TensorType) -> Self {
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

    fn rows(&self, backend: &Backend, capacity: usize) -> Result<Storage, EngineError> {
        let place = Placement {
            name: "rows".into(),
            ty: self.ty,
            ne: [self.latent, capacity, 1, 1],
        };
        Storage::zeroed(backend, &vec![place; self.mla_layers]).map_err(no_memory)
    }
}

/// A sequence's state at one moment, in memory; restores any number of times.
#[derive(Debug, Clone)]
pub struct Snapshot {
    inner: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    shape: Shape,
    len: usize,
    fixed: Vec<Vec<u8>>,
    rows: Vec<Vec<u8>>,
}

impl Snapshot {
    /// Tokens fed before it was taken.
    pub fn len(&self) -> usize {
        self.inner.len
    }
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }
    pub fn bytes(&self) -> usize {
        let all = self.inner.fixed.iter().chain(&self.inner.rows);
        all.map(Vec::len).sum()
    }
}

impl Sequence {
    pub(super) fn new(h: &Hparams, ty: TensorType, backend: &Backend) -> Result<Self, EngineError> {
        let shape = Shape::new(h, ty);
        let capacity = ROW_STEP;
        Ok(Self {
            fixed: Storage::zeroed(backend, &shape.fixed).map_err(no_memory)?,
            rows: shape.rows(backend, capacity)?,
            len: 0,
            capacity,
            shape,
            broken: false,
        })
    }

    /// Tokens fed so far.
    pub fn len(&self) -> usize {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Bytes of state held now.
    pub fn bytes(&self) -> usize {
        self.fixed.bytes() + self.rows.bytes()
    }

    /// Makes room for `len` rows a layer, by half again what there was.
    pub(super) fn reserve(&mut self, len: usize, backend: &Backend) -> Result<(), EngineError> {
        if len <= self.capacity {
            return Ok(());
        }
        let capacity = len.max(self.capacity + self.capacity / 2);
        let capacity = capacity.next_multiple_of(ROW_STEP);
        let mut rows = self.shape.rows(backend, capacity)?;
        for at in 0..rows.len() {
            let held = self.rows.read(at, self.len * self.shape.row_bytes());
            rows.write(at, &held).map_err(no_memory)?;
        }
        self.rows = rows;
        self.capacity = capacity;
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let rows = self.len * self.shape.row_bytes();
        let all = |s: &Storage, bytes| (0..s.len()).map(|at| s.read(at, bytes)).collect();
        Snapshot {
            inner: Arc::new(Held {
                shape: self.shape.clone(),
                len: self.len,
                fixed: all(&self.fixed, usize::MAX),
                rows: all(&self.rows, rows),
            }),
        }
    }

    pub(super) fn restored(
        snapshot: &Snapshot,
        h: &Hparams,
        ty: TensorType,
        backend: &Backend,
    ) -> Result<Self, EngineError> {
        let held = &*snapshot.inner;
        let mut sequence = Self::new(h, ty, backend)?;
        if held.shape != sequence.shape {
            let why = "a snapshot of another model or cache type";
            return Err(EngineError::Backend(why.into()));
        }
        sequence.reserve(held.len, backend)?;
        for (at, bytes) in held.fixed.iter().enumerate() {
            sequence.fixed.write(at, bytes).map_err(no_memory)?;
        }
        for (at, bytes) in held.rows.iter().enumerate() {
            sequence.rows.write(at, bytes).map_err(no_memory)?;
        }
        sequence.len = held.len;
        Ok(sequence)
    }
}

fn no_memory(e: StorageError) -> EngineError {
    EngineError::Backend(e.to_string())
}
