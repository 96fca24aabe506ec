//! Products of the processor's own kernels: the same bits on every tier, with any neighbours and any
//! number of threads, and close to what f64 says.

use ggml_kernels::cpu::{
    Activations, Crew, ExpertScratch, Experts, Matrix, Pool, Product, Routes, Stack, Tier, experts,
    gate_up, math, products, products_by_head,
};
use ggml_kernels::quant::{TensorType, dequantize, quantize_rows};

/// Types with kernels of our own.
const OWN: [TensorType; 15] = [
    TensorType::Q2K,
    TensorType::Q3K,
    TensorType::Iq2Xxs,
    TensorType::Iq2Xs,
    TensorType::Iq2S,
    TensorType::Iq3Xxs,
    TensorType::Iq3S,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::F32,
];

/// Types that ggml's row functions multiply.
const FOREIGN: [TensorType; 7] = [
    TensorType::Iq1M,
    TensorType::Iq4Xs,
    TensorType::Iq4Nl,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Mxfp4,
];

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    // Nearly normal, with an outlier here and there, as activations are.
    (0..n)
        .map(|i| {
            let x = next() + next() + next();
            if i % 97 == 13 { x * 4.0 } else { x }
        })
        .collect()
}

/// Bytes at an address that suits every type.
struct Weights {
    words: Vec<u32>,
    bytes: usize,
    /// What they stand for.
    values: Vec<f32>,
}

