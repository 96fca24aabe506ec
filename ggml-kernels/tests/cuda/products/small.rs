//! Matrices that share their input.

use ggml_kernels::cuda::driver::{Buffer, Stream};
use ggml_kernels::cuda::products::{Job, products};
use ggml_kernels::cuda::weights::Activations;

use super::{CLOSE, Input, TYPES, Weights, bits, noise, off};
use crate::device;

/// All rows of `input` times one matrix.
fn times(stream: &Stream, input: &Input, weights: &Weights) -> Vec<f32> {
    let n = weights.stack.rows();
    let out: Buffer<f32> = stream
        .device()
        .upload(&vec![f32::NAN; input.rows.len() * n])
        .unwrap();
    let job = Job {
        matrix: &weights.stack,
        out: out.all(),
        stride: n,
        add: false,
    };
    products(stream, &input.acts, &[job]).unwrap();
    stream.synchronize().unwrap();
    out.read().unwrap()
}

#[test]
fn products_of_every_type_are_f64_s_for_any_columns() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (seed, ty) in TYPES.into_iter().enumerate() {
        for cols in [32, 96, 256, 288, 512, 1024, 2304, 4096] {
            if ty.0.row_bytes(cols).is_none() {
                continue;
            }
            let weights = Weights::new(&stream, ty, [1, 75, cols], seed);
            for rows in [2, 3, 11] {
                let input = Input::new(&stream, &noise(rows * cols, seed + 100), cols);
                let want: Vec<f64> = input
                    .rows
                    .iter()
                    .flat_map(|row| weights.times(0, row))
                    .collect();
                let error = off(&times(&stream, &input, &weights), &want);
                assert!(error < CLOSE, "{:?} of {cols}: {error}", ty.0);
            }
        }
    }
}

/// But for 1 or 2 rows against 3 and more. With few rows a matrix is split along its columns, with many it is taken
/// whole: see `plan`.
#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (seed, ty) in TYPES.into_iter().enumerate() {
        for (n, cols) in [(37, 1280), (133 * 32 * 4, 256)] {
            if n > 37 && seed % 3 != 2 {
                continue;
            }
            let weights = Weights::new(&stream, ty, [1, n, cols], seed);
            let values = noise(16 * cols, seed + 200);
            let last = |rows: usize| {
                let some = Input::new(&stream, &values[(16 - rows) * cols..], cols);
                bits(&times(&stream, &some, &weights))
            };
            for (all, parts) in [(2, vec![1]), (16, vec![3, 4, 5, 8, 9])] {
                let all = last(all);
                for rows in parts {
                    let got = last(rows);
                    let same = got == all[all.len() - got.len()..];
                    assert!(same, "{:?}, {rows} rows", ty.0);
                }
            }
        }
    }
}

#[test]
fn many_rows_are_f64_s_too() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    // More than a card holds at a time, and no multiple of anything.
    for ty in [TYPES[4], TYPES[7]] {
        let weights = Weights::new(&stream, ty, [1, 14_001, 256], 5);
        for rows in [1, 3] {
            let input = Input::new(&stream, &noise(rows * 256, 6), 256);
            let want: Vec<f64> = input
                .rows
                .iter()
                .flat_map(|row| weights.times(0, row))
                .collect();
            let error = off(&times(&stream, &input, &weights), &want);
            assert!(error < CLOSE, "{:?}, {rows} rows: {error}", ty.0);
        }
    }
}

