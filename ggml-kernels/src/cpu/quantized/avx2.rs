//! The law with AVX2: four rows of weights at a time, unpacked once for up to four rows of
//! activations, every vector of integers summed across.

use std::arch::x86_64::*;

use super::low2::{Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs, Q2K, Q3K};
use super::unpack::scales_and_mins;
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::quant::TensorType;

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
    unsafe fn dots<const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
        ahead: usize,
    ) -> [__m128; C];

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
    let ahead = ahead(task.matrix.row_bytes());
    // SAFETY: the caller's promise; a matrix's rows and the activations' have `cols` values.
    let dots = unsafe { F::dots::<C>(rows, x, ahead) };
    for (c, dots) in dots.iter().enumerate() {
        let out = task.target.at(output[c], first..end);
        let mut values = [0f32; ROWS];
        // SAFETY: four floats.
        unsafe { _mm_storeu_ps(values.as_mut_ptr(), *dots) };
        out.copy_from_slice(&values[..end - first]);
    }
}

/// How far ahead four rows that take turns are asked for. Of short rows, whole fours of them beyond the
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

/// A block of 256, unpacked.
pub(super) struct Block {
    /// Values in their order, unsigned but where the format is signed.
    pub q: [__m256i; 8],
    /// The scale of each sixteen values.
    pub scales: __m256i,
    /// The minima of 16 values each, or of 32 in the low half.
    pub mins: __m256i,
    /// `d` and `dmin`.
    pub pair: u32,
}

pub(super) trait Format: Copy {
    const BYTES: usize;
    /// Values that share a minimum: 16 or 32, 0 where there are none.
    const MINS: usize = 0;
    /// What values are too high by: a power of two, or 0.
    const ZERO: i32 = 0;
    /// Whether values have signs.
    const SIGNED: bool = false;
    /// What `d` is multiplied by to be the scale of whole numbers.
    const FACTOR: f32 = 1.0;

    fn new() -> Self;

    /// # Safety
    /// As of [`Dots::dots`], and `BYTES` can be read at `at`.
    unsafe fn load(self, at: *const u8) -> Block;
}

#[derive(Clone, Copy)]
struct Q4K;
#[derive(Clone, Copy)]
struct Q5K;
#[derive(Clone, Copy)]
struct Q6K;

#[inline(always)]
unsafe fn k_head(at: *const u8) -> (__m256i, __m256i, u32) {
    // SAFETY: the caller's promise of at least 16 bytes; inlined where the processor has the
    // instructions.
    unsafe {
        let (scales, mins) = scales_and_mins(&*at.add(4).cast::<[u8; 12]>());
        let scales = _mm_cvtsi64_si128(scales as i64);
        let scales = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(scales, scales));
        let mins = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(mins as i64));
        let pair = at.cast::<u32>().read_unaligned();
        (scales, _mm256_zextsi128_si256(mins), pair)
    }
}

/// Low nibbles of 32 bytes, and their high nibbles.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> [__m256i; 2] {
    // SAFETY: the caller's promise of 32 bytes; inlined where the processor has the instructions.
    unsafe {
        let v = _mm256_loadu_si256(at.cast());
        let low = _mm256_set1_epi8(15);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(v), low);
        [_mm256_and_si256(v, low), high]
    }
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const MINS: usize = 32;
    fn new() -> Self {
        Q4K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 144 bytes, as promised.
        unsafe {
            let (scales, mins, pair) = k_head(at);
            // Not by a closure: see `mod.rs`.
            let (a, b) = (nibbles(at.add(16)), nibbles(at.add(48)));
            let (c, d) = (nibbles(at.add(80)), nibbles(at.add(112)));
            Block {
                q: [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]],
                scales,
                mins,
                pair,
            }
        }
    }
}

impl Format for Q5K {
    const BYTES: usize = 176;
    const MINS: usize = 32;
    fn new() -> Self {
        Q5K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 176 bytes, as promised.
        unsafe {
            let (scales, mins, pair) = k_head(at);
            let high = _mm256_loadu_si256(at.add(16).cast());
            let bit = _mm256_set1_epi8(16);
            let two = |g: usize, down: i64| {
                let [a, b] = nibbles(at.add(48 + 32 * g));
                let up = _mm256_slli_epi16::<4>(_mm256_srl_epi16(high, _mm_cvtsi64_si128(down)));
                let more = _mm256_srl_epi16(high, _mm_cvtsi64_si128(down + 1));
                let more = _mm256_slli_epi16::<4>(more);
                [
                    _mm256_or_si256(a, _mm256_and_si256(up, bit)),
                    _mm256_or_si256(b, _mm256_and_si256(more, bit)),
                ]
            };
            let (a, b, c, d) = (two(0, 0), two(1, 2), two(2, 4), two(3, 6));
            Block {
                q: [a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]],
                scales,
                mins,
                pair,
            }
        }
    }
}

