//! Four rows in blocks of 256 beside `C` rows of activations: row by row as they lie in memory, what is to
//! be summed across kept until all four are there.

use std::arch::x86_64::*;

use super::formats::Format;
use super::{Few, ROOM, ROWS, is_zen_4, scale_pairs, sums_128, sums_256};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::cpu::quantized::Ahead;

/// How far from run `start..start + count` of row `r` of four what is read next is. Whole rows lie as
/// they are read; of rows in several runs, all four have their turn before the next run.
#[inline(always)]
fn ahead<F: Format>(by: Ahead, row: usize, start: usize, count: usize, r: usize) -> Ahead {
    let (row, run) = (row as isize, (count * F::BYTES) as isize);
    let is_last = (start + count) * F::BYTES == row as usize;
    let bytes = match r {
        _ if run == row => by.bytes,
        0..3 => row,
        _ if is_last => run,
        _ => run - 3 * row,
    };
    Ahead { bytes, ..by }
}

/// What a block of four rows gives with each row of activations: integers to be summed across.
struct Partial<const C: usize> {
    whole: [[__m256i; C]; ROWS],
    least: [[__m128i; C]; ROWS],
    /// `d` and `dmin` of each row.
    pairs: [u32; ROWS],
}

/// How scales meet packed products: each quarter of a vector has four words of a vector of values,
/// then four of the next.
const fn places(group: usize, half: usize) -> [u16; 32] {
    let mut places = [0; 32];
    let mut word = 0;
    while word < 32 {
        let (quarter, next) = (word / 8, word / 4 % 2);
        let value = 64 * (2 * half + next) + 16 * quarter;
        places[word] = (value / group) as u16;
        word += 1;
    }
    places
}

/// The scales of the values `64 * 2 * half` on, in those places.
#[inline(always)]
unsafe fn spread<F: Format>(scales: __m256i, half: usize) -> __m512i {
    // SAFETY: 64 bytes; inlined where the processor has the instructions.
    unsafe {
        let places = const { [places(F::GROUP, 0), places(F::GROUP, 1)] };
        let places = _mm512_loadu_si512(places[half].as_ptr().cast());
        _mm512_permutexvar_epi16(places, _mm512_castsi256_si512(scales))
    }
}

/// Block `at` of the row that starts at `row`, to row `r` of `to`; the memory `ahead` of it is asked for.
#[inline(always)]
unsafe fn partial<F: Format, const C: usize>(
    format: F,
    (row, r): (&[u8], usize),
    at: usize,
    ahead: Ahead,
    x: &[QuantizedRow<'_>; C],
    to: *mut Partial<C>,
) {
    // SAFETY: the block lies inside its row, as the caller promises, and so do the activation's
    // values and sums of that block; `to` may be written. Inlined where the processor has the
    // instructions.
    unsafe {
        let start = row.as_ptr().add(at * F::BYTES);
        for line in 0..F::BYTES.div_ceil(64) {
            ahead.ask(start, ahead.bytes + line as isize * 64);
        }
        let block = format.load(start);
        (*to).pairs[r] = block.pair;
        let scales = [spread::<F>(block.scales, 0), spread::<F>(block.scales, 1)];
        for (c, x) in x.iter().enumerate() {
            let values = x.values.as_ptr().add(at * 256);
            let sums_16 = || _mm256_loadu_si256(x.sums_16.as_ptr().add(at * 16).cast());
            let mut products = [_mm512_setzero_si512(); 4];
            for (g, product) in products.iter_mut().enumerate() {
                let mut values = _mm512_loadu_si512(values.add(g * 64).cast());
                let none = _mm512_setzero_si512();
                if F::SIGNED {
                    values = _mm512_mask_sub_epi8(values, block.signs[g], none, values);
                }
                *product = _mm512_dpbusd_epi32(none, block.q[g], values);
            }
            // Four products of at most 63 * 127 fit 16 bits.
            let low = _mm512_packs_epi32(products[0], products[1]);
            let high = _mm512_packs_epi32(products[2], products[3]);
            let sum = _mm512_madd_epi16(low, scales[0]);
            let sum = _mm512_dpwssd_epi32(sum, high, scales[1]);
            let mut whole = _mm256_add_epi32(
                _mm512_castsi512_si256(sum),
                _mm512_extracti64x4_epi64::<1>(sum),
            );
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
            let by = Ahead::of(is_zen_4());
            let run = ROOM / size_of::<Partial<C>>();
            let parts = room.cast::<Partial<C>>();
            for start in (0..blocks).step_by(run) {
                let count = run.min(blocks - start);
                for (r, row) in rows.iter().enumerate() {
                    let ahead = ahead::<F>(by, row.len(), start, count, r);
                    for at in 0..count {
                        partial::<F, C>(format, (row, r), start + at, ahead, &x, parts.add(at));
                    }
                }
                for at in 0..count {
                    let part = &*parts.add(at);
                    let (d, dmin) = scale_pairs(part.pairs);
                    let d = _mm_mul_ps(d, _mm_set1_ps(F::FACTOR));
                    for c in 0..C {
                        let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(start + at));
                        let [r0, r1, r2, r3] = &part.whole;
                        let sum = _mm_cvtepi32_ps(sums_256([r0[c], r1[c], r2[c], r3[c]]));
                        a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), sum, a[c]);
                        if F::MINS > 0 {
                            let [r0, r1, r2, r3] = &part.least;
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