impl Weights {
    fn new(ty: TensorType, rows: usize, cols: usize, seed: u64) -> Weights {
        let bytes = ty.row_bytes(cols).unwrap() * rows;
        let mut all = Weights {
            words: vec![0; bytes.div_ceil(4)],
            bytes,
            values: vec![0.0; rows * cols],
        };
        let x: Vec<f32> = noise(rows * cols, seed).iter().map(|x| x * 0.05).collect();
        // SAFETY: words are bytes.
        let raw = unsafe { std::slice::from_raw_parts_mut(all.words.as_mut_ptr().cast(), bytes) };
        let importance = ty.needs_importance().then(|| vec![1.0; cols]);
        quantize_rows(ty, &x, cols, importance.as_deref(), raw).unwrap();
        dequantize(ty, raw, &mut all.values).unwrap();
        all
    }
    fn bytes(&self) -> &[u8] {
        // SAFETY: words are bytes.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.bytes) }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn multiply(crew: Crew<'_>, matrix: Matrix<'_>, x: &[f32]) -> Vec<f32> {
    let mut input = Activations::default();
    input.fill(crew, x, matrix.cols(), [matrix.ty()]);
    let mut out = vec![f32::NAN; input.rows() * matrix.rows()];
    let out_ref = &mut out;
    products(
        crew,
        &input,
        &mut [Product {
            matrix,
            out: out_ref,
        }],
    );
    out
}

fn shapes(ty: TensorType) -> Vec<(usize, usize)> {
    let block = ty.block_size();
    let mut shapes = vec![
        (1, block),
        (37, 3 * block),
        (70, 9 * block),
        (0, block),
        (33, 2 * block),
    ];
    if block == 1 {
        shapes.extend([(5, 13), (9, 16), (35, 131), (3, 2304)]);
    }
    shapes
}

const TOKENS: [usize; 10] = [0, 1, 2, 3, 5, 8, 17, 33, 64, 130];

#[test]
fn an_output_has_the_same_bits_whatever_the_company_the_threads_and_the_tier() {
    let pools = [1, 2, 3].map(Pool::new);
    for ty in OWN.into_iter().chain(FOREIGN) {
        for (rows, cols) in shapes(ty) {
            let weights = Weights::new(ty, rows, cols, 7);
            let matrix = Matrix::new(ty, rows, cols, weights.bytes()).unwrap();
            let x = noise(130 * cols, 3);
            let slow = Crew {
                pool: &pools[0],
                tier: Tier::SCALAR,
            };
            let want: Vec<u32> = (0..130)
                .flat_map(|t| bits(&multiply(slow, matrix, &x[t * cols..(t + 1) * cols])))
                .collect();
            for tier in Tier::available() {
                for (at, tokens) in TOKENS.into_iter().enumerate() {
                    let pool = &pools[at % 3];
                    let crew = Crew { pool, tier };
                    let start = 130 - tokens;
                    let got = bits(&multiply(crew, matrix, &x[start * cols..]));
                    assert!(
                        got == want[start * rows..],
                        "{ty} [{rows}, {cols}] {tokens} tokens, {tier}"
                    );
                }
            }
        }
    }
}

/// Distance from f64 products of what the weights stand for, relative to the norm of the result.
#[test]
fn products_are_as_near_to_f64_as_eight_bits_allow() {
    let pool = Pool::new(2);
    let crew = Crew {
        pool: &pool,
        tier: Tier::detect(),
    };
    let (rows, tokens) = (96, 6);
    for ty in OWN.into_iter().chain(FOREIGN) {
        // One column behind whole vectors, where a type has no blocks.
        let cols = if ty.block_size() == 1 { 2305 } else { 2304 };
        let x = noise(tokens * cols, 11);
        let weights = Weights::new(ty, rows, cols, 5);
        let matrix = Matrix::new(ty, rows, cols, weights.bytes()).unwrap();
        let got = multiply(crew, matrix, &x);
        let (mut off, mut all) = (0f64, 0f64);
        for t in 0..tokens {
            for r in 0..rows {
                let pairs = weights.values[r * cols..]
                    .iter()
                    .zip(&x[t * cols..(t + 1) * cols]);
                let want: f64 = pairs.map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                off += (f64::from(got[t * rows + r]) - want).powi(2);
                all += want * want;
            }
        }
        let error = (off / all).sqrt();
        println!("{ty}: {error:.2e} from f64, relative");
        let bound = if ty.is_quantized() { 2e-2 } else { 1e-6 };
        assert!(error < bound, "{ty}: {error}");
    }
}

#[test]
fn several_products_in_one_job_are_as_each_alone() {
    let pool = Pool::new(3);
    for tier in Tier::available() {
        let crew = Crew { pool: &pool, tier };
        let types = [
            TensorType::Q4K,
            TensorType::Q6K,
            TensorType::F32,
            TensorType::Q8_0,
        ];
        let weights: Vec<_> = types
            .iter()
            .enumerate()
            .map(|(at, &ty)| Weights::new(ty, 50 + 13 * at, 512, at as u64 + 1))
            .collect();
        let matrix =
            |at: usize| Matrix::new(types[at], 50 + 13 * at, 512, weights[at].bytes()).unwrap();
        for tokens in [0, 1, 9] {
            let x = noise(tokens * 512, 2);
            let mut input = Activations::default();
            input.fill(crew, &x, 512, types);
            let mut outs: Vec<_> = (0..4)
                .map(|at| vec![f32::NAN; tokens * matrix(at).rows()])
                .collect();
            let mut jobs: Vec<_> = outs
                .iter_mut()
                .enumerate()
                .map(|(at, out)| Product {
                    matrix: matrix(at),
                    out,
                })
                .collect();
            products(crew, &input, &mut jobs);
            for (at, out) in outs.iter().enumerate() {
                assert_eq!(
                    bits(out),
                    bits(&multiply(crew, matrix(at), &x)),
                    "{}",
                    types[at]
                );
            }
        }
    }
}

#[test]
fn a_head_meets_its_own_matrix() {
    let pool = Pool::new(2);
    let (heads, rows) = (3, 37);
    for (ty, cols) in [
        (TensorType::Q8_0, 128),
        (TensorType::F16, 100),
        (TensorType::Q5_1, 64),
    ] {
        let weights = Weights::new(ty, heads * rows, cols, 9);
        let stack = Stack::new(ty, heads, rows, cols, weights.bytes()).unwrap();
        for tier in Tier::available() {
            let crew = Crew { pool: &pool, tier };
            for tokens in [0, 1, 2, 19] {
                let x = noise(tokens * heads * cols, 4);
                let mut input = Activations::default();
                input.fill(crew, &x, cols, [ty]);
                let mut out = vec![f32::NAN; tokens * heads * rows];
                products_by_head(crew, &input, &stack, &mut out);
                for (at, out) in out.chunks_exact(rows).enumerate() {
                    let x = &x[at * cols..(at + 1) * cols];
                    let want = multiply(crew, stack.get(at % heads), x);
                    assert_eq!(bits(out), bits(&want), "{ty} {tier} row {at}");
                }
            }
        }
    }
}

#[test]
fn gate_and_up_are_their_products_with_silu_between() {
    let pool = Pool::new(2);
    for (ty, gate_ty) in [
        (TensorType::Q4K, TensorType::Q6K),
        (TensorType::Q3K, TensorType::F32),
    ] {
        let (up, gate) = (
            Weights::new(ty, 77, 256, 1),
            Weights::new(gate_ty, 77, 256, 2),
        );
        let up = Matrix::new(ty, 77, 256, up.bytes()).unwrap();
        let gate = Matrix::new(gate_ty, 77, 256, gate.bytes()).unwrap();
        for tier in Tier::available() {
            let crew = Crew { pool: &pool, tier };
            for tokens in [0, 1, 3, 21] {
                let x = noise(tokens * 256, 6);
                let mut input = Activations::default();
                input.fill(crew, &x, 256, [ty, gate_ty]);
                let mut out = vec![f32::NAN; tokens * 77];
                for limit in [f32::INFINITY, 0.7] {
                    gate_up(crew, &input, gate, up, limit, &mut out);
                    let mut want = multiply(crew, up, &x);
                    math::silu_mul(tier, &multiply(crew, gate, &x), &mut want, limit);
                    assert_eq!(bits(&out), bits(&want), "{ty} {tier} {tokens} {limit}");
                }
            }
        }
    }
}

#[test]
fn experts_sum_their_ranks_in_order_whoever_else_asks() {
    let (count, hidden, ff, used) = (11, 512, 256, 4);
    let pools = [1, 2, 3].map(Pool::new);
    for types in [
        [TensorType::Q4K, TensorType::Q4K, TensorType::Q6K],
        [TensorType::Q5K, TensorType::Q8_0, TensorType::Iq4Nl],
        [TensorType::Bf16, TensorType::F16, TensorType::F32],
    ] {
        let gate = Weights::new(types[0], count * ff, hidden, 1);
        let up = Weights::new(types[1], count * ff, hidden, 2);
        let down = Weights::new(types[2], count * hidden, ff, 3);
        let all = Experts {
            gate: Stack::new(types[0], count, ff, hidden, gate.bytes()).unwrap(),
            up: Stack::new(types[1], count, ff, hidden, up.bytes()).unwrap(),
            down: Stack::new(types[2], count, hidden, ff, down.bytes()).unwrap(),
            limit: 0.9,
        };
        let tokens = 60;
        let x = noise(tokens * hidden, 8);
        let ids: Vec<u32> = (0..tokens * used)
            .map(|i| ((i / used * 5 + i % used * (1 + i / used % 2)) % count) as u32)
            .collect();
        let weights: Vec<f32> = noise(tokens * used, 9).iter().map(|w| w.abs()).collect();
        let mut scratch = ExpertScratch::default();
        let mut run = |crew: Crew<'_>, range: std::ops::Range<usize>| {
            let x = &x[range.start * hidden..range.end * hidden];
            let mut input = Activations::default();
            input.fill(crew, x, hidden, types);
            let picks = range.start * used..range.end * used;
            let routes = Routes {
                ids: &ids[picks.clone()],
                weights: &weights[picks],
                used,
            };
            let mut out = vec![f32::NAN; range.len() * hidden];
            experts(crew, &input, &all, routes, &mut scratch, &mut out);
            out
        };
        let slow = Crew {
            pool: &pools[0],
            tier: Tier::SCALAR,
        };
        let want: Vec<f32> = (0..tokens).flat_map(|t| run(slow, t..t + 1)).collect();
        for tier in Tier::available() {
            for (pool, range) in [(0, 0..1), (1, 0..60), (2, 0..60), (2, 7..23), (1, 4..4)] {
                let pool = &pools[pool];
                let got = run(Crew { pool, tier }, range.clone());
                let want = &want[range.start * hidden..range.end * hidden];
                assert!(bits(&got) == bits(want), "{types:?} {tier} {range:?}");
            }
        }
        // The first token by hand, through the other functions.
        let mut by_hand = vec![0f32; hidden];
        for rank in 0..used {
            let id = ids[rank] as usize;
            let mut h = multiply(slow, all.up.get(id), &x[..hidden]);
            let g = multiply(slow, all.gate.get(id), &x[..hidden]);
            math::silu_mul(slow.tier, &g, &mut h, all.limit);
            let y = multiply(slow, all.down.get(id), &h);
            for (sum, y) in by_hand.iter_mut().zip(y) {
                *sum += weights[rank] * y;
            }
        }
        assert_eq!(bits(&by_hand), bits(&want[..hidden]));
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let pool = Pool::new(1);
    for ty in OWN {
        let weights = Weights::new(ty, 5, 256, 1);
        let matrix = Matrix::new(ty, 5, 256, weights.bytes()).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = noise(256, 1);
            x[100] = bad;
            for tier in Tier::available() {
                let crew = Crew { pool: &pool, tier };
                let out = multiply(crew, matrix, &x);
                assert!(
                    out.iter().all(|y| !y.is_finite()),
                    "{ty} {tier} {bad} {out:?}"
                );
            }
        }
        let crew = Crew {
            pool: &pool,
            tier: Tier::detect(),
        };
        assert!(
            multiply(crew, matrix, &[0.0; 256])
                .iter()
                .all(|y| *y == 0.0)
        );
    }
}

