//! The law with AVX2: four rows of weights at a time, unpacked once for up to four rows of
//! activations, every vector of integers summed across. `formats` and `low` have blocks of 256 in
//! registers, `by_256` and `by_32` how four rows of either kind meet the activations.

mod by_256;
mod by_32;
mod formats;
mod low;

use std::arch::x86_64::*;

use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::quant::TensorType;
use by_32::{Q4_0, Q8_0};
use formats::{Q4K, Q5K, Q6K};
use low::{Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K};

/// Rows of weights at a time.
const ROWS: usize = 4;
/// Rows of activations at a time.
const MOST: usize = 4;

/// Runs the task.
///
/// # Safety
/// The processor has the instructions of the tier `avx2`.
pub(crate) unsafe fn run(task: &Task<'_>) {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        match task.matrix.ty() {
            TensorType::Q4K => each::<Q4K>(task),
            TensorType::Q5K => each::<Q5K>(task),
            TensorType::Q6K => each::<Q6K>(task),
            TensorType::Q2K => each::<Q2K>(task),
            TensorType::Q3K => each::<Q3K>(task),
            TensorType::Iq2Xxs => each::<Iq2Xxs>(task),
            TensorType::Iq2Xs => each::<Iq2Xs>(task),
            TensorType::Iq2S => each::<Iq2S>(task),
            TensorType::Iq3Xxs => each::<Iq3Xxs>(task),
            TensorType::Iq3S => each::<Iq3S>(task),
            TensorType::Q8_0 => each::<Q8_0>(task),
            _ => each::<Q4_0>(task),
        }
    }
}

/// How four rows of a format meet `C` rows of activations.
trait Dots {
    /// # Safety
    /// The processor has the instructions of the tier, and the rows of both sides have the same
    /// number of whole blocks. Must be inlined into a function with them.
    unsafe fn dots<const C: usize>(rows: [&[u8]; ROWS], x: [QuantizedRow<'_>; C]) -> [__m128; C];

    /// Row `at` of the activations in this format's form.
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x>;
}

unsafe fn each<F: Dots>(task: &Task<'_>) {
    let mut first = task.rows.start;
    // Four rows of weights stay in the nearest cache while all activations pass by.
    while first < task.rows.end {
        let end = (first + ROWS).min(task.rows.end);
        let pairs = task.input.chunks(MOST).zip(task.output.chunks(MOST));
        for (input, output) in pairs {
            // SAFETY: the caller's promise.
            unsafe {
                match input.len() {
                    1 => group::<F, 1>(task, first, end, input, output),
                    2 => group::<F, 2>(task, first, end, input, output),
                    3 => group::<F, 3>(task, first, end, input, output),
                    _ => group::<F, 4>(task, first, end, input, output),
                }
            }
        }
        first = end;
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn group<F: Dots, const C: usize>(
    task: &Task<'_>,
    first: usize,
    end: usize,
    input: &[u32],
    output: &[u32],
) {
    let x: [_; C] = std::array::from_fn(|c| F::row(task, input[c] as usize));
    let rows = task.matrix.rows_from::<ROWS>(first, end);
    // SAFETY: the caller's promise; a matrix's rows and the activations' have `cols` values.
    let dots = unsafe { F::dots::<C>(rows, x) };
    for (c, dots) in dots.iter().enumerate() {
        let out = task.target.at(output[c], first..end);
        let mut values = [0f32; ROWS];
        // SAFETY: four floats.
        unsafe { _mm_storeu_ps(values.as_mut_ptr(), *dots) };
        out.copy_from_slice(&values[..end - first]);
    }
}

/// How far ahead four rows in blocks of 32 that take turns are asked for. Of short rows, whole fours of them beyond the
/// end of a page, where the processor itself does not look; long ones are four streams.
pub(super) fn ahead(row: usize) -> usize {
    const PAGE: usize = 4096;
    const LONG: usize = 1024;
    let four = (ROWS * row).max(1);
    if row < PAGE {
        PAGE.div_ceil(four) * four
    } else {
        LONG
    }
}

/// Asks for the line at `at + ahead`. It need not exist.
#[inline(always)]
fn ask(at: *const u8, ahead: usize) {
    // SAFETY: asking for a line reads nothing and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(ahead).cast()) };
}

/// Across: the sum of the lanes of each.
#[inline(always)]
unsafe fn sums(v: [__m256i; 4]) -> __m128i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let (a, b) = (_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3]));
        let t = _mm256_hadd_epi32(a, b);
        _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256::<1>(t))
    }
}

#[inline(always)]
unsafe fn sums_128(v: [__m128i; 4]) -> __m128i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe { _mm_hadd_epi32(_mm_hadd_epi32(v[0], v[1]), _mm_hadd_epi32(v[2], v[3])) }
}

/// Four pairs of halves, one to a row: the first of each, the second of each.
#[inline(always)]
unsafe fn scale_pairs(pairs: [u32; 4]) -> (__m128, __m128) {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let [a, b, c, d] = pairs.map(|p| p as i32);
        let v = _mm256_cvtph_ps(_mm_setr_epi32(a, b, c, d));
        let (low, high) = (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        (
            _mm_shuffle_ps::<0x88>(low, high),
            _mm_shuffle_ps::<0xdd>(low, high),
        )
    }
}
