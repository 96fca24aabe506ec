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
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tile512;
pub(crate) mod unpack;

/// How far ahead a row is asked for, in bytes: past the end of a page, where the processor itself
/// does not look, and as far as memory's latency is long (1 KiB costs 15 % of the speed on Zen 5,
/// 16 KiB gains nothing more).
#[cfg(target_arch = "x86_64")]
const AHEAD: isize = 4096;
