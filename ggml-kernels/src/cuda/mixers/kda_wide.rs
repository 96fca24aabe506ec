//! KDA of many tokens: [`kda_prepare`], [`kda_scan`], [`kda_finish`], one after the other. S moves on by
//! sixteen tokens, whose records lie in working memory in between. Each begins when all before it has
//! ended: see the kernels.

use half::f16;

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::WideLane;
use super::kda::{KdaLayer, KdaRows, RowsArgs, WeightArgs, name_of};
use super::{Strided, aligned, count, hold, same};
use crate::cpu::kda::KdaShape;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct PrepareArgs {
    rows: RowsArgs,
    weights: WeightArgs,
    lanes: u64,
    chunks: u64,
}
// SAFETY: numbers without gaps; every part is a multiple of 8 bytes.
unsafe impl Plain for PrepareArgs {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ScanArgs {
    lanes: u64,
    chunks: u64,
    o: u64,
    layer: u64,
    heads: u32,
    taps: u32,
    stages: u32,
    pad: u32,
}
// SAFETY: as above.
unsafe impl Plain for ScanArgs {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct FinishArgs {
    o: u64,
    open: u64,
    norm: u64,
    y: u64,
    h: u64,
    rows: u32,
    heads: u32,
    open_row: u32,
    eps: f32,
}
// SAFETY: as above.
unsafe impl Plain for FinishArgs {}

/// A pass over a layer. The decay's projection is whole.
#[derive(Debug, Clone, Copy)]
pub struct KdaWide<'b> {
    pub layer: &'b KdaLayer<'b>,
    pub rows: KdaRows<'b>,
    /// On the card; rows follow each other without gaps.
    pub lanes: Part<'b, WideLane>,
    /// The tokens of the lane that has most.
    pub longest: usize,
    /// Working memory, [`chunks_len`] long.
    pub chunks: Part<'b, f32>,
    /// `[rows, inner]`: not normed yet.
    pub o: Part<'b, f32>,
}

/// Norm and gate.
#[derive(Debug, Clone, Copy)]
pub struct KdaFinish<'b> {
    pub layer: &'b KdaLayer<'b>,
    /// `[rows, inner]`.
    pub o: Part<'b, f32>,
    /// The output gate's projection, whole.
    pub open: Strided<'b>,
    pub f32: Option<Part<'b, f32>>,
    pub f16: Option<Part<'b, f16>>,
}

/// Tokens of a chunk.
const CHUNK: usize = 16;
/// Columns and threads of a block of `kda_scan`, and what it has in shared memory beside its stages.
const COLUMNS: usize = 32;
const SCAN_THREADS: u32 = 128;
const TOLD: u32 = 3 * 16 * SCAN_THREADS;

/// Words of working memory for `rows` rows of `lanes` lanes: see `Record` and `first_chunk` of the
/// kernels.
pub fn chunks_len(shape: &KdaShape, rows: usize, lanes: usize) -> usize {
    let chunks = (rows + 2 * (CHUNK - 1) * lanes) / CHUNK;
    chunks * shape.heads * (before_v(shape.head_dim) + CHUNK * shape.head_dim)
}

/// Words of a record before what each column has of its own.
fn before_v(head_dim: usize) -> usize {
    3 * CHUNK * head_dim + CHUNK * CHUNK + head_dim
}

/// What can be said of every chunk on its own; and the tails.
pub fn kda_prepare(stream: &Stream, wide: &KdaWide<'_>) -> Result<(), CudaError> {
    const PLACE: &str = "kda_prepare";
    let (shape, rows) = wide.checked(PLACE)?;
    // A thread reads two channels at once.
    let stride = wide.rows.stride;
    let strided = |values| Strided { values, stride };
    for (what, read) in [
        ("q", strided(wide.rows.q)),
        ("k", strided(wide.rows.k)),
        ("v", strided(wide.rows.v)),
        ("the decay", wide.rows.decay),
    ] {
        read.check(PLACE, what, (rows, shape.inner()), true)?;
    }
    let args = PrepareArgs {
        rows: wide.rows.args(PLACE, &shape, rows, false)?,
        weights: wide.layer.args(PLACE)?,
        lanes: wide.lanes.address(),
        chunks: wide.chunks.address(),
    };
    let names = ["kda_prepare_32", "kda_prepare_64", "kda_prepare_128"];
    let kernel = stream
        .device()
        .kernel(name_of(PLACE, names, shape.head_dim)?)?;
    // A lane may begin inside a chunk, and a lane without rows has its tails moved.
    let blocks = count(PLACE, "chunks", (wide.longest + CHUNK - 1).div_ceil(CHUNK))?;
    let grid = [shape.heads as u32, blocks, wide.lanes.len() as u32];
    let threads = (shape.head_dim as u32 / 2).max(32);
    let shared = (4 * CHUNK * shape.head_dim * size_of::<f32>()) as u32;
    // SAFETY: rows, weights and working memory have the sizes that shape, rows and lanes say
    // (checked); lanes by their word.
    unsafe { stream.launch(&kernel, grid, threads, shared, Overlap::Alone, &args) }
}

