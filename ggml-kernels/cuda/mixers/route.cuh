// The router: logits, sigmoid, the choice of the best biased scores (of the best groups, where experts are grouped),
// and the chosen ones' weights, normalised and scaled. Equal scores go to the lower id. NaN comes last: whatever the
// logits are, the ids are different experts.
#pragma once
#include "../model.cuh"
#include "sums.cuh"

struct RouteArgs {
  Matrix router;          // F32, F16 or BF16 [experts, hidden]; route_small only
  const float *x;         // [rows, hidden]; route_small only
  const float *bias;      // [experts]
  float *logits;          // [rows, experts]: working memory of route_small, given to route_wide
  u32 *arrived;           // a zero that route_small leaves a zero
  u32 *ids;               // [rows, used]
  float *weights;         // [rows, used]
  u32 rows, experts, used, groups, groups_used;
  float scale;
};

namespace mixers {

// The peers' guard against a sum of zero: the least F16 that is normal.
constexpr float LEAST_SUM = 6.103515625e-5f;
constexpr u32 TAKEN = 0;

// Divisions here and below are the card's own, within 2 units of the last place and without branches.
DEVICE float sigmoid(float x) { return __fdividef(1.f, 1.f + expf(-x)); }

// Rises with the score; NaN below every number, above what was taken.
DEVICE u32 key_of(float score) {
  const u32 bits = __float_as_uint(score);
  if (score != score) return 1;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float score_of(u32 key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// The best of 2 HALF comes first; of equals the one of the lower number.
template <int HALF>
DEVICE void best_by_halves(u32 *key, u32 *at, float *p) {
#pragma unroll
  for (int i = 0; i < HALF; i++) {
    const bool later = key[i + HALF] > key[i] || (key[i + HALF] == key[i] && at[i + HALF] < at[i]);
    key[i] = later ? key[i + HALF] : key[i];
    at[i] = later ? at[i + HALF] : at[i];
    p[i] = later ? p[i + HALF] : p[i];
  }
  if constexpr (HALF > 1) best_by_halves<HALF / 2>(key, at, p);
}

// One row by one warp, PER scores a lane: expert lane + 32 i is score i.
template <int PER>
DEVICE void choose_of(const RouteArgs &a, u32 row) {
  const u32 lane = threadIdx.x & 31u;
  const float *logits = a.logits + u64(row) * a.experts;
  float p[PER];
  u32 key[PER];
#pragma unroll
  for (int i = 0; i < PER; i++) {
    const u32 e = lane + 32 * i;
    p[i] = 0.f;
    key[i] = TAKEN;
    if (e < a.experts) {
      // Written by other blocks of this very kernel: past the first-level cache.
      p[i] = sigmoid(__ldcg(logits + e));
      key[i] = key_of(p[i] + a.bias[e]);
    }
  }
  if (a.groups_used < a.groups) {
    // A group scores the sum of its two best (DeepSeek-V3's rule). Lane g keeps group g's.
    const u32 size = a.experts / a.groups;
    u32 mine = TAKEN;
    for (u32 g = 0; g < a.groups; g++) {
      u32 first = TAKEN, second = TAKEN;
#pragma unroll
      for (int i = 0; i < PER; i++) {
        const u32 e = lane + 32 * i;
        const u32 k = e >= g * size && e < (g + 1) * size ? key[i] : TAKEN;
        second = max(second, min(first, k));
        first = max(first, k);
      }
      const u32 best = __reduce_max_sync(ALL_LANES, first);
      const u32 who = u32(__ffs(int(__ballot_sync(ALL_LANES, first == best)))) - 1;
      const u32 next = __reduce_max_sync(ALL_LANES, lane == who ? second : first);
      const float score = size > 1 ? score_of(best) + score_of(next) : score_of(best);
      if (lane == g) mine = key_of(score);
    }
    u32 kept = 0;
    for (u32 n = 0; n < a.groups_used; n++) {
      const u32 best = __reduce_max_sync(ALL_LANES, mine);
      const u32 who = u32(__ffs(int(__ballot_sync(ALL_LANES, mine == best)))) - 1;
      kept |= 1u << who;
      if (lane == who) mine = TAKEN;
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
      const u32 e = lane + 32 * i;
      if (e < a.experts && !(kept >> (e / size) & 1u)) key[i] = TAKEN;
    }
  }
  u32 my_id = 0;
  float my_p = 0.f, sum = 0.f;
  for (u32 n = 0; n < a.used; n++) {
    u32 bests[PER], at[PER];
    float ps[PER];
#pragma unroll
    for (int i = 0; i < PER; i++) {
      bests[i] = key[i];
      at[i] = i;
      ps[i] = p[i];
    }
    best_by_halves<PER / 2>(bests, at, ps);
    const u32 best = bests[0], id = lane + 32 * at[0];
    const float best_p = ps[0];
    const u32 most = __reduce_max_sync(ALL_LANES, best);
    const u32 winner = __reduce_min_sync(ALL_LANES, best == most ? id : ~0u);
    const float of_winner = __shfl_sync(ALL_LANES, best_p, int(winner & 31u));
#pragma unroll
    for (int i = 0; i < PER; i++)
      if (winner == lane + 32 * i) key[i] = TAKEN;
    if (lane == n) {
      my_id = winner;
      my_p = of_winner;
    }
    sum += of_winner;
  }
  if (lane < a.used) {
    a.ids[u64(row) * a.used + lane] = my_id;
    a.weights[u64(row) * a.used + lane] = __fdividef(my_p, fmaxf(sum, LEAST_SUM)) * a.scale;
  }
}

DEVICE void choose(const RouteArgs &a, u32 row) {
  if (a.experts <= 128)
    choose_of<4>(a, row);
  else if (a.experts <= 256)
    choose_of<8>(a, row);
  else
    choose_of<16>(a, row);
}

DEVICE float4 router_four(const Matrix &m, u32 row, u32 four) {
  const u8 *p = m.data + u64(row) * m.row_bytes;
  if (m.type == F32) {
    const uint4 v = load_once(reinterpret_cast<const uint4 *>(p) + four);
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w));
  }
  const uint2 v = load_once(reinterpret_cast<const uint2 *>(p) + four);
  const float2 low = m.type == F16 ? unpack_f16(v.x) : unpack_bf16(v.x);
  const float2 high = m.type == F16 ? unpack_f16(v.y) : unpack_bf16(v.y);
  return make_float4(low.x, low.y, high.x, high.y);
}

DEVICE float add_dot(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

constexpr int ROUTE_WARPS = 24;  // at most
constexpr int HELD = 2;          // fours of an expert's row that a thread holds before the rows are there

// ROWS rows from `row` on, the last one again where there are no more: each warp's parts of the logits.
template <int EXPERTS, int ROWS>
DEVICE void add_rows(const RouteArgs &a, u32 row, u32 first, const float4 w[EXPERTS][HELD], float *parts) {
  const u32 t = threadIdx.x, fours = a.router.cols / 4;
  const float *x[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) x[r] = a.x + u64(min(row + r, a.rows - 1)) * a.router.cols;
  float sum[ROWS * EXPERTS] = {};
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    const u32 at = t + i * blockDim.x;
    if (at >= fours) continue;
    float4 v[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) v[r] = *reinterpret_cast<const float4 *>(x[r] + 4 * at);
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
      for (int e = 0; e < EXPERTS; e++) sum[r * EXPERTS + e] = add_dot(w[e][i], v[r], sum[r * EXPERTS + e]);
    }
  }
  for (u32 at = t + HELD * blockDim.x; at < fours; at += blockDim.x) {
#pragma unroll
    for (int e = 0; e < EXPERTS; e++) {
      const float4 more = router_four(a.router, min(first + e, a.experts - 1), at);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float4 v = *reinterpret_cast<const float4 *>(x[r] + 4 * at);
        sum[r * EXPERTS + e] = add_dot(more, v, sum[r * EXPERTS + e]);
      }
    }
  }
  constexpr u32 SHARE = 32 / (ROWS * EXPERTS);
  const float all = spread_sums<ROWS * EXPERTS>(sum);
  const u32 lane = t & 31u, mine = row * EXPERTS + lane / SHARE;
  if (lane % SHARE == 0 && mine < a.rows * EXPERTS) parts[mine * ROUTE_WARPS + t / 32] = all;
}

