//! KDA on the card beside the processor's: many tokens, one token, and one after the other.

mod case;

use ggml_kernels::cpu::kda::GateLaw;
use ggml_kernels::cuda::driver::{Buffer, Device, Stream};
use ggml_kernels::cuda::mixers::{
    KdaFinish, KdaGate, KdaLayer, KdaStep, KdaWide, Second, Strided, chunks_len, kda_finish,
    kda_gate, kda_prepare, kda_scan, kda_step,
};
use ggml_kernels::cuda::weights::{Lane, Matrix, WeightType, WideLane};
use half::{bf16, f16};

use super::{Forms, Noise, off};
use crate::device;
use case::{Case, Held, Merged, OFFSET, slot_len};

/// A wide pass's rows, normed and gated, in f32; f16 is held to be the same.
fn wide(stream: &Stream, layer: &KdaLayer<'_>, merged: &Merged, lanes: &[WideLane]) -> Vec<f32> {
    let device = stream.device();
    let n = merged.rows * merged.inner;
    let on_card = device.upload(lanes).unwrap();
    let len = chunks_len(&layer.shape, merged.rows, lanes.len());
    let chunks = device.upload(&vec![f32::NAN; len]).unwrap();
    let o = device.upload(&vec![f32::NAN; n]).unwrap();
    let (y, h) = (device.zeroed(n).unwrap(), device.zeroed::<f16>(n).unwrap());
    let wide = KdaWide {
        layer,
        rows: merged.kda(),
        lanes: on_card.all(),
        longest: lanes
            .iter()
            .map(|lane| lane.rows as usize)
            .max()
            .unwrap_or(0),
        chunks: chunks.all(),
        o: o.all(),
    };
    kda_prepare(stream, &wide).unwrap();
    kda_scan(stream, &wide).unwrap();
    let finish = KdaFinish {
        layer,
        o: o.all(),
        open: merged.strided(4),
        f32: Some(y.all()),
        f16: Some(h.all()),
    };
    kda_finish(stream, &finish).unwrap();
    stream.synchronize().unwrap();
    let y = y.read().unwrap();
    for (h, y) in h.read().unwrap().into_iter().zip(&y) {
        assert_eq!(h, f16::from_f32(*y));
    }
    y
}

fn wide_lane(
    from: &Buffer<f32>,
    to: &Buffer<f32>,
    row: usize,
    rows: usize,
    position: usize,
) -> WideLane {
    WideLane {
        from: from.address(),
        to: to.address(),
        table: 0,
        row: row as u32,
        rows: rows as u32,
        position: position as u32,
        pad: 0,
    }
}

