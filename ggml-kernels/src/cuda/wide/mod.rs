//! Products of many rows on the card: on tensor cores, weights unpacked to f16 on their way, f32 sums; F32
//! matrices in f32 throughout. Experts by groups: [`group_rows`] sorts the rows' choices, products then
//! walk an expert's rows together, [`combine`] sums what comes back.
//!
//! A row's bits depend on that row and the weights alone: not on the rows beside it, their number, its place
//! among them, or the tile that was chosen.
//!
//! Refused: columns that are no multiple of 32, rows that do not begin at 16 bytes, F32 matrices where
//! there are no rows of f32 (and the others where there are none of f16), a gate of F32 beside an up that is
//! not, more than 8 products at once, more than 1024 experts.
//!
//! | file | job |
//! |---|---|
//! | `product` | products that share their rows; gate and up of one expert |
//! | `groups` | rows by expert; their results summed by rank |
//! | `experts` | products of many experts |
//! | `tile` | which tile |

mod experts;
mod groups;
mod product;
mod tile;

pub use experts::{ExpertDown, ExpertGateUp, expert_down, expert_gate_up};
pub use groups::{Combined, Grouped, Groups, combine, group_rows};
pub use product::{WideGateUp, WideJob, WideTo, wide_gate_up, wide_products};

use std::marker::PhantomData;
use std::ops::Range;

use half::f16;

use super::check::{count, hold};
use super::driver::{CudaError, Part, Plain};
use super::weights::{Matrix, Stack, WeightType};

/// Rows in the forms that exist, `stride` values from one to the next in each.
#[derive(Debug, Clone, Copy)]
pub struct WideRows<'b> {
    pub f16: Option<Part<'b, f16>>,
    pub f32: Option<Part<'b, f32>>,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

impl WideRows<'_> {
    /// Where the kernels find them: f32 for `plain` ones.
    fn address(&self, place: &'static str, plain: bool) -> Result<u64, CudaError> {
        let (what, found) = if plain {
            let x = self.f32.map(|x| (x.address(), x.len()));
            ("the rows of f32 for an F32 matrix", x)
        } else {
            let x = self.f16.map(|x| (x.address(), x.len()));
            ("the rows of f16", x)
        };
        let Some((address, len)) = found else {
            return Err(CudaError::refused(place, what, "nowhere", "there"));
        };
        hold(
            self.cols > 0 && self.cols.is_multiple_of(32),
            place,
            "a row's length",
            self.cols,
            "a multiple of 32",
        )?;
        fits(place, what, len, self.rows, self.cols, self.stride)?;
        let apart = address.is_multiple_of(16) && self.stride.is_multiple_of(8);
        let got = format!("at {address:#x} by {}", self.stride);
        hold(apart, place, what, got, "a multiple of 16 bytes")?;
        // The kernels count a row's place in 32 bits of 16 bytes each.
        count(place, "the rows' values", self.rows * self.stride / 8)?;
        Ok(address)
    }
}

/// A matrix of a product: all rows of a stack one below the other, or some of them.
#[derive(Debug, Clone, Copy)]
pub struct WideMatrix<'b> {
    matrix: Matrix,
    ty: WeightType,
    of: PhantomData<&'b Stack>,
}

impl<'b> From<&'b Stack> for WideMatrix<'b> {
    fn from(stack: &'b Stack) -> WideMatrix<'b> {
        let mut matrix = stack.matrix();
        matrix.rows *= stack.count() as u32;
        WideMatrix {
            matrix,
            ty: stack.ty(),
            of: PhantomData,
        }
    }
}

