//! Four rows in blocks of 32, two blocks at once.

use std::arch::x86_64::*;

use super::{Few, ROWS, ask, quarters, scale_pairs};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::cpu::quantized::avx2;

/// A format in blocks of 32.
pub(in crate::cpu::quantized) trait Format32 {
    const BYTES: usize;
    /// What the unsigned values are too high by.
    const ZERO: i32;
    /// The values of one block.
    ///
    /// # Safety
    /// As of [`Few::dots`], and `BYTES` can be read at `at`.
    unsafe fn load(at: *const u8) -> __m256i;
}

pub(in crate::cpu::quantized) struct Q8_0;
pub(in crate::cpu::quantized) struct Q4_0;

impl Format32 for Q8_0 {
    const BYTES: usize = 34;
    const ZERO: i32 = 128;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: 34 bytes, as promised.
        unsafe {
            let v = _mm256_loadu_si256(at.add(2).cast());
            _mm256_xor_si256(v, _mm256_set1_epi8(-128))
        }
    }
}

impl Format32 for Q4_0 {
    const BYTES: usize = 18;
    const ZERO: i32 = 8;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> __m256i {
        // SAFETY: 18 bytes, as promised.
        unsafe {
            let v = _mm_loadu_si128(at.add(2).cast());
            let v = _mm256_set_m128i(_mm_srli_epi16::<4>(v), v);
            _mm256_and_si256(v, _mm256_set1_epi8(15))
        }
    }
}

/// Two blocks of 32 at once, the first in the low half.
#[inline(always)]
unsafe fn dots_32<F: Format32, const C: usize>(
    rows: [&[u8]; ROWS],
    x: [QuantizedRow<'_>; C],
) -> [__m128; C] {
    let blocks = rows[0].len() / F::BYTES;
    let ahead = avx2::ahead(rows[0].len()).cast_signed();
    // SAFETY: the blocks `at` and, where there are two, `at + 1` of every row lie inside it, as
    // promised by the caller, and so do the activation's values, scales and sums. Inlined where the
    // processor has the instructions.
    unsafe {
        let mut a = [_mm_setzero_ps(); C];
        let mut at = 0;
        while at < blocks {
            let is_pair = at + 1 < blocks;
            // The block's values and scale of a row, and the next block's.
            let load = |row: &[u8]| {
                let start = row.as_ptr().add(at * F::BYTES);
                ask(start, ahead);
                let low = _mm512_zextsi256_si512(F::load(start));
                let d = i32::from(start.cast::<u16>().read_unaligned());
                if is_pair {
                    let start = start.add(F::BYTES);
                    let next = i32::from(start.cast::<u16>().read_unaligned());
                    (_mm512_inserti64x4::<1>(low, F::load(start)), d | next << 16)
                } else {
                    (low, d)
                }
            };
            let (r0, r1, r2, r3) = (load(rows[0]), load(rows[1]), load(rows[2]), load(rows[3]));
            let q = [r0.0, r1.0, r2.0, r3.0];
            let pairs = [r0.1, r1.1, r2.1, r3.1].map(i32::cast_unsigned);
            let (d, d_next) = scale_pairs(pairs);
            for c in 0..C {
                let values = x[c].values.as_ptr().add(at * 32);
                let values = if is_pair {
                    _mm512_loadu_si512(values.cast())
                } else {
                    _mm512_zextsi256_si512(_mm256_loadu_si256(values.cast()))
                };
                let none = _mm512_setzero_si512();
                let mut dots = [none; ROWS];
                for r in 0..ROWS {
                    dots[r] = _mm512_dpbusd_epi32(none, q[r], values);
                }
                let t = quarters(dots);
                let (low, high) = (_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64::<1>(t));
                let mut fold = |at: usize, t: __m256i, d: __m128| {
                    let zeros = F::ZERO * i32::from(*x[c].sums_32.as_ptr().add(at));
                    let t =
                        _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256::<1>(t));
                    let t = _mm_cvtepi32_ps(_mm_sub_epi32(t, _mm_set1_epi32(zeros)));
                    let scale = _mm_set1_ps(*x[c].scales.as_ptr().add(at));
                    a[c] = _mm_fmadd_ps(_mm_mul_ps(d, scale), t, a[c]);
                };
                fold(at, low, d);
                if is_pair {
                    fold(at + 1, high, d_next);
                }
            }
            at += 2;
        }
        a
    }
}

macro_rules! few_32 {
    ($($name:ident)+) => {$(
        impl Few for $name {
            fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
                task.activations.by_32().row(at)
            }
            #[inline(always)]
            unsafe fn dots<const C: usize>(
                rows: [&[u8]; ROWS],
                x: [QuantizedRow<'_>; C],
                _: *mut f32,
            ) -> [__m128; C] {
                // SAFETY: the caller's promise.
                unsafe { dots_32::<$name, C>(rows, x) }
            }
        }
    )+};
}
few_32!(Q8_0 Q4_0);
