//! MLA in its absorbed form: every head of every query attends to the same latent rows. Each tile
//! of rows is read once for all of them, sums are f32.
//!
//! A query's arithmetic depends on its own rows alone: tiles are the blocks of the cache, splits are
//! [`SPLIT`] rows from the sequence's start, each gathers on its own, and they are added in order.
//! Neither the queries beside it, nor the cut of the pass, nor the threads change a bit.
//!
//! Parts: `rows` the types of rows, `product` the sums over a tile, `attend` the softmax over tiles,
//! `tiles` the same on AMX, `fold` what splits gathered, `narrow` the few queries that threads share
//! by splits.

mod attend;
mod fold;
mod narrow;
mod product;
mod rows;
#[cfg(test)]
mod tests;
// Not in the program until its tests have run on a processor that has AMX: there it is tried by
// every test run, elsewhere on emulated tiles.
#[cfg(all(test, target_arch = "x86_64"))]
mod tiles;

use std::ops::Range;

pub use rows::store_rows;

use super::Crew;
use super::aligned::Floats;
use super::share::Shared;
use super::simd::dispatch;
use crate::quant::TensorType;
use attend::{Attend, Sizes};
use narrow::{Narrow, Wave};
use product::WIDTH;

/// Rows of a block of the cache.
pub const BLOCK: usize = 64;
/// Rows that are gathered on their own: what threads share a long context by.
const SPLIT: usize = 8 * BLOCK;
/// Groups of queries that share a tile while it is in the cache.
const TOGETHER: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlaShape {
    pub heads: usize,
    /// Columns of a row that are values as well as key.
    pub rank: usize,
    /// Further columns of the key.
    pub rope: usize,
    pub scale: f32,
}

impl MlaShape {
    /// Columns of a row.
    pub fn latent(&self) -> usize {
        self.rank + self.rope
    }
}

/// One sequence's share of a pass.
#[derive(Debug, Clone)]
pub struct MlaLane<'b> {
    /// Its rows of the pass; lanes come in the order of their rows.
    pub rows: Range<usize>,
    /// Tokens before this pass.
    pub past: usize,
    /// This layer's blocks, `[64, latent]` of the cache's type, with the new rows.
    pub blocks: Vec<&'b [u8]>,
}

/// Working memory, grown as needed and used again.
#[derive(Debug, Default)]
pub struct MlaScratch {
    work: Floats,
    parts: Floats,
    wide: Vec<Wide>,
    narrow: Vec<Narrow>,
}

/// Neighbouring groups of a lane over all its rows.
#[derive(Debug)]
struct Wide {
    lane: usize,
    groups: Range<usize>,
}

/// Causal attention: token i of a lane sees rows `0..past + i + 1`.
///
/// q: `[rows, heads, rank + rope]`, absorbed; out: `[rows, heads, rank]`; rows that no lane has stay
/// as they are.
#[allow(
    clippy::too_many_arguments,
    reason = "shape, type, input, memory, output"
)]
pub fn mla(
    crew: Crew<'_>,
    shape: &MlaShape,
    ty: TensorType,
    q: &[f32],
    lanes: &[MlaLane<'_>],
    scratch: &mut MlaScratch,
    out: &mut [f32],
) {
    mla_in(Form::Lanes, crew, shape, ty, q, lanes, scratch, out);
}

/// How a tile is worked on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// Queries in lanes of vectors: the same bits on every tier.
    Lanes,
    #[cfg(all(test, target_arch = "x86_64"))]
    Tiles,
    #[cfg(all(test, target_arch = "x86_64"))]
    EmulatedTiles,
}

impl Form {
    /// Floats that a worker needs for `groups` at a time.
    fn work(self, sizes: &Sizes, groups: usize) -> usize {
        match self {
            Form::Lanes => sizes.work(groups),
            #[cfg(all(test, target_arch = "x86_64"))]
            _ => tiles::work(sizes, groups),
        }
    }
}

/// [`mla`], in a form that the crew's tier has.
#[allow(clippy::too_many_arguments, reason = "as above")]
fn mla_in(
    form: Form,
    crew: Crew<'_>,
    shape: &MlaShape,
    ty: TensorType,
    q: &[f32],
    lanes: &[MlaLane<'_>],
    scratch: &mut MlaScratch,
    out: &mut [f32],
) {
    check(shape, ty, q.len(), lanes, out.len());
    let threads = crew.pool.threads();
    scratch.wide.clear();
    scratch.narrow.clear();
    let mut most_groups = 1;
    for (at, lane) in lanes.iter().enumerate() {
        let groups = (lane.rows.len() * shape.heads).div_ceil(WIDTH);
        // A lane of few queries is shared by splits of its rows, one of many by queries.
        if groups >= 4 * threads {
            let together = (groups / (4 * threads)).clamp(1, TOGETHER);
            most_groups = most_groups.max(together);
            let starts = (0..groups).step_by(together);
            scratch.wide.extend(starts.map(|start| Wide {
                lane: at,
                groups: start..groups.min(start + together),
            }));
        } else {
            for group in 0..groups {
                let last = (lane.rows.len() * shape.heads).min((group + 1) * WIDTH) - 1;
                let splits = (lane.past + last / shape.heads + 1).div_ceil(SPLIT);
                scratch.narrow.extend((0..splits).map(|split| Narrow {
                    lane: at,
                    group,
                    split,
                    splits,
                }));
            }
        }
    }
    let sizes = Sizes::new(shape);
    let each = form.work(&sizes, most_groups) + most_groups * sizes.part();
    scratch.work.grow(each * threads);
    let wave = Wave::new(threads, scratch.narrow.len(), sizes.part());
    scratch.parts.grow(wave.len());
    let pass = Pass {
        form,
        crew,
        shape,
        ty,
        sizes,
        q,
        lanes,
        work: Shared::new(&mut scratch.work),
        each,
        out: Shared::new(out),
    };
    pass.wide(&scratch.wide);
    let mut carried = false;
    for tasks in scratch.narrow.chunks(wave.tasks) {
        carried = pass.narrow(&wave, tasks, carried, &mut scratch.parts);
    }
}

/// What all pieces of a pass share.
struct Pass<'p> {
    form: Form,
    crew: Crew<'p>,
    shape: &'p MlaShape,
    ty: TensorType,
    sizes: Sizes,
    q: &'p [f32],
    lanes: &'p [MlaLane<'p>],
    work: Shared<'p, f32>,
    /// Floats of `work` to a worker.
    each: usize,
    out: Shared<'p, f32>,
}