impl<'b> WideMatrix<'b> {
    /// Rows of f16, one after the other.
    pub fn of_f16(rows: Part<'b, f16>, cols: usize) -> Result<WideMatrix<'b>, CudaError> {
        const PLACE: &str = "a matrix of f16";
        let whole = cols > 0 && cols.is_multiple_of(32) && rows.len().is_multiple_of(cols);
        let got = format!("{} values by {cols}", rows.len());
        hold(whole, PLACE, "it", got, "whole rows of a multiple of 32")?;
        let got = format!("at {:#x}", rows.address());
        let wanted = "a multiple of 16 bytes";
        hold(rows.address().is_multiple_of(16), PLACE, "it", got, wanted)?;
        Ok(WideMatrix {
            matrix: Matrix {
                data: rows.address(),
                ty: WeightType::F16 as u32,
                rows: count(PLACE, "rows", rows.len() / cols)?,
                cols: count(PLACE, "cols", cols)?,
                row_bytes: count(PLACE, "a row's bytes", cols * 2)?,
            },
            ty: WeightType::F16,
            of: PhantomData,
        })
    }

    /// These rows alone.
    pub fn rows(self, range: Range<usize>) -> Result<WideMatrix<'b>, CudaError> {
        let inside = range.start <= range.end && range.end <= self.matrix.rows as usize;
        let wanted = format!("inside 0..{}", self.matrix.rows);
        let got = format!("{range:?}");
        hold(inside, "a matrix", "the range of rows", got, wanted)?;
        let data = self.matrix.data + range.start as u64 * u64::from(self.matrix.row_bytes);
        Ok(WideMatrix {
            matrix: Matrix {
                data,
                rows: range.len() as u32,
                ..self.matrix
            },
            ..self
        })
    }
}

/// What becomes of sums (`Mode` in `store.cuh`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Mode {
    Store = 0,
    Add = 1,
    StoreF16 = 2,
    Gated = 3,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Job {
    w: Matrix,
    up: Matrix,
    out: u64,
    out_f16: u64,
    mode: u32,
    stride: u32,
    first_tile: u32,
    limit: f32,
}
// SAFETY: numbers without gaps: two matrices of 24 bytes, two of 8, four of 4.
unsafe impl Plain for Job {}

/// Gate and up with what becomes of them: `out` and `out_f16` where asked, rows `stride` apart.
fn gated_job(
    place: &'static str,
    (gate, up): (WideMatrix<'_>, WideMatrix<'_>),
    limit: f32,
    (f16, f32): (Option<Part<'_, f16>>, Option<Part<'_, f32>>),
    (rows, stride): (usize, usize),
) -> Result<Job, CudaError> {
    let width = gate.matrix.rows as usize;
    let both = [gate, up].map(|m| format!("{} x {}", m.matrix.rows, m.matrix.cols));
    hold(both[0] == both[1], place, "up", &both[1], &both[0])?;
    let plain = [gate, up].map(|m| m.ty == WeightType::F32);
    let wanted = "both F32 or neither";
    let got = format!("{:?} and {:?}", gate.ty, up.ty);
    hold(plain[0] == plain[1], place, "gate and up", got, wanted)?;
    if let Some(h) = f16 {
        output(place, &h, rows, width, stride)?;
    }
    if let Some(h) = f32 {
        output(place, &h, rows, width, stride)?;
    }
    hold(
        f16.is_some() || f32.is_some(),
        place,
        "the result",
        "nowhere",
        "somewhere",
    )?;
    Ok(Job {
        w: gate.matrix,
        up: up.matrix,
        out: f32.map_or(0, |h| h.address()),
        out_f16: f16.map_or(0, |h| h.address()),
        mode: Mode::Gated as u32,
        stride: count(place, "the result's stride", stride)?,
        first_tile: 0,
        limit,
    })
}

/// Room for results, which are written in pairs.
fn output<T: Plain>(
    place: &'static str,
    part: &Part<'_, T>,
    rows: usize,
    cols: usize,
    stride: usize,
) -> Result<(), CudaError> {
    fits(place, "the result", part.len(), rows, cols, stride)?;
    let paired = part.address().is_multiple_of(2 * size_of::<T>() as u64);
    let got = format!("at {:#x}", part.address());
    hold(paired, place, "the result", got, "aligned to two values")
}

fn fits(
    place: &'static str,
    what: &'static str,
    len: usize,
    rows: usize,
    cols: usize,
    stride: usize,
) -> Result<(), CudaError> {
    let wanted = rows.saturating_sub(1) * stride + cols;
    let fits = rows == 0 || stride >= cols && len >= wanted;
    let got = format!("{len} values by {stride}");
    hold(fits, place, what, got, format!("{rows} rows of {cols}"))
}
