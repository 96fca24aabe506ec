//! Norms of rows, and rows as products take them.

use half::f16;

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::Acts;
use super::{MOST_ROWS, aligned, count, hold, same};

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RowsArgs {
    x: u64,
    weight: u64,
    y: u64,
    q: u64,
    d: u64,
    s: u64,
    h: u64,
    rows: u32,
    n: u32,
    eps: f32,
    pad: u32,
}
// SAFETY: numbers without gaps: seven of 8 bytes, four of 4.
unsafe impl Plain for RowsArgs {}

/// Where rows go, each form that is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct To<'b> {
    /// 8 bits with scales and sums; its `x` too, where that is not 0.
    pub acts: Option<Acts>,
    pub f32: Option<Part<'b, f32>>,
    pub f16: Option<Part<'b, f16>>,
}

/// `x / sqrt(mean(x^2) + eps) * weight` of every row; a row is as long as `weight`, a multiple of 32.
pub fn norm_rows(
    stream: &Stream,
    x: Part<'_, f32>,
    weight: Part<'_, f32>,
    eps: f32,
    to: &To<'_>,
) -> Result<(), CudaError> {
    let mut args = arguments("norm_rows", x, weight.len(), to)?;
    aligned("norm_rows", "weight", weight.address())?;
    (args.weight, args.eps) = (weight.address(), eps);
    launch(stream, "norm_rows", &args)
}

/// Rows of `n` values, a multiple of 32, as they are.
pub fn quantize_rows(
    stream: &Stream,
    x: Part<'_, f32>,
    n: usize,
    to: &To<'_>,
) -> Result<(), CudaError> {
    let args = arguments("quantize_rows", x, n, to)?;
    launch(stream, "quantize_rows", &args)
}

fn arguments(
    place: &'static str,
    x: Part<'_, f32>,
    n: usize,
    to: &To<'_>,
) -> Result<RowsArgs, CudaError> {
    let whole = n > 0 && n.is_multiple_of(32);
    hold(whole, place, "a row's length", n, "a multiple of 32")?;
    let rows = x.len() / n;
    same(place, "x", x.len(), rows * n)?;
    let mut args = RowsArgs {
        x: x.address(),
        weight: 0,
        y: 0,
        q: 0,
        d: 0,
        s: 0,
        h: 0,
        rows: count(place, "rows", rows)?,
        n: count(place, "a row's length", n)?,
        eps: 0.0,
        pad: 0,
    };
    if let Some(acts) = to.acts {
        same(place, "the 8-bit rows", acts.rows as usize, rows)?;
        same(place, "the 8-bit rows' length", acts.cols as usize, n)?;
        (args.y, args.q, args.d, args.s) = (acts.x, acts.q, acts.d, acts.s);
    }
    if let Some(y) = to.f32 {
        hold(args.y == 0, place, "rows of f32", "two places", "one")?;
        same(place, "the rows of f32", y.len(), x.len())?;
        args.y = y.address();
    }
    if let Some(h) = to.f16 {
        same(place, "the rows of f16", h.len(), x.len())?;
        args.h = h.address();
    }
    for (what, address) in [("x", args.x), ("y", args.y), ("q", args.q), ("f16", args.h)] {
        aligned(place, what, address)?;
    }
    Ok(args)
}

fn launch(stream: &Stream, name: &'static str, args: &RowsArgs) -> Result<(), CudaError> {
    let kernel = stream.device().kernel(name)?;
    // A thread has four values; the whole row at once where it fits.
    let threads = (args.n / 4).next_multiple_of(32).min(1024);
    let grid = [args.rows, 1, 1];
    // As the kernels let go: many rows lie on the card alone.
    let overlap = if args.rows as usize <= MOST_ROWS {
        Overlap::WithPrevious
    } else {
        Overlap::Alone
    };
    // SAFETY: `rows` rows of `n` are in x and in every form (checked; in `Acts` by its word), the
    // weight has `n`.
    unsafe { stream.launch(&kernel, grid, threads, 0, overlap, args) }
}
