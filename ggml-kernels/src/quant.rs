//! Tensor element types, and rows of them: sizes, quantize, dequantize, finite or not.
//!
//! Owns the list of types that a kimi-linear file may hold, the search for the scales of the commonest
//! of them, and the checks that stand before ggml's row kernels, which make the rest. Refuses rows that a type cannot hold, values that are not finite, and
//! buffers of the wrong length, since ggml would abort the process or write past them.

mod search;
mod types;

pub use types::{TensorType, UnknownType};

use crate::cpu::Tier;
use ggml_sys as sys;
use half::{bf16, f16};
use std::borrow::Cow;

/// Why rows could not be converted. Nothing was written to the destination unless stated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuantError {
    #[error("a row of {row} values cannot be {ty}: got {row}, wanted a multiple of {block}")]
    RowLength {
        ty: TensorType,
        row: usize,
        block: usize,
    },
    #[error("{what}: got {got} elements, wanted {wanted}")]
    Length {
        what: &'static str,
        got: usize,
        wanted: usize,
    },
    #[error("value {index} is {value}: only finite values can be stored")]
    NotFinite { index: usize, value: f32 },
    #[error("block {block} of {ty} holds NaN or infinity: only finite values can be stored")]
    NotFiniteBlock { ty: TensorType, block: usize },
    #[error("block {block} overflows the range of {ty}; bf16 and f32 hold more")]
    Overflow { ty: TensorType, block: usize },
    #[error("{ty} does not hold weights")]
    NotWeights { ty: TensorType },
    #[error("{ty} needs an importance of the columns")]
    NoImportance { ty: TensorType },
    #[error("a buffer of {ty} starts at an odd address")]
    Misaligned { ty: TensorType },
}

/// Quantizes whole rows.
///
/// `src`: `[n_rows, row]`, f32, row-major. `importance`: `[row]`, one non-negative weight per
/// column, shared by these rows (mean square of the activations that meet the column).
/// `dst`: `n_rows * row_bytes(row)` bytes. On `Overflow`, `dst` has been written.
pub fn quantize_rows(
    ty: TensorType,
    src: &[f32],
    row: usize,
    importance: Option<&[f32]>,
    dst: &mut [u8],
) -> Result<(), QuantError> {
    let n_rows = checked_rows(ty, row, src.len(), dst.len())?;
    if let Some(index) = first_not_finite(src) {
        let value = src[index];
        return Err(QuantError::NotFinite { index, value });
    }
    if let Some(weights) = importance {
        if weights.len() != row {
            return Err(QuantError::Length {
                what: "importance",
                got: weights.len(),
                wanted: row,
            });
        }
        if let Some(index) = weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
            let value = weights[index];
            return Err(QuantError::NotFinite { index, value });
        }
    }
    match ty {
        TensorType::I32 => return Err(QuantError::NotWeights { ty }),
        TensorType::F32 => {
            for (out, x) in dst.as_chunks_mut::<4>().0.iter_mut().zip(src) {
                *out = x.to_le_bytes();
            }
        }
        TensorType::F16 => {
            for (out, x) in dst.as_chunks_mut::<2>().0.iter_mut().zip(src) {
                *out = f16::from_f32(*x).to_le_bytes();
            }
        }
        TensorType::Bf16 => {
            for (out, x) in dst.as_chunks_mut::<2>().0.iter_mut().zip(src) {
                *out = bf16::from_f32(*x).to_le_bytes();
            }
        }
        _ if search::knows(ty) => {
            let rows = search::Rows {
                values: src,
                importance,
            };
            search::rows(Tier::detect(), ty, rows, dst);
        }
        _ => {
            if !ty.is_aligned(dst.as_ptr() as usize) {
                return Err(QuantError::Misaligned { ty });
            }
            if ty.needs_importance() && importance.is_none() {
                return Err(QuantError::NoImportance { ty });
            }
            let importance = match importance {
                Some(weights) if ty.is_of_a_grid() => Some(searchable(ty, src, weights)?),
                weights => weights.map(Cow::Borrowed),
            };
            let weights = importance.as_ref().map_or(std::ptr::null(), |w| w.as_ptr());
            // SAFETY: `src` holds n_rows * row finite values and `dst` n_rows * row_bytes(row)
            // bytes (checked_rows), aligned for the block; `row` is a whole number of blocks;
            // `weights` is null or `row` values, and not null where the type requires some; no
            // search for points of a grid meets NaN (searchable).
            let written = unsafe {
                sys::ggml_quantize_chunk(
                    ty.id() as sys::ggml_type,
                    src.as_ptr(),
                    dst.as_mut_ptr().cast(),
                    0,
                    n_rows as i64,
                    row as i64,
                    weights,
                )
            };
            debug_assert_eq!(written, dst.len());
        }
    }
    match first_broken_block(ty, dst) {
        Some(block) => Err(QuantError::Overflow { ty, block }),
        None => Ok(()),
    }
}

