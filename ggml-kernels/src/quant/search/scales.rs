//! Q6_K: sub-blocks of 16 values, each with a signed scale of eight bits.

use super::{BLOCK, LANES, Lanes, Rows, lanes, level, nearest};
use crate::cpu::simd::{Body, Simd};
use half::f16;

/// Values of a sub-block; a block's sub-blocks fill the lanes.
const SUB: usize = 16;
const BYTES: usize = 210;
/// Levels reach from minus this to one less.
const MOST: f32 = 32.0;
/// What is no more than this is nothing.
const NOTHING: f32 = 1e-15;

/// Rows that become blocks.
pub(super) struct Scales<'a>(pub Rows<'a>, pub &'a mut [u8]);

impl Body for Scales<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(rows, out) = self;
        let blocks = rows.values.as_chunks::<BLOCK>().0.iter();
        for (at, (values, out)) in blocks.zip(out.chunks_exact_mut(BYTES)).enumerate() {
            let (mut x, mut w): (Lanes<SUB>, Lanes<SUB>) =
                ([[0.0; LANES]; SUB], [[0.0; LANES]; SUB]);
            let importance = rows.importance(at);
            for lane in 0..LANES {
                for i in 0..SUB {
                    let value = values[lane * SUB + i];
                    x[i][lane] = value;
                    w[i][lane] = importance.map_or(value * value, |w| w[lane * SUB + i]);
                }
            }
            let scales = search(s, &x, &w);
            let size = |x: f32| x.abs();
            let greatest = scales
                .iter()
                .fold(0f32, |most, &x| if size(x) > size(most) { x } else { most });
            if greatest.abs() < NOTHING {
                out.fill(0);
                continue;
            }
            let inverse = -128.0 / greatest;
            let d = f16::from_f32(1.0 / inverse);
            let whole = scales.map(|scale| (inverse * scale).round_ties_even().min(127.0));
            let scale = s.load(&whole.map(|whole| d.to_f32() * whole));
            let mut levels = [[0; LANES]; SUB];
            for (levels, x) in levels.iter_mut().zip(&x) {
                let at = s.div(s.load(x), scale);
                // From 0 on, as they are kept.
                let at = level(s, at, s.splat(-MOST), s.splat(MOST - 1.0));
                let at = s.add(at, s.splat(MOST));
                *levels = s.low_bytes(nearest(s, at, s.splat(0.0), s.splat(63.0)));
            }
            pack(&levels, &mut out[..192]);
            for (out, whole) in out[192..208].iter_mut().zip(whole) {
                *out = (whole as i8).cast_unsigned();
            }
            out[208..].copy_from_slice(&d.to_le_bytes());
        }
    }
}

/// Each sub-block's scale: of what 19 guesses make its levels, the scale that fits those best.
#[inline(always)]
fn search<S: Simd>(s: S, x: &Lanes<SUB>, w: &Lanes<SUB>) -> [f32; LANES] {
    let zero = s.splat(0.0);
    let (mut least, mut most) = (zero, zero);
    for x in x {
        let x = s.load(x);
        (least, most) = (s.min(x, least), s.max(x, most));
    }
    let depth = s.sub(zero, least);
    let greatest = s.where_less(most, depth, least, most);
    let (xl, l2) = fit(s, x, w, MOST, greatest);
    let mut scale = s.where_less(zero, l2, s.div(xl, l2), zero);
    let mut best = s.mul(scale, xl);
    for n in (-9..=9).filter(|&n| n != 0) {
        let (xl, l2) = fit(s, x, w, MOST + 0.1 * n as f32, greatest);
        let (old, new) = (s.mul(best, l2), s.mul(xl, xl));
        let this = s.div(xl, l2);
        scale = s.where_less(old, new, this, scale);
        best = s.where_less(old, new, s.mul(this, xl), best);
    }
    let size = s.max(most, depth);
    lanes(s, s.where_less(size, s.splat(NOTHING), zero, scale))
}

/// Of the levels that values have where the greatest is put at `-range`: what decides how well they
/// fit, and at which scale.
#[inline(always)]
fn fit<S: Simd>(s: S, x: &Lanes<SUB>, w: &Lanes<SUB>, range: f32, greatest: S::V) -> (S::V, S::V) {
    let inverse = s.div(s.splat(-range), greatest);
    let (mut xl, mut l2) = (s.splat(0.0), s.splat(0.0));
    for (x, w) in x.iter().zip(w) {
        let x = s.load(x);
        let at = level(s, s.mul(inverse, x), s.splat(-MOST), s.splat(MOST - 1.0));
        let wl = s.mul(s.load(w), at);
        xl = s.fma(wl, x, xl);
        l2 = s.fma(wl, at, l2);
    }
    (xl, l2)
}

/// Of each half of a block, nibbles of four runs of 32 values, two runs in a byte, and behind those
/// of both halves the two high bits of the four in a byte.
#[inline(always)]
fn pack(levels: &[[i8; LANES]; SUB], out: &mut [u8]) {
    let level = |at: usize| levels[at % SUB][at / SUB].cast_unsigned();
    let (low, high) = out.split_at_mut(128);
    for (half, (low, high)) in low
        .chunks_exact_mut(64)
        .zip(high.chunks_exact_mut(32))
        .enumerate()
    {
        for i in 0..32 {
            let run = |n: usize| level(128 * half + 32 * n + i);
            low[i] = run(0) & 15 | run(2) << 4;
            low[i + 32] = run(1) & 15 | run(3) << 4;
            high[i] = run(0) >> 4 | run(1) >> 4 << 2 | run(2) >> 4 << 4 | run(3) >> 4 << 6;
        }
    }
}
