//! Attention on matrix tiles of bfloat16 (AMX), for the tier that has them. Queries, weights and rows
//! are sums of a high and a low part, 16 bits together; three of the four products are added, that
//! of two lows is not. Up to 3e-5 from f64 in the tests, where the other tiers are 3e-6, and not
//! their bits. For itself it is as exact as they are: a query's bits depend on its own rows alone.

mod pack;
#[cfg(test)]
mod tests;
mod unit;

use std::marker::PhantomData;

use super::attend::{Attend, LEAST, Sizes, hide, weigh};
use super::fold::{fold_head, fold_sums};
use super::product::WIDTH;
use super::rows::load_rows;
use super::{BLOCK, SPLIT};
use crate::cpu::Tier;
use crate::cpu::simd::{Body, Simd, dispatch};
use crate::quant::TensorType;
use pack::{Pair, STEP};
use unit::{Amx, Operand, Unit};

/// Floats from a value's row to the next, and what else is padded to whole steps.
#[derive(Clone, Copy)]
struct Widths {
    latent: usize,
    rank: usize,
}

impl Widths {
    fn new(sizes: &Sizes) -> Widths {
        Widths {
            latent: sizes.latent.next_multiple_of(STEP),
            rank: sizes.rank.next_multiple_of(STEP),
        }
    }

    /// Words of the parts of keys, values, weights, and of a group's queries.
    fn keys(&self) -> usize {
        BLOCK * self.latent / 2
    }
    fn values(&self) -> usize {
        BLOCK / 2 * self.rank
    }
    fn weights(&self) -> usize {
        WIDTH * BLOCK / 2
    }
    fn queries(&self) -> usize {
        self.latent / 2 * WIDTH
    }
    fn sums(&self) -> usize {
        WIDTH * self.rank
    }
}

/// Floats that a worker needs for `groups` at a time.
pub(super) fn work(sizes: &Sizes, groups: usize) -> usize {
    let w = Widths::new(sizes);
    let tile = BLOCK * sizes.wide + BLOCK * WIDTH + WIDTH;
    let group = 2 * w.queries() + w.sums() + sizes.part();
    tile + 2 * (w.keys() + w.values() + w.weights()) + groups * group
}

/// [`Attend`] on the processor's tiles.
///
/// # Safety
/// The processor has AVX-512 with BF16 and matrix tiles, and this process may use them.
pub(super) unsafe fn run(tier: Tier, attend: Attend<'_>) {
    let unit = PhantomData::<Amx>;
    dispatch(tier, OnTiles { attend, unit });
}

/// The same on emulated tiles.
///
/// # Safety
/// The processor has AVX-512 with BF16.
#[cfg(test)]
pub(super) unsafe fn run_emulated(tier: Tier, attend: Attend<'_>) {
    let unit = PhantomData::<unit::Emulated>;
    dispatch(tier, OnTiles { attend, unit });
}

/// Made only where there is AVX-512 with BF16, and whatever `U` needs.
struct OnTiles<'a, U> {
    attend: Attend<'a>,
    unit: PhantomData<U>,
}

/// A group's rows.
struct Group<'g> {
    visible: [usize; WIDTH],
    most: usize,
    queries: Pair<'g>,
    /// Of this split, `[WIDTH, rank]`.
    sums: &'g mut [f32],
    /// Gathers all splits.
    all: &'g mut [f32],
    /// Gathers one split after the first.
    one: &'g mut [f32],
}

/// What a worker packs a tile and its weights into.
struct Packed<'p> {
    keys: Pair<'p>,
    values: Pair<'p>,
    weights: Pair<'p>,
    /// Rows have low parts.
    low: bool,
}

