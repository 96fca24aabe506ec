//! Matrices, activations and lanes as kernels find them: the twins of the structs in `model.cuh`, and who
//! owns the memory that they point to.

use super::driver::{Buffer, CudaError, Device};

/// How a matrix's values are written, as the kernels number it (`WeightType` in `device.cuh`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum WeightType {
    F32 = 0,
    F16 = 1,
    Bf16 = 2,
    Q4_0 = 3,
    Q8_0 = 4,
    Q4K = 5,
    Q5K = 6,
    Q6K = 7,
}

impl WeightType {
    /// Bytes of a row of `cols` values on the card, a multiple of 16. `None`: no row of this type has so
    /// many.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let bytes = match self {
            WeightType::F32 => cols * 4,
            WeightType::F16 | WeightType::Bf16 => cols * 2,
            WeightType::Q4_0 => cols.is_multiple_of(32).then_some(cols / 2 + cols / 16)?,
            WeightType::Q8_0 => cols.is_multiple_of(32).then_some(cols + cols / 16)?,
            WeightType::Q4K => cols.is_multiple_of(256).then_some(cols / 256 * 144)?,
            WeightType::Q5K => cols.is_multiple_of(256).then_some(cols / 256 * 176)?,
            WeightType::Q6K => cols.is_multiple_of(256).then_some(cols / 256 * 210)?,
        };
        Some(bytes.next_multiple_of(16))
    }

    /// Products take their input in 8 bits, not in f32.
    pub fn is_quantized(self) -> bool {
        !matches!(self, WeightType::F32 | WeightType::F16 | WeightType::Bf16)
    }
}

/// One matrix or several of the same size on the card, rows in the device's form.
#[derive(Debug)]
pub struct Stack {
    bytes: Buffer<u8>,
    ty: WeightType,
    count: usize,
    rows: usize,
    cols: usize,
}

impl Stack {
    /// All zeros.
    pub fn zeroed(
        device: &Device,
        ty: WeightType,
        [count, rows, cols]: [usize; 3],
    ) -> Result<Stack, CudaError> {
        let refused = |wanted| CudaError::refused("a matrix", "cols", cols, wanted);
        let row = ty.row_bytes(cols);
        let row = row.ok_or_else(|| refused("whole blocks of its type"))?;
        if [count, rows, cols, row]
            .iter()
            .any(|&n| u32::try_from(n).is_err())
        {
            return Err(refused("less than 2^32 of everything"));
        }
        Ok(Stack {
            bytes: device.zeroed(count * rows * row)?,
            ty,
            count,
            rows,
            cols,
        })
    }

    pub fn ty(&self) -> WeightType {
        self.ty
    }
    pub fn count(&self) -> usize {
        self.count
    }
    /// Of one matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }
    pub fn cols(&self) -> usize {
        self.cols
    }
    pub fn row_bytes(&self) -> usize {
        self.ty
            .row_bytes(self.cols)
            .expect("checked when it was made")
    }
    /// All rows of all matrices.
    pub fn buffer(&self) -> &Buffer<u8> {
        &self.bytes
    }

    /// As kernels find it.
    pub fn matrix(&self) -> Matrix {
        Matrix {
            data: self.bytes.address(),
            ty: self.ty as u32,
            rows: self.rows as u32,
            cols: self.cols as u32,
            row_bytes: self.row_bytes() as u32,
        }
    }
}

/// Room for rows as products take them: see [`Acts`].
#[derive(Debug)]
pub struct Activations {
    pub x: Buffer<f32>,
    pub q: Buffer<i8>,
    pub d: Buffer<f32>,
    pub s: Buffer<i16>,
}

impl Activations {
    /// For `values` in all, whatever the rows' width.
    pub fn room(device: &Device, values: usize) -> Result<Activations, CudaError> {
        Ok(Activations {
            x: device.zeroed(values)?,
            q: device.zeroed(values)?,
            d: device.zeroed(values.div_ceil(32))?,
            s: device.zeroed(values.div_ceil(16))?,
        })
    }

    /// So many rows of it, as kernels find them.
    pub fn acts(&self, rows: usize, cols: usize) -> Result<Acts, CudaError> {
        if rows * cols > self.x.len() {
            let wanted = format!("at most {}", self.x.len());
            return Err(CudaError::refused("rows", "values", rows * cols, wanted));
        }
        Ok(Acts {
            x: self.x.address(),
            q: self.q.address(),
            d: self.d.address(),
            s: self.s.address(),
            rows: rows as u32,
            cols: cols as u32,
        })
    }
}

/// One matrix, or the first of a stack: matrix `i` starts at `data + i * rows * row_bytes`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Matrix {
    pub data: u64,
    pub ty: u32,
    pub rows: u32,
    pub cols: u32,
    pub row_bytes: u32,
}

/// Up to 16 rows as products take them: f32 `x [rows, cols]`, and 8 bits of each value: `q`, `d` for 32
/// values, sums `s` over 16.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Acts {
    pub x: u64,
    pub q: u64,
    pub d: u64,
    pub s: u64,
    pub rows: u32,
    pub cols: u32,
}

/// One sequence in a small pass: where its slot is read and written, its block table, its token, and
/// how many tokens came before.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Lane {
    pub from: u64,
    pub to: u64,
    pub table: u64,
    pub token: u32,
    pub position: u32,
}

/// One sequence in a wide pass: as [`Lane`], with its rows of the pass.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct WideLane {
    pub from: u64,
    pub to: u64,
    pub table: u64,
    pub row: u32,
    pub rows: u32,
    pub position: u32,
    pub pad: u32,
}
