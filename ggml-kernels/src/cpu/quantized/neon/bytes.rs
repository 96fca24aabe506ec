//! Sums of products of signed bytes, exact: no byte of the activations is -128.

use std::arch::aarch64::*;
use std::arch::asm;

/// Must be inlined where the processor has the instructions.
pub(super) trait Bytes {
    /// To each lane of `sum` four of the sixteen products `a b`, whichever.
    ///
    /// # Safety
    /// The processor has NEON and what the type says.
    unsafe fn dot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

/// With what every NEON has.
pub(super) struct Plain;
/// With dot products.
pub(super) struct Dot;

impl Bytes for Plain {
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise. Two products of at most 128 * 127 fit 16 bits.
        unsafe {
            let pairs = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            vpadalq_s16(sum, vmlal_high_s8(pairs, a, b))
        }
    }
}

impl Bytes for Dot {
    #[inline(always)]
    unsafe fn dot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: an instruction of registers, which the caller promises (its intrinsic is not stable).
        unsafe {
            asm!(
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inlateout(vreg) sum,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

/// Two rows of eight bytes times two others: `sum[2 i + j]` and row `i` of `a` times row `j` of `b`.
///
/// # Safety
/// The processor has NEON's matrix products of bytes.
#[inline(always)]
pub(super) unsafe fn square(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction of registers, which the caller promises (its intrinsic is not stable).
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inlateout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// The first eight bytes of both, the last eight of both.
#[inline(always)]
pub(super) unsafe fn beside(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: inlined where the processor has the instructions.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [
            vreinterpretq_s8_s64(vzip1q_s64(a, b)),
            vreinterpretq_s8_s64(vzip2q_s64(a, b)),
        ]
    }
}
