//! One head of one lane: its tokens are prepared in chunks (convolution, silu, norms, decay), go
//! through the recurrence, and are normed and gated.

use super::recurrence::{Chunk, Memory, run};
use super::{CHUNK, GateLaw, KdaInput, KdaShape, KdaWeights, L2_EPS, Lane};
use crate::cpu::math::{exp_v, sigmoid_v, silu_v, softplus_v};
use crate::cpu::share::Shared;
use crate::cpu::simd::{Body, LANES, One, Simd};

pub(super) struct Head<'h> {
    pub shape: KdaShape,
    pub weights: &'h KdaWeights<'h>,
    pub input: &'h KdaInput<'h>,
    pub lane: &'h Lane<'h>,
    pub head: usize,
    /// The pass's rows.
    pub out: &'h Shared<'h, f32>,
    /// [`scratch_len`] floats.
    pub scratch: &'h mut [f32],
}

/// Floats that a worker needs.
pub(super) fn scratch_len(shape: &KdaShape) -> usize {
    let (d, wide, taps) = (shape.head_dim, shape.padded(), shape.taps);
    let history = 3 * (taps - 1 + CHUNK) * wide;
    history + 3 * taps * wide + 5 * CHUNK * wide + 2 * CHUNK + d * wide
}

/// A worker's scratch, cut up. Rows are `wide`: the head's channels and zeros up to whole vectors.
struct Parts<'p> {
    /// `[3][taps - 1 + CHUNK, wide]`: raw q, k and v, the chunk's behind those before it.
    history: [&'p mut [f32]; 3],
    /// `[3][taps, wide]`.
    conv: [&'p mut [f32]; 3],
    /// `[3][CHUNK, wide]`: q, k, v.
    rows: [&'p mut [f32]; 3],
    /// `[CHUNK, wide]`.
    decay: &'p mut [f32],
    out: &'p mut [f32],
    /// `[CHUNK]`.
    beta: &'p mut [f32],
    /// `q . k` of each token.
    qk: &'p mut [f32],
    /// `[wide / 16, d, 16]`.
    s: &'p mut [f32],
}

impl<'p> Parts<'p> {
    fn new(shape: &KdaShape, mut scratch: &'p mut [f32]) -> Parts<'p> {
        let wide = shape.padded();
        let mut take = |n: usize| {
            let (part, rest) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = rest;
            part
        };
        Parts {
            history: [(); 3].map(|()| take((shape.taps - 1 + CHUNK) * wide)),
            conv: [(); 3].map(|()| take(shape.taps * wide)),
            rows: [(); 3].map(|()| take(CHUNK * wide)),
            decay: take(CHUNK * wide),
            out: take(CHUNK * wide),
            beta: take(CHUNK),
            qk: take(CHUNK),
            s: take(shape.head_dim * wide),
        }
    }
}

impl Body for Head<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Head {
            shape,
            weights,
            lane,
            head,
            ..
        } = self;
        let (d, wide, inner) = (shape.head_dim, shape.padded(), shape.inner());
        let of_head = head * d..(head + 1) * d;
        let mut parts = Parts::new(&shape, self.scratch);
        let convs = [weights.conv_q, weights.conv_k, weights.conv_v];
        for (to, from) in parts.conv.iter_mut().zip(convs) {
            spread_taps(&shape, &from[head * d * shape.taps..], to);
        }
        let column = |row: usize| row * inner + of_head.start..row * inner + of_head.end;
        for (at, history) in parts.history.iter_mut().enumerate() {
            for (row, to) in history
                .chunks_exact_mut(wide)
                .take(shape.taps - 1)
                .enumerate()
            {
                match lane.from {
                    Some(from) => {
                        let tail = [&from.tail_q, &from.tail_k, &from.tail_v][at];
                        to[..d].copy_from_slice(&tail[row * inner..][of_head.clone()]);
                    }
                    // SAFETY: this piece alone has this head of this lane, and so these columns of its
                    // tails, its matrix and these columns of its rows of `out`.
                    None => to[..d].copy_from_slice(unsafe { lane.tails[at].part(column(row)) }),
                }
                to[d..].fill(0.0);
            }
        }
        // SAFETY: as above.
        let matrix = unsafe { lane.s.part(head * d * d..(head + 1) * d * d) };
        let from = lane
            .from
            .map(|state| &state.s[head * d * d..(head + 1) * d * d]);
        let mut memory = Memory::new(d, from, matrix, parts.s);

        let mut row = lane.rows.start;
        while row < lane.rows.end {
            let n = CHUNK.min(lane.rows.end - row);
            let raw = [self.input.q, self.input.k, self.input.v];
            for ((history, raw), (conv, rows)) in parts
                .history
                .iter_mut()
                .zip(raw)
                .zip(parts.conv.iter().zip(&mut parts.rows))
            {
                for t in 0..n {
                    let to = &mut history[(shape.taps - 1 + t) * wide..][..wide];
                    to[..d].copy_from_slice(&raw[(row + t) * inner..][of_head.clone()]);
                    to[d..].fill(0.0);
                }
                convolve(s, &shape, n, history, conv, rows);
                history.copy_within(n * wide..(n + shape.taps - 1) * wide, 0);
            }
            let [q, k, v] = &mut parts.rows;
            for t in 0..n {
                let (q, k) = (&mut q[t * wide..][..wide], &mut k[t * wide..][..wide]);
                unit(s, q, 1.0 / (d as f32).sqrt());
                unit(s, k, 1.0);
                parts.qk[t] = dot(s, q, k);
                let at = (row + t) * inner;
                let gate = &self.input.gate[at..][of_head.clone()];
                let bias = &weights.dt_bias[of_head.clone()];
                let decay = &mut parts.decay[t * wide..][..wide];
                decays(s, weights.gate, weights.a[head], gate, bias, decay);
                let beta = self.input.beta[(row + t) * shape.heads + head];
                parts.beta[t] = sigmoid_v(One, beta);
            }
            let chunk = Chunk {
                n,
                d,
                q,
                k,
                v,
                decay: parts.decay,
                beta: parts.beta,
                qk: parts.qk,
            };
            run(s, chunk, &mut memory, row + n == lane.rows.end, parts.out);
            for t in 0..n {
                let at = (row + t) * inner;
                // SAFETY: as above.
                let to = unsafe { self.out.part(column(row + t)) };
                let o = &parts.out[t * wide..][..wide];
                let open = &self.input.open[at..][of_head.clone()];
                close(s, o, weights.norm, weights.eps, open, to);
            }
            row += n;
        }
        if lane.rows.is_empty() {
            memory.keep();
        }
        for (history, tail) in parts.history.iter().zip(&lane.tails) {
            for (row, from) in history.chunks_exact(wide).take(shape.taps - 1).enumerate() {
                // SAFETY: as above.
                unsafe { tail.part(column(row)) }.copy_from_slice(&from[..d]);
            }
        }
    }
}

/// Weights `[d, taps]` to `[taps, wide]`.
#[inline(always)]
fn spread_taps(shape: &KdaShape, from: &[f32], to: &mut [f32]) {
    let (d, wide, taps) = (shape.head_dim, shape.padded(), shape.taps);
    for (tap, to) in to.chunks_exact_mut(wide).enumerate() {
        for (to, from) in to.iter_mut().zip(from[tap..].iter().step_by(taps)) {
            *to = *from;
        }
        to[d..].fill(0.0);
    }
}

/// `silu(sum over taps of weight * row)` for `n` tokens.
#[inline(always)]
fn convolve<S: Simd>(s: S, shape: &KdaShape, n: usize, history: &[f32], w: &[f32], to: &mut [f32]) {
    let (wide, taps) = (shape.padded(), shape.taps);
    for t in 0..n {
        let to = to[t * wide..][..wide].as_chunks_mut::<LANES>().0;
        for (at, to) in to.iter_mut().enumerate() {
            let mut sum = s.splat(0.0);
            for tap in 0..taps {
                let x = part(s, &history[(t + tap) * wide + at * LANES..]);
                sum = s.fma(part(s, &w[tap * wide + at * LANES..]), x, sum);
            }
            s.store(to, silu_v(s, sum));
        }
    }
}

/// `x * scale / sqrt(sum(x^2) + eps)`.
#[inline(always)]
fn unit<S: Simd>(s: S, x: &mut [f32], scale: f32) {
    let scale = scale / (dot(s, x, x) + L2_EPS).sqrt();
    for x in x.as_chunks_mut::<LANES>().0 {
        s.store(x, s.mul(s.load(x), s.splat(scale)));
    }
}

/// Over whole vectors.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a
        .as_chunks::<LANES>()
        .0
        .iter()
        .zip(b.as_chunks::<LANES>().0)
    {
        sum = s.fma(s.load(a), s.load(b), sum);
    }
    s.sum(sum)
}

