// A small pass's first step: each lane's row of the cache, [norm(c), k_r], and its queries as attention over
// such rows wants them, q' = [q_nope W_kb, q_r].
#pragma once
#include "mla_common.cuh"

struct MlaRowArgs {
  const float *q;       // [batch, heads * (nope + rope)], rows q_stride apart
  const float *kv;      // [batch, rank + rope], rows kv_stride apart; nowhere: rows are there already
  const float *norm;    // [rank]
  const u64 *speeds;    // [rope / 2], see mla::turn; nowhere: no rotation
  const Lane *lanes;    // [batch]
  f16 *absorbed;        // [batch, heads, rank + rope], multiplied with `scale`
  Matrix k_b;           // heads matrices [rank, nope]
  u32 batch, heads, nope, rope, rank, layer, q_stride, kv_stride;
  float eps, scale;
};

namespace mla {

constexpr u32 ROW_THREADS = 128, ABSORBED_ROWS = 64, MOST_LANES = 16;

// The block that stores one lane's row.
DEVICE void store_row(const MlaRowArgs &a, u32 b) {
  SHARED(float, room, ROW_THREADS / 32);
  const u32 tid = threadIdx.x;
  const Lane lane = a.lanes[b];
  f16 *row = row_of(lane.table, a.layer, a.rank + a.rope, lane.position);
  float weight[4], c[4], squares = 0.f;
  float2 by = make_float2(1.f, 0.f);
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const u32 col = tid + i * ROW_THREADS;
    weight[i] = col < a.rank ? a.norm[col] : 0.f;
  }
  if (tid < a.rope / 2 && a.speeds) by = turn(a.speeds[tid], lane.position);
  depend();
  const float *kv = a.kv + static_cast<u64>(b) * a.kv_stride;
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const u32 col = tid + i * ROW_THREADS;
    c[i] = col < a.rank ? kv[col] : 0.f;
    squares = fmaf(c[i], c[i], squares);
  }
  float even = 0.f, odd = 0.f;
  if (tid < a.rope / 2) {
    even = kv[a.rank + 2 * tid];
    odd = kv[a.rank + 2 * tid + 1];
  }
  const float by_norm = 1.f / sqrtf(block_sum(squares, room) / static_cast<float>(a.rank) + a.eps);
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const u32 col = tid + i * ROW_THREADS;
    if (col < a.rank) row[col] = to_f16(c[i] * by_norm * weight[i]);
  }
  if (tid < a.rope / 2) {
    row[a.rank + 2 * tid] = to_f16(even * by.x - odd * by.y);
    row[a.rank + 2 * tid + 1] = to_f16(even * by.y + odd * by.x);
  }
}

// `row` of q' of lanes b .. b + LANES: each half of a warp has eight rows of weights.
template <class Chunk, int LANES>
DEVICE void absorb(const MlaRowArgs &a, const Chunk *w, const float *nope, u32 b, u32 head, u32 row) {
  const u32 lane = threadIdx.x % 32, chunk = lane % 16;
  float sums[LANES][8];
#pragma unroll
  for (int l = 0; l < LANES; l++) {
    float4 x[2] = {make_float4(0.f, 0.f, 0.f, 0.f), make_float4(0.f, 0.f, 0.f, 0.f)};
    if (chunk * 8 < a.nope) {
      x[0] = *reinterpret_cast<const float4 *>(nope + (b + l) * 128 + chunk * 8);
      x[1] = *reinterpret_cast<const float4 *>(nope + (b + l) * 128 + chunk * 8 + 4);
    }
    const float v[8] = {x[0].x, x[0].y, x[0].z, x[0].w, x[1].x, x[1].y, x[1].z, x[1].w};
#pragma unroll
    for (int i = 0; i < 8; i++) sums[l][i] = w[i].dot(v);
  }
#pragma unroll
  for (int l = 0; l < LANES; l++) {
    const float sum = sum_eight(sums[l], lane);
    if (lane % 2 == 0 && row < a.rank) {
      a.absorbed[(static_cast<u64>(b + l) * a.heads + head) * (a.rank + a.rope) + row] = to_f16(sum * a.scale);
    }
  }
}

