//! The formats, block by block, as plain numbers: what the vector kernels are held against.

use half::f16;

/// A block of 256: value `i` is `d * scales[i / 16] * (q[i] - zero) - dmin * mins[i / 32]`.
#[derive(Debug, Clone)]
pub(crate) struct Block256 {
    pub q: [u8; 256],
    pub scales: [i16; 16],
    pub mins: [i16; 8],
    pub zero: i32,
    pub d: f32,
    pub dmin: f32,
}

/// A block of 32: value `i` is `d * q[i]`.
#[derive(Debug, Clone)]
pub(crate) struct Block32 {
    pub q: [i8; 32],
    pub d: f32,
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The eight 6-bit scales and minima of `q4_k` and `q5_k`, a byte each.
#[inline(always)]
pub(crate) fn scales_and_mins(packed: &[u8; 12]) -> (u64, u64) {
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| packed[at * 4 + i]));
    let (a, b, c) = (word(0), word(1), word(2));
    let scales = (
        a & 0x3f3f_3f3f,
        c & 0x0f0f_0f0f | (a >> 6 & 0x0303_0303) << 4,
    );
    let mins = (
        b & 0x3f3f_3f3f,
        c >> 4 & 0x0f0f_0f0f | (b >> 6 & 0x0303_0303) << 4,
    );
    let join = |(low, high): (u32, u32)| u64::from(low) | u64::from(high) << 32;
    (join(scales), join(mins))
}

fn q45_k(block: &[u8], high: Option<&[u8]>, low: &[u8]) -> Block256 {
    let (scales, mins) = scales_and_mins(block[4..16].try_into().expect("twelve bytes"));
    let (scales, mins) = (scales.to_le_bytes(), mins.to_le_bytes());
    let q = std::array::from_fn(|i| {
        let (group, at) = (i / 32, i % 32);
        let nibble = low[group / 2 * 32 + at] >> (group % 2 * 4) & 15;
        nibble | high.map_or(0, |high| (high[at] >> group & 1) << 4)
    });
    Block256 {
        q,
        scales: std::array::from_fn(|i| scales[i / 2].into()),
        mins: mins.map(i16::from),
        zero: 0,
        d: half(block, 0),
        dmin: half(block, 2),
    }
}

pub(crate) fn q4_k(block: &[u8]) -> Block256 {
    q45_k(block, None, &block[16..144])
}

pub(crate) fn q5_k(block: &[u8]) -> Block256 {
    q45_k(block, Some(&block[16..48]), &block[48..176])
}

pub(crate) fn q6_k(block: &[u8]) -> Block256 {
    let (low, high) = (&block[..128], &block[128..192]);
    let q = std::array::from_fn(|i| {
        let (part, group, at) = (i / 128, i / 32 % 4, i % 32);
        let nibble = low[part * 64 + group % 2 * 32 + at] >> (group / 2 * 4) & 15;
        nibble | (high[part * 32 + at] >> (group * 2) & 3) << 4
    });
    Block256 {
        q,
        scales: std::array::from_fn(|i| i16::from(block[192 + i] as i8)),
        mins: [0; 8],
        zero: 32,
        d: half(block, 208),
        dmin: 0.0,
    }
}

pub(crate) fn q8_0(block: &[u8]) -> Block32 {
    Block32 {
        q: std::array::from_fn(|i| block[2 + i] as i8),
        d: half(block, 0),
    }
}

pub(crate) fn q4_0(block: &[u8]) -> Block32 {
    Block32 {
        q: std::array::from_fn(|i| (block[2 + i % 16] >> (i / 16 * 4) & 15) as i8 - 8),
        d: half(block, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{TensorType, dequantize, quantize_rows};

    fn packed(ty: TensorType, n: usize) -> (Vec<u8>, Vec<f32>) {
        let x: Vec<f32> = (0..n).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let mut bytes = vec![0; ty.row_bytes(n).unwrap()];
        quantize_rows(ty, &x, n, None, &mut bytes).unwrap();
        let mut values = vec![0.0; n];
        dequantize(ty, &bytes, &mut values).unwrap();
        (bytes, values)
    }

    #[test]
    fn blocks_of_256_mean_what_ggml_says() {
        type Unpack = fn(&[u8]) -> Block256;
        let cases: [(_, Unpack); 3] = [
            (TensorType::Q4K, q4_k),
            (TensorType::Q5K, q5_k),
            (TensorType::Q6K, q6_k),
        ];
        for (ty, unpack) in cases {
            let (bytes, values) = packed(ty, 1024);
            let blocks = bytes.chunks_exact(ty.type_size());
            for (block, values) in blocks.zip(values.chunks_exact(256)) {
                let b = unpack(block);
                for (i, want) in values.iter().enumerate() {
                    let whole = i32::from(b.scales[i / 16]) * (i32::from(b.q[i]) - b.zero);
                    let got = b.d * whole as f32 - b.dmin * f32::from(b.mins[i / 32]);
                    assert!((got - want).abs() < 1e-6, "{ty} {i}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn blocks_of_32_mean_what_ggml_says() {
        type Unpack = fn(&[u8]) -> Block32;
        let cases: [(_, Unpack); 2] = [(TensorType::Q8_0, q8_0), (TensorType::Q4_0, q4_0)];
        for (ty, unpack) in cases {
            let (bytes, values) = packed(ty, 256);
            let blocks = bytes.chunks_exact(ty.type_size());
            for (block, values) in blocks.zip(values.chunks_exact(32)) {
                let b = unpack(block);
                let got = b.q.map(|q| b.d * f32::from(q));
                assert_eq!(got, *values, "{ty}");
            }
        }
    }
}
