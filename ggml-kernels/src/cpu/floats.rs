//! Products with weights in `f32`, `f16` and `bf16`. The law, for every tier and any number of rows:
//! lane `i` of sixteen adds the products of the columns `i`, `i + 16`, ... by `fma`, each weight
//! widened exactly; then the lanes are summed as [`Simd::sum`] does. Columns past the end are zeros.

use super::products::task::Task;
use super::simd::{Body, LANES, Simd, dispatch};
use super::tier::Tier;
use crate::quant::TensorType;

/// Rows of weights and of activations at a time.
const ROWS: usize = 4;
/// Bytes that memory is read by.
const LINE: usize = 64;

pub(crate) fn run(tier: Tier, task: &Task<'_>) {
    match task.matrix.ty() {
        TensorType::F32 => dispatch(tier, Dots::<4> { task }),
        TensorType::F16 => dispatch(tier, Dots::<0> { task }),
        _ => dispatch(tier, Dots::<1> { task }),
    }
}

/// `KIND`: 4 for `f32`, 0 for `f16`, 1 for `bf16`.
struct Dots<'t, const KIND: u8> {
    task: &'t Task<'t>,
}

impl<const KIND: u8> Body for Dots<'_, KIND> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let task = self.task;
        let mut first = task.rows.start;
        while first < task.rows.end {
            let end = (first + ROWS).min(task.rows.end);
            let pairs = task.input.chunks(2).zip(task.output.chunks(2));
            for (input, output) in pairs {
                match *input {
                    [a, b] => group::<S, KIND, 2>(s, task, first, end, [a, b], output),
                    [a, ..] => group::<S, KIND, 1>(s, task, first, end, [a], output),
                    [] => {}
                }
            }
            first = end;
        }
    }
}

#[inline(always)]
fn group<S: Simd, const KIND: u8, const C: usize>(
    s: S,
    task: &Task<'_>,
    first: usize,
    end: usize,
    input: [u32; C],
    output: &[u32],
) {
    let rows = task.matrix.rows_from::<ROWS>(first, end);
    // Four rows take turns, which hides from the processor what is read next.
    let next = task.matrix.rows_from::<ROWS>(first + ROWS, task.rows.end);
    let size = task.matrix.ty().type_size();
    let x = input.map(|at| task.activations.plain(at as usize));
    let cols = task.matrix.cols();
    let mut sums = [[s.splat(0.0); ROWS]; C];
    let whole = cols / LANES * LANES;
    let mut at = 0;
    while at < whole {
        // Without closures: see `quantized`.
        let mut x_now = [s.splat(0.0); C];
        for c in 0..C {
            x_now[c] = s.load(x[c][at..at + LANES].try_into().expect("sixteen"));
        }
        for r in 0..ROWS {
            if (at * size).is_multiple_of(LINE) {
                s.prefetch(&next[r][at * size..]);
            }
            let w = widen::<S, KIND>(s, rows[r], at);
            for c in 0..C {
                sums[c][r] = s.fma(w, x_now[c], sums[c][r]);
            }
        }
        at += LANES;
    }
    if whole < cols {
        let mut x_rest = [s.splat(0.0); C];
        for c in 0..C {
            let mut all = [0.0; LANES];
            all[..cols - whole].copy_from_slice(&x[c][whole..cols]);
            x_rest[c] = s.load(&all);
        }
        for r in 0..ROWS {
            let mut bytes = [0u32; LANES];
            let rest = &rows[r][whole * size..];
            // SAFETY: sixteen words are 64 bytes, at an address that suits every weight.
            let bytes = unsafe {
                let bytes = std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<u8>(), 64);
                bytes[..rest.len()].copy_from_slice(rest);
                &*bytes
            };
            let w = widen::<S, KIND>(s, bytes, 0);
            for c in 0..C {
                sums[c][r] = s.fma(w, x_rest[c], sums[c][r]);
            }
        }
    }
    for (sums, &output) in sums.into_iter().zip(output) {
        let out = task.target.at(output, first..end);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = s.sum(sum);
        }
    }
}

/// Sixteen weights from column `at` on.
#[inline(always)]
fn widen<S: Simd, const KIND: u8>(s: S, row: &[u8], at: usize) -> S::V {
    if KIND == 4 {
        let bytes = &row[at * 4..(at + LANES) * 4];
        // SAFETY: sixteen floats; `Matrix::new` checked their address.
        unsafe { s.read(bytes.as_ptr().cast()) }
    } else {
        let halves = row[at * 2..(at + LANES) * 2].try_into().expect("32 bytes");
        if KIND == 0 {
            s.halves(halves)
        } else {
            s.bhalves(halves)
        }
    }
}
