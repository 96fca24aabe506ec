//! The law with tiles of AMX, for many rows of activations and weights of a K type. A weight times
//! its group's scale is a number of 16 bits; its low and its high byte are two tiles, so that the
//! exact sum of a whole block of 256 comes out of the tile unit in two halves and is turned into
//! floats once, thirty-two rows of weights by sixteen of activations at a time.

#[cfg(test)]
mod tests;
mod tiles;
mod unpack;

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::avx512::{Format, Q4K, Q5K, Q6K};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::quant::TensorType;
use tiles::Tiles;
use unpack::unpack;

/// Rows of activations to a tile.
const TOKENS: usize = 16;
/// Tiles of activations that meet a block of weights while it is in the first cache, with their
/// sums.
const STRIPS: usize = 4;
const MOST: usize = STRIPS * TOKENS;
/// Rows of weights to a tile, and how many tiles of them share one of activations.
const ROWS: usize = 16;
const GROUPS: usize = 2;
/// Fewer rows of activations than this do not repay the unpacking to two tiles: measured, the kernel
/// of AVX-512 for many rows is as quick at 32 and quicker below.
const LEAST: usize = 32;

/// Whether [`many`] is the kernel for it: formats of less than four bits have none here.
pub(crate) fn takes(task: &Task<'_>) -> bool {
    let ty = task.matrix.ty();
    task.input.len() >= LEAST && matches!(ty, TensorType::Q4K | TensorType::Q5K | TensorType::Q6K)
}

/// A tile: four values of a row of weights to a word, sixteen words of sixteen rows.
type Tile = [u8; 1024];

/// One block of 256 of [`GROUPS`] x [`ROWS`] rows of weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Weights {
    /// Unsigned low bytes of each 64 values.
    low: [[Tile; 4]; GROUPS],
    /// Signed high bytes.
    high: [[Tile; 4]; GROUPS],
    /// Minima `2 p` and `2 p + 1` of each row.
    mins: [[[[i16; 2]; ROWS]; 4]; GROUPS],
    d: [[f32; ROWS]; GROUPS],
    dmin: [[f32; ROWS]; GROUPS],
}

/// Sums of low and of high bytes: `[group][token][row]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums {
    low: [[[i32; ROWS]; TOKENS]; GROUPS],
    high: [[[i32; ROWS]; TOKENS]; GROUPS],
}

impl Weights {
    const NONE: Weights = Weights {
        low: [[[0; 1024]; 4]; GROUPS],
        high: [[[0; 1024]; 4]; GROUPS],
        mins: [[[[0; 2]; ROWS]; 4]; GROUPS],
        d: [[0.0; ROWS]; GROUPS],
        dmin: [[0.0; ROWS]; GROUPS],
    };
}

impl Sums {
    const NONE: Sums = Sums {
        low: [[[0; ROWS]; TOKENS]; GROUPS],
        high: [[[0; ROWS]; TOKENS]; GROUPS],
    };
}

/// What a worker keeps.
#[derive(Default)]
struct Scratch {
    weights: Vec<Weights>,
    /// Rows of activations that do not follow each other, brought together.
    values: Vec<i8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Who multiplies tiles.
trait Unit {
    /// The sums of a block of 256: token `t`'s values are at `values[t * stride..]`.
    fn multiply(&self, values: &[i8], stride: usize, weights: &Weights, sums: &mut Sums);
}

/// Runs the task, whose weights are of a K type.
///
/// # Safety
/// The processor has the instructions of the tier `amx`, and this process may use tiles.
pub(crate) unsafe fn many(task: &Task<'_>) {
    // SAFETY: the caller's promise.
    let tiles = unsafe { Tiles::configure() };
    // SAFETY: as above; the kind with tiles has the instructions of AVX-512.
    unsafe { by_type(task, &tiles) };
}

/// # Safety
/// The processor has the instructions of the tier `avx512`.
unsafe fn by_type<U: Unit>(task: &Task<'_>, unit: &U) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promise.
        unsafe {
            match task.matrix.ty() {
                TensorType::Q4K => weights::<Q4K, U>(task, unit, scratch),
                TensorType::Q5K => weights::<Q5K, U>(task, unit, scratch),
                _ => weights::<Q6K, U>(task, unit, scratch),
            }
        }
    });
}

/// # Safety
/// The processor has the instructions of the tier `avx512`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn weights<F: Format, U: Unit>(task: &Task<'_>, unit: &U, scratch: &mut Scratch) {
    let blocks = task.matrix.cols() / 256;
    scratch.weights.resize(blocks, Weights::NONE);
    scratch.values.resize(MOST * task.matrix.cols(), 0);
    for first in task.rows.clone().step_by(GROUPS * ROWS) {
        // In the order of memory: the unpacking goes across the rows.
        for row in first..(first + GROUPS * ROWS).min(task.rows.end) {
            for line in task.matrix.row(row).chunks(64) {
                _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
            }
        }
        for (at, weights) in scratch.weights.iter_mut().enumerate() {
            for group in 0..GROUPS {
                let first = first + group * ROWS;
                let rows = task.matrix.rows_from::<ROWS>(first, task.rows.end);
                // SAFETY: the caller's promise; `at` is a block of every row.
                unsafe { unpack::<F>(rows, at, weights, group) };
            }
        }
        let pairs = task.input.chunks(MOST).zip(task.output.chunks(MOST));
        for (input, output) in pairs {
            strips::<F, U>(task, unit, scratch, first, input, output);
        }
    }
}