#[test]
fn a_token_may_meet_one_expert_at_every_rank() {
    // A router of a damaged file gives NaN, and every rank the same expert.
    let (hidden, ff, count) = (64, 32, 2);
    let ty = TensorType::F32;
    let gate = Weights::new(ty, count * ff, hidden, 1);
    let up = Weights::new(ty, count * ff, hidden, 2);
    let down = Weights::new(ty, count * hidden, ff, 3);
    let all = Experts {
        gate: Stack::new(ty, count, ff, hidden, gate.bytes()).unwrap(),
        up: Stack::new(ty, count, ff, hidden, up.bytes()).unwrap(),
        down: Stack::new(ty, count, hidden, ff, down.bytes()).unwrap(),
        limit: f32::INFINITY,
    };
    let pool = Pool::new(2);
    let x = noise(hidden, 8);
    for tier in Tier::available() {
        let crew = Crew { pool: &pool, tier };
        let mut input = Activations::default();
        input.fill(crew, &x, hidden, [ty]);
        let run = |ids: &[u32], weights: &[f32]| {
            let routes = Routes {
                ids,
                weights,
                used: ids.len(),
            };
            let mut out = vec![f32::NAN; hidden];
            let mut scratch = ExpertScratch::default();
            experts(crew, &input, &all, routes, &mut scratch, &mut out);
            out
        };
        let (once, thrice) = (run(&[1], &[1.0]), run(&[1, 1, 1], &[0.5, 0.25, 0.25]));
        for (a, b) in once.iter().zip(&thrice) {
            assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{tier}: {a} {b}");
        }
    }
}