/// What a token leaves of each row of S.
#[inline(always)]
fn decays<S: Simd>(s: S, law: GateLaw, a: f32, gate: &[f32], bias: &[f32], to: &mut [f32]) {
    let a = s.splat(a);
    for (at, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let x = s.add(part(s, &gate[at * LANES..]), part(s, &bias[at * LANES..]));
        let g = match law {
            GateLaw::Softplus => s.mul(a, softplus_v(s, x)),
            GateLaw::Bounded { lower } => s.mul(s.splat(lower), sigmoid_v(s, s.mul(a, x))),
        };
        s.store(to, exp_v(s, g));
    }
}

/// `rms_norm(o) * norm * sigmoid(open)`.
#[inline(always)]
fn close<S: Simd>(s: S, o: &[f32], norm: &[f32], eps: f32, open: &[f32], to: &mut [f32]) {
    let scale = 1.0 / (dot(s, o, o) / norm.len() as f32 + eps).sqrt();
    for (at, o) in o.as_chunks::<LANES>().0.iter().enumerate() {
        let at = at * LANES;
        let normed = s.mul(s.mul(s.load(o), s.splat(scale)), part(s, &norm[at..]));
        let value = s.mul(normed, sigmoid_v(s, part(s, &open[at..])));
        match to[at..].first_chunk_mut::<LANES>() {
            Some(to) => s.store(to, value),
            None => {
                let mut last = [0.0; LANES];
                s.store(&mut last, value);
                let to = &mut to[at..];
                to.copy_from_slice(&last[..to.len()]);
            }
        }
    }
}

/// The next sixteen, zeros behind the end.
#[inline(always)]
fn part<S: Simd>(s: S, x: &[f32]) -> S::V {
    match x.first_chunk::<LANES>() {
        Some(x) => s.load(x),
        None => {
            let mut last = [0.0; LANES];
            last[..x.len()].copy_from_slice(x);
            s.load(&last)
        }
    }
}
