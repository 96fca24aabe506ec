//! Passes of one token a lane.

use ggml_kernels::cuda::attention::{MlaShape, MlaWeights, Rows, SmallMla, SmallPass};
use ggml_kernels::cuda::weights::{Activations, Lane};
use ggml_kernels::quant::TensorType;
use ggml_kernels::reference::mla::{Shape, attention};

use super::{
    BASE, Cache, EPS, LAYER, Weights, matrix_product, new_row, noise, off, sigmoid, turned,
};
use crate::device;

struct Case {
    shape: MlaShape,
    types: [TensorType; 2],
    base: Option<f32>,
    gated: bool,
    /// Of each lane: tokens before this one.
    positions: &'static [usize],
    /// Lanes are neighbouring tokens of one sequence.
    one_sequence: bool,
    /// Rows of the pass's own tokens are in the cache already.
    stored: bool,
}

const fn shape([heads, nope, rope, rank, v]: [u32; 5]) -> MlaShape {
    MlaShape {
        heads,
        nope,
        rope,
        rank,
        v,
    }
}

/// How far rows, results and quantized results are off.
fn run(case: &Case) -> Option<[f64; 3]> {
    let device = device()?;
    let (s, lanes) = (&case.shape, case.positions.len());
    let (heads, rank, v) = (s.heads as usize, s.rank as usize, s.v as usize);
    let (latent, query) = (s.latent() as usize, s.query() as usize);
    let sequences = if case.one_sequence { 1 } else { lanes };
    let caches: Vec<_> = (0..sequences)
        .map(|at| {
            let (first, last) = if case.one_sequence {
                (case.positions[0], case.positions[lanes - 1])
            } else {
                (case.positions[at], case.positions[at])
            };
            let full = if case.stored { last + 1 } else { first };
            Cache::new(&device, latent, last + 1, full, at as u32 * 100)
        })
        .collect();
    let cache_of = |lane: usize| &caches[lane % sequences];
    let of_lane = |lane: usize| Lane {
        from: 0,
        to: 0,
        table: cache_of(lane).table.address(),
        token: 0,
        position: case.positions[lane] as u32,
    };
    let on_card: Vec<_> = (0..lanes).map(of_lane).collect();
    let on_card = device.upload(&on_card).unwrap();
    let k_b = Weights::new(
        &device,
        case.types[0],
        [heads, rank, query - s.rope as usize],
        3,
    );
    let v_b = Weights::new(&device, case.types[1], [heads, v, rank], 4);
    // Rows lie further apart than they are long.
    let strides = [heads * query + 4, latent + 3, heads + 1];
    let [q, kv, gate] = [(0, 5, 1.5), (1, 6, 2.0), (2, 7, 3.0)]
        .map(|(at, seed, most): (usize, u32, f32)| noise(lanes * strides[at], seed, most));
    let norm = noise(rank, 8, 1.5);
    let [q_card, kv_card, gate_card, norm_card] =
        [&q, &kv, &gate, &norm].map(|values| device.upload(values).unwrap());
    let rows = |buffer, stride| Rows {
        values: buffer,
        stride: stride as u32,
    };
    let out = Activations::room(&device, lanes * heads * v).unwrap();
    let stream = device.stream().unwrap();
    let mla = SmallMla::new(&device, *s, case.base, EPS, lanes as u32).unwrap();
    let weights = MlaWeights {
        norm: norm_card.all(),
        k_b: k_b.matrix,
        v_b: v_b.matrix,
    };
    let pass = SmallPass {
        layer: LAYER as u32,
        lanes: on_card.all(),
        q: rows(q_card.all(), strides[0]),
        kv: (!case.stored).then(|| rows(kv_card.all(), strides[1])),
        gate: case.gated.then(|| rows(gate_card.all(), strides[2])),
    };
    // Twice: what the first leaves behind is as the second finds it.
    for _ in 0..2 {
        mla.run(
            &stream,
            &weights,
            &pass,
            out.acts(lanes, heads * v).unwrap(),
        )
        .unwrap();
    }
    stream.synchronize().unwrap();
    let got = out.x.read().unwrap();
    let (mut row_off, mut want) = (0f64, Vec::new());
    for (lane, &position) in case.positions.iter().enumerate() {
        let stored = cache_of(lane).rows(position + 1);
        let kv = &kv[lane * strides[1]..][..latent];
        let row = new_row(s, kv, &norm, position, case.base);
        let last = stored[position * latent..].iter().map(|&x| f64::from(x));
        if !case.stored {
            row_off = row_off.max(off(last, row));
        }
        for head in 0..heads {
            let q = &q[lane * strides[0] + head * query..][..query];
            let (nope, rotated) = q.split_at(s.nope as usize);
            let nope: Vec<f64> = nope.iter().map(|&x| f64::from(x)).collect();
            let mut absorbed = matrix_product(k_b.of(head), &nope);
            absorbed.extend(turned(rotated, position, case.base));
            let absorbed: Vec<f32> = absorbed.into_iter().map(|x| x as f32).collect();
            let one = Shape {
                tokens: 1,
                heads: 1,
                rows: position + 1,
                latent,
                rank,
            };
            let seen = attention(one, &absorbed, &stored, 1.0 / (query as f32).sqrt());
            let open = if case.gated {
                sigmoid(gate[lane * strides[2] + head])
            } else {
                1.0
            };
            want.extend(
                matrix_product(v_b.of(head), &seen)
                    .into_iter()
                    .map(|x| x * open),
            );
        }
    }
    let (q, d) = (out.q.read().unwrap(), out.d.read().unwrap());
    let quantized = (0..got.len()).map(|i| f64::from(q[i]) * f64::from(d[i / 32]));
    let sums: Vec<i16> = q
        .chunks(16)
        .map(|q| q.iter().map(|&q| i16::from(q)).sum())
        .collect();
    assert_eq!(out.s.read().unwrap(), sums);
    let exact = || got.iter().map(|&x| f64::from(x));
    Some([row_off, off(exact(), want), off(quantized, exact())])
}

