//! Products of weights in blocks with activations in 8 bits.
//!
//! The law, for every tier and any number of rows at a time. For one output, with `x` the
//! activation's 8-bit values, in the order of the blocks and each `fma` rounded once:
//!
//! - K types: `a = fma(d * dx, I, a)` and `b = fma(dmin * dx, M, b)` for each block of 256, then
//!   `a - b`, where `I = sum of scale * q.x` and `M = sum of min * x` over the groups are exact
//!   (`q3_k` and `q6_k` have no minima: `a`).
//! - `iq2_*`, `iq3_*`: the same without minima, `q` being signed points of a grid ([`grids`]), scales
//!   `2 s + 1` and `d` divided by 8, 4 or 1, so that all but `d` is whole.
//! - `q8_0`, `q4_0`: `a = fma(d * dx, q.x, a)` for each block of 32, then `a`.
//!
//! Kernels are inlined whole into one function that has a tier's instructions. What they give to
//! `array::map` and the like is a function by itself: in a program for every processor it has not
//! these instructions, may stay a call, and is twenty times slower then. So vectors of a hot loop are
//! made without closures.

#[cfg(target_arch = "x86_64")]
mod amd;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod grids;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile512;
pub(crate) mod unpack;

/// Where what a row of blocks of 256 reads next is asked for.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ahead {
    /// So many bytes behind what is read now, where rows lie as they are read.
    bytes: isize,
    /// Into the second level of the caches alone, whence the processor itself brings it nearer.
    far: bool,
}

#[cfg(target_arch = "x86_64")]
impl Ahead {
    /// Past the end of a page, where the processor itself does not look, and as far as memory's latency is
    /// long: 1 KiB costs 15 % of the speed on Zen 5, 16 KiB gains nothing more. A Zen 4 wants it
    /// farther and not so near: what it is asked for into the first level takes that level's few slots
    /// from what it reads ahead by itself, and loses up to a tenth.
    fn of(is_zen_4: bool) -> Ahead {
        Ahead {
            bytes: if is_zen_4 { 8192 } else { 4096 },
            far: is_zen_4,
        }
    }

    /// Asks for the line at `at + bytes`. It need not exist.
    #[inline(always)]
    fn ask(self, at: *const u8, bytes: isize) {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        let at = at.wrapping_offset(bytes).cast();
        // SAFETY: asking for a line reads nothing and never faults.
        unsafe {
            if self.far {
                _mm_prefetch::<_MM_HINT_T1>(at);
            } else {
                _mm_prefetch::<_MM_HINT_T0>(at);
            }
        }
    }
}
