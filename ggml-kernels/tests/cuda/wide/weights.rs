//! Matrices of noise on the card, and the values that they stand for.

use half::{bf16, f16};

use ggml_kernels::cuda::driver::Device;
use ggml_kernels::cuda::weights::{Stack, WeightType};
use ggml_kernels::quant::{TensorType, dequantize};

use super::Noise;

pub struct Weights {
    pub stack: Stack,
    values: Vec<f32>,
}

impl Weights {
    pub fn new(
        device: &Device,
        ty: WeightType,
        [count, rows, cols]: [usize; 3],
        noise: &mut Noise,
    ) -> Weights {
        let stack = Stack::zeroed(device, ty, [count, rows, cols]).unwrap();
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for _ in 0..count * rows {
            let raw = file_row(ty, cols, noise);
            let mut row = vec![0.0; cols];
            dequantize(name_of(ty), &raw, &mut row).unwrap();
            values.extend(row);
            bytes.extend(device_row(ty, &raw, stack.row_bytes()));
        }
        stack.buffer().write(0, &bytes).unwrap();
        Weights { stack, values }
    }

    /// Of all matrices, one below the other.
    pub fn row(&self, row: usize) -> &[f32] {
        let cols = self.stack.cols();
        &self.values[row * cols..][..cols]
    }
}

fn name_of(ty: WeightType) -> TensorType {
    match ty {
        WeightType::F32 => TensorType::F32,
        WeightType::F16 => TensorType::F16,
        WeightType::Bf16 => TensorType::Bf16,
        WeightType::Q4_0 => TensorType::Q4_0,
        WeightType::Q8_0 => TensorType::Q8_0,
        WeightType::Q4K => TensorType::Q4K,
        WeightType::Q5K => TensorType::Q5K,
        WeightType::Q6K => TensorType::Q6K,
    }
}

/// Noise with scales that leave values of about a tenth.
fn file_row(ty: WeightType, cols: usize, noise: &mut Noise) -> Vec<u8> {
    let mut blocks = |size: usize, of: usize, scales: &[(usize, f32)]| {
        let mut raw = noise.bytes(cols / of * size);
        for block in raw.chunks_exact_mut(size) {
            for &(at, most) in scales {
                let scale = f16::from_f32(most * (1.5 + noise.value()) / 2.5);
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        raw
    };
    match ty {
        WeightType::Q4_0 => blocks(18, 32, &[(0, 0.02)]),
        WeightType::Q8_0 => blocks(34, 32, &[(0, 0.001)]),
        WeightType::Q4K => blocks(144, 256, &[(0, 0.0003), (2, 0.002)]),
        WeightType::Q5K => blocks(176, 256, &[(0, 0.00015), (2, 0.002)]),
        WeightType::Q6K => blocks(210, 256, &[(208, 0.00005)]),
        WeightType::F32 => floats(cols, noise, |v| v.to_le_bytes()),
        WeightType::F16 => floats(cols, noise, |v| f16::from_f32(v).to_le_bytes()),
        WeightType::Bf16 => floats(cols, noise, |v| bf16::from_f32(v).to_le_bytes()),
    }
}

fn floats<const N: usize>(cols: usize, noise: &mut Noise, to: fn(f32) -> [u8; N]) -> Vec<u8> {
    (0..cols).flat_map(|_| to(noise.value() * 0.2)).collect()
}

/// As the kernels find it: see `model.cuh`.
fn device_row(ty: WeightType, raw: &[u8], row_bytes: usize) -> Vec<u8> {
    let parts = |size: usize, values: std::ops::Range<usize>, scale: usize| -> Vec<u8> {
        let blocks = || raw.chunks_exact(size);
        let all = blocks().flat_map(|block| block[values.clone()].iter());
        let scales = blocks().flat_map(|block| block[scale..scale + 2].iter());
        all.chain(scales).copied().collect()
    };
    let mut row = match ty {
        WeightType::Q4_0 => parts(18, 2..18, 0),
        WeightType::Q8_0 => parts(34, 2..34, 0),
        WeightType::Q6K => parts(210, 0..208, 208),
        _ => raw.to_vec(),
    };
    row.resize(row_bytes, 0);
    row
}
