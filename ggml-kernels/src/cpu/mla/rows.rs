//! Rows of the cache: how they are stored in a block of their type, and read as floats.

use half::{bf16, f16};

use super::BLOCK;
use crate::cpu::simd::{LANES, Simd};
use crate::quant::TensorType;

/// Values to a scale of q8_0, and the bytes they take.
const Q8_0: usize = 32;
const Q8_0_BYTES: usize = 2 + Q8_0;

/// Writes `rows [n, latent]` from row `at` on into `block [64, latent]` of `ty`.
///
/// # Panics
/// If `ty` is not f32, f16, bf16 or q8_0, or the rows do not fit.
pub fn store_rows(ty: TensorType, rows: &[f32], block: &mut [u8], at: usize) {
    let bytes = block.len() / BLOCK;
    let latent = bytes / ty.type_size() * ty.block_size();
    assert_eq!(
        Some(bytes),
        ty.row_bytes(latent),
        "{} bytes of {ty}",
        block.len()
    );
    assert!(latent > 0 && block.len() == BLOCK * bytes && rows.len().is_multiple_of(latent));
    let n = rows.len() / latent;
    assert!(at + n <= BLOCK, "{n} rows from row {at}");
    let to = &mut block[at * bytes..(at + n) * bytes];
    match ty {
        TensorType::F32 => {
            for (to, x) in to.as_chunks_mut().0.iter_mut().zip(rows) {
                *to = x.to_le_bytes();
            }
        }
        TensorType::F16 => {
            for (to, &x) in to.as_chunks_mut().0.iter_mut().zip(rows) {
                *to = f16::from_f32(x).to_le_bytes();
            }
        }
        TensorType::Bf16 => {
            for (to, &x) in to.as_chunks_mut().0.iter_mut().zip(rows) {
                *to = bf16::from_f32(x).to_le_bytes();
            }
        }
        TensorType::Q8_0 => {
            let to = to.as_chunks_mut::<Q8_0_BYTES>().0;
            for (to, x) in to.iter_mut().zip(rows.as_chunks::<Q8_0>().0) {
                quantize(x, to);
            }
        }
        _ => panic!("{ty} rows: wanted f32, f16, bf16 or q8_0"),
    }
}

/// As ggml's q8_0: the greatest is 127.
fn quantize(x: &[f32; Q8_0], to: &mut [u8; Q8_0_BYTES]) {
    let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
    let scale = most / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (head, values) = to.split_at_mut(2);
    head.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (to, x) in values.iter_mut().zip(x) {
        *to = ((x * inverse).round() as i8).cast_unsigned();
    }
}

/// The first `n` rows of `block` as floats, `wide` apart.
#[inline(always)]
pub(super) fn load_rows<S: Simd>(
    s: S,
    ty: TensorType,
    block: &[u8],
    n: usize,
    latent: usize,
    to: &mut [f32],
) {
    let wide = latent.next_multiple_of(LANES);
    let bytes = block.len() / BLOCK;
    let rows = block
        .chunks_exact(bytes)
        .zip(to.chunks_exact_mut(wide))
        .take(n);
    for (row, to) in rows {
        match ty {
            TensorType::F32 => {
                for (to, x) in to.iter_mut().zip(row.as_chunks().0) {
                    *to = f32::from_le_bytes(*x);
                }
            }
            TensorType::F16 => {
                let (whole, rest) = row.as_chunks();
                let (to, last) = to.split_at_mut(whole.len() * LANES);
                for (to, x) in to.as_chunks_mut().0.iter_mut().zip(whole) {
                    s.store(to, s.halves(x));
                }
                for (to, x) in last.iter_mut().zip(rest.as_chunks().0) {
                    *to = f16::from_le_bytes(*x).to_f32();
                }
            }
            TensorType::Bf16 => {
                let (whole, rest) = row.as_chunks();
                let (to, last) = to.split_at_mut(whole.len() * LANES);
                for (to, x) in to.as_chunks_mut().0.iter_mut().zip(whole) {
                    s.store(to, s.bhalves(x));
                }
                for (to, x) in last.iter_mut().zip(rest.as_chunks().0) {
                    *to = bf16::from_le_bytes(*x).to_f32();
                }
            }
            // Checked at the door: q8_0.
            _ => {
                let to = to.as_chunks_mut::<Q8_0>().0;
                for (to, x) in to.iter_mut().zip(row.as_chunks::<Q8_0_BYTES>().0) {
                    let (head, values) = x.split_at(2);
                    let scale = s.splat(f16::from_le_bytes([head[0], head[1]]).to_f32());
                    let values = values.as_chunks().0;
                    for (to, x) in to.as_chunks_mut().0.iter_mut().zip(values) {
                        s.store(to, s.mul(s.bytes(x), scale));
                    }
                }
            }
        }
    }
}
