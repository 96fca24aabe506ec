//! Matrices times rows of activations. A call is one job of the pool: its matrices are cut into
//! pieces of rows that take about equally long, and each piece is read once, by one worker.
//!
//! What an output is depends on its row of the matrix and its row of activations alone: see
//! [`super::quantized`] and [`super::floats`] for the order of the operations.

pub(crate) mod task;

use super::activations::{Activations, Form, form_of};
use super::crew::Crew;
use super::math;
use super::matrix::{Matrix, Stack};
use super::share::Shared;
use super::simd::ask_for;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::tier::Kind;
use super::tier::Tier;
use super::{floats, foreign, quantized};
use std::cell::RefCell;
use std::ops::Range;
use task::{Target, Task};

/// One product: `out`, `[T, matrix.rows()]`, is overwritten.
pub struct Product<'w, 'o> {
    pub matrix: Matrix<'w>,
    pub out: &'o mut [f32],
}

/// All of `jobs` with the same input, in one job of the pool.
pub fn products(crew: Crew<'_>, input: &Activations, jobs: &mut [Product<'_, '_>]) {
    for job in &*jobs {
        check("products", input, &job.matrix);
        assert_eq!(job.out.len(), input.rows() * job.matrix.rows(), "products");
    }
    let matrices: Vec<_> = jobs.iter().map(|job| job.matrix).collect();
    let targets: Vec<_> = jobs.iter_mut().map(whole_target).collect();
    let pieces = cut(crew, &matrices, input.rows());
    crew.pool.run_along(pieces.len(), &|piece, _| {
        let (job, rows) = &pieces[piece];
        let task = Task {
            matrix: matrices[*job],
            rows: rows.clone(),
            activations: input,
            input: &input.places,
            output: &input.places,
            target: &targets[*job],
        };
        run(crew.tier, &task);
    });
}

fn whole_target<'j>(job: &'j mut Product<'_, '_>) -> Target<'j> {
    let stride = job.matrix.rows();
    // SAFETY: the only target of this slice; the pieces of `cut` are different rows of its matrix.
    unsafe { Target::new(Shared::new(&mut *job.out), stride, 0) }
}

/// Row `t * heads + h` of the input meets matrix `h`; out: `[T, heads, rows]`, overwritten.
pub fn products_by_head(crew: Crew<'_>, input: &Activations, stack: &Stack<'_>, out: &mut [f32]) {
    let heads = stack.count();
    let tokens = input.rows().checked_div(heads).unwrap_or(0);
    assert_eq!(input.rows(), tokens * heads, "rows of {heads} heads");
    assert_eq!(out.len(), input.rows() * stack.rows(), "products_by_head");
    let matrices: Vec<_> = (0..heads).map(|head| stack.get(head)).collect();
    if let Some(matrix) = matrices.first() {
        check("products_by_head", input, matrix);
    }
    let places: Vec<Vec<u32>> = (0..heads)
        .map(|head| (0..tokens).map(|t| (t * heads + head) as u32).collect())
        .collect();
    // SAFETY: pieces are different rows of a head's matrix, or different heads, whose outputs are
    // different.
    let target = unsafe { Target::new(Shared::new(out), stack.rows(), 0) };
    let pieces = cut(crew, &matrices, tokens);
    crew.pool.run_along(pieces.len(), &|piece, _| {
        let (head, rows) = &pieces[piece];
        let task = Task {
            matrix: matrices[*head],
            rows: rows.clone(),
            activations: input,
            input: &places[*head],
            output: &places[*head],
            target: &target,
        };
        run(crew.tier, &task);
    });
}

/// `out = min(silu(gate x), limit) * clamp(up x, -limit, limit)`, `[T, rows]`, overwritten.
pub fn gate_up(
    crew: Crew<'_>,
    input: &Activations,
    gate: Matrix<'_>,
    up: Matrix<'_>,
    limit: f32,
    out: &mut [f32],
) {
    check("gate_up", input, &gate);
    check("gate_up", input, &up);
    assert_eq!(gate.rows(), up.rows(), "gate_up");
    assert_eq!(out.len(), input.rows() * up.rows(), "gate_up");
    // SAFETY: pieces are different rows of both matrices.
    let target = unsafe { Target::new(Shared::new(out), up.rows(), 0) };
    let pieces = cut(crew, &[up], input.rows());
    crew.pool.run_along(pieces.len(), &|piece, _| {
        let (_, rows) = &pieces[piece];
        let task = Task {
            matrix: up,
            rows: rows.clone(),
            activations: input,
            input: &input.places,
            output: &input.places,
            target: &target,
        };
        gate_up_task(crew.tier, gate, limit, &task);
    });
}

