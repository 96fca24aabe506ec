// A small pass's last step: what the columns of mla_attend gathered for a head is put together, multiplied with
// W_vb, let through the head's gate, and quantized for the layer's output product.
#pragma once
#include "mla_attend.cuh"

struct MlaFinishArgs {
  const f16 *sums;        // of mla_attend
  const float2 *heads_of;
  const Lane *lanes;      // [batch]
  const float *gate;      // [batch, heads], rows gate_stride apart; nowhere: no gate
  float *parts;           // [batch, heads, slices, v]: working memory
  u32 *done;              // [batch, groups of heads]: zeros, and left so
  Acts out;               // x [batch, heads * v]; q nowhere: not quantized
  Matrix v_b;             // heads matrices [v, rank]
  u32 batch, heads, rank, v, gate_stride;
  MlaShares shares;
};

namespace mla {

constexpr u32 FINISH_THREADS = 256, SLICE = 128, MOST_COLUMNS = 192;

// A value of a row of 32 in as many lanes, as products take it.
DEVICE void give_quantized(const Acts &out, u32 row, u32 col, float value) {
  const u64 at = static_cast<u64>(row) * out.cols + col;
  const float d = warp_max(fabsf(value)) / 127.f;
  const int q = d > 0.f ? static_cast<int>(rintf(value / d)) : 0;
  int sum = q;
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
  out.q[at] = static_cast<i8>(q);
  if (col % 32 == 0) out.d[at / 32] = d;
  if (col % 16 == 0) out.s[at / 16] = static_cast<i16>(sum);
}

// Block (head * slices + slice, y): 128 columns of the rank, for lanes y, y + gridDim.y ... The last of a group's
// blocks to end adds the slices. A group is as many heads as whole 32 values take: one or two.
template <class Chunk>
DEVICE void finish(const MlaFinishArgs &a) {
  SHARED(float, by, MOST_COLUMNS);
  SHARED(float, room, FINISH_THREADS / 32 + 1);
  SHARED(float, rows, FINISH_THREADS / 32 * SLICE);
  SHARED(u32, last, 4);
  let_go();
  const u32 slices = (a.rank + SLICE - 1) / SLICE, head = blockIdx.x / slices, slice = blockIdx.x % slices;
  const u32 tid = threadIdx.x, warp = tid / 32, lane = tid % 32, chunk = lane % 16, half = lane / 16;
  const u32 col = slice * SLICE + chunk * 8;
  const u8 *weights = a.v_b.data + static_cast<u64>(head) * a.v_b.rows * a.v_b.row_bytes;
  Chunk w[8];
#pragma unroll
  for (u32 i = 0; i < 8; i++) {
    const u32 row = i * 16 + warp * 2 + half;
    if (row < a.v && col < a.rank) {
      w[i].load(weights + static_cast<u64>(row) * a.v_b.row_bytes, a.v_b.type, a.rank, col);
    } else {
      w[i].clear();
    }
  }
  u32 all = 0;
  for (u32 b = 0; b < a.batch; b++) all += tiles_of(a.lanes[b], a.shares.rows);
  const u32 used = columns_used(all, a.shares);
  const u32 group_heads = a.v % 32 == 0 ? 1 : 2, group = head / group_heads, groups = (a.heads + group_heads - 1) / group_heads;
  const u32 heads_here = a.heads - group * group_heads < group_heads ? a.heads - group * group_heads : group_heads;
  u32 before = 0, at_lane = 0;
  depend();
  for (u32 b = blockIdx.y; b < a.batch; b += gridDim.y) {
    for (; at_lane < b; at_lane++) before += tiles_of(a.lanes[at_lane], a.shares.rows);
    const u32 tiles = tiles_of(a.lanes[b], a.shares.rows);
    const u32 start = column_of(before, all, used), count = column_of(before + tiles - 1, all, used) + 1 - start;
    // Column i's part for lane b is at i + b.
    const u64 slot = start + b;
    const bool mine = slice * SLICE + lane * 4 < a.rank;
    const f16 *from = a.sums + (slot * a.heads + head) * a.rank + slice * SLICE + lane * 4;
    const u64 step = static_cast<u64>(a.heads) * a.rank;
    uint2 ahead[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 part = warp + i * 8;
      ahead[i] = make_uint2(0, 0);
      if (mine && part < count) ahead[i] = *reinterpret_cast<const uint2 *>(from + part * step);
    }
    const float2 *ends = a.heads_of + slot * a.heads + head;
    float2 end = tid < count ? ends[static_cast<u64>(tid) * a.heads] : make_float2(-1e30f, 0.f);
    float most = warp_max(end.x);
    __syncthreads();  // the lane before is done with the shared memory
    if (lane == 0) room[warp] = most;
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < FINISH_THREADS / 32; i++) most = fmaxf(most, room[i]);
    const float share = fast_exp2(end.x - most) * end.y;
    if (tid < count) by[tid] = share;
    __syncthreads();
    const float sum = block_sum(share, room);
    float4 gathered = make_float4(0.f, 0.f, 0.f, 0.f);
    const auto add = [&](uint2 v, float factor) {
      const float2 left = unpack_f16(v.x), right = unpack_f16(v.y);
      gathered.x = fmaf(left.x, factor, gathered.x);
      gathered.y = fmaf(left.y, factor, gathered.y);
      gathered.z = fmaf(right.x, factor, gathered.z);
      gathered.w = fmaf(right.y, factor, gathered.w);
    };
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 part = warp + i * 8;
      if (part < count) add(ahead[i], by[part]);
    }
    if (mine) {
#pragma unroll 4
      for (u32 part = warp + 32; part < count; part += 8) {
        add(*reinterpret_cast<const uint2 *>(from + part * step), by[part]);
      }
    }
    *reinterpret_cast<float4 *>(rows + warp * SLICE + lane * 4) = gathered;
    __syncthreads();
    float x[8], products[8];
#pragma unroll
    for (u32 i = 0; i < 8; i++) x[i] = 0.f;
#pragma unroll
    for (u32 i = 0; i < FINISH_THREADS / 32; i++) {
#pragma unroll
      for (u32 j = 0; j < 8; j++) x[j] += rows[i * SLICE + chunk * 8 + j];
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) products[i] = w[i].dot(x);
    const float product = sum_eight(products, lane) / sum;
    const u32 row = sum_number(lane) * 16 + warp * 2 + half;
    float *parts = a.parts + static_cast<u64>(b) * a.heads * slices * a.v;
    if (lane % 2 == 0 && row < a.v) parts[(static_cast<u64>(head) * slices + slice) * a.v + row] = product;
    __threadfence();
    __syncthreads();
    if (tid == 0) {
      u32 *done = a.done + b * groups + group;
      last[0] = atomicAdd(done, 1u) + 1 == heads_here * slices;
      if (last[0]) *done = 0;
    }
    __syncthreads();
    if (last[0]) {
      __threadfence();
      const u32 first = group * group_heads * a.v, width = heads_here * a.v;
      if (warp * 32 < width) {
        const bool is = tid < width;
        const u32 column = first + (is ? tid : 0), of = column / a.v;
        const volatile float *part = parts + static_cast<u64>(of) * slices * a.v + column % a.v;
        float value = 0.f;
        for (u32 i = 0; i < slices; i++) value += part[i * a.v];
        if (a.gate) value *= sigmoid(a.gate[static_cast<u64>(b) * a.gate_stride + of]);
        if (is) a.out.x[static_cast<u64>(b) * a.heads * a.v + column] = value;
        if (a.out.q) give_quantized(a.out, b, column, value);
      }
    }
  }
}