impl Pass<'_> {
    fn wide(&self, tasks: &[Wide]) {
        let part = self.sizes.part();
        self.crew.pool.run(tasks.len(), &|piece, worker| {
            let task = &tasks[piece];
            // SAFETY: a worker does one piece at a time, and has this part for itself.
            let work = unsafe { self.work.part(worker * self.each..(worker + 1) * self.each) };
            let (parts, work) = work.split_at_mut(task.groups.len() * part);
            let last = self.pairs(task.lane, task.groups.end - 1).end - 1;
            let seen = self.lanes[task.lane].past + last / self.shape.heads + 1;
            self.attend(
                task.lane,
                task.groups.clone(),
                0..seen.div_ceil(SPLIT),
                parts,
                work,
            );
            for (part, group) in parts.chunks_exact(part).zip(task.groups.clone()) {
                let (head, sums) = part.split_at(2 * WIDTH);
                self.finish([task.lane, group], 0..self.shape.rank, head, sums);
            }
        });
    }

    fn attend(
        &self,
        lane: usize,
        groups: Range<usize>,
        splits: Range<usize>,
        parts: &mut [f32],
        work: &mut [f32],
    ) {
        let lane = &self.lanes[lane];
        let width = self.shape.heads * self.shape.latent();
        let attend = Attend {
            shape: self.shape,
            ty: self.ty,
            lane,
            q: &self.q[lane.rows.start * width..lane.rows.end * width],
            groups,
            splits,
            parts,
            work,
        };
        match self.form {
            Form::Lanes => dispatch(self.crew.tier, attend),
            // SAFETY: this form is chosen where the tier has tiles, and AVX-512 with BF16.
            #[cfg(all(test, target_arch = "x86_64"))]
            Form::Tiles => unsafe { tiles::run(self.crew.tier, attend) },
            // SAFETY: the tests choose this form where the tier has AVX-512 with BF16.
            #[cfg(all(test, target_arch = "x86_64"))]
            Form::EmulatedTiles => unsafe { tiles::run_emulated(self.crew.tier, attend) },
        }
    }

    /// `columns` of a group's result: `head` and `sums` as [`Sizes::part`] has them.
    fn finish(&self, [lane, group]: [usize; 2], columns: Range<usize>, head: &[f32], sums: &[f32]) {
        let first = self.lanes[lane].rows.start * self.shape.heads;
        for (at, pair) in self.pairs(lane, group).enumerate() {
            let start = (first + pair) * self.shape.rank;
            // SAFETY: rows of lanes do not meet, nor do groups of pairs or columns of a pair.
            let out = unsafe { self.out.part(start + columns.start..start + columns.end) };
            let inverse = 1.0 / head[WIDTH + at];
            for (out, row) in out.iter_mut().zip(sums.as_chunks::<WIDTH>().0) {
                *out = row[at] * inverse;
            }
        }
    }

    fn pairs(&self, lane: usize, group: usize) -> Range<usize> {
        let all = self.lanes[lane].rows.len() * self.shape.heads;
        group * WIDTH..all.min((group + 1) * WIDTH)
    }
}

/// Lengths that the kernel relies on. A wrong one is a fault of the caller's program.
fn check(shape: &MlaShape, ty: TensorType, q: usize, lanes: &[MlaLane<'_>], out: usize) {
    use TensorType::{Bf16, F16, F32, Q8_0};
    let (heads, latent) = (shape.heads, shape.latent());
    assert!(heads > 0 && shape.rank > 0, "{shape:?}");
    assert!(
        [F32, F16, Bf16, Q8_0].contains(&ty),
        "{ty} rows: wanted f32, f16, bf16 or q8_0"
    );
    let bytes = ty.row_bytes(latent).map(|bytes| bytes * BLOCK);
    let mut end = 0;
    for lane in lanes {
        let Range { start, end: next } = lane.rows;
        assert!(end <= start && start <= next, "lanes' rows overlap");
        end = next;
        let tokens = lane.past + lane.rows.len();
        assert!(
            lane.blocks.len() * BLOCK >= tokens,
            "blocks for {tokens} tokens"
        );
        assert!(
            lane.blocks.iter().all(|b| Some(b.len()) == bytes),
            "a block's length"
        );
    }
    assert!(
        end * heads * latent <= q && end * heads * shape.rank <= out,
        "{end} rows"
    );
}
