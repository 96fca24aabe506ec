//! Rows of activations in the forms that products want: as they are, in 8 bits with a scale for 256
//! values (the K types) or for 32 (the other types of blocks), or as ggml's own row functions
//! take them. Each form is made once, and shared by all products that read the row.

use std::borrow::Borrow;
use std::ops::Range;

use super::aligned::Aligned;
use super::crew::Crew;
use super::foreign::{self, ForeignRows};
use super::share::Shared;
use super::simd::{Body, LANES, Simd, dispatch};
use crate::quant::TensorType;

/// Values that one piece of a filling quantizes.
const PIECE: usize = 1 << 14;

/// `[rows, cols]`, in every form that was asked for.
#[derive(Debug, Default)]
pub struct Activations {
    rows: usize,
    cols: usize,
    plain: Option<Vec<f32>>,
    by_256: Quantized<256>,
    by_32: Quantized<32>,
    foreign: Vec<ForeignRows>,
    /// 0, 1, 2, ...: every row in its place.
    pub(crate) places: Vec<u32>,
}

/// The form that a type of weights multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    By256,
    By32,
    Foreign,
}

pub(crate) fn form_of(ty: TensorType) -> Form {
    match ty {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => Form::Plain,
        TensorType::Q4K | TensorType::Q5K | TensorType::Q6K => Form::By256,
        // Elsewhere ggml's row functions are faster than our slow twin.
        _ if cfg!(not(any(target_arch = "x86_64", target_arch = "aarch64"))) && ty.bits() < 4.0 => {
            Form::Foreign
        }
        TensorType::Q2K | TensorType::Q3K => Form::By256,
        TensorType::Iq2Xxs | TensorType::Iq2Xs | TensorType::Iq2S => Form::By256,
        TensorType::Iq3Xxs | TensorType::Iq3S => Form::By256,
        TensorType::Q8_0 | TensorType::Q4_0 => Form::By32,
        _ => Form::Foreign,
    }
}

/// 8-bit values with a scale for `BLOCK` of them, and sums of 16 and of 32.
#[derive(Debug, Default)]
pub(crate) struct Quantized<const BLOCK: usize> {
    filled: bool,
    cols: usize,
    values: Aligned<i8>,
    scales: Vec<f32>,
    sums_16: Vec<i16>,
    sums_32: Vec<i16>,
}

/// One row of [`Quantized`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuantizedRow<'x> {
    pub values: &'x [i8],
    pub scales: &'x [f32],
    pub sums_16: &'x [i16],
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        allow(dead_code, reason = "for vector kernels")
    )]
    pub sums_32: &'x [i16],
}

impl Activations {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Takes `x`, `[T, cols]`, in the forms that weights of the types `wanted` multiply. What was
    /// there before is gone.
    pub fn fill(
        &mut self,
        crew: Crew<'_>,
        x: &[f32],
        cols: usize,
        wanted: impl IntoIterator<Item = impl Borrow<TensorType>>,
    ) {
        let rows = x.len().checked_div(cols).unwrap_or(0);
        assert_eq!(x.len(), rows * cols, "rows of {cols}");
        self.rows = rows;
        self.cols = cols;
        self.places.clear();
        self.places.extend(0..rows as u32);
        let mut plain = self.plain.take();
        self.by_256.filled = false;
        self.by_32.filled = false;
        self.foreign.clear();
        for ty in wanted {
            let ty = *ty.borrow();
            assert!(cols.is_multiple_of(ty.block_size()), "{cols} in {ty}");
            match form_of(ty) {
                Form::Plain if self.plain.is_none() => {
                    let mut copy = plain.take().unwrap_or_default();
                    copy.clear();
                    copy.extend_from_slice(x);
                    self.plain = Some(copy);
                }
                Form::By256 => self.by_256.fill(crew, x, cols),
                Form::By32 => self.by_32.fill(crew, x, cols),
                Form::Foreign => {
                    if !self.foreign.iter().any(|rows| rows.are_for(ty)) {
                        self.foreign.push(foreign::rows(crew, ty, x, cols));
                    }
                }
                Form::Plain => {}
            }
        }
    }

    /// Panics where a form was not asked for, here and below.
    pub(crate) fn plain(&self, row: usize) -> &[f32] {
        let plain = self.plain.as_deref().expect("plain rows were asked for");
        &plain[row * self.cols..(row + 1) * self.cols]
    }

