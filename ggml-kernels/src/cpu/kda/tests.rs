//! The kernel beside the formulas in f64, and beside itself cut, joined and run elsewhere.

use super::*;
use crate::cpu::{Pool, Tier};
use crate::reference::kda as reference;

/// Reproducible values in (-1, 1): a linear congruential generator (Knuth's MMIX constants).
struct Noise(u64);

impl Noise {
    fn take(&mut self, n: usize) -> Vec<f32> {
        let mut next = || {
            let product = self.0.wrapping_mul(6364136223846793005);
            self.0 = product.wrapping_add(1442695040888963407);
            (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }
}

/// A layer and a sequence's projections.
struct Case {
    shape: KdaShape,
    law: GateLaw,
    tokens: usize,
    conv: [Vec<f32>; 3],
    a: Vec<f32>,
    dt_bias: Vec<f32>,
    norm: Vec<f32>,
    rows: [Vec<f32>; 5],
    beta: Vec<f32>,
}

const EPS: f32 = 1e-5;

impl Case {
    /// `strength`: of the gate; 60 gives sums of a chunk far below -186.
    fn new(shape: KdaShape, tokens: usize, law: GateLaw, strength: f32) -> Case {
        let mut noise = Noise((shape.inner() * 7 + tokens) as u64);
        let inner = shape.inner();
        let sign = if law == GateLaw::Softplus {
            -strength
        } else {
            strength
        };
        let a = noise.take(shape.heads);
        Case {
            shape,
            law,
            tokens,
            conv: [(); 3].map(|()| noise.take(inner * shape.taps)),
            a: a.iter().map(|x| sign * (x.abs() + 0.1)).collect(),
            dt_bias: noise.take(inner),
            norm: noise.take(shape.head_dim),
            rows: [(); 5].map(|()| noise.take(tokens * inner)),
            beta: noise.take(tokens * shape.heads),
        }
    }

    fn weights(&self) -> KdaWeights<'_> {
        KdaWeights {
            conv_q: &self.conv[0],
            conv_k: &self.conv[1],
            conv_v: &self.conv[2],
            a: &self.a,
            dt_bias: &self.dt_bias,
            norm: &self.norm,
            eps: EPS,
            gate: self.law,
        }
    }

    /// `rows` of the sequence, as a pass of their own.
    fn input(&self, rows: Range<usize>) -> KdaInput<'_> {
        let inner = self.shape.inner();
        let cut = |at: usize| &self.rows[at][rows.start * inner..rows.end * inner];
        KdaInput {
            q: cut(0),
            k: cut(1),
            v: cut(2),
            gate: cut(3),
            open: cut(4),
            beta: &self.beta[rows.start * self.shape.heads..rows.end * self.shape.heads],
        }
    }

    fn want(&self) -> (Vec<f64>, Vec<f64>) {
        let KdaShape {
            heads, head_dim: d, ..
        } = self.shape;
        let inner = heads * d;
        let [mut q, mut k, v] =
            [0, 1, 2].map(|at| reference::causal_conv_silu(&self.rows[at], &self.conv[at], inner));
        for x in q.chunks_exact_mut(d).chain(k.chunks_exact_mut(d)) {
            let root = (x.iter().map(|x| x * x).sum::<f64>() + f64::from(L2_EPS)).sqrt();
            x.iter_mut().for_each(|x| *x /= root);
        }
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let gate = (0..self.tokens * inner).map(|at| {
            let x = f64::from(self.rows[3][at]) + f64::from(self.dt_bias[at % inner]);
            let a = f64::from(self.a[at % inner / d]);
            match self.law {
                GateLaw::Softplus => a * x.exp().ln_1p(),
                GateLaw::Bounded { lower } => f64::from(lower) * sigmoid(a * x),
            }
        });
        let gate: Vec<f64> = gate.collect();
        let beta: Vec<f64> = self.beta.iter().map(|&x| sigmoid(x.into())).collect();
        let mut state = vec![0.0; inner * d];
        let out = recurrence(self.shape, [&q, &k, &v, &gate], &beta, &mut state);
        let out = out.chunks_exact(d).enumerate().flat_map(|(at, o)| {
            let mean = o.iter().map(|x| x * x).sum::<f64>() / d as f64;
            let root = (mean + f64::from(EPS)).sqrt();
            let value = move |i: usize| {
                let open = sigmoid(self.rows[4][at * d + i].into());
                o[i] / root * f64::from(self.norm[i]) * open
            };
            (0..d).map(value).collect::<Vec<_>>()
        });
        (out.collect(), state)
    }
}

