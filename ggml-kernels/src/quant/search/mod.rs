//! The search for the scales of K types, on sixteen sub-blocks at once.
//!
//! The candidates, their order and what decides between them are ggml's (`make_qkx2_quants`,
//! `make_qkx3_quants`, `make_qx_quants`), whose loops are over one sub-block. Lanes do not meet, so a
//! block's bits do not depend on its neighbours, on how rows were cut, or on the [`Tier`]. Owns the
//! layout of what it writes; refuses nothing: lengths and values were looked at before.

mod ranges;
mod scales;

use super::TensorType;
use crate::cpu::Tier;
use crate::cpu::simd::{LANES, Simd, dispatch};
use ranges::Ranges;
use scales::Scales;

/// Values of a block.
const BLOCK: usize = 256;
/// Adding it rounds to a whole number, which the lowest bits of the sum are: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// Whether there is a search for this type.
pub(super) fn knows(ty: TensorType) -> bool {
    matches!(ty, TensorType::Q4K | TensorType::Q5K | TensorType::Q6K)
}

/// Quantizes whole rows of finite values to a type that it [`knows`].
pub(super) fn rows(tier: Tier, ty: TensorType, rows: Rows<'_>, out: &mut [u8]) {
    match ty {
        TensorType::Q4K => dispatch(tier, Ranges::<4>(rows, out)),
        TensorType::Q5K => dispatch(tier, Ranges::<5>(rows, out)),
        TensorType::Q6K => dispatch(tier, Scales(rows, out)),
        other => unreachable!("{other} is searched for by ggml"),
    }
}

/// What is quantized.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub values: &'a [f32],
    /// One weight for each column, where known.
    pub importance: Option<&'a [f32]>,
}

impl<'a> Rows<'a> {
    /// The weights of block `at`'s columns.
    #[inline(always)]
    fn importance(&self, at: usize) -> Option<&'a [f32]> {
        let of = |weights: &'a [f32]| &weights[at * BLOCK % weights.len()..][..BLOCK];
        self.importance.map(of)
    }
}

/// So many values of each of sixteen sub-blocks, a sub-block a lane.
type Lanes<const N: usize> = [[f32; LANES]; N];

/// The nearest whole number from `least` to `most`, [`ROUND`] above itself; `least` for NaN.
#[inline(always)]
fn nearest<S: Simd>(s: S, x: S::V, least: S::V, most: S::V) -> S::V {
    s.add(s.min(s.max(x, least), most), s.splat(ROUND))
}

/// The same, as it is.
#[inline(always)]
fn level<S: Simd>(s: S, x: S::V, least: S::V, most: S::V) -> S::V {
    s.sub(nearest(s, x, least, most), s.splat(ROUND))
}

/// The sixteen lanes' numbers.
#[inline(always)]
fn lanes<S: Simd>(s: S, v: S::V) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    s.store(&mut out, v);
    out
}

#[cfg(test)]
mod tests;
