//! Products that share their rows; gate and up.

use std::collections::BTreeSet;

use half::f16;

use ggml_kernels::cuda::weights::WeightType;
use ggml_kernels::cuda::wide::{
    WideGateUp, WideJob, WideMatrix, WideTo, wide_gate_up, wide_products,
};

use super::{Far, Input, Noise, TYPES, Weights, columns_of, dot, gated};
use crate::device;

#[test]
fn every_type_is_what_its_values_say_stored_added_and_in_halves() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for ty in TYPES {
        for (cols, rows) in columns_of(ty).into_iter().zip([37, 150]) {
            let what = format!("{ty:?}, {rows} rows of {cols}");
            let mut noise = Noise(cols as u64);
            let input = Input::new(&device, [rows, cols, cols + 8], &mut noise);
            let w = Weights::new(&device, ty, [3, 51, cols], &mut noise);
            let v = Weights::new(&device, ty, [1, 64, cols], &mut noise);
            let before: Vec<f32> = (0..rows * 40).map(|_| noise.value()).collect();
            let stored = device.upload(&vec![f32::NAN; rows * 153]).unwrap();
            let added = device.upload(&before).unwrap();
            let halves = device.upload(&vec![f16::NAN; rows * 70]).unwrap();
            let all = WideMatrix::from(&w.stack);
            let jobs = [
                job(all, WideTo::Store(stored.all()), 153),
                job(all.rows(41..80).unwrap(), WideTo::Add(added.all()), 40),
                job((&v.stack).into(), WideTo::F16(halves.all()), 70),
            ];
            wide_products(&stream, &input.all(), &jobs).unwrap();
            stream.synchronize().unwrap();

            let want = of_rows(rows, 153, |x, n| dot(input.row(x), w.row(n)));
            let far = Far::of(ty);
            far.check(&stored.read().unwrap(), &want, 153, &what);

            let (got, sum) = (added.read().unwrap(), |x: usize, n: usize| {
                f64::from(before[x * 40 + n]) + dot(input.row(x), w.row(41 + n))
            });
            far.check(&columns(&got, 40, 39), &of_rows(rows, 39, sum), 39, &what);
            // What lies between the rows is left as it was.
            let last = |values: &[f32]| values.iter().skip(39).step_by(40).copied().collect();
            let (got, old): (Vec<f32>, Vec<f32>) = (last(&got), last(&before));
            assert_eq!(got, old, "{what}");

            let got: Vec<f32> = halves.read().unwrap().iter().map(|h| h.to_f32()).collect();
            assert!(columns(&got, 70, 70)[64..70].iter().all(|v| v.is_nan()));
            let want = of_rows(rows, 64, |x, n| dot(input.row(x), v.row(n)));
            Far(2e-3).check(&columns(&got, 70, 64), &want, 64, &what);
        }
    }
}

#[test]
fn gate_and_up_of_any_two_types_are_what_their_values_say() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let pairs = TYPES.map(|ty| (ty, ty)).into_iter();
    let mixed = [
        (WeightType::Q4K, WeightType::Q6K),
        (WeightType::F16, WeightType::Q8_0),
        (WeightType::Q5K, WeightType::Bf16),
    ];
    for (i, (gate, up)) in pairs.chain(mixed).enumerate() {
        let (cols, rows, ff) = (256, 45, 83);
        let limit = if i % 2 == 0 { f32::INFINITY } else { 0.7 };
        let what = format!("{gate:?} and {up:?}, at most {limit}");
        let mut noise = Noise(i as u64);
        let input = Input::new(&device, [rows, cols, cols], &mut noise);
        let g = Weights::new(&device, gate, [1, ff, cols], &mut noise);
        let u = Weights::new(&device, up, [1, ff, cols], &mut noise);
        let h = device.upload(&vec![f16::NAN; rows * 96]).unwrap();
        let x = device.upload(&vec![f32::NAN; rows * 96]).unwrap();
        let to = WideGateUp {
            gate: (&g.stack).into(),
            up: (&u.stack).into(),
            limit,
            f16: Some(h.all()),
            f32: Some(x.all()),
            stride: 96,
        };
        wide_gate_up(&stream, &input.all(), &to).unwrap();
        stream.synchronize().unwrap();
        let want = of_rows(rows, ff, |x, n| {
            gated(
                dot(input.row(x), g.row(n)),
                dot(input.row(x), u.row(n)),
                limit,
            )
        });
        let x = columns(&x.read().unwrap(), 96, ff);
        Far(6e-3).check(&x, &want, ff, &what);
        let h: Vec<f32> = h.read().unwrap().iter().map(|h| h.to_f32()).collect();
        let rounded: Vec<f32> = x.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
        assert_eq!(columns(&h, 96, ff), rounded, "{what}");
    }
}

