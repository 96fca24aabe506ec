//! Several matrices that share their input, in one launch.

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::{Acts, Matrix, Stack};
use super::plan::{Card, Size, plan};
use super::{NO_MATRIX, check_cols, check_input, hold, same};

/// Matrices of a launch.
pub const MOST_JOBS: usize = 8;

/// One of the matrices, and where its products go.
#[derive(Debug, Clone, Copy)]
pub struct Job<'b> {
    /// A single one.
    pub matrix: &'b Stack,
    /// A row every `stride` values, each as long as the matrix has rows.
    pub out: Part<'b, f32>,
    pub stride: usize,
    /// To what is there, instead of in its place.
    pub add: bool,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct JobArgs {
    matrix: Matrix,
    out: u64,
    stride: u32,
    add: u32,
    first_block: u32,
    blocks: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ProductsArgs {
    jobs: [JobArgs; MOST_JOBS],
    input: Acts,
    count: u32,
    splits: u32,
    share: u32,
    shift: u32,
}
// SAFETY: numbers without gaps: 8 jobs of 24 + 8 + 16 bytes, 40 bytes of Acts, four of 4.
unsafe impl Plain for ProductsArgs {}

const PLACE: &str = "products";

/// Products of every row of `input` with every matrix of `jobs`.
pub fn products(stream: &Stream, input: &Acts, jobs: &[Job<'_>]) -> Result<(), CudaError> {
    check_input(PLACE, input)?;
    hold(
        jobs.len() <= MOST_JOBS,
        PLACE,
        "matrices",
        jobs.len(),
        "at most 8",
    )?;
    for job in jobs {
        check(input, job)?;
    }
    if input.rows == 0 || jobs.is_empty() {
        return Ok(());
    }
    let device = stream.device();
    let card = Card {
        multiprocessors: device.multiprocessors(),
        shared: device.shared_memory(),
    };
    let sizes: Vec<Size> = jobs.iter().map(|job| size(job.matrix)).collect();
    let plan = plan(&sizes, input.rows, input.cols, card);
    let mut args = ProductsArgs {
        jobs: [NO_JOB; MOST_JOBS],
        input: *input,
        count: jobs.len() as u32,
        splits: plan.splits,
        share: plan.share,
        shift: plan.batch.ilog2(),
    };
    let mut first_block = 0;
    for ((to, job), &blocks) in args.jobs.iter_mut().zip(jobs).zip(&plan.blocks) {
        *to = JobArgs {
            matrix: job.matrix.matrix(),
            out: job.out.address(),
            stride: job.stride as u32,
            add: job.add.into(),
            first_block,
            blocks,
        };
        first_block += blocks;
    }
    let kernel = device.kernel(plan.kernel)?;
    let grid = [plan.grid, input.rows.div_ceil(plan.batch), 1];
    // SAFETY: every matrix has its rows of `input.cols`, every `out` `input.rows` rows of as many values as its
    // matrix has rows (checked); the input is there by its word.
    unsafe {
        stream.launch(
            &kernel,
            grid,
            plan.warps * 32,
            plan.shared,
            Overlap::WithPrevious,
            &args,
        )
    }
}

fn check(input: &Acts, job: &Job<'_>) -> Result<(), CudaError> {
    let n = job.matrix.rows();
    check_cols(PLACE, job.matrix, input.cols)?;
    same(PLACE, "matrices of a job", job.matrix.count(), 1)?;
    let apart = job.stride >= n && u32::try_from(job.stride).is_ok();
    hold(
        apart,
        PLACE,
        "values to a row",
        job.stride,
        format!("{n} at least"),
    )?;
    let rows = input.rows as usize;
    let wanted = if rows == 0 {
        0
    } else {
        (rows - 1) * job.stride + n
    };
    let got = job.out.len();
    hold(
        got >= wanted,
        PLACE,
        "values of out",
        got,
        format!("{wanted} at least"),
    )
}

fn size(matrix: &Stack) -> Size {
    Size {
        ty: matrix.ty(),
        rows: matrix.rows() as u32,
    }
}

const NO_JOB: JobArgs = JobArgs {
    matrix: NO_MATRIX,
    out: 0,
    stride: 0,
    add: 0,
    first_block: 0,
    blocks: 0,
};