// Up to 16 rows. Every block has EXPERTS experts' logits; the last block to arrive chooses for all.
template <int EXPERTS>
DEVICE void route_small(const RouteArgs &a) {
  static_assert(EXPERTS <= 4, "rows and experts at once share a warp's lanes");
  let_go();
  const u32 t = threadIdx.x, fours = a.router.cols / 4, first = blockIdx.x * EXPERTS;
  const u32 warps = blockDim.x / 32;
  float4 w[EXPERTS][HELD];
#pragma unroll
  for (int e = 0; e < EXPERTS; e++) {
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      const u32 at = t + i * blockDim.x;
      w[e][i] = at < fours && first + e < a.experts ? router_four(a.router, first + e, at)
                                                    : make_float4(0.f, 0.f, 0.f, 0.f);
    }
  }
  depend();
  SHARED(float, parts, 16 * EXPERTS * ROUTE_WARPS);
  if (a.rows == 1) {
    add_rows<EXPERTS, 1>(a, 0, first, w, parts);
  } else {
    for (u32 row = 0; row < a.rows; row += 4) add_rows<EXPERTS, 4>(a, row, first, w, parts);
  }
  __syncthreads();
  const u32 e = first + t % EXPERTS;
  if (t < a.rows * EXPERTS && e < a.experts) {
    float sum = 0.f;
#pragma unroll
    for (u32 i = 0; i < ROUTE_WARPS; i++) sum += i < warps ? parts[t * ROUTE_WARPS + i] : 0.f;
    a.logits[u64(t / EXPERTS) * a.experts + e] = sum;
    __threadfence();
  }
  __syncthreads();
  SHARED(u32, is_last, 1);
  if (t == 0) is_last[0] = atomicAdd(a.arrived, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!is_last[0]) return;
  __threadfence();
  for (u32 row = t / 32; row < a.rows; row += warps) choose(a, row);
  if (t == 0) *a.arrived = 0;
}

}  // namespace mixers

KERNEL_BOUNDS(route_small, RouteArgs, 32 * mixers::ROUTE_WARPS, 1) { mixers::route_small<2>(a); }

// Any number of rows, a warp each.
KERNEL_BOUNDS(route_wide, RouteArgs, 256, 1) {
  using namespace mixers;
  depend();
  const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row < a.rows) choose(a, row);
}
