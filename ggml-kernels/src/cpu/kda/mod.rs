//! KDA from raw projections to rows for the output projection, in one pass over each head:
//! convolution, silu, norms, gate, recurrence, gated norm. A piece is a head of a lane; its tokens
//! come one after another, so the bits depend on nothing but the sequence.
//!
//! Parts: [`state`] what a sequence keeps, `head` a head's tokens, `recurrence` its columns of S.

mod head;
mod recurrence;
mod state;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use crate::ops::kda::L2_EPS;
pub use state::KdaState;

use super::Crew;
use super::aligned::Floats;
use super::share::Shared;
use super::simd::{LANES, dispatch};
use head::Head;

/// Tokens that are prepared at a time: their rows stay in the second-level cache with the state.
const CHUNK: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdaShape {
    pub heads: usize,
    /// Of q, k and v alike.
    pub head_dim: usize,
    /// Of the convolution; at least 1.
    pub taps: usize,
}

impl KdaShape {
    /// Values of a row of q, k or v.
    pub fn inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// `head_dim` in whole vectors.
    fn padded(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
}

/// How a head's decay follows from its projection x: the logarithm g, at most 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum GateLaw {
    /// `g = a softplus(x + dt_bias)` with `a = -exp(A_log)` (Kimi Linear).
    Softplus,
    /// `g = lower sigmoid(a (x + dt_bias))` with `a = exp(A_log)` (Ling).
    Bounded { lower: f32 },
}

#[derive(Debug, Clone, Copy)]
pub struct KdaWeights<'w> {
    /// `[inner, taps]`, the newest token's tap last.
    pub conv_q: &'w [f32],
    pub conv_k: &'w [f32],
    pub conv_v: &'w [f32],
    /// `[heads]`, as [`GateLaw`] says.
    pub a: &'w [f32],
    /// `[inner]`.
    pub dt_bias: &'w [f32],
    /// `[head_dim]`.
    pub norm: &'w [f32],
    /// Of the output's norm.
    pub eps: f32,
    pub gate: GateLaw,
}

/// Projections as they come. `[rows, inner]`, and beta `[rows, heads]`.
#[derive(Debug, Clone, Copy)]
pub struct KdaInput<'x> {
    pub q: &'x [f32],
    pub k: &'x [f32],
    pub v: &'x [f32],
    /// The decay's.
    pub gate: &'x [f32],
    /// The output gate's.
    pub open: &'x [f32],
    pub beta: &'x [f32],
}

/// One sequence's share of a pass.
#[derive(Debug)]
pub struct KdaLane<'s> {
    /// Its rows of the pass; lanes come in the order of their rows.
    pub rows: Range<usize>,
    /// Where the state is read; `None`: where it is written.
    pub from: Option<&'s KdaState>,
    pub to: &'s mut KdaState,
}

/// Working memory, grown as needed and used again.
#[derive(Debug, Default)]
pub struct KdaScratch {
    all: Floats,
}

/// out: `[rows, inner]`, normed and gated; rows that no lane has stay as they are.
pub fn kda(
    crew: Crew<'_>,
    shape: &KdaShape,
    weights: &KdaWeights<'_>,
    input: &KdaInput<'_>,
    lanes: &mut [KdaLane<'_>],
    scratch: &mut KdaScratch,
    out: &mut [f32],
) {
    check(shape, weights, input, lanes, out.len());
    let each = head::scratch_len(shape);
    scratch.all.grow(each * crew.pool.threads());
    let scratch = Shared::new(&mut scratch.all);
    let out = Shared::new(out);
    let lanes: Vec<_> = lanes.iter_mut().map(Lane::new).collect();
    let pieces = lanes.len() * shape.heads;
    crew.pool.run(pieces, &|piece, worker| {
        let (lane, head) = (&lanes[piece / shape.heads], piece % shape.heads);
        let head = Head {
            shape: *shape,
            weights,
            input,
            lane,
            head,
            out: &out,
            // SAFETY: a worker does one piece at a time, and has this part for itself.
            scratch: unsafe { scratch.part(worker * each..(worker + 1) * each) },
        };
        dispatch(crew.tier, head);
    });
}

/// A lane whose heads several workers hold, each its own.
struct Lane<'l> {
    rows: Range<usize>,
    from: Option<&'l KdaState>,
    tails: [Shared<'l, f32>; 3],
    s: Shared<'l, f32>,
}

impl<'l> Lane<'l> {
    fn new(lane: &'l mut KdaLane<'_>) -> Lane<'l> {
        let KdaState {
            tail_q,
            tail_k,
            tail_v,
            s,
        } = &mut *lane.to;
        Lane {
            rows: lane.rows.clone(),
            from: lane.from,
            tails: [tail_q, tail_k, tail_v].map(|tail| Shared::new(tail)),
            s: Shared::new(s),
        }
    }
}

/// Lengths that the kernel relies on. A wrong one is a fault of the caller's program.
fn check(
    shape: &KdaShape,
    w: &KdaWeights<'_>,
    x: &KdaInput<'_>,
    lanes: &[KdaLane<'_>],
    out: usize,
) {
    let inner = shape.inner();
    assert!(shape.head_dim > 0 && shape.taps > 0, "{shape:?}");
    for conv in [w.conv_q, w.conv_k, w.conv_v] {
        assert_eq!(conv.len(), inner * shape.taps, "convolution weights");
    }
    assert_eq!(w.a.len(), shape.heads, "a");
    assert_eq!(w.dt_bias.len(), inner, "dt_bias");
    assert_eq!(w.norm.len(), shape.head_dim, "norm");
    for x in [x.q, x.k, x.v, x.gate, x.open] {
        assert_eq!(x.len(), out, "a projection beside out");
    }
    assert_eq!(x.beta.len() * shape.head_dim, out, "beta");
    let mut end = 0;
    for lane in lanes {
        let Range { start, end: next } = lane.rows;
        assert!(end <= start && start <= next, "lanes' rows overlap");
        end = next;
        assert!(lane.to.fits(shape) && lane.from.is_none_or(|s| s.fits(shape)));
    }
    assert!(end * inner <= out, "{end} rows of {inner} in {out} values");
}
