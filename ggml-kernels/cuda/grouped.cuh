// Rows by expert: who goes where, in one order whatever the card does first; and what comes back summed by rank.
#pragma once
#include "model.cuh"

namespace wide {

constexpr u32 GROUP_ROWS = 128;

// Positions first .. first + count of one expert. count 0: no tile.
struct Tile {
  u32 expert, first, count, pad;
};

struct GroupArgs {
  const u32 *ids;  // [pairs]: of pair token * used + rank
  u32 *order;      // [pairs]: the pair at each position, experts one after another, an expert's in ascending order
  u32 *offsets;    // [experts + 1]: where each expert's positions start
  Tile *tiles;     // [tiles]
  u32 *done;       // zero before and after
  u32 pairs, experts, tiles_at_most;
};

constexpr u32 GROUP_THREADS = 1024, GROUP_WARPS = GROUP_THREADS / 32;

// The last block to end cuts every expert's positions into tiles.
DEVICE void cut(const GroupArgs &a) {
  SHARED(u32, sums, GROUP_WARPS);
  const u32 thread = threadIdx.x, lane = thread % 32;
  const volatile u32 *offsets = a.offsets;
  u32 first = 0, count = 0;
  if (thread < a.experts) first = offsets[thread], count = offsets[thread + 1] - first;
  const u32 tiles = (count + GROUP_ROWS - 1) / GROUP_ROWS;
  u32 before = tiles;
#pragma unroll
  for (int by = 1; by < 32; by <<= 1) {
    const u32 left = __shfl_sync(ALL_LANES, before, lane >= by ? lane - by : lane);
    if (lane >= by) before += left;
  }
  if (lane == 31) sums[thread / 32] = before;
  __syncthreads();
  u32 all = 0;
  for (u32 warp = 0; warp < GROUP_WARPS; ++warp) {
    if (warp == thread / 32) before += all;
    all += sums[warp];
  }
  for (u32 i = 0; i < tiles; ++i) {
    const u32 start = i * GROUP_ROWS;
    a.tiles[before - tiles + i] = {thread, first + start, min(count - start, GROUP_ROWS), 0};
  }
  for (u32 i = all + thread; i < a.tiles_at_most; i += GROUP_THREADS) a.tiles[i] = {0, 0, 0, 0};
  if (thread == 0) *a.done = 0;
}

// A block for each expert. A warp looks at one stretch of the pairs, so that order is kept.
DEVICE void group(const GroupArgs &a) {
  SHARED(u32, mine, GROUP_WARPS);
  SHARED(u32, lower, GROUP_WARPS);
  SHARED(u32, is_last, 1);
  depend();
  const u32 expert = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const u32 stretch = (a.pairs + GROUP_THREADS - 1) / GROUP_THREADS * 32;
  const u32 start = warp * stretch, end = min(start + stretch, a.pairs);
  int equal = 0, less = 0;
#pragma unroll 4
  for (u32 i = start + lane; i < end; i += 32) {
    const u32 id = a.ids[i];
    equal += id == expert;
    less += id < expert;
  }
  equal = warp_sum(equal);
  less = warp_sum(less);
  if (lane == 0) mine[warp] = equal, lower[warp] = less;
  __syncthreads();
  u32 at = 0, all = 0;
  for (u32 i = 0; i < GROUP_WARPS; ++i) {
    at += lower[i] + (i < warp ? mine[i] : 0);
    all += lower[i] + mine[i];
  }
  if (warp == 0 && lane == 0) {
    a.offsets[expert] = at;
    if (expert + 1 == a.experts) a.offsets[a.experts] = all;
  }
  for (u32 i = start; i < end; i += 32) {
    const bool is_mine = i + lane < end && a.ids[i + lane] == expert;
    const u32 those = __ballot_sync(ALL_LANES, is_mine);
    if (is_mine) a.order[at + __popc(those & ((1u << lane) - 1))] = i + lane;
    at += __popc(those);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last[0] = atomicAdd(a.done, 1u) + 1 == gridDim.x;
  __syncthreads();
  if (is_last[0]) {
    __threadfence();
    cut(a);
  }
}

struct CombineArgs {
  float *x;              // [tokens, hidden]: added to
  const float *rows;     // [tokens * used, hidden]: by pair
  const float *weights;  // [tokens, used]
  const float *shared;   // [tokens, hidden], or null
  u32 tokens, used, hidden;
};

// Four columns of a token to a thread.
DEVICE void combine(const CombineArgs &a) {
  depend();
  let_go();
  const u32 quads = a.hidden / 4, quad = blockIdx.x * blockDim.x + threadIdx.x, token = blockIdx.y;
  if (quad >= quads) return;
  const float4 *rows = reinterpret_cast<const float4 *>(a.rows) + u64(token) * a.used * quads + quad;
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 8
  for (u32 rank = 0; rank < a.used; ++rank) {
    const float4 row = rows[u64(rank) * quads];
    const float by = a.weights[u64(token) * a.used + rank];
    sum.x += by * row.x, sum.y += by * row.y, sum.z += by * row.z, sum.w += by * row.w;
  }
  const u64 at = u64(token) * quads + quad;
  if (a.shared) {
    const float4 row = reinterpret_cast<const float4 *>(a.shared)[at];
    sum.x += row.x, sum.y += row.y, sum.z += row.z, sum.w += row.w;
  }
  float4 &x = reinterpret_cast<float4 *>(a.x)[at];
  x = make_float4(x.x + sum.x, x.y + sum.y, x.z + sum.z, x.w + sum.w);
}

}  // namespace wide