// For the large models' rank. Block (i, y): 32 columns of the result, for lanes y, y + gridDim.y ...; nobody waits
// for another block. Each warp gathers rows of its own (a lane's, or a part of one), then all multiply.
template <class Chunk>
DEVICE void finish_large(const MlaFinishArgs &a) {
  constexpr u32 RANK = 512, WARPS = FINISH_THREADS / 32, AHEAD = 8;
  SHARED(float, rows, MOST_LANES * RANK);
  SHARED(float, shares, WARPS * MOST_COLUMNS);
  SHARED(float, results, MOST_LANES * 32);
  SHARED(float, open, MOST_LANES);
  SHARED(u32, spans, MOST_LANES * 2);
  let_go();
  const u32 tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const u32 first = blockIdx.x * 32, head = first / a.v, y = blockIdx.y, step_lane = gridDim.y;
  const u8 *weights = a.v_b.data + (static_cast<u64>(head) * a.v + first % a.v + warp * 4) * a.v_b.row_bytes;
  Chunk w[4][2];
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    w[i][0].load(weights + static_cast<u64>(i) * a.v_b.row_bytes, a.v_b.type, RANK, lane * 8);
    w[i][1].load(weights + static_cast<u64>(i) * a.v_b.row_bytes, a.v_b.type, RANK, 256 + lane * 8);
  }
  const u32 here = (a.batch - y + step_lane - 1) / step_lane;
  if (tid < here) {
    // Column i's part for lane b is at i + b.
    const u32 b = y + tid * step_lane;
    u32 all = 0, before = 0;
    for (u32 i = 0; i < a.batch; i++) {
      if (i == b) before = all;
      all += tiles_of(a.lanes[i], a.shares.rows);
    }
    const u32 used = columns_used(all, a.shares), start = column_of(before, all, used);
    spans[tid * 2] = start + b;
    spans[tid * 2 + 1] = column_of(before + tiles_of(a.lanes[b], a.shares.rows) - 1, all, used) + 1 - start;
  }
  __syncthreads();
  depend();
  float gate = 0.f;
  if (tid < here && a.gate) gate = a.gate[static_cast<u64>(y + tid * step_lane) * a.gate_stride + head];
  const u32 splits = here < WARPS ? WARPS / here : 1;
  for (u32 task = warp; task < here * splits; task += WARPS) {
    const u32 slot = spans[task / splits * 2], count = spans[task / splits * 2 + 1];
    const float2 *ends = a.heads_of + static_cast<u64>(slot) * a.heads + head;
    const f16 *from = a.sums + (static_cast<u64>(slot) * a.heads + head) * RANK + lane * 8;
    const u64 step = static_cast<u64>(a.heads) * RANK;
    float2 end[MOST_COLUMNS / 32];
#pragma unroll
    for (u32 i = 0; i < MOST_COLUMNS / 32; i++) {
      const u32 part = lane + i * 32;
      end[i] = part < count ? ends[static_cast<u64>(part) * a.heads] : make_float2(-1e30f, 0.f);
    }
    uint4 held[AHEAD][2];
    const auto fetch = [&](u32 part) {
#pragma unroll
      for (u32 i = 0; i < AHEAD; i++) {
        const u32 at = part + i * splits;
        held[i][0] = make_uint4(0, 0, 0, 0);
        held[i][1] = make_uint4(0, 0, 0, 0);
        if (at < count) {
          held[i][0] = *reinterpret_cast<const uint4 *>(from + at * step);
          held[i][1] = *reinterpret_cast<const uint4 *>(from + at * step + 256);
        }
      }
    };
    u32 part = task % splits;
    fetch(part);
    float most = -1e30f, sum = 0.f;
#pragma unroll
    for (u32 i = 0; i < MOST_COLUMNS / 32; i++) most = fmaxf(most, end[i].x);
    most = warp_max(most);
#pragma unroll
    for (u32 i = 0; i < MOST_COLUMNS / 32; i++) {
      end[i].y *= fast_exp2(end[i].x - most);
      sum += end[i].y;
    }
    const float by = 1.f / warp_sum(sum);
    float *share = shares + warp * MOST_COLUMNS;
    __syncwarp();
#pragma unroll
    for (u32 i = 0; i < MOST_COLUMNS / 32; i++) share[lane + i * 32] = end[i].y * by;
    __syncwarp();
    float row[16];
#pragma unroll
    for (u32 i = 0; i < 16; i++) row[i] = 0.f;
    while (part < count) {
#pragma unroll
      for (u32 i = 0; i < AHEAD; i++) {
        const u32 at = part + i * splits;
        const float factor = at < count ? share[at] : 0.f;
#pragma unroll
        for (u32 j = 0; j < 2; j++) {
          const u32 pairs[4] = {held[i][j].x, held[i][j].y, held[i][j].z, held[i][j].w};
#pragma unroll
          for (u32 k = 0; k < 4; k++) {
            const float2 v = unpack_f16(pairs[k]);
            row[j * 8 + k * 2] = fmaf(v.x, factor, row[j * 8 + k * 2]);
            row[j * 8 + k * 2 + 1] = fmaf(v.y, factor, row[j * 8 + k * 2 + 1]);
          }
        }
      }
      part += AHEAD * splits;
      if (part < count) fetch(part);
    }
    float *to = rows + task * RANK + lane * 8;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      *reinterpret_cast<float4 *>(to + j / 2 * 256 + j % 2 * 4) = make_float4(row[j * 4], row[j * 4 + 1], row[j * 4 + 2], row[j * 4 + 3]);
    }
  }
  if (tid < here) open[tid] = a.gate ? sigmoid(gate) : 1.f;
  __syncthreads();
  if (splits > 1) {
    for (u32 i = 0; i < here; i++) {
      float *to = rows + i * splits * RANK + tid * 2;
      float2 sum = *reinterpret_cast<float2 *>(to);
      for (u32 part = 1; part < splits; part++) {
        const float2 v = *reinterpret_cast<const float2 *>(to + part * RANK);
        sum.x += v.x;
        sum.y += v.y;
      }
      *reinterpret_cast<float2 *>(to) = sum;
    }
    __syncthreads();
  }
  for (u32 i = 0; i < here; i++) {
    const float *from = rows + i * splits * RANK + lane * 8;
    float x[16], sums[4];
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      const float4 v = *reinterpret_cast<const float4 *>(from + j / 2 * 256 + j % 2 * 4);
      x[j * 4] = v.x;
      x[j * 4 + 1] = v.y;
      x[j * 4 + 2] = v.z;
      x[j * 4 + 3] = v.w;
    }