impl<U: Unit> Body for OnTiles<'_, U> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut attend = self.attend;
        let sizes = Sizes::new(attend.shape);
        let w = Widths::new(&sizes);
        let mut rest = std::mem::take(&mut attend.work);
        let mut take = |n: usize| {
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(n);
            rest = behind;
            part
        };
        let tile = take(BLOCK * sizes.wide);
        let scores = take(BLOCK * WIDTH);
        let factors = take(WIDTH);
        let mut pair = |n: usize| Pair {
            high: words(take(n)),
            low: words(take(n)),
        };
        let mut packed = Packed {
            keys: pair(w.keys()),
            values: pair(w.values()),
            weights: pair(w.weights()),
            low: attend.ty != TensorType::Bf16,
        };
        let parts = std::mem::take(&mut attend.parts);
        let parts = parts.chunks_exact_mut(sizes.part());
        let groups = attend.groups.clone().zip(parts);
        let mut groups: Vec<Group<'_>> = groups
            .map(|(group, all)| {
                let (q, visible) = attend.group(group);
                let mut queries = Pair {
                    high: words(take(w.queries())),
                    low: words(take(w.queries())),
                };
                let scale = attend.shape.scale;
                // SAFETY: `self` was made where there is AVX-512 with BF16.
                unsafe { pack::queries(q, sizes.latent, w.latent, scale, &mut queries) };
                Group {
                    most: visible[WIDTH - 1],
                    visible,
                    queries,
                    sums: take(w.sums()),
                    all,
                    one: take(sizes.part()),
                }
            })
            .collect();
        let most = groups.iter().map(|g| g.most).max().unwrap_or(0);
        let mut unit = U::new();
        for split in attend.splits.clone() {
            let first = split == attend.splits.start;
            let rows = split * SPLIT..most.min((split + 1) * SPLIT);
            let seeing = |group: &&mut Group<'_>| group.most > rows.start;
            for group in groups.iter_mut().filter(seeing) {
                let head = if first {
                    &mut *group.all
                } else {
                    &mut *group.one
                };
                head[..WIDTH].fill(LEAST);
                head[WIDTH..2 * WIDTH].fill(0.0);
                group.sums.fill(0.0);
            }
            for start in rows.clone().step_by(BLOCK) {
                let n = BLOCK.min(rows.end - start);
                let block = attend.lane.blocks[start / BLOCK];
                load_rows(s, attend.ty, block, n, sizes.latent, tile);
                // What no query sees is multiplied with a weight of zero.
                tile[n * sizes.wide..].fill(0.0);
                let (from, to) = ([sizes.wide, sizes.latent], [w.latent, w.rank]);
                // SAFETY: as above.
                unsafe { pack::rows(tile, from, to, &mut packed.keys, &mut packed.values) };
                for group in groups.iter_mut().filter(|g| g.most > start) {
                    step(
                        s,
                        &mut unit,
                        w,
                        start,
                        group,
                        first,
                        &mut packed,
                        scores,
                        factors,
                    );
                }
            }
            for group in groups.iter_mut().filter(seeing) {
                let part = if first {
                    &mut *group.all
                } else {
                    &mut *group.one
                };
                let to = words(&mut part[2 * WIDTH..]);
                // SAFETY: as above.
                unsafe { pack::columns(words(group.sums), w.rank, sizes.rank, to) };
                if !first {
                    let (head, sums) = group.all.split_at_mut(2 * WIDTH);
                    let factors = fold_head(s, head, group.one);
                    fold_sums(s, &factors, sums, &group.one[2 * WIDTH..]);
                }
            }
        }
    }
}

/// One tile, whose rows begin with row `start` of the lane.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the parts of a worker's memory")]
fn step<S: Simd, U: Unit>(
    s: S,
    unit: &mut U,
    w: Widths,
    start: usize,
    group: &mut Group<'_>,
    first: bool,
    packed: &mut Packed<'_>,
    scores: &mut [f32],
    factors: &mut [f32],
) {
    let part = if first {
        &mut *group.all
    } else {
        &mut *group.one
    };
    let n = BLOCK.min(group.most - start);
    let halves = n.div_ceil(STEP);
    let steps = w.latent / STEP;
    assert!(scores.len() == BLOCK * WIDTH && group.sums.len() == w.sums());
    let queries = [&*group.queries.high, &*group.queries.low].map(|q| operand(q, 0, WIDTH));
    for half in 0..halves {
        let keys = [&*packed.keys.high, &*packed.keys.low];
        let keys = keys.map(|k| operand(k, half * STEP * w.latent / 2, w.latent / 2));
        // SAFETY: 32 rows of keys from each half on, `latent / 32` steps of them and of the
        // queries, and 32 rows of scores.
        unsafe {
            unit.zero();
            unit.add(keys[0], queries[0], steps);
            unit.add(keys[0], queries[1], steps);
            if packed.low {
                unit.add(keys[1], queries[0], steps);
            }
            let to = scores.as_mut_ptr().add(half * STEP * WIDTH);
            unit.store(to, WIDTH * size_of::<f32>());
        }
    }
    let rows = scores.as_chunks_mut::<WIDTH>().0;
    hide(&group.visible, start, &mut rows[..n]);
    weigh(s, 2, &mut rows[..n], part, factors);
    rows[n..].fill([0.0; WIDTH]);
    for (sums, &factor) in group.sums.chunks_exact_mut(w.rank).zip(&*factors) {
        // Times one is what is there.
        if factor != 1.0 {
            sums.iter_mut().for_each(|sum| *sum *= factor);
        }
    }
    // SAFETY: made only where there is AVX-512 with BF16.
    unsafe { pack::weights(scores, &mut packed.weights) };
    let weights = [&*packed.weights.high, &*packed.weights.low];
    let weights = weights.map(|p| operand(p, 0, BLOCK / 2));
    for column in (0..w.rank).step_by(STEP) {
        let values = [&*packed.values.high, &*packed.values.low];
        let values = values.map(|v| operand(v, column, w.rank));
        // SAFETY: 32 rows of sums and of weights; the halves are steps of the weights and of the
        // values, whose rows go on for 32 columns.
        unsafe {
            let sums = group.sums.as_mut_ptr().add(column);
            unit.load(sums, w.rank * size_of::<f32>());
            unit.add(weights[0], values[0], halves);
            unit.add(weights[1], values[0], halves);
            if packed.low {
                unit.add(weights[0], values[1], halves);
            }
            unit.store(sums, w.rank * size_of::<f32>());
        }
    }
}

/// Rows of `width` words from word `at` on.
#[inline(always)]
fn operand(x: &[u32], at: usize, width: usize) -> Operand {
    Operand {
        start: x[at..].as_ptr(),
        stride: width * size_of::<u32>(),
    }
}

/// The same memory as words.
fn words(x: &mut [f32]) -> &mut [u32] {
    // SAFETY: as many of the same size and alignment, and any bits are a word and a float.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) }
}
