//! Passes of many tokens.

use std::ops::Range;

use ggml_kernels::cuda::attention::{
    FlashPass, MlaShape, Rows, RowsPass, Splits, WideMla, expanders, gather_rows,
};
use ggml_kernels::cuda::driver::{Buffer, Device};
use ggml_kernels::cuda::weights::WideLane;
use ggml_kernels::quant::TensorType;
use half::f16;

use super::{BASE, Cache, EPS, LAYER, Weights, new_row, noise, off, sigmoid, turned};
use crate::device;

fn halves(device: &Device, values: &[f32]) -> Buffer<f16> {
    let values: Vec<_> = values.iter().map(|&x| f16::from_f32(x)).collect();
    device.upload(&values).unwrap()
}

fn floats(buffer: &Buffer<f16>) -> Vec<f32> {
    buffer
        .read()
        .unwrap()
        .into_iter()
        .map(f16::to_f32)
        .collect()
}

struct Case {
    shape: MlaShape,
    heads: Range<u32>,
    splits: u32,
    gated: bool,
    base: Option<f32>,
    /// Of each lane: tokens before this pass and in it.
    lanes: &'static [(usize, usize)],
}

/// How far rows of the cache, queries and results are off.
fn run(case: &Case) -> Option<[f64; 3]> {
    let device = device()?;
    let (s, group) = (&case.shape, case.heads.len());
    let (heads, rank, v) = (s.heads as usize, s.rank as usize, s.v as usize);
    let (latent, query, nope) = (s.latent() as usize, s.query() as usize, s.nope as usize);
    let rope = s.rope as usize;
    let caches: Vec<_> = case
        .lanes
        .iter()
        .enumerate()
        .map(|(lane, &(past, new))| {
            Cache::new(&device, latent, past + new, past, lane as u32 * 100)
        })
        .collect();
    let (mut lanes, mut starts, mut rows, mut keys) = (Vec::new(), Vec::new(), 0, 0);
    for (cache, &(past, new)) in caches.iter().zip(case.lanes) {
        lanes.push(WideLane {
            from: 0,
            to: 0,
            table: cache.table.address(),
            row: rows as u32,
            rows: new as u32,
            position: past as u32,
            pad: 0,
        });
        starts.push(keys as u32);
        rows += new;
        keys += past + new;
    }
    let (lanes_card, starts_card) = (
        device.upload(&lanes).unwrap(),
        device.upload(&starts).unwrap(),
    );
    let (lanes_at, starts_at) = (
        (lanes_card.all(), &lanes[..]),
        (starts_card.all(), &starts[..]),
    );
    let (kv, q) = (
        noise(rows * latent, 1, 2.0),
        noise(rows * heads * query, 2, 2.0),
    );
    let (norm, gate) = (noise(rank, 3, 1.5), noise(rows * heads, 4, 3.0));
    let [kv_card, q_card, norm_card, gate_card] =
        [&kv, &q, &norm, &gate].map(|values| device.upload(values).unwrap());
    let rows_at = |values, stride: usize| Rows {
        values,
        stride: stride as u32,
    };
    let queries = device.zeroed::<f16>(rows * heads * query).unwrap();
    let (gathered, rotated) = (
        device.zeroed::<f16>(keys * rank).unwrap(),
        device.zeroed::<f16>(keys * rope).unwrap(),
    );
    // As the products would have expanded them.
    let k = halves(&device, &noise(keys * group * nope, 5, 1.0));
    let values = halves(&device, &noise(keys * group * v, 6, 1.0));
    let (out, out32) = (
        device.zeroed::<f16>(rows * heads * v).unwrap(),
        device.zeroed::<f32>(rows * heads * v).unwrap(),
    );
    let stream = device.stream().unwrap();
    let mla = WideMla::new(&device, *s, case.base, EPS).unwrap();
    let new = RowsPass {
        layer: LAYER as u32,
        lanes: lanes_at,
        norm: norm_card.all(),
        kv: rows_at(kv_card.all(), latent),
        q: Some((rows_at(q_card.all(), heads * query), queries.all())),
    };
    mla.rows(&stream, &new).unwrap();
    let to = (gathered.all(), rotated.all());
    gather_rows(&stream, &device, s, LAYER as u32, lanes_at, starts_at, to).unwrap();
    let pass = FlashPass {
        lanes: lanes_at,
        starts: starts_at,
        heads: case.heads.clone(),
        queries: queries.all(),
        keys: k.all(),
        rotated: rotated.all(),
        values: values.all(),
        gate: case.gated.then(|| rows_at(gate_card.all(), heads)),
        out: out.all(),
        out32: Some(out32.all()),
    };
    let each = case.splits as usize * rows * heads;
    let (sums, heads_of) = (
        device.zeroed::<f32>(each * v).unwrap(),
        device.zeroed::<f32>(each * 2).unwrap(),
    );
    let splits = Splits {
        count: case.splits,
        sums: sums.all(),
        heads_of: heads_of.all(),
    };
    if case.splits > 1 {
        mla.flash(&stream, &pass, Some(&splits)).unwrap();
        mla.merge(&stream, &pass, &splits).unwrap();
    } else {
        mla.flash(&stream, &pass, None).unwrap();
    }
    stream.synchronize().unwrap();

    let (k, values, queries) = (floats(&k), floats(&values), floats(&queries));
    let (gathered, rotated) = (floats(&gathered), floats(&rotated));
    let (out, out32) = (floats(&out), out32.read().unwrap());
    let scale = f64::from(std::f32::consts::LOG2_E) / (query as f64).sqrt();
    let mut worst = [0f64; 3];
    for (lane, cache) in caches.iter().enumerate() {
        let (past, new) = case.lanes[lane];
        let stored = cache.rows(past + new);
        let start = starts[lane] as usize;
        for (r, row) in stored.chunks_exact(latent).enumerate() {
            assert_eq!(&gathered[(start + r) * rank..][..rank], &row[..rank]);
            assert_eq!(&rotated[(start + r) * rope..][..rope], &row[rank..]);
        }
        for r in 0..new {
            let (at, position) = (lanes[lane].row as usize + r, past + r);
            let row = new_row(s, &kv[at * latent..][..latent], &norm, position, case.base);
            let stored = stored[position * latent..][..latent]
                .iter()
                .map(|&x| f64::from(x));
            worst[0] = worst[0].max(off(stored, row));
            for head in 0..heads {
                let width = (at * heads + head) * query;
                let (plain, turn) = q[width..][..query].split_at(nope);
                let want = plain.iter().map(|&x| f64::from(x));
                let want = want
                    .chain(turned(turn, position, case.base))
                    .map(|x| x * scale);
                let got = &queries[width..][..query];
                worst[1] = worst[1].max(off(got.iter().map(|&x| f64::from(x)), want));
            }
            if r % 5 != 0 && r + 1 != new {
                continue;
            }
            for in_group in 0..group {
                let head = case.heads.start as usize + in_group;
                let q = &queries[(at * heads + head) * query..][..query];
                let score = |key: usize| -> f64 {
                    let k = &k[((start + key) * group + in_group) * nope..][..nope];
                    let k = k.iter().chain(&rotated[(start + key) * rope..][..rope]);
                    q.iter()
                        .zip(k)
                        .map(|(&q, &k)| f64::from(q) * f64::from(k))
                        .sum()
                };
                let weights: Vec<f64> = (0..=position).map(|key| score(key).exp2()).collect();
                let sum: f64 = weights.iter().sum();
                let open = if case.gated {
                    sigmoid(gate[at * heads + head])
                } else {
                    1.0
                };
                let mut want = vec![0.0; v];
                for (key, weight) in weights.iter().enumerate() {
                    let values = &values[((start + key) * group + in_group) * v..][..v];
                    for (want, &x) in want.iter_mut().zip(values) {
                        *want += weight / sum * open * f64::from(x);
                    }
                }
                let here = (at * heads + head) * v..(at * heads + head + 1) * v;
                let halves = out[here.clone()].iter().map(|&x| f64::from(x));
                worst[2] = worst[2].max(off(halves, want.iter().copied()));
                let exact = out32[here].iter().map(|&x| f64::from(x));
                worst[2] = worst[2].max(off(exact, want));
            }
        }
    }
    for head in (0..heads).filter(|&head| !case.heads.contains(&(head as u32))) {
        assert!(
            out32[head * v..][..v].iter().all(|&x| x == 0.0),
            "another group's head {head}"
        );
    }
    Some(worst)
}

