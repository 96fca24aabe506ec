//! A KDA layer with a sequence's projections, what the processor makes of it, and both on the card.

use ggml_kernels::cpu::kda::{
    GateLaw, KdaInput, KdaLane, KdaScratch, KdaShape, KdaState, KdaWeights, kda,
};
use ggml_kernels::cuda::driver::{Buffer, Device, Part};
use ggml_kernels::cuda::mixers::{KdaLayer, KdaRows, Strided};

use super::super::{Noise, crew};

pub const EPS: f32 = 1e-5;
/// Floats of a slot before the layer.
pub const OFFSET: usize = 12;
/// q, k, v, decay, output gate.
pub const PROJECTIONS: usize = 5;

/// A layer and a sequence's projections.
pub struct Case {
    pub shape: KdaShape,
    pub law: GateLaw,
    pub tokens: usize,
    pub conv: [Vec<f32>; 3],
    pub a: Vec<f32>,
    pub dt_bias: Vec<f32>,
    pub norm: Vec<f32>,
    /// `[tokens, inner]` each.
    pub rows: [Vec<f32>; PROJECTIONS],
    pub beta: Vec<f32>,
}

impl Case {
    /// `strength`: of the gate; 60 gives sums of a few tokens far below -186.
    pub fn new(
        [heads, head_dim, taps]: [usize; 3],
        tokens: usize,
        law: GateLaw,
        strength: f32,
    ) -> Case {
        let shape = KdaShape {
            heads,
            head_dim,
            taps,
        };
        let inner = shape.inner();
        let mut noise = Noise((inner * 7 + tokens) as u64);
        let sign = if law == GateLaw::Softplus {
            -strength
        } else {
            strength
        };
        let a = noise.take(heads);
        Case {
            shape,
            law,
            tokens,
            conv: [(); 3].map(|()| noise.take(inner * taps)),
            a: a.iter().map(|x| sign * (x.abs() + 0.1)).collect(),
            dt_bias: noise.take(inner),
            norm: noise.take(head_dim),
            rows: [(); PROJECTIONS].map(|()| noise.take(tokens * inner)),
            beta: noise.take(tokens * heads),
        }
    }

    pub fn inner(&self) -> usize {
        self.shape.inner()
    }

    /// The twin's rows, and the slots it leaves after each of `ends`.
    pub fn want(&self, ends: &[usize]) -> (Vec<f32>, Vec<Vec<f32>>) {
        let weights = KdaWeights {
            conv_q: &self.conv[0],
            conv_k: &self.conv[1],
            conv_v: &self.conv[2],
            a: &self.a,
            dt_bias: &self.dt_bias,
            norm: &self.norm,
            eps: EPS,
            gate: self.law,
        };
        let (inner, heads) = (self.inner(), self.shape.heads);
        let mut state = KdaState::zeroed(&self.shape);
        let mut out = vec![0.0; self.tokens * inner];
        let (mut slots, mut start) = (Vec::new(), 0);
        for &end in ends.iter().chain([&self.tokens]) {
            let cut = |at: usize| &self.rows[at][start * inner..end * inner];
            let input = KdaInput {
                q: cut(0),
                k: cut(1),
                v: cut(2),
                gate: cut(3),
                open: cut(4),
                beta: &self.beta[start * heads..end * heads],
            };
            let lane = KdaLane {
                rows: 0..end - start,
                from: None,
                to: &mut state,
            };
            let out = &mut out[start * inner..end * inner];
            let mut scratch = KdaScratch::default();
            crew(|crew| {
                kda(
                    crew,
                    &self.shape,
                    &weights,
                    &input,
                    &mut [lane],
                    &mut scratch,
                    out,
                )
            });
            slots.push(slot_of(&state));
            start = end;
        }
        (out, slots)
    }
}

/// A state as it lies in a slot.
pub fn slot_of(state: &KdaState) -> Vec<f32> {
    let parts = [&state.tail_q[..], &state.tail_k, &state.tail_v, &state.s];
    [&[7.0; OFFSET][..], &parts.concat()].concat()
}

pub fn slot_len(shape: &KdaShape) -> usize {
    OFFSET + shape.inner() * (3 * (shape.taps - 1) + shape.head_dim)
}

/// A case's weights on the card.
pub struct Held {
    pub conv: [Buffer<f32>; 3],
    pub a: Buffer<f32>,
    pub dt_bias: Buffer<f32>,
    pub norm: Buffer<f32>,
}

impl Held {
    pub fn new(device: &Device, case: &Case) -> Held {
        let up = |values: &[f32]| device.upload(values).unwrap();
        Held {
            conv: [0, 1, 2].map(|at| up(&case.conv[at])),
            a: up(&case.a),
            dt_bias: up(&case.dt_bias),
            norm: up(&case.norm),
        }
    }

    pub fn layer(&self, case: &Case) -> KdaLayer<'_> {
        KdaLayer {
            shape: case.shape,
            gate: case.law,
            conv_q: self.conv[0].all(),
            conv_k: self.conv[1].all(),
            conv_v: self.conv[2].all(),
            a: self.a.all(),
            dt_bias: self.dt_bias.all(),
            norm: self.norm.all(),
            eps: EPS,
            offset: OFFSET,
        }
    }
}

/// Rows of several sequences on the card, as merged products leave them: a row's projections and its
/// beta beside each other.
pub struct Merged {
    pub all: Buffer<f32>,
    pub rows: usize,
    pub inner: usize,
    pub stride: usize,
}

impl Merged {
    pub fn new(device: &Device, parts: &[(&Case, std::ops::Range<usize>)]) -> Merged {
        let shape = parts[0].0.shape;
        let inner = shape.inner();
        let stride = (PROJECTIONS * inner + shape.heads).next_multiple_of(4);
        let mut all = Vec::new();
        for (case, range) in parts {
            for row in range.clone() {
                for x in &case.rows {
                    all.extend(&x[row * inner..(row + 1) * inner]);
                }
                all.extend(&case.beta[row * shape.heads..(row + 1) * shape.heads]);
                all.resize(all.len().next_multiple_of(stride), f32::NAN);
            }
        }
        Merged {
            rows: all.len() / stride,
            all: device.upload(&all).unwrap(),
            inner,
            stride,
        }
    }

    pub fn part(&self, at: usize) -> Part<'_, f32> {
        self.all.part(at * self.inner..self.all.len()).unwrap()
    }

    pub fn strided(&self, at: usize) -> Strided<'_> {
        Strided {
            values: self.part(at),
            stride: self.stride,
        }
    }

    pub fn kda(&self) -> KdaRows<'_> {
        KdaRows {
            q: self.part(0),
            k: self.part(1),
            v: self.part(2),
            stride: self.stride,
            decay: self.strided(3),
            beta: self.strided(PROJECTIONS),
        }
    }
}
