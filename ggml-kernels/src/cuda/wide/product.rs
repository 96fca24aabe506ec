//! Products of the same rows with several matrices.

use half::f16;

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::WeightType;
use super::tile::{Card, Met, choose};
use super::{Job, Mode, WideMatrix, WideRows, count, gated_job, hold, output};

const MOST_JOBS: usize = 8;

/// Rows and columns of a block of `wide_plain`.
pub(super) const PLAIN: u32 = 64;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ProductArgs {
    x: u64,
    jobs: [Job; MOST_JOBS],
    rows: u32,
    cols: u32,
    stride: u32,
    count: u32,
}
// SAFETY: numbers without gaps: 8 bytes, jobs of 80, four of 4.
unsafe impl Plain for ProductArgs {}

/// What becomes of a product.
#[derive(Debug, Clone, Copy)]
pub enum WideTo<'b> {
    Store(Part<'b, f32>),
    Add(Part<'b, f32>),
    F16(Part<'b, f16>),
}

/// A product of the rows: `[rows, rows of the matrix]`, rows `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct WideJob<'b> {
    pub matrix: WideMatrix<'b>,
    pub to: WideTo<'b>,
    pub stride: usize,
}

/// `min(silu(gate x), limit) * clamp(up x, -limit, limit)`: `[rows, rows of gate]` in each form asked for.
/// `limit` is infinite where there is none.
#[derive(Debug, Clone, Copy)]
pub struct WideGateUp<'b> {
    pub gate: WideMatrix<'b>,
    pub up: WideMatrix<'b>,
    pub limit: f32,
    pub f16: Option<Part<'b, f16>>,
    pub f32: Option<Part<'b, f32>>,
    pub stride: usize,
}

/// Every job's product, in one launch (two, where there are F32 matrices and others). Up to 8.
pub fn wide_products(
    stream: &Stream,
    input: &WideRows<'_>,
    jobs: &[WideJob<'_>],
) -> Result<(), CudaError> {
    const PLACE: &str = "wide_products";
    hold(
        jobs.len() <= MOST_JOBS,
        PLACE,
        "products at once",
        jobs.len(),
        "at most 8",
    )?;
    let made = jobs
        .iter()
        .map(|job| Ok((made(input, job)?, job.matrix.ty)));
    let made = made.collect::<Result<Vec<_>, CudaError>>()?;
    for plain in [false, true] {
        let those = made
            .iter()
            .filter(|(_, ty)| (*ty == WeightType::F32) == plain);
        let (jobs, types): (Vec<Job>, Vec<WeightType>) = those.copied().unzip();
        launch(stream, PLACE, input, &jobs, &types, plain)?;
    }
    Ok(())
}

/// Gate and up of one expert, which all rows use.
pub fn wide_gate_up(
    stream: &Stream,
    input: &WideRows<'_>,
    to: &WideGateUp<'_>,
) -> Result<(), CudaError> {
    const PLACE: &str = "wide_gate_up";
    let job = gated_job(
        PLACE,
        (to.gate, to.up),
        to.limit,
        (to.f16, to.f32),
        (input.rows, to.stride),
    )?;
    let plain = to.gate.ty == WeightType::F32;
    launch(stream, PLACE, input, &[job], &[to.gate.ty, to.up.ty], plain)
}

fn made(input: &WideRows<'_>, job: &WideJob<'_>) -> Result<Job, CudaError> {
    const PLACE: &str = "wide_products";
    let matrix = job.matrix.matrix;
    let (rows, cols, stride) = (input.rows, matrix.rows as usize, job.stride);
    let (mode, out, out_f16) = match job.to {
        WideTo::Store(to) => (Mode::Store, Some(to), None),
        WideTo::Add(to) => (Mode::Add, Some(to), None),
        WideTo::F16(to) => (Mode::StoreF16, None, Some(to)),
    };
    if let Some(to) = out {
        output(PLACE, &to, rows, cols, stride)?;
    }
    if let Some(to) = out_f16 {
        output(PLACE, &to, rows, cols, stride)?;
    }
    Ok(Job {
        w: matrix,
        up: matrix,
        out: out.map_or(0, |to| to.address()),
        out_f16: out_f16.map_or(0, |to| to.address()),
        mode: mode as u32,
        stride: count(PLACE, "a result's stride", stride)?,
        first_tile: 0,
        limit: f32::INFINITY,
    })
}

/// Jobs whose results have room (checked), all F32 or none.
fn launch(
    stream: &Stream,
    place: &'static str,
    input: &WideRows<'_>,
    jobs: &[Job],
    types: &[WeightType],
    plain: bool,
) -> Result<(), CudaError> {
    let Some(&first) = jobs.first() else {
        return Ok(());
    };
    let mut args = ProductArgs {
        x: input.address(place, plain)?,
        jobs: [first; MOST_JOBS],
        rows: count(place, "rows", input.rows)?,
        cols: count(place, "a row's length", input.cols)?,
        stride: count(place, "the rows' stride", input.stride)?,
        count: jobs.len() as u32,
    };
    for job in jobs {
        let got = job.w.cols;
        hold(
            got == args.cols,
            place,
            "a matrix's columns",
            got,
            args.cols,
        )?;
    }
    let is_mixed = first.mode == Mode::Gated as u32 && first.w.ty != first.up.ty;
    let wide = |job: &Job| job.w.rows * if job.mode == Mode::Gated as u32 { 2 } else { 1 };
    let columns = jobs.iter().map(wide).fold(0, u32::saturating_add);
    let device = stream.device();
    let (name, [height, width], threads, shared) = if plain {
        ("wide_plain", [PLAIN; 2], 256, 0)
    } else {
        let met = Met { types, is_mixed };
        let tile = choose((args.rows, columns), Card::of(device), met);
        let shape = [tile.rows, tile.columns];
        (tile.name, shape, tile.threads, tile.shared(met))
    };
    let mut tiles = 0;
    for (to, job) in args.jobs.iter_mut().zip(jobs) {
        *to = Job {
            first_tile: tiles,
            ..*job
        };
        tiles += wide(job).div_ceil(width);
    }
    hold(tiles <= 65535, place, "columns", columns, "fewer")?;
    let kernel = device.kernel(name)?;
    let grid = [args.rows.div_ceil(height), tiles, 1];
    // SAFETY: `rows` rows of `cols` are in the input, matrices have as many columns and all their rows, and
    // results have room for `rows` rows (all checked); blocks past the last row or column store nothing.
    unsafe { stream.launch(&kernel, grid, threads, shared, Overlap::WithPrevious, &args) }
}