#pragma unroll
    for (u32 j = 0; j < 4; j++) sums[j] = w[j][0].dot(x) + w[j][1].dot(x + 8);
    // Four sums over 32 threads: bits 4 and 3 of a thread's number say whose it gets.
    float two[2];
#pragma unroll
    for (u32 j = 0; j < 2; j++) {
      const float other = __shfl_xor_sync(ALL_LANES, lane & 16 ? sums[j] : sums[2 + j], 16);
      two[j] = (lane & 16 ? sums[2 + j] : sums[j]) + other;
    }
    const float other = __shfl_xor_sync(ALL_LANES, lane & 8 ? two[0] : two[1], 8);
    float one = (lane & 8 ? two[1] : two[0]) + other;
#pragma unroll
    for (int offset = 4; offset > 0; offset /= 2) one += __shfl_xor_sync(ALL_LANES, one, offset);
    if (lane % 8 == 0) results[i * 32 + warp * 4 + lane / 8] = one;
  }
  __syncthreads();
  for (u32 i = warp; i < here; i += WARPS) {
    const u32 b = y + i * step_lane;
    const float value = results[i * 32 + lane] * open[i];
    a.out.x[static_cast<u64>(b) * a.out.cols + first + lane] = value;
    if (a.out.q) give_quantized(a.out, b, first + lane, value);
  }
}

}  // namespace mla

KERNEL_BOUNDS(mla_finish, MlaFinishArgs, 256, 2) { mla::finish<mla::AnyChunk>(a); }
KERNEL_BOUNDS(mla_finish_f16, MlaFinishArgs, 256, 2) { mla::finish<mla::HalfChunk>(a); }
KERNEL_BOUNDS(mla_finish_bf16, MlaFinishArgs, 256, 2) { mla::finish<mla::BrainChunk>(a); }
KERNEL_BOUNDS(mla_finish_q8_0, MlaFinishArgs, 256, 2) { mla::finish<mla::ByteChunk>(a); }
KERNEL_BOUNDS(mla_finish_k, MlaFinishArgs, 256, 2) { mla::finish_large<mla::AnyChunk>(a); }
KERNEL_BOUNDS(mla_finish_k_f16, MlaFinishArgs, 256, 2) { mla::finish_large<mla::HalfChunk>(a); }
KERNEL_BOUNDS(mla_finish_k_bf16, MlaFinishArgs, 256, 2) { mla::finish_large<mla::BrainChunk>(a); }
KERNEL_BOUNDS(mla_finish_k_q8_0, MlaFinishArgs, 256, 2) { mla::finish_large<mla::ByteChunk>(a); }