/// S from each lane's `from` to its `to`, and what its tokens see of it.
pub fn kda_scan(stream: &Stream, wide: &KdaWide<'_>) -> Result<(), CudaError> {
    const PLACE: &str = "kda_scan";
    let (shape, _) = wide.checked(PLACE)?;
    let stage = (before_v(shape.head_dim) + CHUNK * COLUMNS) * size_of::<u32>();
    // Four where a card has room for them: with three a hundredth of the time is waited for memory.
    let room = stream.device().shared_memory().saturating_sub(TOLD) as usize;
    let stages = if 4 * stage <= room { 4 } else { 3 };
    let args = ScanArgs {
        lanes: wide.lanes.address(),
        chunks: wide.chunks.address(),
        o: wide.o.address(),
        layer: wide.layer.offset as u64,
        heads: shape.heads as u32,
        taps: shape.taps as u32,
        stages: stages as u32,
        pad: 0,
    };
    let names = ["kda_scan_32", "kda_scan_64", "kda_scan_128"];
    let kernel = stream
        .device()
        .kernel(name_of(PLACE, names, shape.head_dim)?)?;
    let blocks = shape.heads * shape.head_dim / COLUMNS;
    let grid = [blocks as u32, wide.lanes.len() as u32, 1];
    let shared = (stages * stage) as u32;
    // SAFETY: as above.
    unsafe { stream.launch(&kernel, grid, SCAN_THREADS, shared, Overlap::Alone, &args) }
}

impl KdaWide<'_> {
    /// The layer's shape and the pass's rows.
    fn checked(&self, place: &'static str) -> Result<(KdaShape, usize), CudaError> {
        let shape = self.layer.shape;
        self.layer.args(place)?;
        let rows = self.o.len() / shape.inner().max(1);
        same(place, "o", self.o.len(), rows * shape.inner())?;
        hold(
            self.longest <= rows,
            place,
            "the longest lane",
            self.longest,
            rows,
        )?;
        let wanted = chunks_len(&shape, rows, self.lanes.len());
        let is_enough = self.chunks.len() >= wanted;
        hold(
            is_enough,
            place,
            "working memory",
            self.chunks.len(),
            wanted,
        )?;
        aligned(place, "working memory", self.chunks.address())?;
        count(place, "rows", rows)?;
        Ok((shape, rows))
    }
}

/// `rms_norm(o) * norm * sigmoid(open)`.
pub fn kda_finish(stream: &Stream, finish: &KdaFinish<'_>) -> Result<(), CudaError> {
    const PLACE: &str = "kda_finish";
    const ROWS_A_BLOCK: usize = 8;
    let shape = finish.layer.shape;
    let inner = shape.inner();
    let rows = finish.o.len() / inner.max(1);
    same(PLACE, "o", finish.o.len(), rows * inner)?;
    finish
        .open
        .check(PLACE, "the output gate", (rows, inner), false)?;
    same(PLACE, "norm", finish.layer.norm.len(), shape.head_dim)?;
    let (y, h) = (finish.f32, finish.f16);
    same(
        PLACE,
        "the rows of f32",
        y.map_or(finish.o.len(), |y| y.len()),
        finish.o.len(),
    )?;
    same(
        PLACE,
        "the rows of f16",
        h.map_or(finish.o.len(), |h| h.len()),
        finish.o.len(),
    )?;
    let args = FinishArgs {
        o: finish.o.address(),
        open: finish.open.values.address(),
        norm: finish.layer.norm.address(),
        y: y.map_or(0, |y| y.address()),
        h: h.map_or(0, |h| h.address()),
        rows: count(PLACE, "rows", rows)?,
        heads: shape.heads as u32,
        open_row: finish.open.stride as u32,
        eps: finish.layer.eps,
    };
    let names = ["kda_finish_32", "kda_finish_64", "kda_finish_128"];
    let kernel = stream
        .device()
        .kernel(name_of(PLACE, names, shape.head_dim)?)?;
    let blocks = (rows * shape.heads).div_ceil(ROWS_A_BLOCK);
    let grid = [count(PLACE, "rows of heads", blocks)?, 1, 1];
    // SAFETY: o, gate and what comes out have `rows` rows of `inner`, as checked.
    unsafe {
        stream.launch(
            &kernel,
            grid,
            32 * ROWS_A_BLOCK as u32,
            0,
            Overlap::Alone,
            &args,
        )
    }
}