/// As the reference's, with inputs in f64.
fn recurrence(
    shape: KdaShape,
    [q, k, v, g]: [&[f64]; 4],
    beta: &[f64],
    state: &mut [f64],
) -> Vec<f64> {
    let KdaShape {
        heads, head_dim: d, ..
    } = shape;
    let mut out = vec![0.0; q.len()];
    for at in 0..q.len() / d {
        let s = &mut state[at % heads * d * d..][..d * d];
        let row = |x: &[f64]| x[at * d..(at + 1) * d].to_vec();
        let (q, k, v, g) = (row(q), row(k), row(v), row(g));
        for (s, g) in s.chunks_exact_mut(d).zip(g) {
            s.iter_mut().for_each(|s| *s *= g.exp());
        }
        for j in 0..d {
            let seen: f64 = (0..d).map(|i| k[i] * s[i * d + j]).sum();
            (0..d).for_each(|i| s[i * d + j] += k[i] * beta[at] * (v[j] - seen));
            let asked: f64 = (0..d).map(|i| q[i] * s[i * d + j]).sum();
            out[at * d + j] = asked / (d as f64).sqrt();
        }
    }
    out
}

/// The whole sequence in one pass.
fn whole(case: &Case, crew: Crew<'_>) -> (Vec<f32>, KdaState) {
    let mut state = KdaState::zeroed(&case.shape);
    let mut out = vec![f32::NAN; case.tokens * case.shape.inner()];
    let lane = KdaLane {
        rows: 0..case.tokens,
        from: None,
        to: &mut state,
    };
    let input = case.input(0..case.tokens);
    let mut scratch = KdaScratch::default();
    kda(
        crew,
        &case.shape,
        &case.weights(),
        &input,
        &mut [lane],
        &mut scratch,
        &mut out,
    );
    (out, state)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn copy(state: &KdaState, shape: &KdaShape) -> KdaState {
    let mut copy = KdaState::zeroed(shape);
    copy.tail_q.copy_from_slice(&state.tail_q);
    copy.tail_k.copy_from_slice(&state.tail_k);
    copy.tail_v.copy_from_slice(&state.tail_v);
    copy.s.copy_from_slice(&state.s);
    copy
}

fn assert_same(a: &KdaState, b: &KdaState, what: &str) {
    let all = |s: &KdaState| {
        [
            bits(&s.tail_q),
            bits(&s.tail_k),
            bits(&s.tail_v),
            bits(&s.s),
        ]
    };
    assert!(all(a) == all(b), "{what}");
}

fn cases() -> Vec<Case> {
    let softplus = GateLaw::Softplus;
    let bounded = GateLaw::Bounded { lower: -5.0 };
    let shape = |heads, head_dim, taps| KdaShape {
        heads,
        head_dim,
        taps,
    };
    vec![
        Case::new(shape(1, 16, 4), 1, softplus, 1.0),
        Case::new(shape(3, 48, 4), 41, softplus, 1.0),
        Case::new(shape(2, 32, 4), 70, softplus, 60.0),
        Case::new(shape(5, 17, 3), 19, softplus, 3.0),
        Case::new(shape(1, 7, 1), 5, bounded, 1.0),
        Case::new(shape(2, 128, 4), 33, softplus, 60.0),
        Case::new(shape(4, 40, 2), 18, bounded, 2.0),
        Case::new(shape(2, 112, 4), 17, softplus, 0.1),
    ]
}

#[test]
fn a_pass_is_its_formulas_at_any_gate() {
    let pool = Pool::new(2);
    let crew = Crew {
        pool: &pool,
        tier: Tier::detect(),
    };
    for case in cases() {
        let (out, state) = whole(&case, crew);
        let (want, want_state) = case.want();
        let error = |got: &[f32], want: &[f64]| {
            let size = want.iter().fold(0f64, |m, w| m.max(w.abs()));
            let off = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).abs());
            off.fold(0.0, f64::max) / size
        };
        let (off, off_state) = (error(&out, &want), error(&state.s, &want_state));
        println!(
            "{:?}, {} tokens: {off:.1e} from f64, S {off_state:.1e}",
            case.shape, case.tokens
        );
        assert!(off < 1e-5 && off_state < 1e-5, "{off} {off_state}");
    }
}

#[test]
fn every_tier_and_number_of_threads_gives_the_same_bits() {
    let one = Pool::new(1);
    for case in cases() {
        let want = whole(
            &case,
            Crew {
                pool: &one,
                tier: Tier::SCALAR,
            },
        );
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for tier in Tier::available() {
                let got = whole(&case, Crew { pool: &pool, tier });
                let what = format!("{:?} on {tier} with {threads} threads", case.shape);
                assert!(bits(&got.0) == bits(&want.0), "{what}");
                assert_same(&got.1, &want.1, &what);
            }
        }
    }
}

