//! What a kernel is given: some rows of a matrix, some rows of activations, and where the results
//! go.

use std::ops::Range;

use crate::cpu::activations::Activations;
use crate::cpu::matrix::Matrix;
use crate::cpu::share::Shared;

/// Rows `rows` of `matrix` times the rows `input` of `activations`; row `input[i]` gives row
/// `output[i]` of the target.
#[derive(Clone)]
pub(crate) struct Task<'a> {
    pub matrix: Matrix<'a>,
    pub rows: Range<usize>,
    pub activations: &'a Activations,
    pub input: &'a [u32],
    pub output: &'a [u32],
    pub target: &'a Target<'a>,
}

/// Rows of results, `stride` apart; the first column is row `first` of the matrix.
pub(crate) struct Target<'o> {
    out: Shared<'o, f32>,
    stride: usize,
    first: usize,
}

impl<'o> Target<'o> {
    /// # Safety
    /// While it lives, no two threads run tasks with this target that name the same row of the
    /// matrix and the same row of the output.
    pub(crate) unsafe fn new(out: Shared<'o, f32>, stride: usize, first: usize) -> Self {
        Self { out, stride, first }
    }

    /// Places for the results of `rows` in row `output`.
    #[allow(clippy::mut_from_ref, reason = "as of `Shared`")]
    #[inline(always)]
    pub(crate) fn at(&self, output: u32, rows: Range<usize>) -> &mut [f32] {
        let column = rows.start - self.first;
        assert!(column + rows.len() <= self.stride);
        let start = output as usize * self.stride + column;
        // SAFETY: tasks of other threads name other places, as `new` was promised; a kernel holds
        // one part at a time.
        unsafe { self.out.part(start..start + rows.len()) }
    }
}
