// What becomes of a tile's sums.
#pragma once
#include "model.cuh"

namespace wide {

enum Mode : u32 { STORE = 0, ADD = 1, STORE_F16 = 2, GATED = 3 };

struct Job {
  Matrix w, up;  // up: of a GATED job
  float *out;    // GATED: may be null
  f16 *out_f16;  // STORE_F16, GATED: may be null
  u32 mode, stride, first_tile;
  float limit;
};

// Two columns of a row, the second perhaps past the last.
template <bool SUM>
DEVICE void put(float *out, float x, float y, bool is_pair, bool is_even) {
  if (SUM) {
    out[0] += x;
    if (is_pair) out[1] += y;
  } else if (is_pair && is_even) {
    *reinterpret_cast<float2 *>(out) = make_float2(x, y);
  } else {
    out[0] = x;
    if (is_pair) out[1] = y;
  }
}
DEVICE void put(f16 *out, float x, float y, bool is_pair, bool is_even) {
  if (is_pair && is_even) {
    *reinterpret_cast<u32 *>(out) = pack_f16(x, y);
  } else {
    out[0] = to_f16(x);
    if (is_pair) out[1] = to_f16(y);
  }
}

DEVICE float gated(float gate, float up, float limit) {
  const float silu = gate / (1.f + __expf(-gate));
  return fminf(silu, limit) * fminf(fmaxf(up, -limit), limit);
}

// The sums x, y of columns col, col + 1 of a row.
DEVICE void store_pair(const Job &job, u32 row, u32 col, float x, float y) {
  if (col >= job.w.rows) return;
  const bool is_pair = col + 1 < job.w.rows, is_even = job.stride % 2 == 0;
  const u64 at = u64(row) * job.stride + col;
  if (job.mode == ADD) return put<true>(job.out + at, x, y, is_pair, is_even);
  if (job.mode == STORE) return put<false>(job.out + at, x, y, is_pair, is_even);
  if (job.out_f16) put(job.out_f16 + at, x, y, is_pair, is_even);
  if (job.mode == GATED && job.out) put<false>(job.out + at, x, y, is_pair, is_even);
}
DEVICE void store_gated(const Job &job, u32 row, u32 col, const float gate[2], const float up[2]) {
  store_pair(job, row, col, gated(gate[0], up[0], job.limit), gated(gate[1], up[1], job.limit));
}

}  // namespace wide