/// A small pass's rows in every form; `low`: what takes the place of the projections of whole gates.
fn small(
    stream: &Stream,
    layer: &KdaLayer<'_>,
    merged: &Merged,
    slots: &[(&Buffer<f32>, &Buffer<f32>)],
    low: Option<([Strided<'_>; 2], [Matrix; 2])>,
) -> Vec<f32> {
    let device = stream.device();
    let lane = |&(from, to): &(&Buffer<f32>, &Buffer<f32>)| Lane {
        from: from.address(),
        to: to.address(),
        table: 0,
        token: 0,
        position: 0,
    };
    let lanes: Vec<Lane> = slots.iter().map(lane).collect();
    let lanes = device.upload(&lanes).unwrap();
    let o = device.zeroed(merged.rows * merged.inner).unwrap();
    let forms = Forms::new(device, merged.rows, merged.inner);
    let mut rows = merged.kda();
    let mut open = merged.strided(4);
    let [mut f_b, mut g_b]: [Second; 2] = [None, None];
    if let Some(([decay, gate], [f, g])) = low {
        (rows.decay, open) = (decay, gate);
        (f_b, g_b) = (Some(f), Some(g));
    }
    let step = KdaStep {
        layer,
        rows,
        f_b,
        lanes: lanes.all(),
        o: o.all(),
    };
    kda_step(stream, &step).unwrap();
    let gate = KdaGate {
        layer,
        rows,
        open,
        g_b,
        lanes: lanes.all(),
        o: o.all(),
        out: forms.acts,
    };
    kda_gate(stream, &gate).unwrap();
    stream.synchronize().unwrap();
    let y = forms.x.read().unwrap();
    forms.check_eight(&y);
    y
}

fn cases() -> Vec<Case> {
    let softplus = GateLaw::Softplus;
    let bounded = GateLaw::Bounded { lower: -5.0 };
    vec![
        Case::new([2, 128, 4], 55, softplus, 1.0),
        Case::new([1, 128, 4], 38, softplus, 60.0),
        Case::new([3, 64, 4], 70, softplus, 3.0),
        Case::new([2, 64, 2], 9, bounded, 1.0),
        Case::new([4, 32, 3], 37, bounded, 2.0),
        Case::new([1, 32, 1], 13, softplus, 0.1),
    ]
}

fn check(got: &[f32], want: &[f32], what: &str) {
    let error = off(got, want);
    assert!(error < 1e-5, "{what}: {error:.1e}");
}

#[test]
fn a_sequence_begun_wide_and_ended_by_single_tokens_is_its_twin_s() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for case in cases() {
        let what = format!("{:?} {:?}", case.shape, case.law);
        let inner = case.inner();
        let (held, len) = (Held::new(&device, &case), slot_len(&case.shape));
        let layer = held.layer(&case);
        let head = case.tokens - 5;
        let (want, slots) = case.want(&[head]);
        let mut first = vec![0.0; len];
        first[..OFFSET].fill(7.0);
        let first = device.upload(&first).unwrap();
        let merged = Merged::new(&device, &[(&case, 0..head)]);
        let lanes = [wide_lane(&first, &first, 0, head, 0)];
        let y = wide(&stream, &layer, &merged, &lanes);
        check(&y, &want[..head * inner], &what);
        check(&first.read().unwrap(), &slots[0], &format!("{what}, slot"));

        // Into a slot of its own, then in place.
        let mut second = vec![f32::NAN; len];
        second[..OFFSET].fill(7.0);
        let second = device.upload(&second).unwrap();
        let mut from = &first;
        for token in head..case.tokens {
            let merged = Merged::new(&device, &[(&case, token..token + 1)]);
            let y = small(&stream, &layer, &merged, &[(from, &second)], None);
            let what = format!("{what}, token {token}");
            check(&y, &want[token * inner..(token + 1) * inner], &what);
            from = &second;
        }
        check(
            &first.read().unwrap(),
            &slots[0],
            &format!("{what}, left alone"),
        );
        check(
            &second.read().unwrap(),
            &slots[1],
            &format!("{what}, last slot"),
        );
    }
}

#[test]
fn a_sequence_cut_between_chunks_gives_the_same_bits_and_cut_elsewhere_nearly() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for case in cases() {
        let inner = case.inner();
        let held = Held::new(&device, &case);
        let layer = held.layer(&case);
        let run = |ends: &[usize]| {
            let slot = device.zeroed(slot_len(&case.shape)).unwrap();
            let (mut all, mut start) = (Vec::new(), 0);
            for &end in ends.iter().chain([&case.tokens]) {
                let merged = Merged::new(&device, &[(&case, start..end)]);
                let lane = wide_lane(&slot, &slot, 0, end - start, start);
                all.extend(wide(&stream, &layer, &merged, &[lane]));
                start = end;
            }
            (all, slot.read().unwrap())
        };
        let whole = run(&[]);
        assert_eq!(whole.0.len(), case.tokens * inner);
        for ends in [&[16][..], &[32], &[16, 32]] {
            let ends: Vec<_> = ends
                .iter()
                .copied()
                .filter(|&end| end < case.tokens)
                .collect();
            assert!(whole == run(&ends), "{:?} cut at {ends:?}", case.shape);
        }
        for ends in [&[1][..], &[2, 3], &[5, 7], &[1, 2, 3, 4, 5, 6]] {
            let cut = run(ends);
            check(
                &cut.0,
                &whole.0,
                &format!("{:?} cut at {ends:?}", case.shape),
            );
            check(&cut.1, &whole.1, "slot");
        }
    }
}

