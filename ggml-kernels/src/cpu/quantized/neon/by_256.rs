//! Four rows in blocks of 256.

use std::arch::aarch64::*;

use super::bytes::{Bytes, beside, square};
use super::formats::{Block, Format};
use super::{Dots, ROWS, apart, by_two, scale_pairs, scales_of, sums};
use crate::cpu::activations::QuantizedRow;
use crate::cpu::products::task::Task;

/// Registers of a block's values.
const PARTS: usize = 16;

/// Minima times the sums of the values that share them, to be summed across.
#[inline(always)]
unsafe fn least<F: Format>(mins: [int16x8_t; 2], x: &QuantizedRow<'_>, at: usize) -> int32x4_t {
    // SAFETY: block `at` lies inside the row, as the caller promises; inlined where the processor has
    // the instructions.
    unsafe {
        let sums = if F::MINS == 32 {
            x.sums_32.as_ptr().add(at * 8)
        } else {
            x.sums_16.as_ptr().add(at * 16)
        };
        let mut all = vdupq_n_s32(0);
        for (i, &mins) in mins[..256 / F::MINS / 8].iter().enumerate() {
            let sums = vld1q_s16(sums.add(8 * i));
            all = vmlal_s16(all, vget_low_s16(mins), vget_low_s16(sums));
            all = vmlal_high_s16(all, mins, sums);
        }
        all
    }
}

/// A block's values times its scales and those of the activation, to be summed across.
#[inline(always)]
unsafe fn whole<F: Format, B: Bytes>(block: &Block, x: &QuantizedRow<'_>, at: usize) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        let values = x.values.as_ptr().add(at * 256);
        let zero = vdupq_n_s32(0);
        let mut sum = zero;
        for group in 0..256 / F::GROUP {
            let mut dot = zero;
            for i in 0..F::GROUP / 16 {
                let part = group * F::GROUP / 16 + i;
                dot = B::dot(dot, block.q[part], vld1q_s8(values.add(part * 16)));
            }
            sum = vmlaq_n_s32(sum, dot, block.scales[group]);
        }
        sum
    }
}

/// A block of two rows.
struct Two {
    /// Of each sixteen values the first eight of both rows, and the last eight.
    q: [[int8x16_t; 2]; PARTS],
    /// Those of one row twice, then those of the other.
    scales: [int32x4_t; 16],
    mins: [[int16x8_t; 2]; 2],
}

impl Two {
    #[inline(always)]
    unsafe fn empty() -> Two {
        // SAFETY: inlined where the processor has the instructions.
        unsafe {
            Two {
                q: [[vdupq_n_s8(0); 2]; PARTS],
                scales: [vdupq_n_s32(0); 16],
                mins: [[vdupq_n_s16(0); 2]; 2],
            }
        }
    }

    #[inline(always)]
    unsafe fn join<F: Format>(&mut self, [a, b]: &[Block; 2]) {
        // SAFETY: inlined where the processor has the instructions.
        unsafe {
            for part in 0..PARTS {
                self.q[part] = beside(a.q[part], b.q[part]);
            }
            for group in 0..256 / F::GROUP {
                let [a, b] = [a.scales[group], b.scales[group]];
                self.scales[group] = vcombine_s32(vdup_n_s32(a), vdup_n_s32(b));
            }
            self.mins = [a.mins, b.mins];
        }
    }
}

