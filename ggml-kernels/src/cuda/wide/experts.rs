//! Products of many experts, each with the rows that chose it.

use half::f16;

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::{Matrix, Stack, WeightType};
use super::groups::GROUP_ROWS;
use super::groups::Grouped;
use super::product::PLAIN;
use super::tile::{Card, Met, choose_for_experts};
use super::{Job, Mode, WideMatrix, WideRows, count, gated_job, hold, output};

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ExpertArgs {
    x: u64,
    order: u64,
    tiles: u64,
    job: Job,
    cols: u32,
    stride: u32,
    used: u32,
    pad: u32,
}
// SAFETY: numbers without gaps: three of 8 bytes, a job of 80, four of 4.
unsafe impl Plain for ExpertArgs {}

/// As `WideGateUp`, of each choice's own expert: `[pairs, rows of gate]` by position.
#[derive(Debug, Clone, Copy)]
pub struct ExpertGateUp<'b> {
    pub gate: &'b Stack,
    pub up: &'b Stack,
    pub limit: f32,
    pub f16: Option<Part<'b, f16>>,
    pub f32: Option<Part<'b, f32>>,
}

/// Of each choice's own expert: `[pairs, rows of down]` by pair.
#[derive(Debug, Clone, Copy)]
pub struct ExpertDown<'b> {
    pub down: &'b Stack,
    pub to: Part<'b, f32>,
}

/// Input: tokens.
pub fn expert_gate_up(
    stream: &Stream,
    grouped: &Grouped<'_>,
    input: &WideRows<'_>,
    to: &ExpertGateUp<'_>,
) -> Result<(), CudaError> {
    const PLACE: &str = "expert_gate_up";
    let wanted = grouped.tokens();
    hold(input.rows == wanted, PLACE, "rows", input.rows, wanted)?;
    let gate = of_each(PLACE, grouped, to.gate)?;
    let up = of_each(PLACE, grouped, to.up)?;
    let stride = to.gate.rows();
    let job = gated_job(
        PLACE,
        (gate, up),
        to.limit,
        (to.f16, to.f32),
        (grouped.pairs, stride),
    )?;
    launch(stream, PLACE, grouped, input, job, [gate.ty, up.ty])
}

/// Input: by position, as [`expert_gate_up`] left them.
pub fn expert_down(
    stream: &Stream,
    grouped: &Grouped<'_>,
    input: &WideRows<'_>,
    to: &ExpertDown<'_>,
) -> Result<(), CudaError> {
    const PLACE: &str = "expert_down";
    let wanted = grouped.pairs;
    hold(input.rows == wanted, PLACE, "rows", input.rows, wanted)?;
    let down = of_each(PLACE, grouped, to.down)?;
    let stride = to.down.rows();
    output(PLACE, &to.to, grouped.pairs, stride, stride)?;
    let job = Job {
        w: down.matrix,
        up: down.matrix,
        out: to.to.address(),
        out_f16: 0,
        mode: Mode::Store as u32,
        stride: count(PLACE, "the result's stride", stride)?,
        first_tile: 0,
        limit: f32::INFINITY,
    };
    launch(stream, PLACE, grouped, input, job, [down.ty; 2])
}

/// The first expert's matrix of a stack of all.
fn of_each<'b>(
    place: &'static str,
    grouped: &Grouped<'_>,
    stack: &'b Stack,
) -> Result<WideMatrix<'b>, CudaError> {
    let wanted = grouped.groups.experts;
    hold(
        stack.count() == wanted,
        place,
        "experts",
        stack.count(),
        wanted,
    )?;
    WideMatrix::from(stack).rows(0..stack.rows())
}

fn launch(
    stream: &Stream,
    place: &'static str,
    grouped: &Grouped<'_>,
    input: &WideRows<'_>,
    job: Job,
    types: [WeightType; 2],
) -> Result<(), CudaError> {
    let plain = types[0] == WeightType::F32;
    let Matrix { rows, cols, .. } = job.w;
    let args = ExpertArgs {
        x: input.address(place, plain)?,
        order: grouped.groups.order.address(),
        tiles: grouped.groups.tiles.address(),
        job,
        cols: count(place, "a row's length", input.cols)?,
        stride: count(place, "the rows' stride", input.stride)?,
        used: count(place, "used experts", grouped.used())?,
        pad: 0,
    };
    hold(args.cols == cols, place, "a row's length", args.cols, cols)?;
    let is_gated = job.mode == Mode::Gated as u32;
    let columns = if is_gated { rows * 2 } else { rows };
    let tiles = grouped.tiles_at_most() as u32;
    let device = stream.device();
    let (name, [height, width], threads, shared) = if plain {
        ("wide_plain_experts", [PLAIN; 2], 256, 0)
    } else {
        let is_mixed = types[0] != types[1];
        let met = Met {
            types: &types,
            is_mixed,
        };
        let tile = choose_for_experts(Card::of(device), met);
        let shape = [tile.rows, tile.columns];
        (tile.name, shape, tile.threads, tile.shared(met))
    };
    // A group may be several blocks.
    let parts = GROUP_ROWS as u32 / height;
    let kernel = device.kernel(name)?;
    let grid = [columns.div_ceil(width), tiles, parts];
    // SAFETY: tiles name positions below `pairs` and experts of the stacks (`group_rows`), positions a pair
    // below `pairs`, whose token is a row of the input where that is by token; input, matrices and
    // results have these sizes (checked).
    unsafe { stream.launch(&kernel, grid, threads, shared, Overlap::WithPrevious, &args) }
}
