//! Four rows in blocks of 32.

use std::arch::x86_64::*;

use super::{Dots, ROWS, ahead, ask, sums};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;

/// A format in blocks of 32.
pub(super) trait Format32 {
    const BYTES: usize;
    /// The signed values of one block.
    ///
    /// # Safety
    /// As of [`Dots::dots`], and `BYTES` can be read at `at`.
    unsafe fn load(at: *const u8) -> __m256i;
}

#[allow(non_camel_case_types, reason = "the format's name")]
pub(super) struct Q8_0;
#[allow(non_camel_case_types, reason = "the format's name")]
pub(super) struct Q4_0;

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
) -> [__m128; C] {
    // SAFETY: block `at` of every row lies inside it, as promised by the caller, and so do the
    // activation's values and scale. Inlined where the processor has the instructions.
    unsafe {
        let ahead = ahead(rows[0].len());
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
            ) -> [__m128; C] {
                // SAFETY: the caller's promise.
                unsafe { dots_32::<$name, C>(rows, x) }
            }
        }
    )+};
}
dots_of_32!(Q8_0 Q4_0);
