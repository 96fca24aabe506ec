//! The experts of a sparse layer: rows are grouped by expert, so that an expert's weights are read
//! once whoever asked for it; gate and up are one piece; what a token gets is summed in the order
//! of its ranks.

use std::cell::RefCell;

use super::activations::Activations;
use super::crew::Crew;
use super::matrix::Stack;
use super::products::task::{Target, Task};
use super::products::{self, check, piece_rows};
use super::share::Shared;

/// gate, up: `[count, ff, hidden]`; down: `[count, hidden, ff]`.
#[derive(Debug, Clone, Copy)]
pub struct Experts<'w> {
    pub gate: Stack<'w>,
    pub up: Stack<'w>,
    pub down: Stack<'w>,
    /// What their gated products are bounded by; infinity: nothing.
    pub limit: f32,
}

/// The router's choice: `[T, used]` both, the first rank first.
#[derive(Debug, Clone, Copy)]
pub struct Routes<'r> {
    pub ids: &'r [u32],
    pub weights: &'r [f32],
    pub used: usize,
}

/// Buffers that one layer leaves to the next.
#[derive(Debug, Default)]
pub struct ExpertScratch {
    groups: Groups,
    /// `[T * used, ff]`: gated rows, by token and rank.
    gated: Vec<f32>,
    quantized: Activations,
}

/// Pairs of a token and a rank, by expert.
#[derive(Debug, Default)]
struct Groups {
    /// Pair numbers (`token * used + rank`), an expert's after another's.
    pairs: Vec<u32>,
    /// Their tokens.
    tokens: Vec<u32>,
    /// Experts that somebody asked for, with where their pairs start; at the end, all pairs.
    experts: Vec<(usize, usize)>,
}

/// `out`, `[T, hidden]`, is overwritten: for each token the sum over its ranks, in their order, of
/// `weight * down(min(silu(gate x), limit) * clamp(up x, -limit, limit))`.
pub fn experts(
    crew: Crew<'_>,
    input: &Activations,
    experts: &Experts<'_>,
    routes: Routes<'_>,
    scratch: &mut ExpertScratch,
    out: &mut [f32],
) {
    let Experts { gate, up, down, .. } = experts;
    let (tokens, used) = (input.rows(), routes.used);
    let (ff, hidden) = (up.rows(), down.rows());
    assert_eq!(routes.ids.len(), tokens * used, "ids of experts");
    assert_eq!(routes.weights.len(), tokens * used, "weights of experts");
    assert_eq!(out.len(), tokens * hidden, "output of experts");
    assert_eq!((gate.count(), gate.rows()), (up.count(), ff), "gate and up");
    assert_eq!((down.count(), down.cols()), (up.count(), ff), "up and down");
    if tokens == 0 {
        return;
    }
    if used == 0 {
        return out.fill(0.0);
    }
    check("gate", input, &gate.get(0));
    check("up", input, &up.get(0));
    let groups = &mut scratch.groups;
    groups.sort(routes, up.count());
    let pairs = tokens * used;
    scratch.gated.resize(pairs * ff, 0.0);
    gate_up(crew, input, experts, groups, &mut scratch.gated);
    let quantized = &mut scratch.quantized;
    quantized.fill(crew, &scratch.gated, ff, [down.ty()]);
    sum_down(crew, quantized, down, groups, routes, out);
}

impl Groups {
    fn sort(&mut self, routes: Routes<'_>, count: usize) {
        let mut starts = vec![0usize; count + 1];
        for &id in routes.ids {
            assert!((id as usize) < count, "expert {id} of {count}");
            starts[id as usize + 1] += 1;
        }
        self.experts.clear();
        for id in 0..count {
            if starts[id + 1] > 0 {
                self.experts.push((id, starts[id]));
            }
            starts[id + 1] += starts[id];
        }
        self.experts.push((count, routes.ids.len()));
        self.pairs.resize(routes.ids.len(), 0);
        self.tokens.resize(routes.ids.len(), 0);
        for (pair, &id) in routes.ids.iter().enumerate() {
            let at = &mut starts[id as usize];
            self.pairs[*at] = pair as u32;
            self.tokens[*at] = (pair / routes.used) as u32;
            *at += 1;
        }
    }