#[test]
fn queries_see_their_own_rows_and_those_before() {
    let shape = |[heads, nope, rope, rank, v]: [u32; 5]| MlaShape {
        heads,
        nope,
        rope,
        rank,
        v,
    };
    let large = shape([4, 128, 64, 512, 128]);
    /// Shape, heads, splits, and the lanes: tokens before and in the pass.
    type Each<'c> = (MlaShape, Range<u32>, u32, &'c [(usize, usize)]);
    let cases: [Each<'_>; 5] = [
        (
            shape([3, 32, 16, 64, 32]),
            0..3,
            1,
            &[(0, 5), (70, 130), (3, 1)],
        ),
        (shape([4, 48, 32, 96, 80]), 1..3, 1, &[(100, 200)]),
        (shape([2, 32, 16, 64, 48]), 0..2, 3, &[(0, 70), (300, 140)]),
        (large, 2..4, 1, &[(90, 150), (0, 64)]),
        (MlaShape { heads: 2, ..large }, 0..2, 2, &[(200, 140)]),
    ];
    for (at, (shape, heads, splits, lanes)) in cases.into_iter().enumerate() {
        let case = Case {
            shape,
            heads,
            splits,
            gated: at % 2 == 0,
            base: (at < 4).then_some(BASE),
            lanes,
        };
        let Some([rows, queries, result]) = run(&case) else {
            return;
        };
        println!("{shape:?}: rows {rows:.1e}, queries {queries:.1e}, results {result:.1e}");
        assert!(rows < 6e-4 && queries < 6e-4 && result < 3e-3);
    }
}

#[test]
fn expanders_are_the_weights_in_f16_turned_or_not() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    use TensorType::{Bf16, F16, F32, Q4_0, Q4K, Q5K, Q6K, Q8_0};
    for ty in [F32, F16, Bf16, Q4_0, Q8_0, Q4K, Q5K, Q6K] {
        let (count, rows, cols) = (3, 32, 512);
        let weights = Weights::new(&device, ty, [count, rows, cols], 9);
        for turned in [false, true] {
            let to = device.zeroed::<f16>(count * rows * cols).unwrap();
            expanders(&stream, &device, weights.matrix, 3, turned, to.all()).unwrap();
            stream.synchronize().unwrap();
            let want: Vec<f64> = if turned {
                let turn = |at: usize| {
                    let (matrix, rest) = (at / (rows * cols), at % (rows * cols));
                    let (col, row) = (rest / rows, rest % rows);
                    f64::from(weights.of(matrix)[row * cols + col])
                };
                (0..count * rows * cols).map(turn).collect()
            } else {
                weights.values.iter().map(|&x| f64::from(x)).collect()
            };
            let worst = off(floats(&to).into_iter().map(f64::from), want);
            assert!(worst < 5e-4, "{ty}, turned {turned}: {worst}");
        }
    }
}
