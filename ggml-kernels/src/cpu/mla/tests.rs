//! The kernel beside the formulas in f64, and beside itself cut, joined and run elsewhere.

use super::*;
use crate::cpu::{Pool, Tier};
use crate::quant::dequantize;
use crate::reference::mla as reference;

pub(super) const TYPES: [TensorType; 4] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q8_0,
];

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        let product = state.wrapping_mul(6364136223846793005);
        state = product.wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A sequence's queries and its rows in blocks.
pub(super) struct Case {
    pub shape: MlaShape,
    pub ty: TensorType,
    pub tokens: usize,
    pub q: Vec<f32>,
    blocks: Vec<Vec<u8>>,
}

impl Case {
    fn new([heads, rank, rope]: [usize; 3], tokens: usize, ty: TensorType) -> Case {
        let shape = MlaShape {
            heads,
            rank,
            rope,
            scale: 0.3,
        };
        let latent = shape.latent();
        let rows = noise(tokens * latent, 5);
        let bytes = ty.row_bytes(latent).unwrap();
        let blocks = rows.chunks(BLOCK * latent).map(|rows| {
            // What is behind the last row must not matter.
            let mut block = vec![0xff; BLOCK * bytes];
            let half = rows.len() / latent / 2;
            store_rows(ty, &rows[..half * latent], &mut block, 0);
            store_rows(ty, &rows[half * latent..], &mut block, half);
            block
        });
        Case {
            shape,
            ty,
            tokens,
            q: noise(tokens * heads * latent, 9)
                .iter()
                .map(|x| x * 4.0)
                .collect(),
            blocks: blocks.collect(),
        }
    }

    pub fn lane(&self, rows: Range<usize>, past: usize) -> MlaLane<'_> {
        let blocks = self.blocks.iter().map(|b| &b[..]).collect();
        MlaLane { rows, past, blocks }
    }

    /// Tokens of the sequence as a pass of their own.
    fn pass(&self, crew: Crew<'_>, tokens: Range<usize>, scratch: &mut MlaScratch) -> Vec<f32> {
        let MlaShape { heads, rank, .. } = self.shape;
        let q = &self.q[tokens.start * heads * self.shape.latent()..];
        let mut out = vec![f32::NAN; tokens.len() * heads * rank];
        let lanes = [self.lane(0..tokens.len(), tokens.start)];
        mla_in(
            Form::Lanes,
            crew,
            &self.shape,
            self.ty,
            q,
            &lanes,
            scratch,
            &mut out,
        );
        out
    }

    pub fn want(&self) -> Vec<f64> {
        let MlaShape { heads, rank, .. } = self.shape;
        let latent = self.shape.latent();
        let bytes = self.ty.row_bytes(latent).unwrap();
        let mut rows = vec![0.0; self.tokens * latent];
        let all: Vec<u8> = self.blocks.concat();
        dequantize(self.ty, &all[..self.tokens * bytes], &mut rows).unwrap();
        let mut q = vec![0.0; self.q.len()];
        for (at, x) in self.q.chunks_exact(latent).enumerate() {
            let (token, head) = (at / heads, at % heads);
            q[(head * self.tokens + token) * latent..][..latent].copy_from_slice(x);
        }
        let shape = reference::Shape {
            tokens: self.tokens,
            heads,
            rows: self.tokens,
            latent,
            rank,
        };
        reference::attention(shape, &q, &rows, self.shape.scale)
    }
}

pub(super) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let sizes = [
        ([1, 8, 24], 1),
        ([3, 40, 24], 70),
        ([5, 24, 8], 129),
        ([4, 96, 32], 65),
        ([32, 64, 32], 9),
        ([33, 32, 0], 40),
        ([2, 16, 16], 1100),
    ];
    let of = |ty| sizes.map(|(sizes, tokens)| Case::new(sizes, tokens, ty));
    TYPES.into_iter().flat_map(of).collect()
}

#[test]
fn attention_is_its_formula_for_every_type_of_rows() {
    let pool = Pool::new(2);
    let crew = Crew {
        pool: &pool,
        tier: Tier::detect(),
    };
    for ty in TYPES {
        let mut worst = 0f64;
        for case in cases().iter().filter(|case| case.ty == ty) {
            let got = case.pass(crew, 0..case.tokens, &mut MlaScratch::default());
            for (got, want) in got.iter().zip(case.want()) {
                worst = worst.max((f64::from(*got) - want).abs());
            }
        }
        println!("mla, {ty} rows: {worst:.1e} from f64, values below 1");
        assert!(worst < 5e-6, "{ty}: {worst}");
    }
}

