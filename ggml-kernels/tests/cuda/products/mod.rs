//! Small passes' products against f64, with weights as `quant` reads them.

mod experts;
mod rows;
mod small;

use ggml_kernels::cuda::driver::{Device, Stream};
use ggml_kernels::cuda::mixers::{To, quantize_rows};
use ggml_kernels::cuda::products::repack;
use ggml_kernels::cuda::weights::{Activations, Acts, Stack, WeightType};
use ggml_kernels::quant::{self, TensorType};

/// Of the greatest value: f32's rounding along a row.
const CLOSE: f64 = 3e-6;

const TYPES: [(WeightType, TensorType); 8] = [
    (WeightType::F32, TensorType::F32),
    (WeightType::F16, TensorType::F16),
    (WeightType::Bf16, TensorType::Bf16),
    (WeightType::Q4_0, TensorType::Q4_0),
    (WeightType::Q8_0, TensorType::Q8_0),
    (WeightType::Q4K, TensorType::Q4K),
    (WeightType::Q5K, TensorType::Q5K),
    (WeightType::Q6K, TensorType::Q6K),
];

fn noise(n: usize, seed: usize) -> Vec<f32> {
    let at = |i: usize| {
        let mut x = (i as u32 ^ (seed as u32) << 20).wrapping_mul(2_654_435_761);
        x = (x ^ x >> 15).wrapping_mul(2_246_822_519);
        (x ^ x >> 13) as f32 / 2_147_483_648.0 - 1.0
    };
    (0..n).map(at).collect()
}

/// The greatest difference, as part of the greatest value.
fn off(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let most = want.iter().fold(1e-30f64, |most, w| most.max(w.abs()));
    let far = |(&got, &want): (&f32, &f64)| {
        assert!(got.is_finite(), "{got} for {want}");
        (f64::from(got) - want).abs()
    };
    let worst = got.iter().zip(want).map(far).fold(0.0, f64::max);
    worst / most
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The file's form of `rows` rows of noise, and their values.
fn file_rows(ty: TensorType, rows: usize, cols: usize, seed: usize) -> (Vec<u8>, Vec<f32>) {
    let values = noise(rows * cols, seed);
    let mut raw = vec![0; rows * ty.row_bytes(cols).unwrap()];
    quant::quantize_rows(ty, &values, cols, None, &mut raw).unwrap();
    let mut values = values;
    quant::dequantize(ty, &raw, &mut values).unwrap();
    (raw, values)
}

/// A stack on the card, and its values.
struct Weights {
    stack: Stack,
    values: Vec<f32>,
}

impl Weights {
    /// Noise, which comes from an odd address.
    fn new(
        stream: &Stream,
        (ty, in_file): (WeightType, TensorType),
        [count, rows, cols]: [usize; 3],
        seed: usize,
    ) -> Weights {
        let device = stream.device();
        let (mut raw, values) = file_rows(in_file, count * rows, cols, seed);
        raw.insert(0, 0xaa);
        let raw = device.upload(&raw).unwrap();
        let stack = Stack::zeroed(device, ty, [count, rows, cols]).unwrap();
        repack(
            stream,
            raw.part(1..raw.len()).unwrap(),
            &stack,
            0,
            count * rows,
        )
        .unwrap();
        stream.synchronize().unwrap();
        Weights { stack, values }
    }

    /// Products of matrix `index` with one row as it meets this type.
    fn times(&self, index: usize, row: &Row) -> Vec<f64> {
        let (rows, cols) = (self.stack.rows(), self.stack.cols());
        let x = if self.stack.ty().is_quantized() {
            &row.eight
        } else {
            &row.whole
        };
        let dot = |w: &[f32]| -> f64 { w.iter().zip(x).map(|(&w, &x)| f64::from(w) * x).sum() };
        let matrix = &self.values[index * rows * cols..][..rows * cols];
        matrix.chunks_exact(cols).map(dot).collect()
    }
}

/// A row of activations: its f32, and its 8 bits.
#[derive(Clone)]
struct Row {
    whole: Vec<f64>,
    eight: Vec<f64>,
}

/// What lies in `room` as `acts` says.
fn rows_of(room: &Activations, acts: &Acts) -> Vec<Row> {
    let (rows, cols) = (acts.rows as usize, acts.cols as usize);
    let (x, q, d) = (
        room.x.read().unwrap(),
        room.q.read().unwrap(),
        room.d.read().unwrap(),
    );
    let row = |r: usize| Row {
        whole: x[r * cols..][..cols]
            .iter()
            .map(|&x| f64::from(x))
            .collect(),
        eight: (r * cols..(r + 1) * cols)
            .map(|i| f64::from(q[i]) * f64::from(d[i / 32]))
            .collect(),
    };
    (0..rows).map(row).collect()
}

/// Rows of activations on the card.
struct Input {
    _room: Activations,
    acts: Acts,
    rows: Vec<Row>,
}

impl Input {
    fn new(stream: &Stream, values: &[f32], cols: usize) -> Input {
        let device: &Device = stream.device();
        let room = Activations::room(device, values.len()).unwrap();
        let acts = room.acts(values.len() / cols, cols).unwrap();
        let from = device.upload(values).unwrap();
        let to = To {
            acts: Some(acts),
            ..To::default()
        };
        quantize_rows(stream, from.all(), cols, &to).unwrap();
        stream.synchronize().unwrap();
        let rows = rows_of(&room, &acts);
        Input {
            _room: room,
            acts,
            rows,
        }
    }
}
