//! The law with AVX-512 and VNNI for a few rows of activations: four rows of weights at a time, read
//! once and in the order of memory, every vector of integers summed across. `formats` and `low` have blocks of
//! 256 in registers, `by_256` and `by_32` how four rows of either kind meet the activations.

mod by_256;
mod by_32;
mod formats;
mod low;

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::amd::{is_zen_4, is_zen_5};
use crate::cpu::activations::{Form, QuantizedRow};
use crate::cpu::aligned::Floats;
use crate::cpu::products::task::Task;
use crate::quant::TensorType;
pub(super) use by_32::{Format32, Q4_0, Q8_0};
pub(super) use formats::{Format, Q4K, Q5K, Q6K};
pub(super) use low::{Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K};

/// Rows of weights at a time.
const ROWS: usize = 4;
/// Rows of activations at a time.
const MOST: usize = 8;

/// Up to how many rows of activations [`few`] is faster than unpacking panels of weights. Sums across
/// cost shuffles, panels memory and more of them: which is dearer is the processor's, and measured on
/// Zen 4 and Zen 5. The bits are the same.
pub(crate) fn pays_for(form: Form) -> usize {
    match form {
        Form::By256 if is_zen_5() => 8,
        Form::By256 if is_zen_4() => 4,
        Form::By256 => 2,
        _ if is_zen_5() => 2,
        _ => 4,
    }
}

/// Runs the task. Every row of weights is read once for each [`MOST`] rows of activations.
///
/// # Safety
/// The processor has the instructions of the tier `avx512`.
pub(crate) unsafe fn few(task: &Task<'_>) {
    // SAFETY: the caller's promise, here and below.
    unsafe {
        match task.matrix.ty() {
            TensorType::Q4K => each_few::<Q4K>(task),
            TensorType::Q5K => each_few::<Q5K>(task),
            TensorType::Q6K => each_few::<Q6K>(task),
            TensorType::Q2K => each_few::<Q2K>(task),
            TensorType::Q3K => each_few::<Q3K>(task),
            TensorType::Iq2Xxs => each_few::<Iq2Xxs>(task),
            TensorType::Iq2Xs => each_few::<Iq2Xs>(task),
            TensorType::Iq2S => each_few::<Iq2S>(task),
            TensorType::Iq3Xxs => each_few::<Iq3Xxs>(task),
            TensorType::Iq3S => each_few::<Iq3S>(task),
            TensorType::Q8_0 => each_few::<Q8_0>(task),
            _ => each_few::<Q4_0>(task),
        }
    }
}

/// A format, or rather how four of its rows meet `C` rows of activations.
trait Few {
    /// # Safety
    /// The processor has the instructions of the tier, and the rows of both sides have the same
    /// number of whole blocks; [`ROOM`] bytes from `room` on are the kernel's, aligned for vectors.
    /// Must be inlined into a function with the instructions.
    unsafe fn dots<const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
        room: *mut f32,
    ) -> [__m128; C];

    /// Row `at` of the activations in this format's form.
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x>;
}

thread_local! {
    /// A worker's [`Partial`]s, which lie apart from its stack: there are many of them.
    static PARTS: RefCell<Floats> = RefCell::new(Floats::zeroed(ROOM / size_of::<f32>()));
}

unsafe fn each_few<F: Few>(task: &Task<'_>) {
    // As many rows at a time as make equal groups.
    let turns = task.input.len().div_ceil(MOST).max(1);
    let size = task.input.len().div_ceil(turns).max(1);
    let pairs = task.input.chunks(size).zip(task.output.chunks(size));
    PARTS.with_borrow_mut(|room| {
        let room = room.as_mut_ptr();
        for (input, output) in pairs {
            // SAFETY: the caller's promise.
            unsafe {
                match input.len() {
                    1 => groups::<F, 1>(task, input, output, room),
                    2 => groups::<F, 2>(task, input, output, room),
                    3 => groups::<F, 3>(task, input, output, room),
                    4 => groups::<F, 4>(task, input, output, room),
                    5 => groups::<F, 5>(task, input, output, room),
                    6 => groups::<F, 6>(task, input, output, room),
                    7 => groups::<F, 7>(task, input, output, room),
                    _ => groups::<F, 8>(task, input, output, room),
                }
            }
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")]
unsafe fn groups<F: Few, const C: usize>(
    task: &Task<'_>,
    input: &[u32],
    output: &[u32],
    room: *mut f32,
) {
    let x: [_; C] = std::array::from_fn(|c| F::row(task, input[c] as usize));
    let mut first = task.rows.start;
    while first < task.rows.end {
        let count = ROWS.min(task.rows.end - first);
        let rows = task.matrix.rows_from::<ROWS>(first, task.rows.end);
        // SAFETY: the caller's promise; a matrix's rows and the activations' have `cols` values.
        let dots = unsafe { F::dots::<C>(rows, x, room) };
        for (c, dots) in dots.iter().enumerate() {
            let out = task.target.at(output[c], first..first + count);
            let mut values = [0f32; ROWS];
            // SAFETY: four floats.
            unsafe { _mm_storeu_ps(values.as_mut_ptr(), *dots) };
            out.copy_from_slice(&values[..count]);
        }
        first += count;
    }
}

/// Bytes of what waits to be summed across, of four rows or of a run of their blocks: most of the
/// nearest cache, so that eight rows of activations meet whole rows of a model's width.
const ROOM: usize = 36 << 10;

/// Asks for the line at `at + ahead`. It need not exist.
#[inline(always)]
fn ask(at: *const u8, ahead: isize) {
    // SAFETY: asking for a line reads nothing and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_offset(ahead).cast()) };
}

/// Across: the sum of the lanes of each.
#[inline(always)]
unsafe fn sums_256(v: [__m256i; 4]) -> __m128i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let pair =
            |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (a, b) = (pair(v[0], v[1]), pair(v[2], v[3]));
        let t = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256::<1>(t))
    }
}

/// In each quarter of the result, the sums of that quarter of each.
#[inline(always)]
unsafe fn quarters(v: [__m512i; 4]) -> __m512i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let pair =
            |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (a, b) = (pair(v[0], v[1]), pair(v[2], v[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    }
}

#[inline(always)]
unsafe fn sums_128(v: [__m128i; 4]) -> __m128i {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let pair = |a, b| _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
        let (a, b) = (pair(v[0], v[1]), pair(v[2], v[3]));
        _mm_add_epi32(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b))
    }
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
