//! Sixteen lanes of `f32`, the one vector that kernels are written in: a register of AVX-512, two
//! of AVX2, four of NEON, an array elsewhere. A kernel is one inlined body; every lane of every tier computes the
//! same rounded operations in the same order, so the bits do not depend on the tier.

#[cfg(target_arch = "aarch64")]
pub(in crate::cpu) mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use scalar::{One, Sixteen};

use super::tier::{Kind, Tier};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;
/// All bits of a float but its sign.
const SIGNLESS: u32 = 0x7fff_ffff;

/// Rounded operations, lane by lane.
pub(crate) trait Arith: Copy {
    type V: Copy;
    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `x` where `a` is less than `b`, else (where either is NaN too) `y`.
    fn where_less(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `a * 2^n`, rounded once; `n` is whole and in -152..=128, `a` in 0.5..=2.
    fn scale(self, a: Self::V, n: Self::V) -> Self::V;
}

/// [`Arith`] on sixteen lanes, with memory. A value of it is the proof that the processor has the
/// instructions.
pub(crate) trait Simd: Arith {
    /// A vector is one register of many: two vectors side by side fit where else one does.
    const WIDE: bool;

    /// # Safety
    /// Sixteen floats can be read there.
    unsafe fn read(self, at: *const f32) -> Self::V;
    /// # Safety
    /// Sixteen floats can be written there.
    unsafe fn write(self, at: *mut f32, v: Self::V);
    fn load(self, x: &[f32; LANES]) -> Self::V {
        // SAFETY: sixteen floats.
        unsafe { self.read(x.as_ptr()) }
    }
    fn store(self, x: &mut [f32; LANES], v: Self::V) {
        // SAFETY: sixteen floats.
        unsafe { self.write(x.as_mut_ptr(), v) }
    }
    /// Asks for the memory of a line, where that can be asked.
    fn prefetch(self, line: &[u8]);
    /// From IEEE halves.
    fn halves(self, x: &[u8; 2 * LANES]) -> Self::V;
    /// From bfloat16.
    fn bhalves(self, x: &[u8; 2 * LANES]) -> Self::V;
    /// From signed bytes.
    fn bytes(self, x: &[u8; LANES]) -> Self::V;
    /// The greatest of the lanes' bits without their signs: the greatest magnitude, NaN above all.
    fn greatest(self, v: Self::V) -> u32;
    /// The lowest byte of each lane's bits.
    fn low_bytes(self, v: Self::V) -> [i8; LANES];
    /// The sum of so many bytes.
    fn sum_bytes(self, x: &[i8; LANES]) -> i16;

    /// The sum of the lanes: halves onto each other, then quarters, eighths, the last two.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut t = [0.0; LANES];
        self.store(&mut t, v);
        for half in [8, 4, 2, 1] {
            for at in 0..half {
                t[at] += t[at + half];
            }
        }
        t[0]
    }
}

/// A kernel: its arguments are its fields. `run` must be `#[inline(always)]`, so that it is compiled
/// with the instructions of its tier.
pub(crate) trait Body {
    type Out;
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Runs a kernel with the instructions of `tier`.
pub(crate) fn dispatch<B: Body>(tier: Tier, body: B) -> B::Out {
    match tier.kind() {
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => {
            // SAFETY: a tier of this kind exists only where the processor has these instructions.
            unsafe { x86::avx2(body) }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 | Kind::Amx => {
            // SAFETY: as above; the kind with tiles has those of AVX-512.
            unsafe { x86::avx512(body) }
        }
        #[cfg(target_arch = "aarch64")]
        Kind::Neon | Kind::NeonDot | Kind::NeonI8mm => {
            // SAFETY: as above; the kinds with products of bytes have those of NEON.
            unsafe { neon::neon(body) }
        }
        _ => {
            debug_assert_eq!(tier.kind(), Kind::Scalar);
            body.run(Sixteen)
        }
    }
}

/// Asks for the memory of some bytes, where that can be asked.
pub(crate) fn ask_for(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        ask_for_line(line.as_ptr());
    }
}

/// Asks for the line at `at`, which need not exist, where that can be asked.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn ask_for_line(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub(crate) fn ask_for_line(at: *const u8) {
    // SAFETY: a hint, whatever the address.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{at}]",
            at = in(reg) at,
            options(nostack, preserves_flags, readonly),
        );
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn ask_for_line(_: *const u8) {}