/// 128 values: their low nibbles in 64 bytes, their high bits in 32.
#[inline(always)]
unsafe fn q6_k_half(low: *const u8, high: *const u8) -> [__m256i; 4] {
    // SAFETY: the caller's promise of those bytes; inlined where the processor has the instructions.
    unsafe {
        let bits = _mm256_set1_epi8(0x30);
        let (a, b) = (nibbles(low), nibbles(low.add(32)));
        let high = _mm256_loadu_si256(high.cast());
        let first = _mm256_and_si256(_mm256_slli_epi16::<4>(high), bits);
        let second = _mm256_and_si256(_mm256_slli_epi16::<2>(high), bits);
        let fourth = _mm256_and_si256(_mm256_srli_epi16::<2>(high), bits);
        [
            _mm256_or_si256(a[0], first),
            _mm256_or_si256(b[0], second),
            _mm256_or_si256(a[1], _mm256_and_si256(high, bits)),
            _mm256_or_si256(b[1], fourth),
        ]
    }
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const ZERO: i32 = 32;
    fn new() -> Self {
        Q6K
    }
    #[inline(always)]
    unsafe fn load(self, at: *const u8) -> Block {
        // SAFETY: 210 bytes, as promised; inlined where the processor has the instructions.
        unsafe {
            let (a, b) = (
                q6_k_half(at, at.add(128)),
                q6_k_half(at.add(64), at.add(160)),
            );
            Block {
                q: [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]],
                scales: _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(192).cast())),
                mins: _mm256_setzero_si256(),
                pair: at.add(208).cast::<u16>().read_unaligned().into(),
            }
        }
    }
}

impl<F: Format> Dots for F {
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
        task.activations.by_256().row(at)
    }

    #[inline(always)]
    unsafe fn dots<const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
        ahead: usize,
    ) -> [__m128; C] {
        // SAFETY: block `at` of every row lies inside it, as promised, and so do the activation's
        // values, scale and sums of that block. Inlined where the processor has the instructions.
        unsafe {
            let format = F::new();
            let zero = _mm_setzero_ps();
            let (mut a, mut b) = ([zero; C], [zero; C]);
            for at in 0..rows[0].len() / F::BYTES {
                let mut whole = [[_mm256_setzero_si256(); ROWS]; C];
                let mut least = [[_mm_setzero_si128(); ROWS]; C];
                let mut pairs = [0u32; ROWS];
                for r in 0..ROWS {
                    let start = rows[r].as_ptr().add(at * F::BYTES);
                    for line in 0..F::BYTES.div_ceil(64) {
                        ask(start, ahead + line * 64);
                    }
                    let block = format.load(start);
                    pairs[r] = block.pair;
                    let mut scales = [0i16; 16];
                    _mm256_storeu_si256(scales.as_mut_ptr().cast(), block.scales);
                    for c in 0..C {
                        let sums_16 =
                            || _mm256_loadu_si256(x[c].sums_16.as_ptr().add(at * 16).cast());
                        if F::MINS == 32 {
                            let sums = x[c].sums_32.as_ptr().add(at * 8);
                            let mins = _mm256_castsi256_si128(block.mins);
                            least[c][r] = _mm_madd_epi16(mins, _mm_loadu_si128(sums.cast()));
                        } else if F::MINS == 16 {
                            let pairs = _mm256_madd_epi16(block.mins, sums_16());
                            let high = _mm256_extracti128_si256::<1>(pairs);
                            least[c][r] = _mm_add_epi32(_mm256_castsi256_si128(pairs), high);
                        } else if F::ZERO > 0 {
                            let zeros = _mm256_madd_epi16(block.scales, sums_16());
                            let bits = _mm_cvtsi64_si128(F::ZERO.trailing_zeros().into());
                            let zeros = _mm256_sll_epi32(zeros, bits);
                            whole[c][r] = _mm256_sub_epi32(whole[c][r], zeros);
                        }
                    }
                    for g in 0..8 {
                        let scale = if F::MINS == 32 {
                            _mm256_set1_epi16(scales[2 * g])
                        } else {
                            let (low, high) = (scales[2 * g], scales[2 * g + 1]);
                            _mm256_set_m128i(_mm_set1_epi16(high), _mm_set1_epi16(low))
                        };
                        for c in 0..C {
                            let values = x[c].values.as_ptr().add(at * 256 + g * 32);
                            let values = _mm256_loadu_si256(values.cast());
                            // Two products of at most 63 * 127 fit 16 bits.
                            let dots = if F::SIGNED {
                                let values = _mm256_sign_epi8(values, block.q[g]);
                                _mm256_maddubs_epi16(_mm256_abs_epi8(block.q[g]), values)
                            } else {
                                _mm256_maddubs_epi16(block.q[g], values)
                            };
                            let dots = _mm256_madd_epi16(dots, scale);
                            whole[c][r] = _mm256_add_epi32(whole[c][r], dots);
                        }
                    }
                }
                let (d, dmin) = scale_pairs(pairs);
                let d = _mm_mul_ps(d, _mm_set1_ps(F::FACTOR));
                for c in 0..C {
                    let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(at));
                    let sum = _mm_cvtepi32_ps(sums(whole[c]));
                    a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), sum, a[c]);
                    if F::MINS > 0 {
                        let sum = _mm_cvtepi32_ps(sums_128(least[c]));
                        b[c] = _mm_fmadd_ps(_mm_mul_ps(dmin, scale), sum, b[c]);
                    }
                }
            }
            if F::MINS > 0 {
                std::array::from_fn(|c| _mm_sub_ps(a[c], b[c]))
            } else {
                a
            }
        }
    }
}