#[test]
fn a_token_sees_what_the_reference_sees_at_any_size_and_type() {
    use TensorType::{Bf16, F16, F32, Q4_0, Q4K, Q5K, Q6K, Q8_0};
    let cases: [(MlaShape, [TensorType; 2], bool, &[usize]); 9] = [
        (shape([3, 32, 16, 64, 32]), [F32, F32], true, &[0, 5, 130]),
        (
            shape([4, 16, 64, 32, 16]),
            [F16, F16],
            false,
            &[63, 64, 65, 200],
        ),
        (shape([2, 128, 32, 160, 48]), [Bf16, Bf16], true, &[300]),
        (shape([16, 64, 64, 256, 128]), [Q8_0, Q8_0], true, &[100, 7]),
        (shape([2, 32, 16, 256, 32]), [Q4_0, Q4K], true, &[100, 7]),
        (shape([2, 32, 16, 512, 32]), [F16, Q6K], false, &[40]),
        (shape([2, 32, 16, 256, 32]), [F16, Q5K], true, &[40]),
        (shape([34, 32, 16, 64, 16]), [Q4_0, Q4_0], false, &[90, 33]),
        (shape([16, 128, 64, 512, 128]), [F16, Q8_0], true, &[150, 0]),
    ];
    let mut worst = [0f64; 3];
    for (at, (shape, types, gated, positions)) in cases.into_iter().enumerate() {
        let case = Case {
            shape,
            types,
            base: (at % 2 == 0).then_some(BASE),
            gated,
            positions,
            one_sequence: false,
            stored: false,
        };
        let Some(got) = run(&case) else { return };
        println!(
            "{shape:?} {types:?}: row {:.1e}, result {:.1e}, quantized {:.1e}",
            got[0], got[1], got[2]
        );
        worst = std::array::from_fn(|i| worst[i].max(got[i]));
    }
    // Rows, queries and weights of softmax are f16.
    assert!(
        worst[0] < 6e-4 && worst[1] < 1e-3 && worst[2] < 5e-3,
        "{worst:?}"
    );
}

#[test]
fn thirty_two_heads_share_each_tile() {
    let case = Case {
        shape: shape([32, 128, 64, 512, 128]),
        types: [TensorType::F16, TensorType::Q8_0],
        base: None,
        gated: false,
        positions: &[321, 31],
        one_sequence: false,
        stored: false,
    };
    let Some([row, result, quantized]) = run(&case) else {
        return;
    };
    assert!(row < 6e-4 && result < 1e-3 && quantized < 5e-3);
}

#[test]
fn lanes_may_be_neighbouring_tokens_of_one_sequence() {
    for (heads, rank, stored) in [(3, 64, false), (3, 64, true), (8, 512, true)] {
        let case = Case {
            shape: shape([heads, 32, 64, rank, 32]),
            types: [TensorType::F16, TensorType::F16],
            base: Some(BASE),
            gated: true,
            positions: &[125, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135],
            one_sequence: true,
            stored,
        };
        let Some([row, result, quantized]) = run(&case) else {
            return;
        };
        assert!(
            row < 6e-4 && result < 1e-3 && quantized < 5e-3,
            "{row} {result} {quantized}"
        );
    }
}

#[test]
fn sizes_without_room_are_refused() {
    let Some(device) = device() else { return };
    for (sizes, what) in [
        ([4, 24, 16, 64, 32], "nope is 24"),
        ([4, 16, 80, 64, 32], "rope is 80"),
        ([4, 16, 16, 544, 32], "rank is 544"),
        ([4, 16, 16, 64, 0], "v is 0"),
        ([0, 16, 16, 64, 16], "heads is 0"),
    ] {
        let why = SmallMla::new(&device, shape(sizes), None, EPS, 1)
            .unwrap_err()
            .to_string();
        assert!(why.contains(what), "{why}");
    }
    let why = SmallMla::new(&device, shape([4, 16, 16, 64, 16]), None, EPS, 17).unwrap_err();
    assert_eq!(why.to_string(), "MLA: lanes is 17, wanted 1 to 16");
}