/// The rows of weights in `scratch`, from `first` on, times up to [`MOST`] rows of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
fn strips<F: Format, U: Unit>(
    task: &Task<'_>,
    unit: &U,
    scratch: &mut Scratch,
    first: usize,
    input: &[u32],
    output: &[u32],
) {
    let activations = task.activations.by_256();
    let cols = task.matrix.cols();
    let row = |t: usize| activations.row(input[t.min(input.len() - 1)] as usize);
    let rows: [_; MOST] = std::array::from_fn(row);
    let follow = input.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let values = if follow && input.len().is_multiple_of(TOKENS) {
        activations.rows_from(input[0] as usize)
    } else {
        let places = scratch.values.chunks_exact_mut(cols.max(1));
        for (values, x) in places.zip(&rows).take(input.len()) {
            values.copy_from_slice(x.values);
        }
        &scratch.values
    };
    let mut a = [[[0f32; ROWS]; GROUPS]; MOST];
    let mut b = [[[0f32; ROWS]; GROUPS]; MOST];
    // A step's sums are folded while the unit is at the next step.
    let mut sums = [Sums::NONE; 2];
    let weights = &scratch.weights[..];
    let strips = input.len().div_ceil(TOKENS);
    let step = |i: usize| (i / strips, i % strips * TOKENS);
    for i in 0..=weights.len() * strips {
        let (at, start) = step(i);
        if let Some(weights) = weights.get(at) {
            let values = &values[start * cols + at * 256..];
            unit.multiply(values, cols, weights, &mut sums[i % 2]);
        }
        if i > 0 {
            let (at, start) = step(i - 1);
            let end = (start + TOKENS).min(input.len());
            let (weights, sums) = (&weights[at], &sums[(i - 1) % 2]);
            let (a, b) = (&mut a[start..end], &mut b[start..end]);
            fold::<F>(weights, sums, at, &rows[start..end], a, b);
        }
    }
    for (t, &output) in output.iter().enumerate() {
        for group in 0..GROUPS {
            let start = first + group * ROWS;
            let rows = start..(start + ROWS).min(task.rows.end);
            if rows.is_empty() {
                continue;
            }
            let pairs = a[t][group].iter().zip(&b[t][group]);
            for (out, (a, b)) in task.target.at(output, rows).iter_mut().zip(pairs) {
                *out = if F::MINS > 0 { a - b } else { *a };
            }
        }
    }
}

/// Adds what block `at` of all rows of weights gives each row of activations.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
#[inline]
fn fold<F: Format>(
    weights: &Weights,
    sums: &Sums,
    at: usize,
    rows: &[QuantizedRow<'_>],
    a: &mut [[[f32; ROWS]; GROUPS]],
    b: &mut [[[f32; ROWS]; GROUPS]],
) {
    let sides = a.iter_mut().zip(b).zip(rows).take(TOKENS);
    for (t, ((a, b), x)) in sides.enumerate() {
        let scale = _mm512_set1_ps(x.scales[at]);
        for group in 0..GROUPS {
            let (low, high) = (&sums.low[group][t], &sums.high[group][t]);
            let high = _mm512_slli_epi32::<8>(integers(high));
            let whole = _mm512_cvtepi32_ps(_mm512_add_epi32(integers(low), high));
            let d = _mm512_mul_ps(floats(&weights.d[group]), scale);
            let a = &mut a[group];
            store(a, _mm512_fmadd_ps(d, whole, floats(a)));
        }
        if F::MINS > 0 {
            let sums = &x.sums_32.as_chunks::<8>().0[at];
            // SAFETY: eight sums are four pairs.
            let pairs = [0, 1, 2, 3]
                .map(|p| unsafe { sums.as_ptr().cast::<i32>().add(p).read_unaligned() });
            let pairs = pairs.map(|pair| _mm512_set1_epi32(pair));
            for group in 0..GROUPS {
                let mut least = _mm512_setzero_si512();
                for (mins, pair) in weights.mins[group].iter().zip(pairs) {
                    // SAFETY: sixteen pairs of 16 bits are one vector.
                    let mins = unsafe { _mm512_loadu_si512(mins.as_ptr().cast()) };
                    least = _mm512_dpwssd_epi32(least, mins, pair);
                }
                let dmin = _mm512_mul_ps(floats(&weights.dmin[group]), scale);
                let b = &mut b[group];
                store(
                    b,
                    _mm512_fmadd_ps(dmin, _mm512_cvtepi32_ps(least), floats(b)),
                );
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn integers(x: &[i32; 16]) -> __m512i {
    // SAFETY: sixteen words are one vector.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn floats(x: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen floats are one vector.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(x: &mut [f32; 16], v: __m512) {
    // SAFETY: sixteen floats are one vector.
    unsafe { _mm512_storeu_ps(x.as_mut_ptr(), v) };
}
