//! KDA of up to 16 sequences, one token each: [`kda_step`] and then [`kda_gate`].

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::{Acts, Lane, Matrix};
use super::kda::{KdaLayer, KdaRows, RowsArgs, Second, WeightArgs, name_of, second};
use super::{MOST_ROWS, Strided, aligned, hold, same};

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct StepArgs {
    rows: RowsArgs,
    weights: WeightArgs,
    f_b: Matrix,
    lanes: u64,
    o: u64,
}
// SAFETY: numbers without gaps; every part is a multiple of 8 bytes.
unsafe impl Plain for StepArgs {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct GateArgs {
    rows: RowsArgs,
    weights: WeightArgs,
    g_b: Matrix,
    lanes: u64,
    o: u64,
    open: u64,
    norm: u64,
    out: Acts,
    open_row: u32,
    eps: f32,
}
// SAFETY: as above.
unsafe impl Plain for GateArgs {}

/// One token of every lane: convolutions, decay, S from each lane's `from` to its `to`.
#[derive(Debug, Clone, Copy)]
pub struct KdaStep<'b> {
    pub layer: &'b KdaLayer<'b>,
    pub rows: KdaRows<'b>,
    /// The decay's second matrix.
    pub f_b: Second,
    pub lanes: Part<'b, Lane>,
    /// `[lanes, inner]`: not normed yet.
    pub o: Part<'b, f32>,
}

/// Norm and gate of what [`kda_step`] made of the same rows, and the tails, which it has read.
#[derive(Debug, Clone, Copy)]
pub struct KdaGate<'b> {
    pub layer: &'b KdaLayer<'b>,
    pub rows: KdaRows<'b>,
    /// The output gate's projection: whole, or a low-rank one's first product.
    pub open: Strided<'b>,
    /// Its second matrix.
    pub g_b: Second,
    pub lanes: Part<'b, Lane>,
    pub o: Part<'b, f32>,
    /// Rows for the output projection; `x` or `q` may be 0.
    pub out: Acts,
}

/// Columns of S that a block has; of `kda_step_128_many` twice as many.
const COLUMNS: usize = 32;

pub fn kda_step(stream: &Stream, step: &KdaStep<'_>) -> Result<(), CudaError> {
    const PLACE: &str = "kda_step";
    let shape = step.layer.shape;
    let lanes = checked(PLACE, step.lanes, step.o, shape.inner())?;
    let f_b = second(PLACE, step.f_b, &shape)?;
    let args = StepArgs {
        rows: step.rows.args(PLACE, &shape, lanes, step.f_b.is_some())?,
        weights: step.layer.args(PLACE)?,
        f_b,
        lanes: step.lanes.address(),
        o: step.o.address(),
    };
    let mut grid = [shape.heads, shape.head_dim / COLUMNS, lanes].map(|n| n as u32);
    let device = stream.device();
    let mut of_128 = "kda_step_128";
    if shape.head_dim == 128 && grid.iter().product::<u32>() > device.multiprocessors() {
        of_128 = "kda_step_128_many";
        grid[1] /= 2;
    }
    let names = ["kda_step_32", "kda_step_64", of_128];
    let kernel = device.kernel(name_of(PLACE, names, shape.head_dim)?)?;
    let threads = 2 * shape.head_dim as u32;
    // SAFETY: rows, weights and o have the sizes that the shape says (checked); lanes and matrices by
    // their word.
    unsafe { stream.launch(&kernel, grid, threads, 0, Overlap::WithPrevious, &args) }
}

pub fn kda_gate(stream: &Stream, gate: &KdaGate<'_>) -> Result<(), CudaError> {
    const PLACE: &str = "kda_gate";
    let shape = gate.layer.shape;
    let inner = shape.inner();
    let lanes = checked(PLACE, gate.lanes, gate.o, inner)?;
    let g_b = second(PLACE, gate.g_b, &shape)?;
    let is_low = gate.g_b.is_some();
    let width = if is_low { shape.head_dim } else { inner };
    gate.open
        .check(PLACE, "the output gate", (lanes, width), is_low)?;
    same(
        PLACE,
        "the rows that come out",
        gate.out.rows as usize,
        lanes,
    )?;
    same(PLACE, "a row that comes out", gate.out.cols as usize, inner)?;
    let args = GateArgs {
        // The decay's rows are not read here.
        rows: gate.rows.args(PLACE, &shape, lanes, true)?,
        weights: gate.layer.args(PLACE)?,
        g_b,
        lanes: gate.lanes.address(),
        o: gate.o.address(),
        open: gate.open.values.address(),
        norm: gate.layer.norm.address(),
        out: gate.out,
        open_row: gate.open.stride as u32,
        eps: gate.layer.eps,
    };
    let names = ["kda_gate_32", "kda_gate_64", "kda_gate_128"];
    let kernel = stream
        .device()
        .kernel(name_of(PLACE, names, shape.head_dim)?)?;
    let grid = [shape.heads as u32, lanes as u32, 1];
    let threads = 2 * shape.head_dim as u32;
    // SAFETY: as above.
    unsafe { stream.launch(&kernel, grid, threads, 0, Overlap::WithPrevious, &args) }
}

fn checked(
    place: &'static str,
    lanes: Part<'_, Lane>,
    o: Part<'_, f32>,
    inner: usize,
) -> Result<usize, CudaError> {
    let count = lanes.len();
    hold(count <= MOST_ROWS, place, "lanes", count, "at most 16")?;
    same(place, "o", o.len(), count * inner)?;
    aligned(place, "o", o.address())?;
    Ok(count)
}
