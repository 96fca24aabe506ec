//! The formats, block by block, as plain numbers: what the vector kernels are held against.

use half::f16;

use super::grids::{SIGNS, grid};
use crate::quant::TensorType;

/// A block of 256: value `i` is `d * scales[i / 16] * q[i] - dmin * mins[i / 16]`.
#[derive(Debug, Clone)]
pub(crate) struct Block256 {
    pub q: [i8; 256],
    pub scales: [i16; 16],
    pub mins: [i16; 16],
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
        (nibble | high.map_or(0, |high| (high[at] >> group & 1) << 4)) as i8
    });
    Block256 {
        q,
        scales: std::array::from_fn(|i| scales[i / 2].into()),
        mins: std::array::from_fn(|i| mins[i / 2].into()),
        d: half(block, 0),
        dmin: half(block, 2),
    }
}

fn q4_k(block: &[u8]) -> Block256 {
    q45_k(block, None, &block[16..144])
}

fn q5_k(block: &[u8]) -> Block256 {
    q45_k(block, Some(&block[16..48]), &block[48..176])
}

fn q6_k(block: &[u8]) -> Block256 {
    let (low, high) = (&block[..128], &block[128..192]);
    let q = std::array::from_fn(|i| {
        let (part, group, at) = (i / 128, i / 32 % 4, i % 32);
        let nibble = low[part * 64 + group % 2 * 32 + at] >> (group / 2 * 4) & 15;
        (nibble | (high[part * 32 + at] >> (group * 2) & 3) << 4) as i8 - 32
    });
    Block256 {
        q,
        scales: std::array::from_fn(|i| i16::from(block[192 + i] as i8)),
        mins: [0; 16],
        d: half(block, 208),
        dmin: 0.0,
    }
}

/// Two bits of each value, as `q2_k` and `q3_k` keep them.
fn two_bits(low: &[u8], i: usize) -> u8 {
    low[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3
}

fn q2_k(block: &[u8]) -> Block256 {
    Block256 {
        q: std::array::from_fn(|i| two_bits(&block[16..80], i) as i8),
        scales: std::array::from_fn(|i| i16::from(block[i] & 15)),
        mins: std::array::from_fn(|i| i16::from(block[i] >> 4)),
        d: half(block, 80),
        dmin: half(block, 82),
    }
}

/// The sixteen 6-bit scales of `q3_k`, a byte each, too high by 32.
#[inline(always)]
pub(crate) fn scales_of_q3_k(packed: &[u8; 12]) -> [u64; 2] {
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| packed[at * 4 + i]));
    let (a, b, c) = (word(0), word(1), word(2));
    let part = |low: u32, high: u32| u64::from(low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4);
    [
        part(a, c) | part(b, c >> 2) << 32,
        part(a >> 4, c >> 4) | part(b >> 4, c >> 6) << 32,
    ]
}

fn q3_k(block: &[u8]) -> Block256 {
    let scales = scales_of_q3_k(block[96..108].try_into().expect("twelve bytes"));
    let q = std::array::from_fn(|i| {
        let high = block[i % 32] >> (i / 32) & 1;
        (two_bits(&block[32..96], i) | high << 2) as i8 - 4
    });
    Block256 {
        q,
        scales: std::array::from_fn(|i| i16::from(scales[i / 8].to_le_bytes()[i % 8]) - 32),
        mins: [0; 16],
        d: half(block, 108),
        dmin: 0.0,
    }
}

/// Of a grid: which points, which signs, and the 4-bit scales; `d` is at scale 1.
fn of_grid(
    ty: TensorType,
    d: f32,
    point: impl Fn(usize) -> usize,
    signs: impl Fn(usize) -> u8,
    scale: impl Fn(usize) -> u8,
) -> Block256 {
    let points = &grid(ty).points;
    let size = if matches!(ty, TensorType::Iq3Xxs | TensorType::Iq3S) {
        4
    } else {
        8
    };
    let q = std::array::from_fn(|i| {
        let magnitude = (points[point(i / size)] >> (i % size * 8)) as i8;
        if signs(i / 8) >> (i % 8) & 1 == 1 {
            -magnitude
        } else {
            magnitude
        }
    });
    Block256 {
        q,
        scales: std::array::from_fn(|i| 2 * i16::from(scale(i) & 15) + 1),
        mins: [0; 16],
        d,
        dmin: 0.0,
    }
}