#[test]
fn a_row_s_bits_are_its_own_in_any_company_and_tile() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    stream.time().unwrap();
    let (cols, width) = (512, 1100);
    for ty in [WeightType::Q4K, WeightType::F16, WeightType::F32] {
        let mut noise = Noise(7);
        let input = Input::new(&device, [700, cols, cols], &mut noise);
        let w = Weights::new(&device, ty, [1, width, cols], &mut noise);
        let product = |first, rows, width: usize| {
            let out = device.zeroed::<f32>(rows * width).unwrap();
            let matrix = WideMatrix::from(&w.stack).rows(0..width).unwrap();
            let jobs = [job(matrix, WideTo::Store(out.all()), width)];
            wide_products(&stream, &input.part(first, rows), &jobs).unwrap();
            stream.synchronize().unwrap();
            out.read().unwrap()
        };
        let rows = if ty == WeightType::F32 { 130 } else { 700 };
        let all = product(0, rows, width);
        for (first, some, narrow) in [
            (0, 1, width),
            (5, 1, 40),
            (63, 3, 64),
            (1, 65, width),
            (17, 96, width),
            (2, 128, 200),
            (30, 90, 300),
        ] {
            let got = product(first, some, narrow);
            let want = columns(&all[first * width..][..some * width], width, narrow);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            let is_same = got.iter().zip(&want).all(same);
            assert!(is_same, "{ty:?}: {some} rows from {first} on, {narrow}");
        }
    }
    let met: BTreeSet<_> = stream.took().unwrap().iter().map(|t| t.kernel).collect();
    // A small card (the emulated one has 4 multiprocessors) has large tiles soon.
    let enough = device.multiprocessors() > 4 || met.len() >= 3;
    assert!(enough, "tiles met: {met:?}");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let mut noise = Noise(1);
    let input = Input::new(&device, [2, 64, 64], &mut noise);
    let w = Weights::new(&device, WeightType::F32, [1, 8, 64], &mut noise);
    let q = Weights::new(&device, WeightType::Q8_0, [1, 8, 64], &mut noise);
    let out = device.zeroed::<f32>(16).unwrap();
    let run = |input: &super::WideRows<'_>, matrix: &Weights, to, stride| {
        let jobs = [job((&matrix.stack).into(), to, stride)];
        let why = wide_products(&stream, input, &jobs).unwrap_err();
        why.to_string()
    };
    let to = WideTo::Store(out.all());
    let no_f32 = super::WideRows {
        f32: None,
        ..input.all()
    };
    let told = "wide_products: the rows of f32 for an F32 matrix is nowhere, wanted there";
    assert_eq!(run(&no_f32, &w, to, 8), told);
    let no_f16 = super::WideRows {
        f16: None,
        ..input.all()
    };
    let told = "wide_products: the rows of f16 is nowhere, wanted there";
    assert_eq!(run(&no_f16, &q, to, 8), told);
    let told = "wide_products: the result is 16 values by 9, wanted 2 rows of 8";
    assert_eq!(run(&input.all(), &q, to, 9), told);
    let narrow = super::WideRows {
        cols: 32,
        ..input.all()
    };
    let told = "wide_products: a matrix's columns is 64, wanted 32";
    assert_eq!(run(&narrow, &q, to, 8), told);
    assert!(WideMatrix::from(&q.stack).rows(3..9).is_err());
    let gate = WideGateUp {
        gate: (&w.stack).into(),
        up: (&q.stack).into(),
        limit: 1.0,
        f16: None,
        f32: Some(out.all()),
        stride: 8,
    };
    let told = "wide_gate_up: gate and up is F32 and Q8_0, wanted both F32 or neither";
    let why = wide_gate_up(&stream, &input.all(), &gate).unwrap_err();
    assert_eq!(why.to_string(), told);
}

fn job<'b>(matrix: WideMatrix<'b>, to: WideTo<'b>, stride: usize) -> WideJob<'b> {
    WideJob { matrix, to, stride }
}

fn of_rows(rows: usize, width: usize, value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..rows * width)
        .map(|i| value(i / width, i % width))
        .collect()
}

/// The first columns of every row.
fn columns(values: &[f32], stride: usize, width: usize) -> Vec<f32> {
    let rows = values.chunks_exact(stride);
    rows.flat_map(|row| row[..width].to_vec()).collect()
}
