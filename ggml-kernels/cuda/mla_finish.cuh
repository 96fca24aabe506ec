// A small pass's last step: what the columns of mla_attend gathered for a head is put together, multiplied with
// W_vb, let through the head's gate, and quantized for the layer's output product.
#pragma once
#include "mla_attend.cuh"

struct MlaFinishArgs {
  const float *sums;      // of mla_attend
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

constexpr u32 FINISH_THREADS = 256, SLICE = 128, MOST_COLUMNS = 512;

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
    const float *from = a.sums + (slot * a.heads + head) * a.rank + slice * SLICE + lane * 4;
    const u64 step = static_cast<u64>(a.heads) * a.rank;
    float4 ahead[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 part = warp + i * 8;
      ahead[i] = make_float4(0.f, 0.f, 0.f, 0.f);
      if (mine && part < count) ahead[i] = *reinterpret_cast<const float4 *>(from + part * step);
    }
    const float2 *ends = a.heads_of + slot * a.heads + head;
    float2 end[2];
    float most = -1e30f;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      const u32 part = tid + i * FINISH_THREADS;
      end[i] = part < count ? ends[static_cast<u64>(part) * a.heads] : make_float2(-1e30f, 0.f);
      most = fmaxf(most, end[i].x);
    }
    most = warp_max(most);
    __syncthreads();  // the lane before is done with the shared memory
    if (lane == 0) room[warp] = most;
    __syncthreads();
#pragma unroll
    for (u32 i = 0; i < FINISH_THREADS / 32; i++) most = fmaxf(most, room[i]);
    float sum = 0.f;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      const u32 part = tid + i * FINISH_THREADS;
      const float factor = fast_exp2(end[i].x - most);
      if (part < count) {
        by[part] = factor;
        sum = fmaf(factor, end[i].y, sum);
      }
    }
    __syncthreads();
    sum = block_sum(sum, room);
    float4 gathered = make_float4(0.f, 0.f, 0.f, 0.f);
    const auto add = [&](const float4 &v, float factor) {
      gathered.x = fmaf(v.x, factor, gathered.x);
      gathered.y = fmaf(v.y, factor, gathered.y);
      gathered.z = fmaf(v.z, factor, gathered.z);
      gathered.w = fmaf(v.w, factor, gathered.w);
    };
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 part = warp + i * 8;
      if (part < count) add(ahead[i], by[part]);
    }
    if (mine) {
#pragma unroll 4
      for (u32 part = warp + 32; part < count; part += 8) {
        add(*reinterpret_cast<const float4 *>(from + part * step), by[part]);
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

}  // namespace mla

KERNEL_BOUNDS(mla_finish, MlaFinishArgs, 256, 2) { mla::finish<mla::AnyChunk>(a); }
KERNEL_BOUNDS(mla_finish_f16, MlaFinishArgs, 256, 2) { mla::finish<mla::HalfChunk>(a); }
KERNEL_BOUNDS(mla_finish_bf16, MlaFinishArgs, 256, 2) { mla::finish<mla::BrainChunk>(a); }
KERNEL_BOUNDS(mla_finish_q8_0, MlaFinishArgs, 256, 2) { mla::finish<mla::ByteChunk>(a); }