/// Signs of four groups of eight and the scale of all, in 32 bits.
fn signs_and_scale(words: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|i| words[4 * at + i]))
}

fn iq2_xxs(block: &[u8]) -> Block256 {
    let words: [u32; 8] = std::array::from_fn(|at| signs_and_scale(&block[2..], 2 * at + 1));
    of_grid(
        TensorType::Iq2Xxs,
        half(block, 0) / 8.0,
        |i| block[2 + i / 4 * 8 + i % 4].into(),
        |i| SIGNS[(words[i / 4] >> (i % 4 * 7) & 127) as usize],
        |i| (words[i / 2] >> 28) as u8,
    )
}

fn iq2_xs(block: &[u8]) -> Block256 {
    let word = |i: usize| u16::from_le_bytes([block[2 + 2 * i], block[3 + 2 * i]]);
    of_grid(
        TensorType::Iq2Xs,
        half(block, 0) / 8.0,
        |i| usize::from(word(i) & 511),
        |i| SIGNS[usize::from(word(i) >> 9)],
        |i| block[66 + i / 2] >> (i % 2 * 4),
    )
}

fn iq2_s(block: &[u8]) -> Block256 {
    of_grid(
        TensorType::Iq2S,
        half(block, 0) / 8.0,
        |i| usize::from(block[2 + i]) | usize::from(block[66 + i / 4] >> (i % 4 * 2) & 3) << 8,
        |i| block[34 + i],
        |i| block[74 + i / 2] >> (i % 2 * 4),
    )
}

fn iq3_xxs(block: &[u8]) -> Block256 {
    let words: [u32; 8] = std::array::from_fn(|at| signs_and_scale(&block[66..], at));
    of_grid(
        TensorType::Iq3Xxs,
        half(block, 0) / 4.0,
        |i| block[2 + i].into(),
        |i| SIGNS[(words[i / 4] >> (i % 4 * 7) & 127) as usize],
        |i| (words[i / 2] >> 28) as u8,
    )
}

fn iq3_s(block: &[u8]) -> Block256 {
    of_grid(
        TensorType::Iq3S,
        half(block, 0),
        |i| usize::from(block[2 + i]) | usize::from(block[66 + i / 8] >> (i % 8) & 1) << 8,
        |i| block[74 + i],
        |i| block[106 + i / 4] >> (i / 2 % 2 * 4),
    )
}

/// How blocks of 256 of `ty` are unpacked, where there is a kernel of ours.
pub(crate) fn by_256(ty: TensorType) -> Option<fn(&[u8]) -> Block256> {
    Some(match ty {
        TensorType::Q2K => q2_k,
        TensorType::Q3K => q3_k,
        TensorType::Q4K => q4_k,
        TensorType::Q5K => q5_k,
        TensorType::Q6K => q6_k,
        TensorType::Iq2Xxs => iq2_xxs,
        TensorType::Iq2Xs => iq2_xs,
        TensorType::Iq2S => iq2_s,
        TensorType::Iq3Xxs => iq3_xxs,
        TensorType::Iq3S => iq3_s,
        _ => return None,
    })
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
    use crate::quant::{dequantize, quantize_rows};

    fn packed(ty: TensorType, n: usize) -> (Vec<u8>, Vec<f32>) {
        let x: Vec<f32> = (0..n).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        let mut bytes = vec![0; ty.row_bytes(n).unwrap()];
        let importance = ty.needs_importance().then(|| vec![1.0; n]);
        quantize_rows(ty, &x, n, importance.as_deref(), &mut bytes).unwrap();
        let mut values = vec![0.0; n];
        dequantize(ty, &bytes, &mut values).unwrap();
        (bytes, values)
    }

    #[test]
    fn blocks_of_256_mean_what_ggml_says() {
        for ty in TensorType::ALL {
            let Some(unpack) = by_256(ty) else { continue };
            let (bytes, values) = packed(ty, 1024);
            let blocks = bytes.chunks_exact(ty.type_size());
            for (block, values) in blocks.zip(values.chunks_exact(256)) {
                let b = unpack(block);
                for (i, want) in values.iter().enumerate() {
                    let whole = i32::from(b.scales[i / 16]) * i32::from(b.q[i]);
                    let got = b.d * whole as f32 - b.dmin * f32::from(b.mins[i / 16]);
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
