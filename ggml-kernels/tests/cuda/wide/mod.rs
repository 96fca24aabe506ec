//! Wide products beside the values that weights stand for, summed in f64.

mod experts;
mod products;
mod weights;

use half::f16;

use ggml_kernels::cuda::driver::{Buffer, Device};
use ggml_kernels::cuda::weights::WeightType;
use ggml_kernels::cuda::wide::WideRows;

use weights::Weights;

const TYPES: [WeightType; 8] = [
    WeightType::F32,
    WeightType::F16,
    WeightType::Bf16,
    WeightType::Q4_0,
    WeightType::Q8_0,
    WeightType::Q4K,
    WeightType::Q5K,
    WeightType::Q6K,
];

/// Reproducible values: a linear congruential generator (Knuth's MMIX constants).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u32 {
        let product = self.0.wrapping_mul(6364136223846793005);
        self.0 = product.wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    /// In (-1, 1).
    pub fn value(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Rows that are f16 without loss, `stride` apart, with what is no row's in between.
struct Input {
    values: Vec<f32>,
    f16: Buffer<f16>,
    f32: Buffer<f32>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Input {
    fn new(device: &Device, [rows, cols, stride]: [usize; 3], noise: &mut Noise) -> Input {
        let halves: Vec<f16> = (0..rows * stride)
            .map(|i| {
                let value = f16::from_f32(noise.value());
                if i % stride < cols { value } else { f16::NAN }
            })
            .collect();
        Input {
            f16: device.upload(&halves).unwrap(),
            values: halves.into_iter().map(f16::to_f32).collect(),
            f32: device.zeroed(rows * stride).unwrap(),
            rows,
            cols,
            stride,
        }
        .with_f32()
    }

    fn with_f32(self) -> Input {
        self.f32.write(0, &self.values).unwrap();
        self
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.stride..][..self.cols]
    }

    fn all(&self) -> WideRows<'_> {
        self.part(0, self.rows)
    }

    fn part(&self, first: usize, rows: usize) -> WideRows<'_> {
        let range = first * self.stride..(first + rows) * self.stride;
        WideRows {
            f16: Some(self.f16.part(range.clone()).unwrap()),
            f32: Some(self.f32.part(range).unwrap()),
            rows,
            cols: self.cols,
            stride: self.stride,
        }
    }
}

fn dot(x: &[f32], w: &[f32]) -> f64 {
    let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
    products.sum()
}

fn gated(gate: f64, up: f64, limit: f32) -> f64 {
    let limit = f64::from(limit);
    (gate / (1.0 + (-gate).exp())).min(limit) * up.clamp(-limit, limit)
}

/// How far a result may be from what it should be, as a part of it and of its row's results at large.
struct Far(f64);

impl Far {
    /// Of sums of a type's weights: those of 16 bits and less are rounded to f16, or are f16.
    fn of(ty: WeightType) -> Far {
        Far(match ty {
            WeightType::F32 | WeightType::F16 => 4e-6,
            _ => 4e-3,
        })
    }

    fn check(&self, got: &[f32], want: &[f64], width: usize, what: &str) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (got, want) in got.chunks(width).zip(want.chunks(width)) {
            let size = want.iter().map(|w| w * w).sum::<f64>() / width as f64;
            for (&got, want) in got.iter().zip(want) {
                let far = (f64::from(got) - want).abs();
                // Not `>`: NaN is far too.
                let near = far <= self.0 * (size.sqrt() + want.abs());
                assert!(near, "{what}: got {got}, wanted {want}");
            }
        }
    }
}

/// Columns that a type may have: whole blocks, and part of what is unpacked at a time.
fn columns_of(ty: WeightType) -> [usize; 2] {
    match ty {
        WeightType::Q4K | WeightType::Q5K | WeightType::Q6K => [256, 768],
        _ => [96, 416],
    }
}