    /// Each expert that somebody asked for, with its pairs and their tokens.
    fn each(&self) -> impl Iterator<Item = (usize, &[u32], &[u32])> {
        let ends = self.experts.iter().skip(1);
        self.experts
            .iter()
            .zip(ends)
            .map(|(&(id, start), &(_, end))| {
                (id, &self.pairs[start..end], &self.tokens[start..end])
            })
    }
}

/// gated: `[T * used, ff]`.
fn gate_up(
    crew: Crew<'_>,
    input: &Activations,
    experts: &Experts<'_>,
    groups: &Groups,
    gated: &mut [f32],
) {
    let ff = experts.up.rows();
    // SAFETY: pieces are different experts, whose pairs are different, or different rows of one.
    let target = unsafe { Target::new(Shared::new(gated), ff, 0) };
    let all = groups.each().count() * ff;
    let mut pieces = Vec::new();
    for (id, pairs, tokens) in groups.each() {
        // Two matrices are read.
        let rows = piece_rows(crew, &experts.up.get(id), 2 * pairs.len(), all);
        let starts = (0..ff).step_by(rows);
        pieces.extend(starts.map(|start| (id, pairs, tokens, start..ff.min(start + rows))));
    }
    crew.pool.run_along(pieces.len(), &|piece, _| {
        let (id, pairs, tokens, rows) = &pieces[piece];
        let task = Task {
            matrix: experts.up.get(*id),
            rows: rows.clone(),
            activations: input,
            input: tokens,
            output: pairs,
            target: &target,
        };
        products::gate_up_task(crew.tier, experts.gate.get(*id), experts.limit, &task);
    });
}

thread_local! {
    /// A worker's results of `down`, before they are summed.
    static RANKS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Rows of an expert that are worth going to where they lie: fewer, and memory is at work between
/// the experts only.
const RUN: usize = 3 * products::STEP;
/// Results that a worker holds before they are summed, where there is a choice.
const RANKS_AT_MOST: usize = 64 << 10;

/// A piece is some rows of `down` of every expert, so that the worker that has the results of all
/// ranks sums them at once.
fn sum_down(
    crew: Crew<'_>,
    gated: &Activations,
    down: &Stack<'_>,
    groups: &Groups,
    routes: Routes<'_>,
    out: &mut [f32],
) {
    let (hidden, pairs) = (down.rows(), routes.ids.len());
    let busy = groups.each().count();
    let rows = piece_rows(crew, &down.get(0), pairs, hidden * busy);
    let long = (RANKS_AT_MOST / pairs / products::STEP * products::STEP).clamp(products::STEP, RUN);
    let rows = (rows / busy / products::STEP * products::STEP).max(long);
    let out = Shared::new(out);
    crew.pool.run_along(hidden.div_ceil(rows), &|piece, _| {
        let rows = piece * rows..hidden.min((piece + 1) * rows);
        let width = rows.len();
        RANKS.with_borrow_mut(|ranks| {
            ranks.resize(ranks.len().max(pairs * width), 0.0);
            // SAFETY: this thread's own.
            let target = unsafe { Target::new(Shared::new(&mut ranks[..]), width, rows.start) };
            let next = groups.each().skip(1).map(|(id, ..)| Some(id));
            for ((id, pairs, _), next) in groups.each().zip(next.chain([None])) {
                if let Some(next) = next {
                    products::ask_for_head(&down.get(next), rows.start);
                }
                let task = Task {
                    matrix: down.get(id),
                    rows: rows.clone(),
                    activations: gated,
                    input: pairs,
                    output: pairs,
                    target: &target,
                };
                products::run(crew.tier, &task);
            }
            let tokens = ranks[..pairs * width].chunks_exact(routes.used * width);
            for (token, ranks) in tokens.enumerate() {
                let start = token * hidden;
                // SAFETY: this piece's rows, which no other piece has.
                let out = unsafe { out.part(start + rows.start..start + rows.end) };
                let weights = &routes.weights[token * routes.used..];
                out.fill(0.0);
                for (ranks, &weight) in ranks.chunks_exact(width).zip(weights) {
                    for (out, x) in out.iter_mut().zip(ranks) {
                        *out += weight * x;
                    }
                }
            }
        });
    });
}