thread_local! {
    /// A worker's gates, and their numbers: a token may meet an expert at several ranks (where a
    /// router gives no numbers), so there can be more of them than tokens.
    static GATES: RefCell<(Vec<f32>, Vec<u32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// `task` is `up`'s. `gate` has its shape; types may differ.
pub(crate) fn gate_up_task(tier: Tier, gate: Matrix<'_>, limit: f32, task: &Task<'_>) {
    ask_for_head(&gate, task.rows.start);
    run(tier, task);
    let (width, count) = (task.rows.len(), task.input.len());
    GATES.with_borrow_mut(|(gates, places)| {
        places.extend(places.len() as u32..count as u32);
        gates.resize(gates.len().max(width * count), 0.0);
        // SAFETY: this thread's own.
        let target = unsafe { Target::new(Shared::new(&mut gates[..]), width, task.rows.start) };
        let own = Task {
            matrix: gate,
            output: &places[..count],
            target: &target,
            ..task.clone()
        };
        run(tier, &own);
        let pairs = gates.chunks_exact(width.max(1)).zip(task.output);
        for (gates, &output) in pairs {
            let ups = task.target.at(output, task.rows.clone());
            math::silu_mul(tier, gates, ups, limit);
        }
    });
}

pub(crate) fn check(what: &str, input: &Activations, matrix: &Matrix<'_>) {
    let (got, wanted) = (input.cols(), matrix.cols());
    assert!(
        got == wanted || input.rows() == 0,
        "{what}: {got} columns, wanted {wanted}"
    );
}

/// Rows of a piece are a multiple of this, the last piece's apart: the tiles' height.
pub(crate) const STEP: usize = 32;
/// Bytes of weights that are worth a piece: some 20 µs of one core's share of the memory.
const BYTES: usize = 192 << 10;
/// Multiply-adds that are.
const WORK: usize = 4 << 20;

/// How many rows of a matrix, which meet `tokens` rows of activations, make a piece.
pub(crate) fn piece_rows(
    crew: Crew<'_>,
    matrix: &Matrix<'_>,
    tokens: usize,
    share: usize,
) -> usize {
    let by_bytes = BYTES / matrix.row_bytes().max(1);
    let by_work = WORK / (matrix.cols() * tokens).max(1);
    // Four pieces to a worker at least, so that they end together.
    let by_threads = share / (4 * crew.pool.threads());
    let most = by_bytes.min(by_work).min(by_threads);
    (most / STEP * STEP).max(STEP)
}

/// Pieces: a matrix and rows of it.
fn cut(crew: Crew<'_>, matrices: &[Matrix<'_>], tokens: usize) -> Vec<(usize, Range<usize>)> {
    if tokens == 0 {
        return Vec::new();
    }
    let all = matrices.iter().map(Matrix::rows).sum();
    let mut pieces = Vec::new();
    for (at, matrix) in matrices.iter().enumerate() {
        let step = piece_rows(crew, matrix, tokens, all);
        let starts = (0..matrix.rows()).step_by(step);
        pieces.extend(starts.map(|start| (at, start..matrix.rows().min(start + step))));
    }
    pieces
}

/// Bytes of a task's weights that its kernel reads before it has asked for any.
const HEAD: usize = 4096;

/// Asks for what the task after this one reads first. Kernels ask for a page ahead of where they
/// are, so without it the beginning of every matrix would be waited for.
pub(crate) fn ask_for_head(matrix: &Matrix<'_>, row: usize) {
    let weights = matrix.rows_behind(row);
    ask_for(&weights[..weights.len().min(HEAD)]);
}

/// Runs a task with the instructions of `tier`.
pub(crate) fn run(tier: Tier, task: &Task<'_>) {
    if task.rows.is_empty() {
        return;
    }
    assert_eq!(task.input.len(), task.output.len());
    assert_eq!(task.activations.cols(), task.matrix.cols());
    let form = form_of(task.matrix.ty());
    match (form, tier.kind()) {
        (Form::Plain, _) => floats::run(tier, task),
        #[cfg(target_arch = "x86_64")]
        (Form::By256 | Form::By32, Kind::Avx2) => {
            // SAFETY: the tier's instructions are here.
            unsafe { quantized::avx2::run(task) }
        }
        #[cfg(target_arch = "x86_64")]
        (Form::By256, Kind::Amx) if quantized::amx::takes(task) => {
            // SAFETY: as above.
            unsafe { quantized::amx::many(task) }
        }
        #[cfg(target_arch = "x86_64")]
        (Form::By256 | Form::By32, Kind::Avx512 | Kind::Amx) => {
            // SAFETY: as above; the kind with tiles has those of AVX-512.
            unsafe {
                if task.input.len() <= quantized::avx512::pays_for(form) {
                    quantized::avx512::few(task);
                } else {
                    quantized::tile512::many(task);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        (Form::By256 | Form::By32, kind @ (Kind::Neon | Kind::NeonDot | Kind::NeonI8mm)) => {
            // SAFETY: as above.
            unsafe { quantized::neon::run(kind, task) }
        }
        (Form::By256, _) => quantized::scalar::by_256(task),
        (Form::By32, _) => quantized::scalar::by_32(task),
        (Form::Foreign, _) => run_foreign(task),
    }
}

fn run_foreign(task: &Task<'_>) {
    let (ty, cols) = (task.matrix.ty(), task.matrix.cols());
    for row in task.rows.clone() {
        let weights = task.matrix.row(row);
        for (&input, &output) in task.input.iter().zip(task.output) {
            let x = task.activations.foreign(ty, input as usize);
            task.target.at(output, row..row + 1)[0] = foreign::dot(ty, cols, weights, x);
        }
    }
}
