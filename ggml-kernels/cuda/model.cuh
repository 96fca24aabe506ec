// What every family of kernels knows of the model's data on the card. Twins: src/cuda/weights.rs.
#pragma once
#include "device.cuh"

enum WeightType : u32 { F32 = 0, F16 = 1, BF16 = 2, Q4_0 = 3, Q8_0 = 4, Q4_K = 5, Q5_K = 6, Q6_K = 7 };

// One matrix, or the first of a stack: matrix i starts at data + i * rows * row_bytes.
struct Matrix {
  const u8 *data;
  u32 type, rows, cols, row_bytes;
};

// Up to 16 rows as products take them: f32 x [rows, cols], and 8 bits of each value: q, d for 32 values,
// sums s over 16.
struct Acts {
  float *x;
  i8 *q;
  float *d;
  i16 *s;
  u32 rows, cols;
};

// One sequence in a small pass.
struct Lane {
  const float *from;
  float *to;
  const u64 *table;
  u32 token, position;
};

// One sequence in a wide pass.
struct WideLane {
  const float *from;
  float *to;
  const u64 *table;
  u32 row, rows, position, pad;
};

// Rows of MLA's cache to a block.
constexpr u32 BLOCK_ROWS = 64;