#[test]
fn every_tier_thread_and_cut_gives_the_same_bits() {
    let one = Pool::new(1);
    for case in cases() {
        let scalar = Crew {
            pool: &one,
            tier: Tier::SCALAR,
        };
        let mut scratch = MlaScratch::default();
        let want = bits(&case.pass(scalar, 0..case.tokens, &mut scratch));
        for threads in [1, 2, 3] {
            let pool = Pool::new(threads);
            for tier in Tier::available().into_iter().filter(|t| *t != Tier::SCALAR) {
                let crew = Crew { pool: &pool, tier };
                for step in [1, 7, 64, 512, 2048] {
                    if step == 1 && case.tokens > 200 && threads > 1 {
                        continue;
                    }
                    let starts = (0..case.tokens).step_by(step);
                    let cut = starts.flat_map(|start| {
                        let tokens = start..case.tokens.min(start + step);
                        case.pass(crew, tokens, &mut scratch)
                    });
                    let same = cut.map(f32::to_bits).eq(want.iter().copied());
                    let (shape, ty) = (case.shape, case.ty);
                    assert!(
                        same,
                        "{shape:?} {ty} on {tier}, {threads} threads, by {step}"
                    );
                }
            }
        }
    }
}

#[test]
fn lanes_of_any_lengths_do_not_touch_each_other() {
    let pool = Pool::new(3);
    let crew = Crew {
        pool: &pool,
        tier: Tier::detect(),
    };
    for case in cases() {
        let MlaShape { heads, rank, .. } = case.shape;
        let latent = case.shape.latent();
        let mut scratch = MlaScratch::default();
        let want = case.pass(crew, 0..case.tokens, &mut scratch);
        // The last token alone, an empty lane, a row of nobody, and all tokens.
        let last = case.tokens - 1;
        let lanes = [
            case.lane(0..1, last),
            case.lane(1..1, last),
            case.lane(2..2 + case.tokens, 0),
        ];
        let mut q = case.q[last * heads * latent..].to_vec();
        q.resize(2 * heads * latent, f32::NAN);
        q.extend(&case.q);
        let mut out = vec![7.0; (2 + case.tokens) * heads * rank];
        mla(
            crew,
            &case.shape,
            case.ty,
            &q,
            &lanes,
            &mut scratch,
            &mut out,
        );
        let row = heads * rank;
        assert!(bits(&out[..row]) == bits(&want[last * row..]));
        assert!(out[row..2 * row].iter().all(|&x| x == 7.0));
        assert!(bits(&out[2 * row..]) == bits(&want));
    }
}

#[test]
fn a_context_of_many_splits_gives_the_same_bits_shared_by_splits_or_by_queries() {
    let case = Case::new([1, 8, 8], 40_000, TensorType::F16);
    let last = case.tokens - 300..case.tokens;
    // 300 queries are shared by queries; one at a time, by splits in waves of 32 or of 96.
    let one = Pool::new(1);
    let tier = Tier::detect();
    let crew = Crew { pool: &one, tier };
    let mut scratch = MlaScratch::default();
    let want = bits(&case.pass(crew, last.clone(), &mut scratch));
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        let crew = Crew { pool: &pool, tier };
        let mut got = Vec::new();
        for token in last.clone().step_by(50) {
            got.extend(case.pass(crew, token..token + 50, &mut scratch));
        }
        assert!(bits(&got) == want, "{threads} threads");
        // Three lanes of the same sequence, whose waves end in the midst of a lane.
        let [first, end] = [last.start, last.end - 1];
        let lanes = [
            case.lane(0..1, first),
            case.lane(1..2, end),
            case.lane(2..3, first),
        ];
        let q: Vec<f32> = [first, end, first]
            .iter()
            .flat_map(|at| case.q[at * 16..(at + 1) * 16].to_vec())
            .collect();
        let mut out = vec![0.0; 3 * 8];
        mla(
            crew,
            &case.shape,
            case.ty,
            &q,
            &lanes,
            &mut scratch,
            &mut out,
        );
        assert!(bits(&out[..8]) == want[..8] && bits(&out[16..]) == want[..8]);
        assert!(bits(&out[8..16]) == want[299 * 8..]);
    }
}
