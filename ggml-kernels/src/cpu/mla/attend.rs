//! A few groups of queries over some splits of a lane's rows: scores, softmax and sums, tile by
//! tile. Lanes of a vector are pairs of token and head, so nothing here knows of heads, and no pair
//! sees what the others in its group do.

use std::ops::Range;

use super::fold::{fold_head, fold_sums};
use super::product::{Matrix, ROWS, Start, WIDTH, half, half_mut, product};
use super::rows::load_rows;
use super::{BLOCK, MlaLane, MlaShape, SPLIT};
use crate::cpu::math::exp_v;
use crate::cpu::simd::{Body, LANES, Simd};
use crate::quant::TensorType;

/// Columns of the scores' product at a time: with its rows of queries, half a first-level cache.
const COLUMNS: usize = 96;
/// Below every score, and no infinity: a difference to it is a number.
pub(super) const LEAST: f32 = -1e38;

/// Sizes of working memory, in floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub latent: usize,
    pub rank: usize,
    /// A row of the tile.
    pub wide: usize,
}

impl Sizes {
    pub(super) fn new(shape: &MlaShape) -> Sizes {
        let latent = shape.latent();
        Sizes {
            latent,
            rank: shape.rank,
            wide: latent.next_multiple_of(LANES),
        }
    }

    /// What a group of queries gathers: the greatest score, the sum of weights, and the weighted
    /// sum of rows, `[2 + rank, WIDTH]` with room for whole register tiles.
    pub(super) fn part(&self) -> usize {
        (2 + self.rank.next_multiple_of(ROWS)) * WIDTH
    }

    fn tile(&self) -> usize {
        // Register tiles read up to ROWS columns behind the last row's end.
        BLOCK.next_multiple_of(ROWS) * self.wide + ROWS.next_multiple_of(LANES)
    }

    fn queries(&self) -> usize {
        self.latent * WIDTH
    }

    /// What a worker needs for `groups` at a time.
    pub(super) fn work(&self, groups: usize) -> usize {
        let scores = BLOCK.next_multiple_of(ROWS) * WIDTH;
        self.tile() + scores + WIDTH + groups * (self.queries() + self.part())
    }
}

pub(super) struct Attend<'a> {
    pub shape: &'a MlaShape,
    pub ty: TensorType,
    pub lane: &'a MlaLane<'a>,
    /// The lane's queries, `[tokens, heads, latent]`.
    pub q: &'a [f32],
    /// Of [`WIDTH`] pairs each.
    pub groups: Range<usize>,
    /// Of [`SPLIT`] rows each; not empty, and every group sees rows of the first.
    pub splits: Range<usize>,
    /// Where the groups gather: [`Sizes::part`] each.
    pub parts: &'a mut [f32],
    /// [`Sizes::work`].
    pub work: &'a mut [f32],
}

impl Attend<'_> {
    /// A group's queries, `[pairs, latent]`, and how many rows each lane sees: those behind the
    /// last pair what it sees, which nobody reads.
    pub(super) fn group(&self, group: usize) -> (&[f32], [usize; WIDTH]) {
        let latent = self.shape.latent();
        let first = group * WIDTH;
        let pairs = (self.q.len() / latent - first).min(WIDTH);
        let mut visible = [0; WIDTH];
        for (at, visible) in visible.iter_mut().enumerate() {
            let pair = first + at.min(pairs - 1);
            *visible = self.lane.past + pair / self.shape.heads + 1;
        }
        (&self.q[first * latent..][..pairs * latent], visible)
    }
}

/// Takes the scores away that a lane does not see: those of rows `start..` from its number on.
#[inline(always)]
pub(super) fn hide(visible: &[usize; WIDTH], start: usize, rows: &mut [[f32; WIDTH]]) {
    let n = rows.len();
    if visible[0] < start + n {
        for (lane, &visible) in visible.iter().enumerate() {
            for row in &mut rows[visible.saturating_sub(start).min(n)..] {
                row[lane] = f32::NEG_INFINITY;
            }
        }
    }
}

/// A group's rows.
struct Group<'g> {
    /// Rows that each pair sees.
    visible: [usize; WIDTH],
    most: usize,
    /// Vectors that have pairs: one token of a model of few heads has no more than one.
    vectors: usize,
    /// `[latent, WIDTH]`, scaled.
    queries: &'g mut [f32],
    /// Gathers all splits.
    all: &'g mut [f32],
    /// Gathers one split after the first.
    one: &'g mut [f32],
}