/// What ggml's search for points of a grid can work with, which ends the process where a square
/// is infinite: values that the type's scales can hold, and weights of 1 at most.
fn searchable<'w>(
    ty: TensorType,
    src: &[f32],
    weights: &'w [f32],
) -> Result<Cow<'w, [f32]>, QuantError> {
    // The greatest scale, 65504, times the greatest factors of any of these types (31 and 43).
    const MOST: f32 = 1e8;
    if let Some(at) = src.iter().position(|x| x.abs() > MOST) {
        let block = at / ty.block_size();
        return Err(QuantError::Overflow { ty, block });
    }
    let most = weights.iter().fold(0f32, |most, &w| most.max(w));
    Ok(match most {
        0.0 => Cow::Owned(vec![1.0; weights.len()]),
        1.0 => Cow::Borrowed(weights),
        most => weights.iter().map(|w| w / most).collect(),
    })
}

/// Restores f32 values from whole blocks. `src`: any number of whole blocks; `dst`: their values.
pub fn dequantize(ty: TensorType, src: &[u8], dst: &mut [f32]) -> Result<(), QuantError> {
    checked_rows(ty, dst.len(), dst.len(), src.len())?;
    match ty {
        TensorType::I32 => return Err(QuantError::NotWeights { ty }),
        TensorType::F32 => {
            for (x, raw) in dst.iter_mut().zip(src.as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*raw);
            }
        }
        TensorType::F16 => {
            for (x, raw) in dst.iter_mut().zip(src.as_chunks::<2>().0) {
                *x = f16::from_le_bytes(*raw).to_f32();
            }
        }
        TensorType::Bf16 => {
            for (x, raw) in dst.iter_mut().zip(src.as_chunks::<2>().0) {
                *x = bf16::from_le_bytes(*raw).to_f32();
            }
        }
        _ => {
            if !ty.is_aligned(src.as_ptr() as usize) {
                return Err(QuantError::Misaligned { ty });
            }
            // SAFETY: the id is one of ggml's own (see `id`), whose traits live for the process.
            let to_float = unsafe { (*sys::ggml_get_type_traits(ty.id() as _)).to_float };
            let to_float = to_float.ok_or(QuantError::NotWeights { ty })?;
            // SAFETY: `dst` is a whole number of blocks long and `src` exactly those blocks
            // (checked_rows), aligned for the block struct.
            unsafe { to_float(src.as_ptr().cast(), dst.as_mut_ptr(), dst.len() as i64) };
        }
    }
    Ok(())
}

/// The first block (value, for plain types) whose scale is NaN or infinite, so that every number
/// it holds would be. `data`: whole blocks; a rest is not looked at.
pub fn first_broken_block(ty: TensorType, data: &[u8]) -> Option<usize> {
    let bad16 = |raw: [u8; 2], exponent: u16| u16::from_le_bytes(raw) & exponent == exponent;
    match ty {
        TensorType::I32 => None,
        TensorType::F32 => data
            .as_chunks::<4>()
            .0
            .iter()
            .position(|raw| !f32::from_le_bytes(*raw).is_finite()),
        TensorType::F16 => first_bad_word(data, 0x7c00),
        TensorType::Bf16 => first_bad_word(data, 0x7f80),
        // The exponent byte 0xff is E8M0's NaN.
        TensorType::Mxfp4 => data
            .chunks_exact(ty.type_size())
            .position(|block| block[0] == 0xff),
        // The scale's four nibbles are the highest of the block's last four words.
        TensorType::Iq1M => data.chunks_exact(ty.type_size()).position(|block| {
            let nibble = |at: usize| block[49 + 2 * at] >> 4;
            bad16(
                [nibble(0) | nibble(1) << 4, nibble(2) | nibble(3) << 4],
                0x7c00,
            )
        }),
        _ => data.chunks_exact(ty.type_size()).position(|block| {
            ty.scale_offsets()
                .iter()
                .any(|&at| bad16([block[at], block[at + 1]], 0x7c00))
        }),
    }
}

/// Position of the first 16-bit float whose exponent is all ones. Folded over runs so that the
/// common case, no such word, compiles to a branch-free scan.
fn first_bad_word(data: &[u8], exponent: u16) -> Option<usize> {
    const RUN: usize = 4096;
    let words = data.as_chunks::<2>().0;
    let is_bad = |raw: &[u8; 2]| u16::from_le_bytes(*raw) & exponent == exponent;
    words.chunks(RUN).enumerate().find_map(|(run, chunk)| {
        if chunk.iter().fold(false, |bad, raw| bad | is_bad(raw)) {
            chunk.iter().position(is_bad).map(|at| run * RUN + at)
        } else {
            None
        }
    })
}

