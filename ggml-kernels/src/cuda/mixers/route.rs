//! The router: which experts a row goes to, and with which weights.

use super::super::driver::{Buffer, CudaError, Device, Overlap, Part, Plain, Stream};
use super::super::weights::{Matrix, WeightType};
use super::{MOST_ROWS, aligned, count, hold, same};
use crate::ops::moe::Routing;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RouteArgs {
    router: Matrix,
    x: u64,
    bias: u64,
    logits: u64,
    arrived: u64,
    ids: u64,
    weights: u64,
    rows: u32,
    experts: u32,
    used: u32,
    groups: u32,
    groups_used: u32,
    scale: f32,
}
// SAFETY: numbers without gaps: a matrix of 24 bytes, six of 8, six of 4.
unsafe impl Plain for RouteArgs {}

/// Experts that a block of `route_small` has, threads that it has at most, and a choice's limits.
const EXPERTS_A_BLOCK: u32 = 2;
const MOST_THREADS: u32 = 768;
const MOST_EXPERTS: usize = 512;
const MOST_USED: usize = 16;
const MOST_GROUPS: usize = 32;

/// What `route_small` works in; one for each stream.
#[derive(Debug)]
pub struct Router {
    logits: Buffer<f32>,
    arrived: Buffer<u32>,
}

impl Router {
    pub fn new(device: &Device, experts: usize) -> Result<Router, CudaError> {
        Ok(Router {
            logits: device.zeroed(MOST_ROWS * experts)?,
            arrived: device.zeroed(1)?,
        })
    }
}

/// A choice to be made.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'b> {
    /// `[experts]`; it only chooses.
    pub bias: Part<'b, f32>,
    pub routing: Routing,
}

/// `[rows, used]` each, the best first.
#[derive(Debug, Clone, Copy)]
pub struct Routed<'b> {
    pub ids: Part<'b, u32>,
    pub weights: Part<'b, f32>,
}

/// Logits of up to 16 rows, and the choice. The router is F32, F16 or BF16: others' logits are a
/// product's, for [`route_wide`].
pub fn route_small(
    stream: &Stream,
    router: &Router,
    matrix: &Matrix,
    x: Part<'_, f32>,
    choice: &Chosen<'_>,
    to: Routed<'_>,
) -> Result<(), CudaError> {
    const PLACE: &str = "route_small";
    let (experts, hidden) = (matrix.rows as usize, matrix.cols as usize);
    let rows = x.len() / hidden.max(1);
    same(PLACE, "x", x.len(), rows * hidden)?;
    hold(rows <= MOST_ROWS, PLACE, "rows", rows, "at most 16")?;
    hold(
        hidden.is_multiple_of(4),
        PLACE,
        "hidden",
        hidden,
        "a multiple of 4",
    )?;
    let float = [WeightType::F32, WeightType::F16, WeightType::Bf16];
    let is_float = float.iter().any(|&ty| ty as u32 == matrix.ty);
    hold(
        is_float,
        PLACE,
        "the router's type",
        matrix.ty,
        "F32, F16 or BF16",
    )?;
    aligned(PLACE, "x", x.address())?;
    hold(
        router.logits.len() >= rows * experts,
        PLACE,
        "experts",
        experts,
        "as at first",
    )?;
    let mut args = arguments(PLACE, rows, experts, choice, to)?;
    args.router = *matrix;
    args.x = x.address();
    args.logits = router.logits.address();
    args.arrived = router.arrived.address();
    if rows == 0 {
        return Ok(());
    }
    let kernel = stream.device().kernel(PLACE)?;
    let grid = [args.experts.div_ceil(EXPERTS_A_BLOCK), 1, 1];
    // One four of a row to a thread, while that is not too many.
    let threads = matrix
        .cols
        .div_ceil(4)
        .next_multiple_of(32)
        .clamp(64, MOST_THREADS);
    // SAFETY: x has `rows` rows of `hidden`, the rest was checked in `arguments`; the matrix by its
    // word. Logits and the counter are this stream's.
    unsafe { stream.launch(&kernel, grid, threads, 0, Overlap::WithPrevious, &args) }
}

/// The choice from logits `[rows, experts]`.
pub fn route_wide(
    stream: &Stream,
    logits: Part<'_, f32>,
    choice: &Chosen<'_>,
    to: Routed<'_>,
) -> Result<(), CudaError> {
    const PLACE: &str = "route_wide";
    const ROWS_A_BLOCK: u32 = 8;
    let experts = choice.bias.len();
    let rows = logits.len() / experts.max(1);
    same(PLACE, "logits", logits.len(), rows * experts)?;
    let mut args = arguments(PLACE, rows, experts, choice, to)?;
    args.logits = logits.address();
    let kernel = stream.device().kernel(PLACE)?;
    let grid = [args.rows.div_ceil(ROWS_A_BLOCK), 1, 1];
    // SAFETY: logits has `rows` rows of `experts`, the rest was checked in `arguments`.
    unsafe { stream.launch(&kernel, grid, 32 * ROWS_A_BLOCK, 0, Overlap::Alone, &args) }
}

fn arguments(
    place: &'static str,
    rows: usize,
    experts: usize,
    choice: &Chosen<'_>,
    to: Routed<'_>,
) -> Result<RouteArgs, CudaError> {
    let Routing {
        used,
        groups,
        groups_used,
        scale,
    } = choice.routing;
    same(place, "the bias", choice.bias.len(), experts)?;
    hold(
        experts <= MOST_EXPERTS,
        place,
        "experts",
        experts,
        "at most 512",
    )?;
    hold(used <= MOST_USED, place, "used experts", used, "at most 16")?;
    hold(groups <= MOST_GROUPS, place, "groups", groups, "at most 32")?;
    let size = experts / groups.max(1);
    let limited = groups_used < groups;
    let whole = !limited || groups_used > 0 && size * groups == experts;
    hold(
        whole,
        place,
        "experts",
        experts,
        format!("whole groups, {groups_used} of {groups}"),
    )?;
    let open = if limited { size * groups_used } else { experts };
    hold(
        used <= open,
        place,
        "used experts",
        used,
        format!("at most {open}"),
    )?;
    same(place, "ids", to.ids.len(), rows * used)?;
    same(place, "weights", to.weights.len(), rows * used)?;
    let small = |n: usize| n as u32;
    Ok(RouteArgs {
        router: Matrix {
            data: 0,
            ty: 0,
            rows: 0,
            cols: 0,
            row_bytes: 0,
        },
        x: 0,
        bias: choice.bias.address(),
        logits: 0,
        arrived: 0,
        ids: to.ids.address(),
        weights: to.weights.address(),
        rows: count(place, "rows", rows)?,
        experts: small(experts),
        used: small(used),
        groups: small(groups),
        groups_used: small(groups_used),
        scale,
    })
}