#[test]
fn matrices_of_all_types_share_a_launch_and_leave_what_lies_between_their_rows() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let (cols, rows) = (512, 5);
    let sizes = [64, 3, 200, 33, 1, 130, 17, 90];
    for scale in [1, 40] {
        let made = TYPES.into_iter().zip(sizes).enumerate();
        let weights: Vec<Weights> = made
            .map(|(i, (ty, n))| Weights::new(&stream, ty, [1, n * scale, cols], i))
            .collect();
        let input = Input::new(&stream, &noise(rows * cols, 9), cols);
        let stride = sizes.iter().sum::<usize>() * scale + 7;
        let before = noise(rows * stride, 10);
        let out = device.upload(&before).unwrap();
        let (mut jobs, mut at) = (Vec::new(), 0);
        for (i, weights) in weights.iter().enumerate() {
            jobs.push(Job {
                matrix: &weights.stack,
                out: out.part(at..out.len()).unwrap(),
                stride,
                add: i % 2 == 1,
            });
            at += weights.stack.rows();
        }
        products(&stream, &input.acts, &jobs).unwrap();
        stream.synchronize().unwrap();
        let got = out.read().unwrap();
        let whole = got.chunks_exact(stride).zip(before.chunks_exact(stride));
        for ((got, before), row) in whole.zip(&input.rows) {
            let mut at = 0;
            for (i, weights) in weights.iter().enumerate() {
                let mut want = weights.times(0, row);
                let here = at..at + want.len();
                if i % 2 == 1 {
                    let before = &before[here.clone()];
                    want.iter_mut()
                        .zip(before)
                        .for_each(|(w, &b)| *w += f64::from(b));
                }
                at = here.end;
                let error = off(&got[here], &want);
                assert!(error < CLOSE, "{:?}: {error}", weights.stack.ty());
            }
            assert_eq!(got[at..], before[at..]);
        }
    }
}

#[test]
fn long_rows_fit() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let cols = 18_432;
    let weights = Weights::new(&stream, TYPES[5], [1, 9, cols], 1);
    let input = Input::new(&stream, &noise(16 * cols, 2), cols);
    let got = times(&stream, &input, &weights);
    let want: Vec<f64> = input
        .rows
        .iter()
        .flat_map(|row| weights.times(0, row))
        .collect();
    assert!(off(&got, &want) < CLOSE);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let weights = Weights::new(&stream, TYPES[4], [1, 6, 64], 1);
    let room = Activations::room(&device, 17 * 64).unwrap();
    let out: Buffer<f32> = device.zeroed(16 * 6).unwrap();
    let job = |stride, len| Job {
        matrix: &weights.stack,
        out: out.part(0..len).unwrap(),
        stride,
        add: false,
    };
    let refused = |rows, cols, jobs: &[Job<'_>]| {
        let acts = room.acts(rows, cols).unwrap();
        products(&stream, &acts, jobs).map_err(|why| why.to_string())
    };
    assert_eq!(refused(16, 64, &[job(6, 96)]), Ok(()));
    assert_eq!(refused(0, 64, &[job(6, 96)]), Ok(()));
    assert_eq!(refused(1, 64, &[]), Ok(()));
    let told = |text: &str| Err(text.to_string());
    let got = refused(17, 64, &[job(6, 96)]);
    assert_eq!(got, told("products: rows is 17, wanted at most 16"));
    let got = refused(1, 32, &[job(6, 96)]);
    assert_eq!(got, told("products: a matrix's columns is 64, wanted 32"));
    let got = refused(1, 48, &[job(6, 96)]);
    assert_eq!(
        got,
        told("products: columns is 48, wanted a multiple of 32")
    );
    let got = refused(2, 64, &[job(7, 12)]);
    assert_eq!(
        got,
        told("products: values of out is 12, wanted 13 at least")
    );
    let got = refused(2, 64, &[job(5, 96)]);
    assert_eq!(
        got,
        told("products: values to a row is 5, wanted 6 at least")
    );
    let got = refused(1, 64, &[job(6, 96); 9]);
    assert_eq!(got, told("products: matrices is 9, wanted at most 8"));
    let two = Weights::new(&stream, TYPES[4], [2, 6, 64], 1);
    let job = Job {
        matrix: &two.stack,
        ..job(6, 96)
    };
    let got = refused(1, 64, &[job]);
    assert_eq!(got, told("products: matrices of a job is 2, wanted 1"));
}
