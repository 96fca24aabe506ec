//! Q4_K and Q5_K: sub-blocks of 32 values, each with a scale and a minimum of six bits.

use super::{BLOCK, LANES, Lanes, Rows, lanes, level, nearest};
use crate::cpu::simd::{Body, Simd};
use half::f16;

/// Values of a sub-block, of which a block has eight.
const SUB: usize = 32;
const SUBS: usize = BLOCK / SUB;
/// The greatest scale and minimum.
const MOST: f32 = 63.0;

/// Rows that become blocks of levels of `BITS` bits.
pub(super) struct Ranges<'a, const BITS: usize>(pub Rows<'a>, pub &'a mut [u8]);

/// Which scales are tried: `(first + step * n + most level) / range`, for n from 0 to `last`.
struct Candidates {
    first: f32,
    step: f32,
    last: usize,
}

impl<const BITS: usize> Ranges<'_, BITS> {
    const BYTES: usize = 16 + BITS * SUB;
    const LEVELS: f32 = ((1 << BITS) - 1) as f32;

    fn candidates(weighted: bool) -> Candidates {
        let (first, step, last) = match (weighted, BITS) {
            (true, _) => (-0.9, 0.05, 36),
            (false, 4) => (-1.0, 0.1, 20),
            (false, _) => (-0.5, 0.1, 15),
        };
        Candidates { first, step, last }
    }
}

impl<const BITS: usize> Body for Ranges<'_, BITS> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(rows, out) = self;
        let candidates = Self::candidates(rows.importance.is_some());
        let (mut x, mut w): (Lanes<SUB>, Lanes<SUB>) = ([[0.0; LANES]; SUB], [[0.0; LANES]; SUB]);
        // Two blocks fill the lanes.
        let pairs = rows.values.chunks(2 * BLOCK);
        for (pair, (values, out)) in pairs.zip(out.chunks_mut(2 * Self::BYTES)).enumerate() {
            for (half, values) in values.as_chunks::<BLOCK>().0.iter().enumerate() {
                let importance = rows.importance(2 * pair + half);
                spread(values, importance, half * SUBS, &mut x, &mut w);
            }
            weigh(s, &x, &mut w, rows.importance.is_some());
            let found = search(s, &x, &w, Self::LEVELS, &candidates);
            let (mut scale, mut least) = ([0.0; LANES], [0.0; LANES]);
            for (half, block) in out.chunks_exact_mut(Self::BYTES).enumerate() {
                let of = |v: &[f32; LANES]| -> [f32; SUBS] {
                    std::array::from_fn(|at| v[half * SUBS + at])
                };
                let weights = rows.importance.map(|_| of(&found.weight));
                let (d, scales) = six_bits(&of(&found.scale), weights.as_ref());
                let (dmin, mins) = six_bits(&of(&found.depth), weights.as_ref());
                for at in 0..SUBS {
                    scale[half * SUBS + at] = d.to_f32() * f32::from(scales[at]);
                    least[half * SUBS + at] = dmin.to_f32() * f32::from(mins[at]);
                }
                block[..2].copy_from_slice(&d.to_le_bytes());
                block[2..4].copy_from_slice(&dmin.to_le_bytes());
                pack_scales(&scales, &mins, &mut block[4..16]);
            }
            let (scale, least) = (s.load(&scale), s.load(&least));
            let (zero, most) = (s.splat(0.0), s.splat(Self::LEVELS));
            let mut levels = [[0; LANES]; SUB];
            for (levels, x) in levels.iter_mut().zip(&x) {
                let at = s.div(s.add(s.load(x), least), scale);
                *levels = s.low_bytes(nearest(s, at, zero, most));
            }
            for (half, block) in out.chunks_exact_mut(Self::BYTES).enumerate() {
                pack_levels::<BITS>(&levels, half * SUBS, &mut block[16..]);
            }
        }
    }
}

/// Puts a block's values and its columns' importance into lanes `first..first + 8`.
#[inline(always)]
fn spread(
    values: &[f32; BLOCK],
    importance: Option<&[f32]>,
    first: usize,
    x: &mut Lanes<SUB>,
    w: &mut Lanes<SUB>,
) {
    for at in 0..SUBS {
        for i in 0..SUB {
            x[i][first + at] = values[at * SUB + i];
        }
    }
    if let Some(importance) = importance {
        for at in 0..SUBS {
            for i in 0..SUB {
                w[i][first + at] = importance[at * SUB + i];
            }
        }
    }
}