/// A format in blocks of 32.
trait Format32 {
    const BYTES: usize;
    /// The signed values of one block.
    ///
    /// # Safety
    /// As of [`Dots::dots`], and `BYTES` can be read at `at`.
    unsafe fn load(at: *const u8) -> __m256i;
}

#[allow(non_camel_case_types, reason = "the format's name")]
struct Q8_0;
#[allow(non_camel_case_types, reason = "the format's name")]
struct Q4_0;

impl Format32 for Q8_0 {
    const BYTES: usize = 34;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: 34 bytes, as promised.
        unsafe { _mm256_loadu_si256(at.add(2).cast()) }
    }
}

impl Format32 for Q4_0 {
    const BYTES: usize = 18;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: 18 bytes, as promised.
        unsafe {
            let v = _mm_loadu_si128(at.add(2).cast());
            let v = _mm256_set_m128i(_mm_srli_epi16::<4>(v), v);
            let v = _mm256_and_si256(v, _mm256_set1_epi8(15));
            _mm256_sub_epi8(v, _mm256_set1_epi8(8))
        }
    }
}

#[inline(always)]
unsafe fn dots_32<F: Format32, const C: usize>(
    rows: [&[u8]; ROWS],
    x: [QuantizedRow<'_>; C],
    ahead: usize,
) -> [__m128; C] {
    // SAFETY: block `at` of every row lies inside it, as promised by the caller, and so do the
    // activation's values and scale. Inlined where the processor has the instructions.
    unsafe {
        let mut a = [_mm_setzero_ps(); C];
        let ones = _mm256_set1_epi16(1);
        for at in 0..rows[0].len() / F::BYTES {
            let mut halves = [0u16; 8];
            let mut q = [_mm256_setzero_si256(); ROWS];
            for r in 0..ROWS {
                let start = rows[r].as_ptr().add(at * F::BYTES);
                ask(start, ahead);
                halves[r] = start.cast::<u16>().read_unaligned();
                q[r] = F::load(start);
            }
            let d = _mm_cvtph_ps(_mm_loadu_si128(halves.as_ptr().cast()));
            for c in 0..C {
                let values = _mm256_loadu_si256(x[c].values.as_ptr().add(at * 32).cast());
                // The sign goes to the activation, which is never -128; two products of at most
                // 128 * 127 fit 16 bits.
                let mut dots = [_mm256_setzero_si256(); ROWS];
                for r in 0..ROWS {
                    let values = _mm256_sign_epi8(values, q[r]);
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q[r]), values);
                    dots[r] = _mm256_madd_epi16(pairs, ones);
                }
                let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(at));
                let sum = _mm_cvtepi32_ps(sums(dots));
                a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), sum, a[c]);
            }
        }
        a
    }
}

macro_rules! dots_of_32 {
    ($($name:ident)+) => {$(
        impl Dots for $name {
            fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
                task.activations.by_32().row(at)
            }
            #[inline(always)]
            unsafe fn dots<const C: usize>(
                rows: [&[u8]; ROWS],
                x: [QuantizedRow<'_>; C],
                ahead: usize,
            ) -> [__m128; C] {
                // SAFETY: the caller's promise.
                unsafe { dots_32::<$name, C>(rows, x, ahead) }
            }
        }
    )+};
}
dots_of_32!(Q8_0 Q4_0);
