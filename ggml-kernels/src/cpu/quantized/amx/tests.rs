//! The tiles beside the scalar form, with the unit written out in words and, where there is one, on it.

use super::*;
use crate::cpu::products::task::Target;
use crate::cpu::share::Shared;
use crate::cpu::{Activations, Crew, Matrix, Pool, Tier};
use crate::quant::quantize_rows;

/// What the tile unit does, in words.
struct Slow;

impl Unit for Slow {
    fn multiply(&self, values: &[i8], stride: usize, weights: &Weights, sums: &mut Sums) {
        let byte = |tiles: &[Tile; 4], k: usize, row: usize| {
            tiles[k / 64][k % 64 / 4 * 64 + row * 4 + k % 4]
        };
        for group in 0..GROUPS {
            for t in 0..TOKENS {
                for row in 0..ROWS {
                    let (mut low, mut high) = (0, 0);
                    for (k, x) in values[t * stride..][..256].iter().enumerate() {
                        let x = i32::from(*x);
                        low += x * i32::from(byte(&weights.low[group], k, row));
                        high += x * i32::from(byte(&weights.high[group], k, row) as i8);
                    }
                    sums.low[group][t][row] = low;
                    sums.high[group][t][row] = high;
                }
            }
        }
    }
}

#[test]
fn tiles_give_the_bits_of_the_kernel_for_few_rows() {
    if Tier::of(crate::cpu::Kind::Avx512).is_none() {
        return;
    }
    let pool = Pool::new(1);
    let tier = Tier::SCALAR;
    for ty in [TensorType::Q4K, TensorType::Q5K, TensorType::Q6K] {
        for (rows, cols, tokens) in [(1, 256, 1), (40, 512, 80), (33, 768, 37), (3, 256, 130)] {
            let x: Vec<f32> = (0..cols * (rows + tokens))
                .map(|i| ((i * i) as f32 * 0.37).sin())
                .collect();
            let (w, x) = x.split_at(cols * rows);
            let mut words = vec![0u16; ty.row_bytes(cols).unwrap() * rows / 2];
            // SAFETY: words are bytes.
            let bytes = unsafe { words.align_to_mut::<u8>().1 };
            quantize_rows(ty, w, cols, None, bytes).unwrap();
            let matrix = Matrix::new(ty, rows, cols, bytes).unwrap();
            let mut activations = Activations::default();
            activations.fill(Crew { pool: &pool, tier }, x, cols, [ty]);
            // Turned round, so that they do not follow each other.
            let turned: Vec<u32> = (0..tokens as u32).rev().collect();
            for input in [&activations.places, &turned] {
                let run = |work: &dyn Fn(&Task<'_>)| {
                    let mut out = vec![0f32; tokens * rows];
                    // SAFETY: one thread.
                    let target = unsafe { Target::new(Shared::new(&mut out), rows, 0) };
                    work(&Task {
                        matrix,
                        rows: 0..rows,
                        activations: &activations,
                        input,
                        output: &activations.places,
                        target: &target,
                    });
                    out
                };
                let want = run(&crate::cpu::quantized::scalar::by_256);
                // SAFETY: asked above.
                let got = run(&|task| unsafe { by_type(task, &Slow) });
                assert_eq!(got, want, "{ty} {rows} {cols} {tokens}");
                if Tier::of(crate::cpu::Kind::Amx).is_some() {
                    // SAFETY: asked here.
                    let got = run(&|task| unsafe { many(task) });
                    assert_eq!(got, want, "{ty} {rows} {cols} {tokens} on tiles");
                }
            }
        }
    }
}