fn first_not_finite(values: &[f32]) -> Option<usize> {
    const RUN: usize = 4096;
    values.chunks(RUN).enumerate().find_map(|(run, chunk)| {
        if chunk.iter().fold(true, |ok, x| ok & x.is_finite()) {
            None
        } else {
            let at = chunk.iter().position(|x| !x.is_finite());
            at.map(|at| run * RUN + at)
        }
    })
}

/// Number of rows, after checking that values and bytes agree.
fn checked_rows(
    ty: TensorType,
    row: usize,
    values: usize,
    bytes: usize,
) -> Result<usize, QuantError> {
    let block = ty.block_size();
    let Some(row_bytes) = ty.row_bytes(row) else {
        return Err(QuantError::RowLength { ty, row, block });
    };
    if row == 0 {
        return match (values, bytes) {
            (0, 0) => Ok(0),
            _ => Err(QuantError::RowLength { ty, row, block }),
        };
    }
    if !values.is_multiple_of(row) {
        return Err(QuantError::Length {
            what: "values",
            got: values,
            wanted: values.next_multiple_of(row),
        });
    }
    let n_rows = values / row;
    let wanted = n_rows.saturating_mul(row_bytes);
    if bytes != wanted {
        return Err(QuantError::Length {
            what: "bytes",
            got: bytes,
            wanted,
        });
    }
    Ok(n_rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
            .collect()
    }

    /// All columns alike, where the type wants to know.
    fn even(ty: TensorType, row: usize) -> Option<Vec<f32>> {
        ty.needs_importance().then(|| vec![1.0; row])
    }

    fn weights() -> impl Iterator<Item = TensorType> {
        TensorType::ALL
            .into_iter()
            .filter(|ty| *ty != TensorType::I32)
    }

    #[test]
    fn block_sizes_and_names_are_those_of_ggml() {
        for ty in TensorType::ALL {
            let id = ty.id() as sys::ggml_type;
            // SAFETY: the id is one of ggml's; the name is a static string.
            let (block, size, name) = unsafe {
                (
                    sys::ggml_blck_size(id),
                    sys::ggml_type_size(id),
                    std::ffi::CStr::from_ptr(sys::ggml_type_name(id)),
                )
            };
            assert_eq!(ty.block_size() as i64, block, "{ty}");
            assert_eq!(ty.type_size(), size, "{ty}");
            assert_eq!(name.to_str().unwrap().to_lowercase(), ty.name());
            assert_eq!(TensorType::from_id(ty.id()), Some(ty));
            assert_eq!(ty.name().parse(), Ok(ty));
        }
        assert_eq!(TensorType::from_id(4), None);
    }

    #[test]
    fn every_type_returns_rows_close_to_what_it_was_given() {
        let (rows, row) = (3, 512);
        let src = wave(rows * row);
        for ty in weights() {
            let mut packed = vec![0; rows * ty.row_bytes(row).unwrap()];
            quantize_rows(ty, &src, row, even(ty, row).as_deref(), &mut packed).unwrap();
            let mut back = vec![0.0; src.len()];
            dequantize(ty, &packed, &mut back).unwrap();
            let error = src
                .iter()
                .zip(&back)
                .map(|(a, b)| (a - b).powi(2))
                .sum::<f32>();
            let relative = (error / src.iter().map(|a| a * a).sum::<f32>()).sqrt();
            // Measured 0.26 for q2_k on this wave.
            let most = if ty.bits() < 2.6 { 0.7 } else { 0.3 };
            assert!(relative < most, "{ty}: relative error {relative}");
            assert_eq!(first_broken_block(ty, &packed), None, "{ty}");
        }
    }

    #[test]
    fn importance_moves_the_error_to_columns_that_do_not_matter() {
        let row = 256;
        let src = wave(row);
        let importance: Vec<f32> = (0..row)
            .map(|i| if i % 2 == 0 { 1.0 } else { 1e-4 })
            .collect();
        let even_error = |importance: Option<&[f32]>| {
            let mut packed = vec![0; TensorType::Q3K.row_bytes(row).unwrap()];
            quantize_rows(TensorType::Q3K, &src, row, importance, &mut packed).unwrap();
            let mut back = vec![0.0; row];
            dequantize(TensorType::Q3K, &packed, &mut back).unwrap();
            let even = src.iter().zip(&back).step_by(2);
            even.map(|(a, b)| (a - b).powi(2)).sum::<f32>()
        };
        assert!(even_error(Some(&importance)) < even_error(None));
    }

    #[test]
    fn rows_that_do_not_fit_are_refused_before_ggml_sees_them() {
        let src = wave(96);
        let refused = quantize_rows(TensorType::Q4K, &src, 96, None, &mut [0; 144]);
        assert!(matches!(
            refused,
            Err(QuantError::RowLength {
                row: 96,
                block: 256,
                ..
            })
        ));
        let refused = quantize_rows(TensorType::Q8_0, &src, 96, None, &mut [0; 101]);
        assert!(matches!(
            refused,
            Err(QuantError::Length {
                got: 101,
                wanted: 102,
                ..
            })
        ));
        let refused = quantize_rows(TensorType::Q8_0, &src, 64, None, &mut [0; 102]);
        assert!(matches!(
            refused,
            Err(QuantError::Length { what: "values", .. })
        ));
        let refused = dequantize(TensorType::Q8_0, &[0; 34], &mut [0.0; 64]);
        assert!(matches!(refused, Err(QuantError::Length { .. })));
    }

    #[test]
    fn values_that_are_not_finite_are_refused_by_position() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut src = wave(5000 - 5000 % 32);
            src[4321] = bad;
            let row = src.len();
            let mut packed = vec![0; TensorType::Q8_0.row_bytes(row).unwrap()];
            let refused = quantize_rows(TensorType::Q8_0, &src, row, None, &mut packed);
            assert!(matches!(
                refused,
                Err(QuantError::NotFinite { index: 4321, .. })
            ));
        }
    }

    #[test]
    fn a_value_beyond_the_range_of_the_type_is_an_overflow_and_not_an_infinity() {
        let refused = quantize_rows(TensorType::F16, &[1.0, 1e6], 2, None, &mut [0; 4]);
        let ty = TensorType::F16;
        assert_eq!(refused, Err(QuantError::Overflow { ty, block: 1 }));
    }

    #[test]
    fn broken_blocks_are_those_that_ggml_calls_broken() {
        let row = 512;
        for ty in weights() {
            let mut packed = vec![0u8; ty.row_bytes(row).unwrap()];
            quantize_rows(ty, &wave(row), row, even(ty, row).as_deref(), &mut packed).unwrap();
            for at in 0..packed.len() {
                let kept = packed[at];
                packed[at] = 0xff;
                // SAFETY: a valid id and a buffer of whole blocks.
                let ggml = unsafe {
                    sys::ggml_validate_row_data(ty.id() as _, packed.as_ptr().cast(), packed.len())
                };
                let ours = first_broken_block(ty, &packed);
                assert_eq!(ours.is_none(), ggml, "{ty} byte {at}");
                if let Some(block) = ours {
                    assert_eq!(block, at / ty.type_size());
                }
                packed[at] = kept;
            }
        }
    }
    #[test]
    fn types_that_need_an_importance_are_refused_without_one() {
        for ty in weights().filter(|ty| ty.needs_importance()) {
            let mut packed = vec![0; ty.row_bytes(256).unwrap()];
            let refused = quantize_rows(ty, &wave(256), 256, None, &mut packed);
            assert_eq!(refused, Err(QuantError::NoImportance { ty }));
        }
    }

    #[test]
    fn no_values_and_no_importance_end_the_search_for_points_of_a_grid_badly() {
        let row = 512;
        let values: [fn(usize) -> f32; 7] = [
            |_| 0.0,
            |_| -1e-30,
            |_| 1e-42,
            |i| if i % 256 == 9 { 1e30 } else { 1.0 },
            |i| if i % 3 == 0 { 9e7 } else { -1e-20 },
            |i| if i == 300 { 1e8 } else { 0.0 },
            |i| (i as f32).sin() * 1e-12,
        ];
        let weights_of: [fn(usize) -> f32; 5] = [
            |_| 0.0,
            |_| 1e-40,
            |i| if i % 32 == 0 { 3e38 } else { 1e-30 },
            |i| if i < 256 { 0.0 } else { 1.0 },
            |i| if i == 7 { 1.0 } else { 0.0 },
        ];
        for ty in weights().filter(|ty| ty.is_of_a_grid()) {
            for value in values {
                let src: Vec<f32> = (0..row).map(value).collect();
                for weight in weights_of {
                    let weights: Vec<f32> = (0..row).map(weight).collect();
                    let mut packed = vec![0; ty.row_bytes(row).unwrap()];
                    match quantize_rows(ty, &src, row, Some(&weights), &mut packed) {
                        Ok(()) => assert_eq!(first_broken_block(ty, &packed), None, "{ty}"),
                        Err(why) => assert!(matches!(why, QuantError::Overflow { .. }), "{why}"),
                    }
                }
            }
        }
    }
}
