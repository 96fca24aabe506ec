//! Products of up to 16 rows with matrices of any type on the card: decode's weight traffic. And rows on
//! their way there: from the file's form to the card's, and from a table of tokens.
//!
//! Quantized matrices meet the 8 bits of their input (`q`, `d`, `s` of [`Acts`]), the others its f32.
//! A row's result has the same bits whatever rows it shares a launch with, but for [`products`] with quantized
//! matrices: passes of 1 or 2 rows and passes of 3 to 16, which tensor cores take, differ in the last bits. Every function checks
//! lengths and launches; all kernels may overlap with what ran before them, and wait for it where
//! they read it. Addresses inside [`Acts`] and ids of experts and tokens are the caller's word, as in
//! `mixers`.
//!
//! Refused: columns that are no multiple of 32, more than 16 rows, more than 8 matrices in a launch,
//! experts whose `h` has more than 64 pieces of 1024 values.
//!
//! | file | job |
//! |---|---|
//! | `small` | several matrices of one input |
//! | `plan` | how such a launch is cut: the place to tune |
//! | `tensor` | the same for several rows, which tensor cores take |
//! | `experts` | routed and shared experts, dense layers |
//! | `rows` | repacking and embedding |

mod experts;
mod plan;
mod rows;
mod small;
mod tensor;

pub use experts::{DownExperts, GateUp, GateUpExperts, MOST_TASKS, down, gate_up, h_len};
pub use rows::{Tokens, embed, file_row_bytes, repack};
pub use small::{Job, MOST_JOBS, products};

use super::check::{hold, same};
use super::driver::CudaError;
use super::weights::{Acts, Matrix, Stack};

/// Rows of a small pass.
pub const MOST_ROWS: usize = 16;

/// Bytes of shared memory: a superblock (256 values) of an input row.
const STAGED: u32 = 352;

/// What a kernel gets where there is no matrix.
const NO_MATRIX: Matrix = Matrix {
    data: 0,
    ty: 0,
    rows: 0,
    cols: 0,
    row_bytes: 0,
};

/// That `input` can meet matrices of its width.
fn check_input(place: &'static str, input: &Acts) -> Result<(), CudaError> {
    let (rows, cols) = (input.rows as usize, input.cols as usize);
    hold(rows <= MOST_ROWS, place, "rows", rows, "at most 16")?;
    let whole = cols > 0 && cols.is_multiple_of(32);
    hold(whole, place, "columns", cols, "a multiple of 32")
}

/// That `matrix` takes rows of `cols`.
fn check_cols(place: &'static str, matrix: &Stack, cols: u32) -> Result<(), CudaError> {
    same(place, "a matrix's columns", matrix.cols(), cols as usize)
}
