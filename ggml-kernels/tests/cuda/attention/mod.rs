//! MLA's kernels against `ggml_kernels::reference::mla`.

mod small;
mod wide;

use ggml_kernels::cuda::attention::MlaShape;
use ggml_kernels::cuda::driver::{Buffer, Device};
use ggml_kernels::cuda::weights::{Matrix, WeightType};
use ggml_kernels::quant::{TensorType, dequantize, quantize_rows};
use ggml_kernels::reference::mla::rotate;
use half::f16;

const BLOCK: usize = 64;
const LAYERS: usize = 3;
const LAYER: usize = 1;
const EPS: f32 = 1e-5;
const BASE: f32 = 10_000.0;

fn noise(n: usize, seed: u32, most: f32) -> Vec<f32> {
    let at = |i: usize| {
        let mut x = (i as u32 ^ seed << 20).wrapping_mul(2_654_435_761);
        x = (x ^ x >> 15).wrapping_mul(2_246_822_519);
        (x ^ x >> 13) as f32 / 2_147_483_648.0 - 1.0
    };
    (0..n).map(|i| at(i) * most).collect()
}

/// The greatest difference, as part of the greatest value.
fn off(got: impl IntoIterator<Item = f64>, want: impl IntoIterator<Item = f64>) -> f64 {
    let (mut worst, mut most) = (0f64, 1e-30f64);
    let mut want = want.into_iter();
    for got in got {
        let want = want.next().expect("as many values");
        assert!(got.is_finite(), "{got} for {want}");
        worst = worst.max((got - want).abs());
        most = most.max(want.abs());
    }
    assert!(want.next().is_none(), "as many values");
    worst / most
}

/// A sequence's rows on the card.
struct Cache {
    blocks: Vec<Buffer<f16>>,
    table: Buffer<u64>,
    latent: usize,
}

impl Cache {
    /// With room for `rows` rows, of which the first `full` are noise in one layer. What nobody may
    /// read is no number.
    fn new(device: &Device, latent: usize, rows: usize, full: usize, seed: u32) -> Cache {
        let blocks: Vec<_> = (0..rows.div_ceil(BLOCK))
            .map(|block| {
                let mut values = vec![f16::NAN; LAYERS * BLOCK * latent];
                let here = full.saturating_sub(block * BLOCK).min(BLOCK) * latent;
                let noise = noise(here, seed + block as u32 * 7, 1.0);
                let to = &mut values[LAYER * BLOCK * latent..][..here];
                to.iter_mut()
                    .zip(noise)
                    .for_each(|(to, x)| *to = f16::from_f32(x));
                device.upload(&values).unwrap()
            })
            .collect();
        let addresses: Vec<_> = blocks.iter().map(Buffer::address).collect();
        Cache {
            blocks,
            table: device.upload(&addresses).unwrap(),
            latent,
        }
    }

    /// The first `rows` rows, as the card has them now.
    fn rows(&self, rows: usize) -> Vec<f32> {
        let start = LAYER * BLOCK * self.latent;
        let layer = start..start + BLOCK * self.latent;
        let blocks = self.blocks.iter();
        let mut all: Vec<f32> = blocks
            .flat_map(|block| block.part(layer.clone()).unwrap().read().unwrap())
            .map(f16::to_f32)
            .collect();
        all.truncate(rows * self.latent);
        all
    }
}

/// Matrices on the card as kernels find them, and their values.
struct Weights {
    _bytes: Buffer<u8>,
    matrix: Matrix,
    values: Vec<f32>,
}

impl Weights {
    fn new(device: &Device, ty: TensorType, [count, rows, cols]: [usize; 3], seed: u32) -> Weights {
        let on_card = match ty {
            TensorType::F32 => WeightType::F32,
            TensorType::F16 => WeightType::F16,
            TensorType::Bf16 => WeightType::Bf16,
            TensorType::Q4_0 => WeightType::Q4_0,
            TensorType::Q8_0 => WeightType::Q8_0,
            TensorType::Q4K => WeightType::Q4K,
            TensorType::Q5K => WeightType::Q5K,
            TensorType::Q6K => WeightType::Q6K,
            other => panic!("{other} on a card"),
        };
        let file_row = ty.row_bytes(cols).unwrap();
        let mut file = vec![0; count * rows * file_row];
        quantize_rows(
            ty,
            &noise(count * rows * cols, seed, 0.3),
            cols,
            None,
            &mut file,
        )
        .unwrap();
        let mut values = vec![0.0; count * rows * cols];
        dequantize(ty, &file, &mut values).unwrap();
        let row_bytes = on_card.row_bytes(cols).unwrap();
        let row = |row: &[u8]| {
            let mut row = move_scales(ty, row);
            row.resize(row_bytes, 0);
            row
        };
        let bytes: Vec<u8> = file.chunks_exact(file_row).flat_map(row).collect();
        let bytes = device.upload(&bytes).unwrap();
        Weights {
            matrix: Matrix {
                data: bytes.address(),
                ty: on_card as u32,
                rows: rows as u32,
                cols: cols as u32,
                row_bytes: row_bytes as u32,
            },
            _bytes: bytes,
            values,
        }
    }

    /// Matrix `at`, which has so many values.
    fn of(&self, at: usize) -> &[f32] {
        let each = self.matrix.rows as usize * self.matrix.cols as usize;
        &self.values[at * each..][..each]
    }
}

/// A row of the file as a row of the card: scales behind all values.
fn move_scales(ty: TensorType, row: &[u8]) -> Vec<u8> {
    let (block, scale) = match ty {
        TensorType::Q4_0 => (18, 0..2),
        TensorType::Q8_0 => (34, 0..2),
        TensorType::Q6K => (210, 208..210),
        _ => return row.to_vec(),
    };
    let blocks = || row.chunks_exact(block);
    let values = blocks().flat_map(|b| [&b[..scale.start], &b[scale.end..]].concat());
    values
        .chain(blocks().flat_map(|b| b[scale.clone()].to_vec()))
        .collect()
}

fn matrix_product(rows: &[f32], x: &[f64]) -> Vec<f64> {
    let dot = |row: &[f32]| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
    rows.chunks_exact(x.len()).map(dot).collect()
}

/// `[norm(c), k_r]` of a row as projected.
fn new_row(s: &MlaShape, kv: &[f32], norm: &[f32], position: usize, base: Option<f32>) -> Vec<f64> {
    let (c, k_r) = kv.split_at(s.rank as usize);
    let squares: f64 = c.iter().map(|&x| f64::from(x).powi(2)).sum();
    let root = (squares / c.len() as f64 + f64::from(EPS)).sqrt();
    let normed = c.iter().zip(norm);
    let mut row: Vec<f64> = normed
        .map(|(&c, &w)| f64::from(c) / root * f64::from(w))
        .collect();
    row.extend(turned(k_r, position, base));
    row
}

fn turned(x: &[f32], position: usize, base: Option<f32>) -> Vec<f64> {
    match base {
        Some(base) => rotate(x, position, f64::from(base)),
        None => x.iter().map(|&x| f64::from(x)).collect(),
    }
}

fn sigmoid(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(x)).exp())
}