#[test]
fn a_sequence_cut_anywhere_in_place_or_forked_gives_the_same_bits() {
    let pool = Pool::new(2);
    for tier in Tier::available() {
        let crew = Crew { pool: &pool, tier };
        for case in cases() {
            let inner = case.shape.inner();
            let want = whole(&case, crew);
            for step in [1, 2, 7, 16, 23] {
                let mut state = KdaState::zeroed(&case.shape);
                let mut out = vec![f32::NAN; case.tokens * inner];
                let mut scratch = KdaScratch::default();
                for start in (0..case.tokens).step_by(step) {
                    let end = (start + step).min(case.tokens);
                    // Every other piece goes to a new state and leaves the old one alone.
                    let fork = start / step % 2 == 1;
                    let (old, mut new) = (copy(&state, &case.shape), KdaState::zeroed(&case.shape));
                    let (from, to) = if fork {
                        (Some(&old), &mut new)
                    } else {
                        (None, &mut state)
                    };
                    let lane = KdaLane {
                        rows: 0..end - start,
                        from,
                        to,
                    };
                    let input = case.input(start..end);
                    let out = &mut out[start * inner..end * inner];
                    let weights = case.weights();
                    kda(
                        crew,
                        &case.shape,
                        &weights,
                        &input,
                        &mut [lane],
                        &mut scratch,
                        out,
                    );
                    if fork {
                        assert_same(&old, &state, "the old state");
                        state = new;
                    }
                }
                let what = format!("{:?} on {tier} by {step}", case.shape);
                assert!(bits(&out) == bits(&want.0), "{what}");
                assert_same(&state, &want.1, &what);
            }
        }
    }
}

#[test]
fn lanes_do_not_touch_each_other_and_an_empty_one_copies_its_state() {
    let pool = Pool::new(3);
    let crew = Crew {
        pool: &pool,
        tier: Tier::detect(),
    };
    for case in cases() {
        let (shape, inner) = (case.shape, case.shape.inner());
        let want = whole(&case, crew);
        // The same sequence in two lanes, the second begun before; an empty one; a row of nobody.
        let half = case.tokens / 2;
        let mut begun = KdaState::zeroed(&shape);
        let mut head = vec![0.0; half * inner];
        let mut scratch = KdaScratch::default();
        let lane = KdaLane {
            rows: 0..half,
            from: None,
            to: &mut begun,
        };
        let weights = case.weights();
        let input = case.input(0..half);
        kda(
            crew,
            &shape,
            &weights,
            &input,
            &mut [lane],
            &mut scratch,
            &mut head,
        );

        let rest = case.tokens - half;
        let all = case.input(0..case.tokens);
        let join = |x: &[f32], width: usize| {
            let gap = vec![0.5; width];
            [x, &gap, &x[half * width..]].concat()
        };
        let rows = [all.q, all.k, all.v, all.gate, all.open].map(|x| join(x, inner));
        let beta = join(all.beta, shape.heads);
        let input = KdaInput {
            q: &rows[0],
            k: &rows[1],
            v: &rows[2],
            gate: &rows[3],
            open: &rows[4],
            beta: &beta,
        };
        let mut states = [(); 3].map(|()| KdaState::zeroed(&shape));
        let [first, second, third] = &mut states;
        let start = case.tokens + 1;
        let mut lanes = [
            KdaLane {
                rows: 0..case.tokens,
                from: None,
                to: first,
            },
            KdaLane {
                rows: case.tokens..case.tokens,
                from: Some(&begun),
                to: third,
            },
            KdaLane {
                rows: start..start + rest,
                from: Some(&begun),
                to: second,
            },
        ];
        let mut out = vec![7.0; (start + rest) * inner];
        kda(
            crew,
            &shape,
            &weights,
            &input,
            &mut lanes,
            &mut scratch,
            &mut out,
        );
        assert!(bits(&out[..case.tokens * inner]) == bits(&want.0));
        assert!(
            out[case.tokens * inner..start * inner]
                .iter()
                .all(|&x| x == 7.0)
        );
        assert!(bits(&out[start * inner..]) == bits(&want.0[half * inner..]));
        assert_same(&states[0], &want.1, "first");
        assert_same(&states[1], &want.1, "second");
        assert_same(&states[2], &begun, "empty");
    }
}