/// How much each value matters: its column's importance, more so the larger the value; where none is
/// known, the larger the value.
#[inline(always)]
fn weigh<S: Simd>(s: S, x: &Lanes<SUB>, w: &mut Lanes<SUB>, is_known: bool) {
    let mut squares = s.splat(0.0);
    for x in x {
        let x = s.load(x);
        squares = s.fma(x, x, squares);
    }
    let mut usual = lanes(s, squares);
    if is_known {
        for block in usual.as_chunks_mut::<SUBS>().0 {
            *block = [2.0 * block.iter().sum::<f32>() / BLOCK as f32; SUBS];
        }
        for (w, x) in w.iter_mut().zip(x) {
            for lane in 0..LANES {
                w[lane] *= (usual[lane] + x[lane] * x[lane]).sqrt();
            }
        }
    } else {
        for usual in &mut usual {
            *usual = (*usual / SUB as f32).sqrt();
        }
        for (w, x) in w.iter_mut().zip(x) {
            for lane in 0..LANES {
                w[lane] = usual[lane] + x[lane].abs();
            }
        }
    }
}

/// What was found: of each sub-block the scale, how far its minimum is below zero, and the sum of its weights.
struct Found {
    scale: [f32; LANES],
    depth: [f32; LANES],
    weight: [f32; LANES],
}

#[inline(always)]
fn search<S: Simd>(
    s: S,
    x: &Lanes<SUB>,
    w: &Lanes<SUB>,
    levels: f32,
    candidates: &Candidates,
) -> Found {
    let (zero, top) = (s.splat(0.0), s.splat(levels));
    let (mut least, mut most) = (s.load(&x[0]), s.load(&x[0]));
    let (mut sum_w, mut sum_x) = (zero, zero);
    for (x, w) in x.iter().zip(w) {
        let (x, w) = (s.load(x), s.load(w));
        (least, most) = (s.min(x, least), s.max(x, most));
        sum_w = s.add(sum_w, w);
        sum_x = s.fma(w, x, sum_x);
    }
    least = s.min(least, zero);
    let bottom = least;
    let mut at = [zero; SUB];
    let inverse = s.div(top, s.sub(most, least));
    let mut scale = s.div(s.splat(1.0), inverse);
    place(s, x, inverse, least, top, &mut at);
    let mut best = error(s, x, w, scale, least, &at);
    for n in 0..=candidates.last {
        let range = candidates.first + candidates.step * n as f32 + levels;
        let inverse = s.div(s.splat(range), s.sub(most, least));
        place(s, x, inverse, least, top, &mut at);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        for i in 0..SUB {
            let wl = s.mul(s.load(&w[i]), at[i]);
            sum_l = s.add(sum_l, wl);
            sum_l2 = s.fma(wl, at[i], sum_l2);
            sum_xl = s.fma(wl, s.load(&x[i]), sum_xl);
        }
        // The scale and minimum that fit these levels best; no minimum is above zero.
        let whole = s.sub(s.mul(sum_w, sum_l2), s.mul(sum_l, sum_l));
        let this = s.sub(s.mul(sum_w, sum_xl), s.mul(sum_x, sum_l));
        let low = s.sub(s.mul(sum_l2, sum_x), s.mul(sum_l, sum_xl));
        let (this, low) = (s.div(this, whole), s.div(low, whole));
        let this = s.where_less(zero, low, s.div(sum_xl, sum_l2), this);
        let low = s.where_less(zero, low, zero, low);
        let off = s.where_less(
            zero,
            whole,
            error(s, x, w, this, low, &at),
            s.splat(f32::INFINITY),
        );
        scale = s.where_less(off, best, this, scale);
        least = s.where_less(off, best, low, least);
        best = s.where_less(off, best, off, best);
    }
    // All alike, and not above zero: the minimum says it all.
    let scale = s.where_less(bottom, most, scale, zero);
    let least = s.where_less(bottom, most, least, bottom);
    Found {
        scale: lanes(s, scale),
        depth: lanes(s, s.sub(zero, least)),
        weight: lanes(s, sum_w),
    }
}

/// Each value's level at one over the scale and a minimum.
#[inline(always)]
fn place<S: Simd>(
    s: S,
    x: &Lanes<SUB>,
    inverse: S::V,
    least: S::V,
    top: S::V,
    at: &mut [S::V; SUB],
) {
    for (at, x) in at.iter_mut().zip(x) {
        let x = s.mul(inverse, s.sub(s.load(x), least));
        *at = level(s, x, s.splat(0.0), top);
    }
}

