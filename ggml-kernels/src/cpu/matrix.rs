//! Weights where they lie: a matrix, and a stack of equal ones. Lengths and addresses are checked
//! here, once; kernels rely on them.

use std::ops::Range;

use crate::quant::{QuantError, TensorType};

/// `rows` outputs of `cols` inputs each, a row after the other, in the type's blocks.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'w> {
    ty: TensorType,
    rows: usize,
    cols: usize,
    data: &'w [u8],
}

/// Equal matrices, one after another: one per expert, or per head.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'w> {
    all: Matrix<'w>,
    count: usize,
}

impl<'w> Matrix<'w> {
    pub fn new(
        ty: TensorType,
        rows: usize,
        cols: usize,
        data: &'w [u8],
    ) -> Result<Matrix<'w>, QuantError> {
        if ty == TensorType::I32 {
            return Err(QuantError::NotWeights { ty });
        }
        let (row, block) = (cols, ty.block_size());
        let bytes = ty.row_bytes(cols).and_then(|b| b.checked_mul(rows));
        // A row's length is an `i32` to ggml, and its 8-bit dot products must fit one too.
        let Some(wanted) = bytes.filter(|_| cols < 1 << 30) else {
            return Err(QuantError::RowLength { ty, row, block });
        };
        if data.len() != wanted {
            let (what, got) = ("bytes of a matrix", data.len());
            return Err(QuantError::Length { what, got, wanted });
        }
        let align = match ty {
            TensorType::F32 => 4,
            TensorType::Mxfp4 => 1,
            _ => 2,
        };
        if wanted > 0 && !data.as_ptr().addr().is_multiple_of(align) {
            return Err(QuantError::Misaligned { ty });
        }
        Ok(Matrix {
            ty,
            rows,
            cols,
            data,
        })
    }

    pub fn ty(&self) -> TensorType {
        self.ty
    }
    pub fn rows(&self) -> usize {
        self.rows
    }
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of one row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.cols / self.ty.block_size() * self.ty.type_size()
    }

    /// The bytes of row `at`.
    pub(crate) fn row(&self, at: usize) -> &'w [u8] {
        let bytes = self.row_bytes();
        &self.data[at * bytes..(at + 1) * bytes]
    }

    /// The bytes of row `at` and of all behind it.
    pub(crate) fn rows_behind(&self, at: usize) -> &'w [u8] {
        &self.data[at * self.row_bytes()..]
    }

    /// `N` rows from `first` on; past `end` the last one again.
    pub(crate) fn rows_from<const N: usize>(&self, first: usize, end: usize) -> [&'w [u8]; N] {
        std::array::from_fn(|at| self.row((first + at).min(end - 1)))
    }

    /// As a matrix of its own.
    fn part(&self, rows: Range<usize>) -> Matrix<'w> {
        let bytes = self.row_bytes();
        Matrix {
            rows: rows.len(),
            data: &self.data[rows.start * bytes..rows.end * bytes],
            ..*self
        }
    }
}

impl<'w> Stack<'w> {
    pub fn new(
        ty: TensorType,
        count: usize,
        rows: usize,
        cols: usize,
        data: &'w [u8],
    ) -> Result<Stack<'w>, QuantError> {
        let (row, block) = (cols, ty.block_size());
        let all = count.checked_mul(rows);
        let all = all.ok_or(QuantError::RowLength { ty, row, block })?;
        let all = Matrix::new(ty, all, cols, data)?;
        Ok(Stack { all, count })
    }

    pub fn count(&self) -> usize {
        self.count
    }
    pub fn ty(&self) -> TensorType {
        self.all.ty
    }
    /// Rows of one matrix.
    pub fn rows(&self) -> usize {
        self.all.rows / self.count.max(1)
    }
    pub fn cols(&self) -> usize {
        self.all.cols
    }

    /// Matrix `at`.
    pub fn get(&self, at: usize) -> Matrix<'w> {
        assert!(at < self.count, "matrix {at} of {}", self.count);
        self.all.part(at * self.rows()..(at + 1) * self.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_the_wrong_length_or_at_an_odd_address_is_refused() {
        let data = [0u16; 73];
        // SAFETY: 73 halves are 146 bytes.
        let data = unsafe { std::slice::from_raw_parts(data.as_ptr().cast::<u8>(), 146) };
        let (bytes, odd) = (&data[..144], &data[1..145]);
        assert!(Matrix::new(TensorType::Q4K, 1, 256, bytes).is_ok());
        assert!(Matrix::new(TensorType::Q4K, 2, 256, bytes).is_err());
        assert!(Matrix::new(TensorType::Q4K, 1, 144, bytes).is_err());
        assert!(Matrix::new(TensorType::I32, 1, 36, bytes).is_err());
        assert!(Matrix::new(TensorType::Q4K, 1, 256, odd).is_err());
        assert!(Matrix::new(TensorType::Q4K, usize::MAX, 256, &[]).is_err());
    }

    #[test]
    fn a_stack_gives_its_matrices_in_order() {
        let values: Vec<u16> = (0..16).collect();
        // SAFETY: sixteen halves are 32 bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), 32) };
        let stack = Stack::new(TensorType::Bf16, 2, 4, 2, bytes).unwrap();
        assert_eq!((stack.count(), stack.rows(), stack.cols()), (2, 4, 2));
        assert_eq!(stack.get(1).row(0), [8, 0, 9, 0]);
        assert_eq!(stack.get(0).row(3), [6, 0, 7, 0]);
        let none = Stack::new(TensorType::Q4K, 0, 4, 256, &[]).unwrap();
        assert_eq!((none.count(), none.rows()), (0, 0));
    }
}
