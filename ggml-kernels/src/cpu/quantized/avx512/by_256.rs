//! Four rows in blocks of 256 beside `C` rows of activations: row by row as they lie in memory, what is to
//! be summed across kept until all four are there.

use std::arch::x86_64::*;

use super::formats::Format;
use super::{AHEAD, Few, ROOM, ROWS, ask, scale_pairs, sums, sums_128};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;

/// How far from run `start..start + count` of row `r` of four what is read next is. Whole rows lie as
/// they are read; of rows in several runs, all four have their turn before the next run.
#[inline(always)]
fn ahead<F: Format>(row: usize, start: usize, count: usize, r: usize) -> isize {
    let (row, run) = (row as isize, (count * F::BYTES) as isize);
    let is_last = (start + count) * F::BYTES == row as usize;
    match r {
        _ if run == row => AHEAD,
        0..3 => row,
        _ if is_last => run,
        _ => run - 3 * row,
    }
}

/// What one block of a row gives with each row of activations: integers to be summed across.
struct Partial<const C: usize> {
    whole: [__m512i; C],
    least: [__m128i; C],
    pair: u32,
}

/// Block `at` of the row that starts at `row`; the memory `ahead` of it is asked for.
#[inline(always)]
unsafe fn partial<F: Format, const C: usize>(
    format: F,
    row: &[u8],
    at: usize,
    ahead: isize,
    x: &[QuantizedRow<'_>; C],
) -> Partial<C> {
    // SAFETY: the block lies inside its row, as the caller promises, and so do the activation's
    // values and sums of that block. Inlined where the processor has the instructions.
    unsafe {
        let start = row.as_ptr().add(at * F::BYTES);
        for line in 0..F::BYTES.div_ceil(64) {
            ask(start, ahead + line as isize * 64);
        }
        let block = format.load(start);
        let mut whole = [_mm512_setzero_si512(); C];
        let mut least = [_mm_setzero_si128(); C];
        for c in 0..C {
            let values = x[c].values.as_ptr().add(at * 256);
            let sums_16 = || _mm256_loadu_si256(x[c].sums_16.as_ptr().add(at * 16).cast());
            let mut sum = _mm512_setzero_si512();
            if F::MINS == 32 {
                let sums = _mm_loadu_si128(x[c].sums_32.as_ptr().add(at * 8).cast());
                least[c] = _mm_madd_epi16(_mm256_castsi256_si128(block.sides), sums);
            } else if F::MINS == 16 {
                let pairs = _mm256_madd_epi16(block.sides, sums_16());
                let high = _mm256_extracti128_si256::<1>(pairs);
                least[c] = _mm_add_epi32(_mm256_castsi256_si128(pairs), high);
            } else if F::ZERO > 0 {
                let zeros = _mm256_madd_epi16(block.sides, sums_16());
                let bits = _mm_cvtsi64_si128(F::ZERO.trailing_zeros().into());
                let zeros = _mm256_sll_epi32(zeros, bits);
                let none = _mm256_setzero_si256();
                sum = _mm512_zextsi256_si512(_mm256_sub_epi32(none, zeros));
            }
            for g in 0..4 {
                let mut values = _mm512_loadu_si512(values.add(g * 64).cast());
                if F::SIGNED {
                    let none = _mm512_setzero_si512();
                    values = _mm512_mask_sub_epi8(values, block.signs[g], none, values);
                }
                // Four products of at most 63 * 127 fit 16 bits: the low half of the lane is the
                // sum, and the scale's lane has a zero for the other.
                let dots = _mm512_dpbusd_epi32(_mm512_setzero_si512(), block.q[g], values);
                sum = _mm512_dpwssd_epi32(sum, dots, block.scales[g]);
            }
            whole[c] = sum;
        }
        Partial {
            whole,
            least,
            pair: block.pair,
        }
    }
}

impl<F: Format> Few for F {
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
        task.activations.by_256().row(at)
    }

    #[inline(always)]
    unsafe fn dots<const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
        room: *mut f32,
    ) -> [__m128; C] {
        // SAFETY: block `at` of every row lies inside it, as promised, and so do the activation's
        // values, scale and sums of that block. Four runs of parts fit `room`, and one is read after
        // it was written. Inlined where the processor has the instructions.
        unsafe {
            let zero = _mm_setzero_ps();
            let (mut a, mut b) = ([zero; C], [zero; C]);
            let format = F::new();
            let blocks = rows[0].len() / F::BYTES;
            // Row by row, as they lie in memory; what is to be summed across waits in the nearest
            // cache.
            let run = ROOM / (ROWS * size_of::<Partial<C>>());
            let parts = room.cast::<Partial<C>>();
            for start in (0..blocks).step_by(run) {
                let count = run.min(blocks - start);
                for (r, row) in rows.iter().enumerate() {
                    let ahead = ahead::<F>(row.len(), start, count, r);
                    let parts = parts.add(r * run);
                    for at in 0..count {
                        parts
                            .add(at)
                            .write(partial::<F, C>(format, row, start + at, ahead, &x));
                    }
                }
                for at in start..start + count {
                    let part = parts.add(at - start);
                    let (r0, r1) = (&*part, &*part.add(run));
                    let (r2, r3) = (&*part.add(2 * run), &*part.add(3 * run));
                    let (d, dmin) = scale_pairs([r0.pair, r1.pair, r2.pair, r3.pair]);
                    let d = _mm_mul_ps(d, _mm_set1_ps(F::FACTOR));
                    for c in 0..C {
                        let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(at));
                        let sum = sums([r0.whole[c], r1.whole[c], r2.whole[c], r3.whole[c]]);
                        let sum = _mm_cvtepi32_ps(sum);
                        a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), sum, a[c]);
                        if F::MINS > 0 {
                            let sum =
                                sums_128([r0.least[c], r1.least[c], r2.least[c], r3.least[c]]);
                            let sum = _mm_cvtepi32_ps(sum);
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
