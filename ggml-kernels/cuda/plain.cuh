// The same products in f32 throughout: 64 rows of A by 64 rows of W a block, every sum one chain of fused steps over
// the columns. For routers, and for files of f32.
#pragma once
#include "store.cuh"

namespace wide {

constexpr u32 PLAIN = 64, PLAIN_THREADS = 256, PLAIN_COLS = 16, PLAIN_PAD = PLAIN + 4;

// Thread (x, y) of 16 x 16 gets c[i][j]: row 4 y + i of A; of W rows 2 x, 2 x + 1 and those 32 further.
// a, b: the rows that this thread brings.
DEVICE void multiply_plain(float (&c)[4][4], const float *a, const float *b, u32 cols) {
  SHARED(float, left, 2 * PLAIN_COLS * PLAIN_PAD);
  SHARED(float, right, 2 * PLAIN_COLS * PLAIN_PAD);
  const u32 thread = threadIdx.x, x = thread % 16, y = thread / 16;
  const u32 row = thread / 4, col = thread % 4 * 4;
  float4 next_a, next_b;
  const auto load = [&](u32 from) {
    const bool is_there = from + col < cols;
    next_a = is_there ? *reinterpret_cast<const float4 *>(a + from + col) : make_float4(0.f, 0.f, 0.f, 0.f);
    next_b = is_there ? *reinterpret_cast<const float4 *>(b + from + col) : make_float4(0.f, 0.f, 0.f, 0.f);
  };
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) c[i][j] = 0.f;
  load(0);
  u32 half = 0;
  for (u32 from = 0; from < cols; from += PLAIN_COLS, half ^= 1) {
    float *l = left + half * PLAIN_COLS * PLAIN_PAD, *r = right + half * PLAIN_COLS * PLAIN_PAD;
    const float va[4] = {next_a.x, next_a.y, next_a.z, next_a.w}, vb[4] = {next_b.x, next_b.y, next_b.z, next_b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) l[(col + i) * PLAIN_PAD + row] = va[i], r[(col + i) * PLAIN_PAD + row] = vb[i];
    __syncthreads();
    load(from + PLAIN_COLS);
#pragma unroll
    for (int k = 0; k < int(PLAIN_COLS); ++k) {
      const float4 la = *reinterpret_cast<const float4 *>(l + k * PLAIN_PAD + y * 4);
      const float2 r0 = *reinterpret_cast<const float2 *>(r + k * PLAIN_PAD + x * 2);
      const float2 r1 = *reinterpret_cast<const float2 *>(r + k * PLAIN_PAD + 32 + x * 2);
      const float rows[4] = {la.x, la.y, la.z, la.w}, others[4] = {r0.x, r0.y, r1.x, r1.y};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) c[i][j] = fmaf(rows[i], others[j], c[i][j]);
    }
  }
}

// The row of W that this thread brings, of a tile that starts at row `first`; GATED: 32 rows of each matrix.
DEVICE const float *plain_row(const Job &job, const u8 *gate, const u8 *up, u32 first) {
  const u32 row = threadIdx.x / 4;
  const bool is_up = job.mode == GATED && row >= 32;
  const u32 at = first + (is_up ? row - 32 : row);
  return reinterpret_cast<const float *>((is_up ? up : gate) + u64(min(at, job.w.rows - 1)) * job.w.row_bytes);
}

DEVICE void store_plain(const Job &job, const float (&c)[4][4], int i, u32 row, u32 first) {
  const u32 col = first + threadIdx.x % 16 * 2;
  if (job.mode == GATED) return store_gated(job, row, col, c[i], c[i] + 2);
  store_pair(job, row, col, c[i][0], c[i][1]);
  store_pair(job, row, col + 32, c[i][2], c[i][3]);
}

}  // namespace wide