/// Two rows' values times their scales and those of two activations, `[row][activation]`, for both
/// pairs of rows.
#[inline(always)]
unsafe fn squares<F: Format>(
    two: &[Two; 2],
    x: &[QuantizedRow<'_>; 2],
    at: usize,
) -> [int32x4_t; 2] {
    // SAFETY: as above.
    unsafe {
        let [a, b] = [x[0].values, x[1].values].map(|values| values.as_ptr().add(at * 256));
        let zero = vdupq_n_s32(0);
        let mut all = [zero; 2];
        for group in 0..256 / F::GROUP {
            let mut dots = [zero; 2];
            for i in 0..F::GROUP / 16 {
                let part = group * F::GROUP / 16 + i;
                let values = beside(vld1q_s8(a.add(part * 16)), vld1q_s8(b.add(part * 16)));
                for (dots, two) in dots.iter_mut().zip(two) {
                    *dots = square(*dots, two.q[part][0], values[0]);
                    *dots = square(*dots, two.q[part][1], values[1]);
                }
            }
            for r in 0..2 {
                all[r] = vmlaq_s32(all[r], dots[r], two[r].scales[group]);
            }
        }
        all
    }
}

impl<F: Format> Dots for F {
    fn row<'x>(task: &'x Task<'_>, at: usize) -> QuantizedRow<'x> {
        task.activations.by_256().row(at)
    }

    #[inline(always)]
    unsafe fn dots<B: Bytes, const C: usize>(
        rows: [&[u8]; ROWS],
        x: [QuantizedRow<'_>; C],
    ) -> [float32x4_t; C] {
        // SAFETY: block `at` of every row lies inside it, as promised, and so do the activation's
        // values, scale and sums of that block. Inlined where the processor has the instructions.
        unsafe {
            let (zero, none) = (vdupq_n_f32(0.0), vdupq_n_s32(0));
            let (mut a, mut b) = ([zero; C], [zero; C]);
            let format = F::new();
            let factor = vdupq_n_f32(F::FACTOR);
            let mut block = Block::empty();
            for at in 0..rows[0].len() / F::BYTES {
                let mut pairs = [0; ROWS];
                let (mut wholes, mut leasts) = ([[none; ROWS]; C], [[none; ROWS]; C]);
                for r in 0..ROWS {
                    format.load(rows[r].as_ptr().add(at * F::BYTES), &mut block);
                    pairs[r] = block.pair;
                    for c in 0..C {
                        wholes[c][r] = whole::<F, B>(&block, &x[c], at);
                        if F::MINS > 0 {
                            leasts[c][r] = least::<F>(block.mins, &x[c], at);
                        }
                    }
                }
                let [d, dmin] = scale_pairs(pairs);
                let d = vmulq_f32(d, factor);
                for c in 0..C {
                    let scale = vld1q_dup_f32(x[c].scales.as_ptr().add(at));
                    let sum = vcvtq_f32_s32(sums(wholes[c]));
                    a[c] = vfmaq_f32(a[c], vmulq_f32(d, scale), sum);
                    if F::MINS > 0 {
                        let sum = vcvtq_f32_s32(sums(leasts[c]));
                        b[c] = vfmaq_f32(b[c], vmulq_f32(dmin, scale), sum);
                    }
                }
            }
            if F::MINS > 0 {
                for c in 0..C {
                    a[c] = vsubq_f32(a[c], b[c]);
                }
            }
            a
        }
    }

    #[inline(always)]
    unsafe fn pairs<const P: usize>(
        rows: [&[u8]; ROWS],
        x: [[QuantizedRow<'_>; 2]; P],
    ) -> [[float32x4_t; 2]; P] {
        // SAFETY: as above.
        unsafe {
            let zero = [vdupq_n_f32(0.0); 2];
            let (mut a, mut b) = ([zero; P], [zero; P]);
            let format = F::new();
            let factor = vdupq_n_f32(F::FACTOR);
            let mut blocks = [Block::empty(), Block::empty()];
            let mut two = [Two::empty(), Two::empty()];
            for at in 0..rows[0].len() / F::BYTES {
                let mut pairs = [0; ROWS];
                for (r, two) in two.iter_mut().enumerate() {
                    for (i, block) in blocks.iter_mut().enumerate() {
                        format.load(rows[2 * r + i].as_ptr().add(at * F::BYTES), block);
                        pairs[2 * r + i] = block.pair;
                    }
                    two.join::<F>(&blocks);
                }
                let [d, dmin] = scale_pairs(pairs);
                let (d, dmin) = (by_two(vmulq_f32(d, factor)), by_two(dmin));
                for p in 0..P {
                    let scale = scales_of(&x[p], at);
                    let all = squares::<F>(&two, &x[p], at);
                    for r in 0..2 {
                        let sum = vcvtq_f32_s32(all[r]);
                        a[p][r] = vfmaq_f32(a[p][r], vmulq_f32(d[r], scale), sum);
                        if F::MINS > 0 {
                            let [m0, m1] = two[r].mins;
                            let [x0, x1] = &x[p];
                            let sum = sums([
                                least::<F>(m0, x0, at),
                                least::<F>(m0, x1, at),
                                least::<F>(m1, x0, at),
                                least::<F>(m1, x1, at),
                            ]);
                            let sum = vcvtq_f32_s32(sum);
                            b[p][r] = vfmaq_f32(b[p][r], vmulq_f32(dmin[r], scale), sum);
                        }
                    }
                }
            }
            for p in 0..P {
                if F::MINS > 0 {
                    for r in 0..2 {
                        a[p][r] = vsubq_f32(a[p][r], b[p][r]);
                    }
                }
                a[p] = apart(a[p]);
            }
            a
        }
    }
}
