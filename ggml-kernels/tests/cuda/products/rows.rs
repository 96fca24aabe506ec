//! From the file to the card, and back as embeddings.

use ggml_kernels::cuda::driver::{Buffer, Stream};
use ggml_kernels::cuda::products::{Tokens, embed, file_row_bytes, repack};
use ggml_kernels::cuda::weights::{Lane, Stack, WeightType};

use super::{TYPES, Weights, file_rows, off};
use crate::device;

fn embedded(stream: &Stream, table: &Stack, ids: &[u32]) -> Vec<f32> {
    let device = stream.device();
    let out: Buffer<f32> = device.zeroed(ids.len() * table.cols()).unwrap();
    let ids = device.upload(ids).unwrap();
    embed(stream, table, Tokens::Ids(ids.all()), out.all()).unwrap();
    stream.synchronize().unwrap();
    out.read().unwrap()
}

fn picked(values: &[f32], cols: usize, ids: &[u32]) -> Vec<f64> {
    let row = |&id: &u32| &values[id as usize * cols..][..cols];
    ids.iter().flat_map(row).map(|&v| f64::from(v)).collect()
}

#[test]
fn rows_of_every_type_come_from_any_address_and_in_parts_and_their_padding_is_zeros() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (seed, (ty, in_file)) in TYPES.into_iter().enumerate() {
        for cols in [32, 36, 96, 256, 288, 768, 1280] {
            let Some(file) = file_row_bytes(ty, cols) else {
                continue;
            };
            assert_eq!(Some(file), in_file.row_bytes(cols));
            let (raw, values) = file_rows(in_file, 3 * 5, cols, seed);
            let stack = Stack::zeroed(&device, ty, [3, 5, cols]).unwrap();
            let bytes = stack.buffer();
            bytes.write(0, &vec![0xff; bytes.len()]).unwrap();
            // Rows 4.. first, across the ends of matrices; each part from another odd place.
            for (first, rows, at) in [(4, 11, 1), (0, 4, 3)] {
                let part = &raw[first * file..][..rows * file];
                let held = [&vec![0xee; at], part].concat();
                let held = device.upload(&held).unwrap();
                let part = held.part(at..held.len()).unwrap();
                repack(&stream, part, &stack, first, rows).unwrap();
                stream.synchronize().unwrap();
            }
            let on_card = bytes.read().unwrap();
            for row in on_card.chunks_exact(stack.row_bytes()) {
                assert!(row[file..].iter().all(|&b| b == 0), "{ty:?} of {cols}");
            }
            // A table of tokens is one matrix: the stack's last rows are reached as such.
            let ids: Vec<u32> = (0..15).rev().collect();
            let error = off(
                &embedded(&stream, &stack, &ids),
                &picked(&values, cols, &ids),
            );
            assert!(error < 1e-6, "{ty:?} of {cols}: {error}");
        }
    }
}

#[test]
fn rows_that_a_stack_lacks_and_bytes_too_few_are_refused() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let stack = Stack::zeroed(&device, WeightType::Q8_0, [2, 3, 32]).unwrap();
    let raw: Buffer<u8> = device.zeroed(34 * 3).unwrap();
    assert!(repack(&stream, raw.all(), &stack, 3, 3).is_ok());
    assert!(repack(&stream, raw.all(), &stack, 4, 3).is_err());
    let why = repack(&stream, raw.all(), &stack, 0, 2).unwrap_err();
    assert_eq!(why.to_string(), "repack: bytes is 102, wanted 68");
}

#[test]
fn tokens_come_from_lanes_too() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let table = Weights::new(&stream, TYPES[5], [1, 9, 512], 3);
    let ids = [8, 0, 3];
    let lane = |&token: &u32| Lane {
        from: 1,
        to: 2,
        table: 3,
        token,
        position: 77,
    };
    let lanes: Vec<Lane> = ids.iter().map(lane).collect();
    let lanes = device.upload(&lanes).unwrap();
    let out: Buffer<f32> = device.zeroed(3 * 512).unwrap();
    embed(&stream, &table.stack, Tokens::Lanes(lanes.all()), out.all()).unwrap();
    stream.synchronize().unwrap();
    let got = out.read().unwrap();
    assert_eq!(got, embedded(&stream, &table.stack, &ids));
    assert!(off(&got, &picked(&table.values, 512, &ids)) < 1e-6);
    let short = out.part(0..1024).unwrap();
    assert!(embed(&stream, &table.stack, Tokens::Lanes(lanes.all()), short).is_err());
}
