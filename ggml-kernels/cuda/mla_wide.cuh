// A wide pass beside its attention: rows of the cache and queries, rows gathered for the products that expand
// them into keys and values, and the weights of those products.
#pragma once
#include "mla_common.cuh"

struct MlaRowsArgs {
  const float *kv;        // [rows, rank + rope], rows kv_stride apart
  const float *q;         // [rows, heads * (nope + rope)], rows q_stride apart; nowhere: rows of the cache alone
  const float *norm;      // [rank]
  const u64 *speeds;      // [rope / 2]; nowhere: no rotation
  const WideLane *lanes;  // [lane_count]
  f16 *queries;           // [rows, heads * (nope + rope)], multiplied with `scale`
  u32 lane_count, rows, heads, nope, rope, rank, layer, q_stride, kv_stride;
  float eps, scale;
  u32 pad;
};

struct MlaGatherArgs {
  const WideLane *lanes;
  const u32 *starts;  // [lanes]: where in `out` a lane's rows begin
  f16 *out;           // [rows, rank]
  f16 *rotated;       // [rows, rope]
  u32 rank, rope, layer, pad;
};

// k_b [heads][rank, nope] or v_b [heads][v, rank] to f16 rows of `rank` columns.
struct MlaExpandersArgs {
  Matrix from;
  f16 *to;
  u32 matrices, turn;  // turn: its columns are the new rows
};

// What splits of the keys gathered for a row and a head, and its result.
struct MlaMergeArgs {
  const float *sums;      // [splits, rows, heads, v]
  const float2 *heads_of; // [splits, rows, heads]
  const float *gate;      // [rows, heads], rows gate_stride apart; nowhere: no gate
  f16 *out;               // [rows, heads * v]
  float *out32;           // the same; nowhere: not asked
  u32 rows, heads, v, splits, gate_stride, pad;
};

namespace mla {

constexpr u32 WIDE_THREADS = 256;

DEVICE void rows(const MlaRowsArgs &a) {
  SHARED(float, room, WIDE_THREADS / 32);
  SHARED(float2, turns, 32);
  let_go();
  const u32 row = blockIdx.x, tid = threadIdx.x;
  u32 at = 0;
  while (at < a.lane_count && row - a.lanes[at].row >= a.lanes[at].rows) at++;
  if (at == a.lane_count) return;
  const WideLane lane = a.lanes[at];
  const u32 position = lane.position + row - lane.row;
  if (tid < a.rope / 2) turns[tid] = a.speeds ? turn(a.speeds[tid], position) : make_float2(1.f, 0.f);
  depend();
  const float *kv = a.kv + static_cast<u64>(row) * a.kv_stride;
  float c[2], squares = 0.f;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const u32 col = tid + i * WIDE_THREADS;
    c[i] = col < a.rank ? kv[col] : 0.f;
    squares = fmaf(c[i], c[i], squares);
  }
  const float by_norm = 1.f / sqrtf(block_sum(squares, room) / static_cast<float>(a.rank) + a.eps);
  f16 *to = row_of(lane.table, a.layer, a.rank + a.rope, position);
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const u32 col = tid + i * WIDE_THREADS;
    if (col < a.rank) to[col] = to_f16(c[i] * by_norm * a.norm[col]);
  }
  if (tid < a.rope / 2) {
    const float even = kv[a.rank + 2 * tid], odd = kv[a.rank + 2 * tid + 1];
    const float2 by = turns[tid];
    *reinterpret_cast<u32 *>(to + a.rank + 2 * tid) = pack_f16(even * by.x - odd * by.y, even * by.y + odd * by.x);
  }
  if (!a.q) return;
  const u32 width = a.nope + a.rope, quads = a.heads * width / 4;
  const float *q = a.q + static_cast<u64>(row) * a.q_stride;
  u32 *queries = reinterpret_cast<u32 *>(a.queries + static_cast<u64>(row) * a.heads * width);
#pragma unroll 4
  for (u32 i = tid; i < quads; i += WIDE_THREADS) {
    const u32 col = i * 4 % width;
    float4 v = *reinterpret_cast<const float4 *>(q + i * 4);
    if (col >= a.nope) {
      const float2 one = turns[(col - a.nope) / 2], two = turns[(col - a.nope) / 2 + 1];
      v = make_float4(v.x * one.x - v.y * one.y, v.x * one.y + v.y * one.x, v.z * two.x - v.w * two.y,
                      v.z * two.y + v.w * two.x);
    }
    *reinterpret_cast<uint2 *>(queries + i * 2) =
        make_uint2(pack_f16(v.x * a.scale, v.y * a.scale), pack_f16(v.z * a.scale, v.w * a.scale));
  }
}

