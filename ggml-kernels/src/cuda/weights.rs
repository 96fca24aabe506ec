//! Matrices, activations and lanes as kernels find them: the twins of the structs in `device.cuh`.

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
