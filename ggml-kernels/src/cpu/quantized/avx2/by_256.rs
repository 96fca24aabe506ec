//! Four rows in blocks of 256 beside `C` rows of activations: row by row as they lie in memory, what is to
//! be summed across kept until all four are there.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::formats::Format;
use super::{Dots, ROWS, scale_pairs, sums, sums_128};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::cpu::quantized::Ahead;
use crate::cpu::quantized::amd::is_zen_4;

/// Word `2 g` to all of the low half, word `2 g + 1` to all of the high one.
#[inline(always)]
unsafe fn spread(g: usize) -> __m256i {
    let word = |at: usize| 0x0101_0101_0101_0101 * (2 * at) as i64 + 0x0100_0100_0100_0100;
    let (low, high) = (word(2 * g), word(2 * g + 1));
    // SAFETY: inlined where the processor has the instructions.
    unsafe { _mm256_setr_epi64x(low, low, high, high) }
}

/// Blocks of a row at a time: what waits of them to be summed across stays in the nearest cache.
const RUN: usize = 16;

/// What a block of four rows gives with each row of activations: integers to be summed across.
struct Partial<const C: usize> {
    whole: [[__m256i; C]; ROWS],
    least: [[__m128i; C]; ROWS],
    /// `d` and `dmin` of each row.
    pairs: [u32; ROWS],
}

/// Block `at` of the row that starts at `row`, to row `r` of `to`; the memory `ahead` of it is asked
/// for.
#[inline(always)]
unsafe fn partial<F: Format, const C: usize>(
    format: F,
    (row, r): (&[u8], usize),
    at: usize,
    ahead: Ahead,
    x: &[QuantizedRow<'_>; C],
    to: *mut Partial<C>,
) {
    // SAFETY: the block lies inside its row, as the caller promises, and so do the activation's values
    // and sums of that block; `to` may be written. Inlined where the processor has the instructions.
    unsafe {
        let start = row.as_ptr().add(at * F::BYTES);
        for line in 0..F::BYTES.div_ceil(64) {
            ahead.ask(start, ahead.bytes + line as isize * 64);
        }
        let block = format.load(start);
        (*to).pairs[r] = block.pair;
        let scales = [
            _mm256_permute4x64_epi64::<0x44>(block.scales),
            _mm256_permute4x64_epi64::<0xee>(block.scales),
        ];
        for (c, x) in x.iter().enumerate() {
            let values = x.values.as_ptr().add(at * 256);
            let mut whole = _mm256_setzero_si256();
            for (g, &q) in block.q.iter().enumerate() {
                // Those of the first sixteen values in the low half, of the others above.
                let scale = _mm256_shuffle_epi8(scales[g / 4], spread(g % 4));
                let values = _mm256_loadu_si256(values.add(g * 32).cast());
                // Two products of at most 63 * 127 fit 16 bits.
                let dots = if F::SIGNED {
                    _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(values, q))
                } else {
                    _mm256_maddubs_epi16(q, values)
                };
                whole = _mm256_add_epi32(whole, _mm256_madd_epi16(dots, scale));
            }
            let sums_16 = || _mm256_loadu_si256(x.sums_16.as_ptr().add(at * 16).cast());
            if F::MINS == 32 {
                let sums = _mm_loadu_si128(x.sums_32.as_ptr().add(at * 8).cast());
                (*to).least[r][c] = _mm_madd_epi16(_mm256_castsi256_si128(block.mins), sums);
            } else if F::MINS == 16 {
                let pairs = _mm256_madd_epi16(block.mins, sums_16());
                let high = _mm256_extracti128_si256::<1>(pairs);
                (*to).least[r][c] = _mm_add_epi32(_mm256_castsi256_si128(pairs), high);
            } else if F::ZERO > 0 {
                let zeros = _mm256_madd_epi16(block.scales, sums_16());
                let bits = _mm_cvtsi64_si128(F::ZERO.trailing_zeros().into());
                whole = _mm256_sub_epi32(whole, _mm256_sll_epi32(zeros, bits));
            }
            (*to).whole[r][c] = whole;
        }
    }
}

impl<F: Format> Dots for F {
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
        task.activations.by_256().row(at)
    }

    #[inline(always)]
    unsafe fn dots<const C: usize>(rows: [&[u8]; ROWS], x: [QuantizedRow<'_>; C]) -> [__m128; C] {
        // SAFETY: block `at` of every row lies inside it, as promised, and so do the activation's
        // values, scale and sums of that block. Of a part is read what was written. Inlined where the
        // processor has the instructions.
        unsafe {
            let format = F::new();
            let zero = _mm_setzero_ps();
            let (mut a, mut b) = ([zero; C], [zero; C]);
            let ahead = Ahead::of(is_zen_4());
            let blocks = rows[0].len() / F::BYTES;
            let mut room = MaybeUninit::<[Partial<C>; RUN]>::uninit();
            let parts = room.as_mut_ptr().cast::<Partial<C>>();
            for start in (0..blocks).step_by(RUN) {
                let count = RUN.min(blocks - start);
                // Row by row, as they lie in memory.
                for (r, row) in rows.iter().enumerate() {
                    for at in 0..count {
                        partial::<F, C>(format, (row, r), start + at, ahead, &x, parts.add(at));
                    }
                }
                for at in 0..count {
                    // Field by field: without minima a part is never whole.
                    let part = parts.add(at);
                    let (d, dmin) = scale_pairs((*part).pairs);
                    let d = _mm_mul_ps(d, _mm_set1_ps(F::FACTOR));
                    for c in 0..C {
                        let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(start + at));
                        let [r0, r1, r2, r3] = &(*part).whole;
                        let sum = _mm_cvtepi32_ps(sums([r0[c], r1[c], r2[c], r3[c]]));
                        a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), sum, a[c]);
                        if F::MINS > 0 {
                            let [r0, r1, r2, r3] = &(*part).least;
                            let sum = _mm_cvtepi32_ps(sums_128([r0[c], r1[c], r2[c], r3[c]]));
                            b[c] = _mm_fmadd_ps(_mm_mul_ps(dmin, scale), sum, b[c]);
                        }
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
