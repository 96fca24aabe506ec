// Root mean square norms of rows, and rows as products take them: f32, 8 bits with their scales and sums, f16.
// One block a row; a thread has four neighbours of it, the first four of them in registers from the sum on.
// The bits of a row depend on its length alone.
#pragma once
#include "../model.cuh"

struct RowsArgs {
  const float *x;       // [rows, n]
  const float *weight;  // [n]; norm_rows only
  float *y;             // f32 [rows, n], or null
  i8 *q;                // 8 bits [rows, n] with d [rows, n / 32] and s [rows, n / 16], or null
  float *d;
  i16 *s;
  u16 *h;  // f16 [rows, n], or null
  u32 rows, n;
  float eps;
  u32 pad;
};

namespace mixers {

// v times 1 / d rounded to 8 bits; 0 where d is.
DEVICE u32 quantized(float v, float inverse) { return u32(__float2int_rn(v * inverse)) & 255u; }

// Four neighbours of a row, `at` a multiple of 4, the eight lanes of 32 values next to each other. All lanes come
// here; those with nothing to write say so.
DEVICE void write_four(const RowsArgs &a, u64 row, u32 at, float4 v, bool active) {
  const u64 place = row * a.n + at;
  if (a.y && active) *reinterpret_cast<float4 *>(a.y + place) = v;
  if (a.h && active)
    *reinterpret_cast<uint2 *>(a.h + place) = make_uint2(pack_f16(v.x, v.y), pack_f16(v.z, v.w));
  if (!a.q) return;
  float most = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
  for (int offset = 4; offset > 0; offset >>= 1) most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, offset));
  const float inverse = most > 0.f ? __fdividef(127.f, most) : 0.f;
  const u32 word = quantized(v.x, inverse) | quantized(v.y, inverse) << 8 | quantized(v.z, inverse) << 16 |
                   quantized(v.w, inverse) << 24;
  int sum = __dp4a(int(word), 0x01010101, 0);
  sum += __shfl_xor_sync(ALL_LANES, sum, 1);
  sum += __shfl_xor_sync(ALL_LANES, sum, 2);
  if (!active) return;
  *reinterpret_cast<u32 *>(a.q + place) = word;
  if ((at & 15u) == 0) a.s[place / 16] = i16(sum);
  if ((at & 31u) == 0) a.d[place / 32] = most * (1.f / 127.f);
}

DEVICE float4 read_four(const float *p, bool active) {
  return active ? *reinterpret_cast<const float4 *>(p) : make_float4(0.f, 0.f, 0.f, 0.f);
}

DEVICE float square(float4 v) { return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; }

// The sum over the block, to every thread.
DEVICE float block_sum(float v) {
  SHARED(float, sums, 32);
  const u32 lane = threadIdx.x & 31u, warps = blockDim.x / 32;
  v = warp_sum(v);
  if (lane == 0) sums[threadIdx.x / 32] = v;
  __syncthreads();
  return warp_sum(lane < warps ? sums[lane] : 0.f);
}

// Few rows let the next kernel begin beside them. Many do not: its blocks would lie where there was room first.
DEVICE void let_go_of_few() {
  if (gridDim.x <= 16) let_go();
}

}  // namespace mixers

// x / sqrt(mean(x^2) + eps) * weight. Grid: rows.
KERNEL_BOUNDS(norm_rows, RowsArgs, 1024, 1) {
  using namespace mixers;
  let_go_of_few();
  const u32 fours = a.n / 4, t = threadIdx.x;
  const float4 w0 = read_four(a.weight + 4 * t, t < fours);
  depend();
  const u64 row = blockIdx.x;
  const float *x = a.x + row * a.n;
  const float4 x0 = read_four(x + 4 * t, t < fours);
  float sum = square(x0);
  for (u32 at = t + blockDim.x; at < fours; at += blockDim.x) sum += square(read_four(x + 4 * at, true));
  const float scale = rsqrtf(__fdividef(block_sum(sum), float(a.n)) + a.eps);
  for (u32 start = 0; start < fours; start += blockDim.x) {
    const u32 at = start + t;
    const bool active = at < fours;
    const float4 v = start == 0 ? x0 : read_four(x + 4 * at, active);
    const float4 w = start == 0 ? w0 : read_four(a.weight + 4 * at, active);
    const float4 y = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    write_four(a, row, 4 * at, y, active);
  }
}

// Rows as they are. Grid: rows.
KERNEL_BOUNDS(quantize_rows, RowsArgs, 1024, 1) {
  using namespace mixers;
  let_go_of_few();
  depend();
  const u32 fours = a.n / 4;
  const u64 row = blockIdx.x;
  for (u32 start = 0; start < fours; start += blockDim.x) {
    const u32 at = start + threadIdx.x;
    const float4 v = read_four(a.x + row * a.n + 4 * at, at < fours);
    write_four(a, row, 4 * at, v, at < fours);
  }
}