// Blocks 0..heads * parts absorb 64 columns of q' each, for all lanes; one more for each lane stores its row.
template <class Chunk>
DEVICE void absorb_row(const MlaRowArgs &a) {
  SHARED(float, nope, MOST_LANES * 128);
  let_go();
  const u32 parts = (a.rank + ABSORBED_ROWS - 1) / ABSORBED_ROWS, blocks = a.heads * parts;
  if (blockIdx.x >= blocks) return store_row(a, blockIdx.x - blocks);
  const u32 head = blockIdx.x / parts, first = blockIdx.x % parts * ABSORBED_ROWS;
  const u32 tid = threadIdx.x, warp = tid / 32, lane = tid % 32, chunk = lane % 16, half = lane / 16;
  const u32 latent = a.rank + a.rope, width = a.nope + a.rope;
  const u8 *weights = a.k_b.data + static_cast<u64>(head) * a.k_b.rows * a.k_b.row_bytes;
  Chunk w[8];
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    const u32 row = first + warp * 16 + i * 2 + half;
    if (row < a.rank && chunk * 8 < a.nope) {
      w[i].load(weights + static_cast<u64>(row) * a.k_b.row_bytes, a.k_b.type, a.nope, chunk * 8);
    } else {
      w[i].clear();
    }
  }
  depend();
  const float *q = a.q + head * width;
  const u32 quads = a.nope / 4;
#pragma unroll 4
  for (u32 i = tid; i < a.batch * quads; i += ROW_THREADS) {
    const u32 b = i / quads, at = i % quads * 4;
    const float4 v = *reinterpret_cast<const float4 *>(q + static_cast<u64>(b) * a.q_stride + at);
    *reinterpret_cast<float4 *>(nope + b * 128 + at) = v;
  }
  if (first == 0) {
    const u32 pairs = a.rope / 2;
    for (u32 i = tid; i < a.batch * pairs; i += ROW_THREADS) {
      const u32 b = i / pairs, j = i % pairs;
      const float *from = q + static_cast<u64>(b) * a.q_stride + a.nope + 2 * j;
      const float even = from[0] * a.scale, odd = from[1] * a.scale;
      const float2 by = a.speeds ? turn(a.speeds[j], a.lanes[b].position) : make_float2(1.f, 0.f);
      f16 *to = a.absorbed + (static_cast<u64>(b) * a.heads + head) * latent + a.rank + 2 * j;
      to[0] = to_f16(even * by.x - odd * by.y);
      to[1] = to_f16(even * by.y + odd * by.x);
    }
  }
  __syncthreads();
  const u32 row = first + warp * 16 + sum_number(lane) * 2 + half;
  // Two lanes at once, where there are two: their sums do not wait for each other.
  u32 b = 0;
  for (; b + 1 < a.batch; b += 2) absorb<Chunk, 2>(a, w, nope, b, head, row);
  if (b < a.batch) absorb<Chunk, 1>(a, w, nope, b, head, row);
}

}  // namespace mla

KERNEL_BOUNDS(mla_row, MlaRowArgs, 128, 4) { mla::absorb_row<mla::AnyChunk>(a); }
KERNEL_BOUNDS(mla_row_f16, MlaRowArgs, 128, 4) { mla::absorb_row<mla::HalfChunk>(a); }
KERNEL_BOUNDS(mla_row_bf16, MlaRowArgs, 128, 4) { mla::absorb_row<mla::BrainChunk>(a); }
KERNEL_BOUNDS(mla_row_q8_0, MlaRowArgs, 128, 4) { mla::absorb_row<mla::ByteChunk>(a); }