#[test]
fn lanes_do_not_touch_each_other_and_an_empty_one_copies_its_slot() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for case in cases() {
        let inner = case.inner();
        let (held, len) = (Held::new(&device, &case), slot_len(&case.shape));
        let layer = held.layer(&case);
        let (want, slots) = case.want(&[3]);
        // All of it, nothing, and what comes after three tokens.
        let begun = device.upload(&slots[0]).unwrap();
        let states = [0, 1, 2].map(|_| device.zeroed(len).unwrap());
        let fresh = device.zeroed(len).unwrap();
        let parts = [(&case, 0..case.tokens), (&case, 3..case.tokens)];
        let merged = Merged::new(&device, &parts);
        let rest = case.tokens - 3;
        let lanes = [
            wide_lane(&fresh, &states[0], 0, case.tokens, 0),
            wide_lane(&begun, &states[1], case.tokens, 0, 3),
            wide_lane(&begun, &states[2], case.tokens, rest, 3),
        ];
        let y = wide(&stream, &layer, &merged, &lanes);
        let what = format!("{:?}", case.shape);
        check(&y[..case.tokens * inner], &want, &what);
        check(&y[case.tokens * inner..], &want[3 * inner..], &what);
        let [first, empty, third] = states.map(|state| state.read().unwrap()[OFFSET..].to_vec());
        check(&first, &slots[1][OFFSET..], &what);
        check(&third, &slots[1][OFFSET..], &what);
        assert_eq!(empty, slots[0][OFFSET..]);
        // The same bits without the others.
        let alone = Merged::new(&device, &[(&case, 3..case.tokens)]);
        let state = device.zeroed(len).unwrap();
        let lane = wide_lane(&begun, &state, 0, rest, 3);
        assert!(wide(&stream, &layer, &alone, &[lane]) == y[case.tokens * inner..]);
        assert!(state.read().unwrap()[OFFSET..] == third);
        assert!(begun.read().unwrap() == slots[0]);
    }
}

#[test]
fn single_tokens_of_several_lanes_are_each_what_they_are_alone() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for case in cases() {
        let inner = case.inner();
        let held = Held::new(&device, &case);
        let layer = held.layer(&case);
        let ends = [1, 4, 6];
        let (want, slots) = case.want(&ends);
        let parts = ends.map(|end| (&case, end..end + 1));
        let merged = Merged::new(&device, &parts);
        let states = [0, 1, 2].map(|at| device.upload(&slots[at]).unwrap());
        let all: Vec<_> = states.iter().map(|state| (state, state)).collect();
        let y = small(&stream, &layer, &merged, &all, None);
        for (at, &end) in ends.iter().enumerate() {
            let got = &y[at * inner..(at + 1) * inner];
            check(
                got,
                &want[end * inner..(end + 1) * inner],
                &format!("{:?}", case.shape),
            );
            let alone = Merged::new(&device, &parts[at..at + 1]);
            let state = device.upload(&slots[at]).unwrap();
            assert!(small(&stream, &layer, &alone, &[(&state, &state)], None) == got);
            assert!(state.read().unwrap() == states[at].read().unwrap());
        }
    }
}

/// A matrix `[inner, d]` as the card has it, and its values.
fn second_matrix(
    device: &Device,
    ty: WeightType,
    rows: usize,
    d: usize,
    noise: &mut Noise,
) -> (Buffer<u8>, Matrix, Vec<f32>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let row = noise.take(d);
        let mut scales = Vec::new();
        match ty {
            WeightType::F32 => bytes.extend(row.iter().flat_map(|x| x.to_le_bytes())),
            WeightType::F16 => {
                bytes.extend(row.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()))
            }
            WeightType::Bf16 => {
                bytes.extend(row.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()))
            }
            WeightType::Q8_0 | WeightType::Q4_0 => {
                for block in row.chunks_exact(32) {
                    let steps = if ty == WeightType::Q8_0 { 127.0 } else { 7.0 };
                    scales.push(f16::from_f32(1.0 / steps));
                    let q = |x: f32| (x * steps).round() as i32;
                    if ty == WeightType::Q8_0 {
                        bytes.extend(block.iter().map(|&x| q(x) as i8 as u8));
                    } else {
                        let pairs = block[..16].iter().zip(&block[16..]);
                        bytes.extend(
                            pairs.map(|(&a, &b)| (q(a) + 8) as u8 | ((q(b) + 8) as u8) << 4),
                        );
                    }
                    values.extend(
                        block
                            .iter()
                            .map(|&x| q(x) as f32 * f16::from_f32(1.0 / steps).to_f32()),
                    );
                }
            }
            _ => unreachable!(),
        }
        match ty {
            WeightType::F32 => values.extend(&row),
            WeightType::F16 => values.extend(row.iter().map(|&x| f16::from_f32(x).to_f32())),
            WeightType::Bf16 => values.extend(row.iter().map(|&x| bf16::from_f32(x).to_f32())),
            _ => {}
        }
        bytes.extend(scales.iter().flat_map(|d| d.to_le_bytes()));
        bytes.resize(bytes.len().next_multiple_of(16), 0xff);
    }
    let held = device.upload(&bytes).unwrap();
    let matrix = Matrix {
        data: held.address(),
        ty: ty as u32,
        rows: rows as u32,
        cols: d as u32,
        row_bytes: (bytes.len() / rows) as u32,
    };
    (held, matrix, values)
}