// Block (i, lane): rows 16 i to 16 i + 15 of a lane, which end with those of this pass.
DEVICE void gather_rows(const MlaGatherArgs &a) {
  let_go();
  const WideLane lane = a.lanes[blockIdx.y];
  const u32 all = lane.position + lane.rows, first = blockIdx.x * 16, chunks = (a.rank + a.rope) / 8;
  if (first >= all) return;
  const u32 count = all - first < 16 ? all - first : 16;
  depend();
  const u32 latent = a.rank + a.rope;
  const f16 *from = row_of(lane.table, a.layer, latent, first);
  const u64 to = static_cast<u64>(a.starts[blockIdx.y]) + first;
#pragma unroll 4
  for (u32 i = threadIdx.x; i < count * chunks; i += WIDE_THREADS) {
    const u32 row = i / chunks, at = i % chunks * 8;
    f16 *there = at < a.rank ? a.out + (to + row) * a.rank + at : a.rotated + (to + row) * a.rope + at - a.rank;
    *reinterpret_cast<uint4 *>(there) = *reinterpret_cast<const uint4 *>(from + row * latent + at);
  }
}

DEVICE void expanders(const MlaExpandersArgs &a) {
  depend();
  const u32 rank = a.turn ? a.from.rows : a.from.cols, height = a.turn ? a.from.cols : a.from.rows;
  const u32 new_row = blockIdx.x, matrix = new_row / height, at = new_row % height;
  const u8 *from = a.from.data + static_cast<u64>(matrix) * a.from.rows * a.from.row_bytes;
  for (u32 r = threadIdx.x; r < rank; r += WIDE_THREADS) {
    const u32 row = a.turn ? r : at, col = a.turn ? at : r;
    const float w = weight_at(from + static_cast<u64>(row) * a.from.row_bytes, a.from.type, a.from.cols, col);
    a.to[static_cast<u64>(new_row) * rank + r] = to_f16(w);
  }
}

// Block (row, heads): a thread two columns.
DEVICE void merge(const MlaMergeArgs &a) {
  let_go();
  depend();
  const u32 pairs = a.v / 2, row = blockIdx.x;
  for (u32 i = threadIdx.x; i < a.heads * pairs; i += WIDE_THREADS) {
    const u32 head = i / pairs, col = i % pairs * 2;
    const u64 at = static_cast<u64>(row) * a.heads + head, step = static_cast<u64>(a.rows) * a.heads;
    float most = -1e30f;
    for (u32 s = 0; s < a.splits; s++) most = fmaxf(most, a.heads_of[s * step + at].x);
    float x = 0.f, y = 0.f, sum = 0.f;
    for (u32 s = 0; s < a.splits; s++) {
      const float2 end = a.heads_of[s * step + at];
      const float by = fast_exp2(end.x - most);
      const float2 v = *reinterpret_cast<const float2 *>(a.sums + (s * step + at) * a.v + col);
      sum = fmaf(by, end.y, sum);
      x = fmaf(by, v.x, x);
      y = fmaf(by, v.y, y);
    }
    float open = 1.f / sum;
    if (a.gate) open *= sigmoid(a.gate[static_cast<u64>(row) * a.gate_stride + head]);
    *reinterpret_cast<u32 *>(a.out + at * a.v + col) = pack_f16(x * open, y * open);
    if (a.out32) *reinterpret_cast<float2 *>(a.out32 + at * a.v + col) = make_float2(x * open, y * open);
  }
}

}  // namespace mla

KERNEL_BOUNDS(mla_rows, MlaRowsArgs, 256, 4) { mla::rows(a); }
KERNEL_BOUNDS(mla_gather, MlaGatherArgs, 256, 4) { mla::gather_rows(a); }
KERNEL_BOUNDS(mla_expanders, MlaExpandersArgs, 256, 4) { mla::expanders(a); }
KERNEL_BOUNDS(mla_merge, MlaMergeArgs, 256, 4) { mla::merge(a); }
