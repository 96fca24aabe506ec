//! Four rows in blocks of 32.

use std::arch::aarch64::*;

use super::bytes::{Bytes, beside, square};
use super::{Dots, ROWS, apart, by_two, scales_of, sums};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;
use crate::cpu::simd::neon::from_halves;

/// A format in blocks of 32.
pub(super) trait Format32 {
    const BYTES: usize;
    /// The signed values of one block.
    ///
    /// # Safety
    /// As of [`Dots::dots`], and `BYTES` can be read at `at`.
    unsafe fn load(at: *const u8) -> [int8x16_t; 2];
}

#[allow(non_camel_case_types, reason = "the format's name")]
pub(super) struct Q8_0;
#[allow(non_camel_case_types, reason = "the format's name")]
pub(super) struct Q4_0;

impl Format32 for Q8_0 {
    const BYTES: usize = 34;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> [int8x16_t; 2] {
        // SAFETY: 34 bytes, as promised.
        unsafe { [vld1q_s8(at.add(2).cast()), vld1q_s8(at.add(18).cast())] }
    }
}

impl Format32 for Q4_0 {
    const BYTES: usize = 18;
    #[inline(always)]
    unsafe fn load(at: *const u8) -> [int8x16_t; 2] {
        // SAFETY: 18 bytes, as promised.
        unsafe {
            let v = vld1q_u8(at.add(2));
            let (low, high) = (vandq_u8(v, vdupq_n_u8(15)), vshrq_n_u8::<4>(v));
            let zero = vdupq_n_s8(8);
            [
                vsubq_s8(vreinterpretq_s8_u8(low), zero),
                vsubq_s8(vreinterpretq_s8_u8(high), zero),
            ]
        }
    }
}

/// Block `at` of four rows: values, and scales.
#[inline(always)]
unsafe fn blocks<F: Format32>(
    rows: &[&[u8]; ROWS],
    at: usize,
) -> ([[int8x16_t; 2]; ROWS], float32x4_t) {
    // SAFETY: the block lies inside the rows, as the caller promises; inlined where the processor has
    // the instructions.
    unsafe {
        let mut q = [[vdupq_n_s8(0); 2]; ROWS];
        let mut halves = [0u16; ROWS];
        for r in 0..ROWS {
            let start = rows[r].as_ptr().add(at * F::BYTES);
            halves[r] = start.cast::<u16>().read_unaligned();
            q[r] = F::load(start);
        }
        (q, from_halves(vld1_u16(halves.as_ptr())))
    }
}

#[inline(always)]
unsafe fn values(x: &QuantizedRow<'_>, at: usize) -> [int8x16_t; 2] {
    // SAFETY: as above.
    unsafe {
        let values = x.values.as_ptr().add(at * 32);
        [vld1q_s8(values), vld1q_s8(values.add(16))]
    }
}

#[inline(always)]
unsafe fn dots_32<F: Format32, B: Bytes, const C: usize>(
    rows: [&[u8]; ROWS],
    x: [QuantizedRow<'_>; C],
) -> [float32x4_t; C] {
    // SAFETY: block `at` of every row lies inside it, as promised by the caller, and so do the
    // activation's values and scale. Inlined where the processor has the instructions.
    unsafe {
        let mut a = [vdupq_n_f32(0.0); C];
        for at in 0..rows[0].len() / F::BYTES {
            let (q, d) = blocks::<F>(&rows, at);
            for c in 0..C {
                let values = values(&x[c], at);
                let mut dots = [vdupq_n_s32(0); ROWS];
                for r in 0..ROWS {
                    dots[r] = B::dot(dots[r], q[r][0], values[0]);
                    dots[r] = B::dot(dots[r], q[r][1], values[1]);
                }
                let scale = vld1q_dup_f32(x[c].scales.as_ptr().add(at));
                let sum = vcvtq_f32_s32(sums(dots));
                a[c] = vfmaq_f32(a[c], vmulq_f32(d, scale), sum);
            }
        }
        a
    }
}

#[inline(always)]
unsafe fn pairs_32<F: Format32, const P: usize>(
    rows: [&[u8]; ROWS],
    x: [[QuantizedRow<'_>; 2]; P],
) -> [[float32x4_t; 2]; P] {
    // SAFETY: as above.
    unsafe {
        let mut a = [[vdupq_n_f32(0.0); 2]; P];
        for at in 0..rows[0].len() / F::BYTES {
            let (q, d) = blocks::<F>(&rows, at);
            let d = by_two(d);
            // For each pair of rows: eight values of both after eight.
            let mut two = [[vdupq_n_s8(0); 4]; 2];
            for r in 0..2 {
                let [a, b] = beside(q[2 * r][0], q[2 * r + 1][0]);
                let [c, d] = beside(q[2 * r][1], q[2 * r + 1][1]);
                two[r] = [a, b, c, d];
            }
            for p in 0..P {
                let (x0, x1) = (values(&x[p][0], at), values(&x[p][1], at));
                let ([a0, a1], [a2, a3]) = (beside(x0[0], x1[0]), beside(x0[1], x1[1]));
                let values = [a0, a1, a2, a3];
                let scale = scales_of(&x[p], at);
                for r in 0..2 {
                    let mut dots = vdupq_n_s32(0);
                    for i in 0..4 {
                        dots = square(dots, two[r][i], values[i]);
                    }
                    let sum = vcvtq_f32_s32(dots);
                    a[p][r] = vfmaq_f32(a[p][r], vmulq_f32(d[r], scale), sum);
                }
            }
        }
        for a in &mut a {
            *a = apart(*a);
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
            unsafe fn dots<B: Bytes, const C: usize>(
                rows: [&[u8]; ROWS],
                x: [QuantizedRow<'_>; C],
            ) -> [float32x4_t; C] {
                // SAFETY: the caller's promise.
                unsafe { dots_32::<$name, B, C>(rows, x) }
            }
            #[inline(always)]
            unsafe fn pairs<const P: usize>(
                rows: [&[u8]; ROWS],
                x: [[QuantizedRow<'_>; 2]; P],
            ) -> [[float32x4_t; 2]; P] {
                // SAFETY: the caller's promise.
                unsafe { pairs_32::<$name, P>(rows, x) }
            }
        }
    )+};
}
dots_of_32!(Q8_0 Q4_0);