#[test]
fn low_rank_gates_are_the_whole_ones_that_they_make() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let types = [
        WeightType::F32,
        WeightType::F16,
        WeightType::Bf16,
        WeightType::Q8_0,
        WeightType::Q4_0,
    ];
    for shape in [[2, 128, 4], [2, 64, 4], [3, 32, 4]] {
        for ty in types {
            let mut case = Case::new(shape, 6, GateLaw::Softplus, 1.0);
            let (inner, d) = (case.inner(), case.shape.head_dim);
            let mut noise = Noise(d as u64);
            let ends = [2, 5];
            let slots = case.want(&ends).1;
            let mut low = [0, 1].map(|_| noise.take(2 * d));
            let (mut held, mut matrices) = (Vec::new(), Vec::new());
            for (which, low) in low.iter_mut().enumerate() {
                let (bytes, matrix, values) = second_matrix(&device, ty, inner, d, &mut noise);
                if ty == WeightType::Q8_0 {
                    // What 8 bits make of a row: its greatest is a step of 127, the others whole steps.
                    for block in low.chunks_exact_mut(32) {
                        block
                            .iter_mut()
                            .for_each(|x| *x = (*x * 100.0).round() / 128.0);
                        block[5] = 127.0 / 128.0;
                    }
                }
                for (at, end) in ends.into_iter().enumerate() {
                    let x = &low[at * d..(at + 1) * d];
                    let dot = |w: &[f32]| {
                        let products = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                        products.sum::<f64>() as f32
                    };
                    let row: Vec<f32> = values.chunks_exact(d).map(dot).collect();
                    case.rows[3 + which][end * inner..(end + 1) * inner].copy_from_slice(&row);
                }
                held.push(bytes);
                matrices.push(matrix);
            }
            let on_card = low.map(|low| device.upload(&low).unwrap());
            let strided = [0, 1].map(|at: usize| Strided {
                values: on_card[at].all(),
                stride: d,
            });
            let weights = Held::new(&device, &case);
            let layer = weights.layer(&case);
            let merged = Merged::new(&device, &ends.map(|end| (&case, end..end + 1)));
            let run = |low| {
                let states = [0, 1].map(|at: usize| device.upload(&slots[at]).unwrap());
                let all: Vec<_> = states.iter().map(|state| (state, state)).collect();
                let y = small(&stream, &layer, &merged, &all, low);
                (y, states.map(|state| state.read().unwrap()).concat())
            };
            let whole = run(None);
            let narrow = run(Some((strided, [matrices[0], matrices[1]])));
            let what = format!("{:?} {ty:?}", case.shape);
            check(&narrow.0, &whole.0, &what);
            check(&narrow.1, &whole.1, &format!("{what}, slots"));
        }
    }
}

#[test]
fn sizes_that_the_kernels_lack_are_refused_by_name() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let case = Case::new([1, 48, 4], 2, GateLaw::Softplus, 1.0);
    let held = Held::new(&device, &case);
    let layer = held.layer(&case);
    let merged = Merged::new(&device, &[(&case, 0..2)]);
    let o = device.zeroed(2 * 48).unwrap();
    let lanes = device.zeroed::<Lane>(2).unwrap();
    let step = KdaStep {
        layer: &layer,
        rows: merged.kda(),
        f_b: None,
        lanes: lanes.all(),
        o: o.all(),
    };
    let why = kda_step(&stream, &step).unwrap_err().to_string();
    assert_eq!(why, "kda_step: a head is 48, wanted 32, 64 or 128 wide");
}