    pub(crate) fn by_256(&self) -> &Quantized<256> {
        assert!(self.by_256.filled, "rows in 8 bits by 256 were asked for");
        &self.by_256
    }

    pub(crate) fn by_32(&self) -> &Quantized<32> {
        assert!(self.by_32.filled, "rows in 8 bits by 32 were asked for");
        &self.by_32
    }

    pub(crate) fn foreign(&self, ty: TensorType, row: usize) -> &[u8] {
        let rows = self.foreign.iter().find(|rows| rows.are_for(ty));
        rows.expect("rows as ggml takes them were asked for")
            .row(row)
    }
}

impl<const BLOCK: usize> Quantized<BLOCK> {
    pub(crate) fn row(&self, at: usize) -> QuantizedRow<'_> {
        let part = |size: usize| -> Range<usize> {
            let n = self.cols / size;
            at * n..(at + 1) * n
        };
        QuantizedRow {
            values: &self.values[part(1)],
            scales: &self.scales[part(BLOCK)],
            sums_16: &self.sums_16[part(16)],
            sums_32: &self.sums_32[part(32)],
        }
    }

    /// The values of row `at` and of all that follow.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn rows_from(&self, at: usize) -> &[i8] {
        &self.values[at * self.cols..]
    }

    fn fill(&mut self, crew: Crew<'_>, x: &[f32], cols: usize) {
        if std::mem::replace(&mut self.filled, true) {
            return;
        }
        self.cols = cols;
        self.values.grow(x.len());
        self.scales.resize(x.len() / BLOCK, 0.0);
        self.sums_16.resize(x.len() / 16, 0);
        self.sums_32.resize(x.len() / 32, 0);
        let scales = Shared::new(&mut self.scales);
        let sums_16 = Shared::new(&mut self.sums_16);
        let sums_32 = Shared::new(&mut self.sums_32);
        let work = |piece: usize, values: &mut [i8], _: usize| {
            let (start, end) = (piece * PIECE, piece * PIECE + values.len());
            // SAFETY: the ranges of this piece's values, in blocks that divide a piece: no other
            // piece has them.
            let (scales, sums_16, sums_32) = unsafe {
                (
                    scales.part(start / BLOCK..end / BLOCK),
                    sums_16.part(start / 16..end / 16),
                    sums_32.part(start / 32..end / 32),
                )
            };
            let quantize = Quantize::<BLOCK> {
                x: &x[start..end],
                values,
                scales,
                sums_16,
                sums_32,
            };
            dispatch(crew.tier, quantize);
        };
        crew.pool
            .run_chunks(&mut self.values[..x.len()], PIECE, &work);
    }
}

/// Below this no scale can be inverted; such blocks become zeros.
const LEAST: f32 = 1e-35;
/// Adding it rounds to a whole number: 1.5 * 2^23, whose bits count from there.
const ROUND: f32 = 12_582_912.0;

struct Quantize<'x, const BLOCK: usize> {
    x: &'x [f32],
    values: &'x mut [i8],
    scales: &'x mut [f32],
    sums_16: &'x mut [i16],
    sums_32: &'x mut [i16],
}

impl<const BLOCK: usize> Body for Quantize<'_, BLOCK> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let round = s.splat(ROUND);
        let blocks = self.x.as_chunks::<BLOCK>().0.iter();
        let blocks = blocks.zip(self.values.as_chunks_mut::<BLOCK>().0);
        for ((x, values), scale) in blocks.zip(self.scales) {
            let x = x.as_chunks::<LANES>().0;
            // As bits, so that NaN and infinity are the greatest and come out in the scale.
            let mut most = 0;
            for x in x {
                most = s.greatest(s.load(x)).max(most);
            }
            let most = f32::from_bits(most);
            if most < LEAST {
                *scale = 0.0;
                values.fill(0);
                continue;
            }
            *scale = most / 127.0;
            let by = s.splat(127.0 / most);
            for (values, x) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(x) {
                *values = s.low_bytes(s.add(s.mul(s.load(x), by), round));
            }
        }
        let values = self.values.as_chunks::<LANES>().0;
        for (sum, values) in self.sums_16.iter_mut().zip(values) {
            *sum = s.sum_bytes(values);
        }
        let pairs = self.sums_16.as_chunks::<2>().0;
        for (sum, [a, b]) in self.sums_32.iter_mut().zip(pairs) {
            *sum = a + b;
        }
    }
}