/// What is lost at these levels.
#[inline(always)]
fn error<S: Simd>(
    s: S,
    x: &Lanes<SUB>,
    w: &Lanes<SUB>,
    scale: S::V,
    least: S::V,
    at: &[S::V; SUB],
) -> S::V {
    let mut error = s.splat(0.0);
    for i in 0..SUB {
        let off = s.sub(s.fma(scale, at[i], least), s.load(&x[i]));
        error = s.fma(s.mul(s.load(&w[i]), off), off, error);
    }
    error
}

/// Eight numbers, none below zero, as multiples of one: by the greatest of them, or, where the
/// weights of their sub-blocks are known, as `make_qp_quants` fits them.
fn six_bits(x: &[f32; SUBS], weights: Option<&[f32; SUBS]>) -> (f16, [u8; SUBS]) {
    let greatest = x.iter().fold(0f32, |most, &x| most.max(x));
    let at = |inverse: f32| x.map(|x| (inverse * x).round_ties_even().clamp(0.0, MOST));
    let bytes = |levels: [f32; SUBS]| levels.map(|l| l as u8);
    let Some(w) = weights else {
        let inverse = if greatest > 0.0 { MOST / greatest } else { 0.0 };
        return (f16::from_f32(greatest / MOST), bytes(at(inverse)));
    };
    if greatest < 1e-15 {
        return (f16::ZERO, [0; SUBS]);
    }
    let error = |inverse: f32| {
        let (levels, scale) = (at(inverse), 1.0 / inverse);
        (0..SUBS)
            .map(|i| w[i] * (x[i] - scale * levels[i]).powi(2))
            .sum::<f32>()
    };
    let mut inverse = MOST / greatest;
    let mut best = error(inverse);
    for n in (-4..=4).filter(|&n| n != 0) {
        let other = (0.1 * n as f32 + MOST) / greatest;
        let off = error(other);
        if off < best {
            (best, inverse) = (off, other);
        }
    }
    let mut levels = at(inverse);
    let (mut xl, mut l2) = (0.0, 0.0);
    for i in 0..SUBS {
        xl += w[i] * x[i] * levels[i];
        l2 += w[i] * levels[i] * levels[i];
    }
    for _ in 0..5 {
        let mut changed = false;
        for i in 0..SUBS {
            let (others_xl, others_l2) = (
                xl - w[i] * x[i] * levels[i],
                l2 - w[i] * levels[i] * levels[i],
            );
            if others_xl <= 0.0 || others_l2 <= 0.0 {
                continue;
            }
            let level = (x[i] * others_l2 / others_xl)
                .round_ties_even()
                .clamp(0.0, MOST);
            let (new_xl, new_l2) = (
                others_xl + w[i] * x[i] * level,
                others_l2 + w[i] * level * level,
            );
            if level != levels[i] && new_xl * new_xl * l2 > xl * xl * new_l2 {
                (levels[i], xl, l2, changed) = (level, new_xl, new_l2, true);
            }
        }
        if !changed {
            break;
        }
    }
    let d = if l2 > 0.0 { xl / l2 } else { 0.0 };
    (f16::from_f32(d), bytes(levels))
}

/// Four whole scales and minima, then the rest of eight in nibbles and what the first left free.
fn pack_scales(scales: &[u8; SUBS], mins: &[u8; SUBS], out: &mut [u8]) {
    for at in 0..4 {
        let (scale, least) = (scales[at + 4], mins[at + 4]);
        out[at] = scales[at] | (scale >> 4) << 6;
        out[at + 4] = mins[at] | (least >> 4) << 6;
        out[at + 8] = scale & 15 | least << 4;
    }
}

/// Nibbles of two sub-blocks in a byte; before them, for levels of five bits, the fifths: a bit for
/// each of the eight sub-blocks in a byte for each value.
#[inline(always)]
fn pack_levels<const BITS: usize>(levels: &[[i8; LANES]; SUB], first: usize, out: &mut [u8]) {
    let level = |sub: usize, i: usize| levels[i][first + sub].cast_unsigned();
    let (fifths, nibbles) = out.split_at_mut((BITS - 4) * SUB);
    for (pair, out) in nibbles.chunks_exact_mut(SUB).enumerate() {
        for (i, out) in out.iter_mut().enumerate() {
            *out = level(2 * pair, i) & 15 | level(2 * pair + 1, i) << 4;
        }
    }
    for (i, out) in fifths.iter_mut().enumerate() {
        *out = (0..SUBS).fold(0, |bits, sub| bits | (level(sub, i) >> 4) << sub);
    }
}
