//! The feed-forward part of a layer: routed experts, the shared one, or a dense layer, which is a shared one
//! alone. [`gate_up`] makes `h`, [`down`] adds its products to the residual.
//!
//! `h` has rows `(row, slot)`, row after row: the routed experts in the router's order, then the shared one; every
//! row as long as the longest of them. Both its f32 and its 8 bits are written.

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::{Activations, Acts, Matrix, Stack, WeightType};
use super::{NO_MATRIX, STAGED, check_cols, check_input, hold, same};

/// `min(silu(gate x), limit) * clamp(up x, -limit, limit)`; infinite: no limit.
#[derive(Debug, Clone, Copy)]
pub struct GateUp<'b> {
    pub gate: &'b Stack,
    pub up: &'b Stack,
    pub limit: f32,
}

/// Stacks of routed experts, and which of them each row goes to: `[rows, used]`.
#[derive(Debug, Clone, Copy)]
pub struct GateUpExperts<'b> {
    pub stacks: GateUp<'b>,
    pub ids: Part<'b, u32>,
    pub used: usize,
}

/// The same experts' way back, and with which weights, `[rows, used]` too.
#[derive(Debug, Clone, Copy)]
pub struct DownExperts<'b> {
    pub stack: &'b Stack,
    pub ids: Part<'b, u32>,
    pub weights: Part<'b, f32>,
    pub used: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct GateUpArgs {
    gate: Matrix,
    up: Matrix,
    shared_gate: Matrix,
    shared_up: Matrix,
    input: Acts,
    out: Acts,
    ids: u64,
    limit: f32,
    shared_limit: f32,
    used: u32,
    /// Bytes of a warp's stage.
    own: u32,
}
// SAFETY: numbers without gaps: four matrices of 24 bytes, two Acts of 40, one of 8, four of 4.
unsafe impl Plain for GateUpArgs {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct DownArgs {
    down: Matrix,
    shared_down: Matrix,
    input: Acts,
    x: u64,
    ids: u64,
    weights: u64,
    used: u32,
    rows: u32,
    /// Bytes from row to row of a stage.
    stride: u32,
    pad: u32,
}
// SAFETY: numbers without gaps: two matrices of 24 bytes, Acts of 40, three of 8, four of 4.
unsafe impl Plain for DownArgs {}

/// Pieces of `h` of one row that `down` can add, and a piece's values.
pub const MOST_TASKS: usize = 64;
const TASK: usize = 1024;
/// Warps of a block of `down`, rows of x that it has, and bytes of shared memory of each warp.
const DOWN_WARPS: usize = 9;
const DOWN_ROWS: u32 = 8;
const DOWN_OWN: u32 = 5888 + 4 * STAGED;
/// Blocks of `down_eight` that a multiprocessor runs at once.
const DOWN_BLOCKS: u32 = 3;
/// Those of each of a block's warps of `gate_up`.
const GATE_UP_WARPS: u32 = 8;
const GATE_UP_OWN: u32 = 6720;

/// Values of `h` for `rows` rows: what [`Activations::room`] needs. `shared_ff` 0: no shared expert; `used` 0: no
/// routed ones.
pub fn h_len(rows: usize, used: usize, ff: usize, shared_ff: usize) -> usize {
    let (slots, width) = h_shape(used, ff, shared_ff);
    rows * slots * width
}

/// Rows of `h` to a row, and their length.
fn h_shape(used: usize, ff: usize, shared_ff: usize) -> (usize, usize) {
    let routed = if used > 0 { ff } else { 0 };
    (used + usize::from(shared_ff > 0), routed.max(shared_ff))
}

/// Makes `h` of every row of `input`, and says how it lies. The ids may be what the kernel just before wrote.
pub fn gate_up(
    stream: &Stream,
    input: &Acts,
    experts: Option<GateUpExperts<'_>>,
    shared: Option<GateUp<'_>>,
    out: &Activations,
) -> Result<Acts, CudaError> {
    const PLACE: &str = "gate_up";
    check_input(PLACE, input)?;
    let experts = experts.filter(|experts| experts.used > 0);
    let mut args = GateUpArgs {
        gate: NO_MATRIX,
        up: NO_MATRIX,
        shared_gate: NO_MATRIX,
        shared_up: NO_MATRIX,
        input: *input,
        out: *input,
        ids: 0,
        limit: f32::INFINITY,
        shared_limit: f32::INFINITY,
        used: 0,
        own: 0,
    };
    if let Some(GateUpExperts { stacks, ids, used }) = experts {
        check_pair(PLACE, &stacks, input.cols)?;
        same(PLACE, "ids", ids.len(), input.rows as usize * used)?;
        (args.gate, args.up) = (stacks.gate.matrix(), stacks.up.matrix());
        (args.ids, args.limit, args.used) = (ids.address(), stacks.limit, used as u32);
    }
    if let Some(stacks) = shared {
        check_pair(PLACE, &stacks, input.cols)?;
        same(PLACE, "shared experts", stacks.gate.count(), 1)?;
        (args.shared_gate, args.shared_up) = (stacks.gate.matrix(), stacks.up.matrix());
        args.shared_limit = stacks.limit;
    }
    let [used, ff, shared_ff] = [args.used, args.gate.rows, args.shared_gate.rows];
    let (slots, width) = h_shape(used as usize, ff as usize, shared_ff as usize);
    args.out = out.acts(input.rows as usize * slots, width)?;
    let grid = [shared_ff / 32 + used * (ff / 32), input.rows, 1];
    let of = [&args.gate, &args.up, &args.shared_gate, &args.shared_up];
    let staged = input.cols.div_ceil(256) * STAGED;
    let bytes = |own: u32| staged + GATE_UP_WARPS * own;
    let eights = of.map(|matrix| 8 * matrix.row_bytes);
    args.own = eights.into_iter().max().unwrap_or(0);
    // Two blocks at a time of a multiprocessor, or it is not worth it.
    let room = stream.device().shared_memory() / 2;
    let name = if are_eights(&of) && bytes(args.own) <= room {
        "gate_up_eight"
    } else {
        args.own = GATE_UP_OWN;
        PLACE
    };
    let kernel = stream.device().kernel(name)?;
    let bytes = bytes(args.own);
    // SAFETY: all matrices have rows of `input.cols`, gates as many as ups, `out` has room for every slot's, and
    // there are `used` ids to a row (checked); the input is there and ids are below the stacks' counts by their word.
    unsafe {
        stream.launch(
            &kernel,
            grid,
            GATE_UP_WARPS * 32,
            bytes,
            Overlap::WithPrevious,
            &args,
        )?
    };
    Ok(args.out)
}

/// Whether the kernels of eight rows a warp take them: those that are there.
fn are_eights(matrices: &[&Matrix]) -> bool {
    let is_none = |matrix: &Matrix| matrix.rows == 0;
    matrices
        .iter()
        .all(|matrix| is_none(matrix) || superblock(matrix) > 0)
}

/// Bytes of one, of types of which a warp can have eight rows.
fn superblock(matrix: &Matrix) -> u32 {
    match matrix.ty {
        ty if ty == WeightType::Q4K as u32 => 144,
        ty if ty == WeightType::Q5K as u32 => 176,
        _ => 0,
    }
}

fn check_pair(place: &'static str, pair: &GateUp<'_>, cols: u32) -> Result<(), CudaError> {
    check_cols(place, pair.gate, cols)?;
    check_cols(place, pair.up, cols)?;
    let ff = pair.gate.rows();
    let whole = ff > 0 && ff.is_multiple_of(32);
    hold(whole, place, "an expert's rows", ff, "a multiple of 32")?;
    same(place, "rows of up", pair.up.rows(), ff)?;
    same(place, "experts of up", pair.up.count(), pair.gate.count())
}

/// Adds to `x` what the experts make of `h`, which [`gate_up`] made of the same rows, ids and sizes: each row's
/// weighted sum in the router's order, the shared one last. Ids must be older than that `gate_up`; weights may not.
pub fn down(
    stream: &Stream,
    h: &Acts,
    experts: Option<DownExperts<'_>>,
    shared: Option<&Stack>,
    x: Part<'_, f32>,
) -> Result<(), CudaError> {
    const PLACE: &str = "down";
    let experts = experts.filter(|experts| experts.used > 0);
    let either = experts.map(|experts| experts.stack).or(shared);
    let hidden = either.map_or(0, Stack::rows);
    hold(hidden > 0, PLACE, "rows of the matrices", hidden, "some")?;
    let rows = x.len() / hidden;
    same(PLACE, "values of x", x.len(), rows * hidden)?;
    hold(rows <= super::MOST_ROWS, PLACE, "rows", rows, "at most 16")?;
    let mut args = DownArgs {
        down: NO_MATRIX,
        shared_down: NO_MATRIX,
        input: *h,
        x: x.address(),
        ids: 0,
        weights: 0,
        used: 0,
        rows: hidden as u32,
        stride: 0,
        pad: 0,
    };
    if let Some(DownExperts {
        stack,
        ids,
        weights,
        used,
    }) = experts
    {
        same(PLACE, "ids", ids.len(), rows * used)?;
        same(PLACE, "weights", weights.len(), rows * used)?;
        (args.down, args.used) = (stack.matrix(), used as u32);
        (args.ids, args.weights) = (ids.address(), weights.address());
    }
    if let Some(stack) = shared {
        same(PLACE, "shared experts", stack.count(), 1)?;
        same(PLACE, "rows of the shared expert", stack.rows(), hidden)?;
        args.shared_down = stack.matrix();
    }
    let [used, ff, shared_ff] =
        [args.used, args.down.cols, args.shared_down.cols].map(|n| n as usize);
    let (slots, width) = h_shape(used, ff, shared_ff);
    same(PLACE, "rows of h", h.rows as usize, rows * slots)?;
    same(PLACE, "values of a row of h", h.cols as usize, width)?;
    let whole = ff.is_multiple_of(32) && shared_ff.is_multiple_of(32);
    hold(
        whole,
        PLACE,
        "an expert's columns",
        width,
        "a multiple of 32",
    )?;
    let tasks = used * ff.div_ceil(TASK) + shared_ff.div_ceil(TASK);
    let what = "pieces of 1024 values of a row's h";
    hold(tasks <= MOST_TASKS, PLACE, what, tasks, "at most 64")?;
    let warps = tasks.clamp(1, DOWN_WARPS) as u32;
    let eights = args.rows.div_ceil(DOWN_ROWS);
    let of = [&args.down, &args.shared_down];
    let (name, grid, own) = if are_eights(&of) {
        // Superblocks of a task, in the greater type's bytes.
        args.stride = 4 * of.map(superblock).into_iter().max().unwrap_or(0);
        let most = stream.device().multiprocessors() * DOWN_BLOCKS;
        let grid = [(eights * rows as u32).min(most), 1, 1];
        ("down_eight", grid, 4 * STAGED + 8 * args.stride)
    } else {
        (PLACE, [eights, rows as u32, 1], DOWN_OWN)
    };
    let kernel = stream.device().kernel(name)?;
    let bytes = warps * own;
    // SAFETY: `x` has `rows` rows as long as both matrices have rows, `h` a row for every slot of each, as long as
    // the matrices' rows at least, ids and weights `used` to a row (checked); `h` is there and ids are below the
    // stack's count by their word.
    unsafe {
        stream.launch(
            &kernel,
            grid,
            warps * 32,
            bytes,
            Overlap::WithPrevious,
            &args,
        )
    }
}
