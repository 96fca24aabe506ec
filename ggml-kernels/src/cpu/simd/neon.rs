//! The lanes in four registers of NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Arith, Body, LANES, SIGNLESS, Simd};

/// Exists only where the processor has NEON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neon(());

/// # Safety
/// The processor has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon<B: Body>(body: B) -> B::Out {
    body.run(Neon(()))
}

/// `f` on each of four registers.
macro_rules! four {
    ($f:ident $(::<$n:literal>)?, $($v:expr),+) => {{
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe {
            [
                $f$(::<$n>)?($($v[0]),+),
                $f$(::<$n>)?($($v[1]),+),
                $f$(::<$n>)?($($v[2]),+),
                $f$(::<$n>)?($($v[3]),+),
            ]
        }
    }};
}

impl Arith for Neon {
    type V = [float32x4_t; 4];
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: `self` exists only where the processor has NEON.
        [unsafe { vdupq_n_f32(x) }; 4]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        four!(vaddq_f32, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        four!(vsubq_f32, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        four!(vmulq_f32, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        four!(vdivq_f32, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        four!(vfmaq_f32, c, a, b)
    }
    // Not the instructions of these names, whose result is NaN where one of both is.
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        self.where_less(a, b, a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        self.where_less(b, a, a, b)
    }
    #[inline(always)]
    fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        let less = four!(vcltq_f32, a, b);
        four!(vbslq_f32, less, x, y)
    }
    #[inline(always)]
    fn scale(self, a: Self::V, n: Self::V) -> Self::V {
        let half = self.mul(n, self.splat(0.5));
        let half = four!(vrndmq_f32, half);
        let rest = self.sub(n, half);
        let a = self.mul(a, self.power_of_two(half));
        self.mul(a, self.power_of_two(rest))
    }
}

impl Neon {
    /// As the scalar one.
    #[inline(always)]
    fn power_of_two(self, n: [float32x4_t; 4]) -> [float32x4_t; 4] {
        let n = self.add(n, self.splat(8_388_735.0));
        let bits = four!(vreinterpretq_u32_f32, n);
        let bits = four!(vshlq_n_u32::<23>, bits);
        four!(vreinterpretq_f32_u32, bits)
    }

    #[inline(always)]
    fn signless(self, v: [float32x4_t; 4]) -> [uint32x4_t; 4] {
        let bits = four!(vreinterpretq_u32_f32, v);
        // SAFETY: `self` for NEON.
        let mask = [unsafe { vdupq_n_u32(SIGNLESS) }; 4];
        four!(vandq_u32, bits, mask)
    }
}

/// Four IEEE halves.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
pub(in crate::cpu) unsafe fn from_halves(x: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: an instruction of registers that every NEON has (the intrinsic of it wants a newer
    // compiler than this crate).
    unsafe {
        asm!(
            "fcvtl {wide:v}.4s, {x:v}.4h",
            wide = lateout(vreg) wide,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    wide
}

impl Simd for Neon {
    /// Thirty-two registers are eight vectors.
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn read(self, at: *const f32) -> Self::V {
        // SAFETY: the caller's promise, and `self` for NEON.
        unsafe {
            [
                vld1q_f32(at),
                vld1q_f32(at.add(4)),
                vld1q_f32(at.add(8)),
                vld1q_f32(at.add(12)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn write(self, at: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise, and `self` for NEON.
        unsafe {
            vst1q_f32(at, v[0]);
            vst1q_f32(at.add(4), v[1]);
            vst1q_f32(at.add(8), v[2]);
            vst1q_f32(at.add(12), v[3]);
        }
    }
    #[inline(always)]
    fn prefetch(self, line: &[u8]) {
        // SAFETY: a hint, whatever the address.
        unsafe {
            asm!(
                "prfm pldl2keep, [{at}]",
                at = in(reg) line.as_ptr(),
                options(nostack, preserves_flags, readonly),
            );
        }
    }
    #[inline(always)]
    fn halves(self, x: &[u8; 2 * LANES]) -> Self::V {
        let at = x.as_ptr().cast::<u16>();
        // SAFETY: sixteen halves are four registers' halves; `self` for NEON.
        unsafe {
            [
                from_halves(vld1_u16(at)),
                from_halves(vld1_u16(at.add(4))),
                from_halves(vld1_u16(at.add(8))),
                from_halves(vld1_u16(at.add(12))),
            ]
        }
    }
    #[inline(always)]
    fn bhalves(self, x: &[u8; 2 * LANES]) -> Self::V {
        let at = x.as_ptr().cast::<u16>();
        // SAFETY: as above.
        let halves = unsafe {
            [
                vld1_u16(at),
                vld1_u16(at.add(4)),
                vld1_u16(at.add(8)),
                vld1_u16(at.add(12)),
            ]
        };
        let bits = four!(vshll_n_u16::<16>, halves);
        four!(vreinterpretq_f32_u32, bits)
    }
    #[inline(always)]
    fn bytes(self, x: &[u8; LANES]) -> Self::V {
        // SAFETY: sixteen bytes are one register; `self` for NEON.
        let wide = unsafe {
            let v = vld1q_s8(x.as_ptr().cast());
            let (low, high) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        };
        four!(vcvtq_f32_s32, wide)
    }
    #[inline(always)]
    fn greatest(self, v: Self::V) -> u32 {
        let [a, b, c, d] = self.signless(v);
        // SAFETY: `self` for NEON.
        unsafe { vmaxvq_u32(vmaxq_u32(vmaxq_u32(a, b), vmaxq_u32(c, d))) }
    }
    #[inline(always)]
    fn low_bytes(self, v: Self::V) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        let v = four!(vreinterpretq_s32_f32, v);
        // SAFETY: sixteen bytes are one register; `self` for NEON.
        unsafe {
            let low = vmovn_high_s32(vmovn_s32(v[0]), v[1]);
            let high = vmovn_high_s32(vmovn_s32(v[2]), v[3]);
            vst1q_s8(bytes.as_mut_ptr(), vmovn_high_s16(vmovn_s16(low), high));
        }
        bytes
    }
    #[inline(always)]
    fn sum_bytes(self, x: &[i8; LANES]) -> i16 {
        // SAFETY: sixteen bytes are one register; `self` for NEON.
        unsafe { vaddlvq_s8(vld1q_s8(x.as_ptr())) }
    }
}