impl Body for Attend<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let sizes = Sizes::new(self.shape);
        let work = std::mem::take(&mut self.work);
        let parts = std::mem::take(&mut self.parts);
        let (tile, rest) = work.split_at_mut(sizes.tile());
        let (scores, rest) = rest.split_at_mut(BLOCK.next_multiple_of(ROWS) * WIDTH);
        let (factors, rest) = rest.split_at_mut(WIDTH);
        let n = self.groups.len();
        let (queries, rest) = rest.split_at_mut(n * sizes.queries());
        let ones = rest[..n * sizes.part()].chunks_exact_mut(sizes.part());
        let parts = parts.chunks_exact_mut(sizes.part()).zip(ones);
        let parts = queries.chunks_exact_mut(sizes.queries()).zip(parts);
        let mut groups: Vec<Group<'_>> = parts
            .zip(self.groups.clone())
            .map(|((queries, (all, one)), group)| {
                let (q, visible) = self.group(group);
                spread(q, sizes.latent, self.shape.scale, queries);
                Group {
                    most: visible[WIDTH - 1],
                    vectors: (q.len() / sizes.latent).div_ceil(LANES),
                    visible,
                    queries,
                    all,
                    one,
                }
            })
            .collect();
        let most = groups.iter().map(|g| g.most).max().unwrap_or(0);
        for split in self.splits.clone() {
            let first = split == self.splits.start;
            let rows = split * SPLIT..most.min((split + 1) * SPLIT);
            for group in &mut groups {
                let part = if first {
                    &mut *group.all
                } else {
                    &mut *group.one
                };
                part[..WIDTH].fill(LEAST);
                part[WIDTH..].fill(0.0);
            }
            for start in rows.clone().step_by(BLOCK) {
                let n = BLOCK.min(rows.end - start);
                let at = start / BLOCK;
                let block = self.lane.blocks[at];
                load_rows(s, self.ty, block, n, sizes.latent, tile);
                // The first group asks for the next tile's memory while it works on this one.
                let mut ahead = match self.lane.blocks.get(at + 1) {
                    Some(next) if start + BLOCK < most => *next,
                    _ => &[],
                };
                for group in groups.iter_mut().filter(|g| g.most > start) {
                    let next = std::mem::take(&mut ahead);
                    step(s, &sizes, start, group, first, tile, scores, factors, next);
                }
            }
            if !first {
                for group in groups.iter_mut().filter(|g| g.most > rows.start) {
                    let (head, sums) = group.all.split_at_mut(2 * WIDTH);
                    let factors = fold_head(s, head, group.one);
                    fold_sums(s, &factors, sums, &group.one[2 * WIDTH..]);
                }
            }
        }
    }
}

/// Queries `[pairs, latent]` to `[latent, WIDTH]`.
#[inline(always)]
fn spread(q: &[f32], latent: usize, scale: f32, to: &mut [f32]) {
    let pairs = q.len() / latent;
    for lane in 0..WIDTH {
        let row = &q[lane.min(pairs - 1) * latent..][..latent];
        for (to, x) in to[lane..].iter_mut().step_by(WIDTH).zip(row) {
            *to = x * scale;
        }
    }
}

/// One tile, whose rows begin with row `start` of the lane.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the parts of a worker's memory")]
fn step<S: Simd>(
    s: S,
    sizes: &Sizes,
    start: usize,
    group: &mut Group<'_>,
    first: bool,
    tile: &[f32],
    scores: &mut [f32],
    factors: &mut [f32],
    ahead: &[u8],
) {
    let part = if first {
        &mut *group.all
    } else {
        &mut *group.one
    };
    let n = BLOCK.min(group.most - start);
    assert!(tile.len() == sizes.tile() && group.queries.len() == sizes.queries());
    assert!(part.len() == sizes.part() && scores.len() >= n.next_multiple_of(ROWS) * WIDTH);
    for column in (0..sizes.latent).step_by(COLUMNS) {
        let k = COLUMNS.min(sizes.latent - column);
        // SAFETY: the tile has BLOCK.next_multiple_of(ROWS) rows of `wide` >= latent, the queries
        // `latent` rows, the scores as many as the tile.
        unsafe {
            let a = Matrix {
                start: tile.as_ptr().add(column),
                m: sizes.wide,
                k: 1,
            };
            let b = group.queries.as_ptr().add(column * WIDTH);
            let begin = if column == 0 { Start::Zero } else { Start::Sum };
            let of = |column: usize| ahead.len() * column.min(sizes.latent) / sizes.latent;
            let ahead = &ahead[of(column)..of(column + k)];
            product(
                s,
                [n, k, group.vectors],
                a,
                b,
                scores.as_mut_ptr(),
                begin,
                ahead,
            );
        }
    }
    let rows = scores.as_chunks_mut::<WIDTH>().0;
    hide(&group.visible, start, &mut rows[..n]);
    weigh(s, group.vectors, &mut rows[..n], part, factors);
    // SAFETY: as rows of `a` the tile has `wide` columns, and ROWS more behind its last row; the
    // scores have n rows; the part has rank.next_multiple_of(ROWS) rows from the third on.
    unsafe {
        let a = Matrix {
            start: tile.as_ptr(),
            m: 1,
            k: sizes.wide,
        };
        let out = part.as_mut_ptr().add(2 * WIDTH);
        let begin = Start::Scaled(factors.as_ptr());
        product(
            s,
            [sizes.rank, n, group.vectors],
            a,
            scores.as_ptr(),
            out,
            begin,
            &[],
        );
    }
}

/// Scores to weights below the greatest so far; what was gathered is to be scaled by `factors`.
#[inline(always)]
pub(super) fn weigh<S: Simd>(
    s: S,
    vectors: usize,
    rows: &mut [[f32; WIDTH]],
    part: &mut [f32],
    factors: &mut [f32],
) {
    for vector in 0..vectors {
        let at = vector * LANES;
        let (before, sums) = part.split_at_mut(WIDTH);
        let (Some(before), Some(sums), Some(factors)) = (
            before[at..].first_chunk_mut::<LANES>(),
            sums[at..].first_chunk_mut::<LANES>(),
            factors[at..].first_chunk_mut::<LANES>(),
        ) else {
            return;
        };
        let old = s.load(before);
        let mut most = old;
        for row in rows.iter() {
            most = s.max(most, s.load(half(row, vector)));
        }
        let factor = exp_v(s, s.sub(old, most));
        let mut sum = s.mul(s.load(sums), factor);
        for row in rows.iter_mut() {
            let row = half_mut(row, vector);
            let weight = exp_v(s, s.sub(s.load(row), most));
            sum = s.add(sum, weight);
            s.store(row, weight);
        }
        s.store(before, most);
        s.store(sums, sum);
        s.store(factors, factor);
    }
}
