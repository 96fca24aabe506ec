// The router: logits, sigmoid, the choice of the best biased scores (of the best groups, where experts are grouped),
// and the chosen ones' weights, normalised and scaled. Equal scores go to the lower id. NaN comes last: whatever the
// logits are, the ids are different experts.
#pragma once
#include "../model.cuh"

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

DEVICE float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// Rises with the score; NaN below every number, above what was taken.
DEVICE u32 key_of(float score) {
  const u32 bits = __float_as_uint(score);
  if (score != score) return 1;
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float score_of(u32 key) { return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

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
    u32 best = TAKEN, id = lane;
    float best_p = 0.f;
#pragma unroll
    for (int i = 0; i < PER; i++) {
      if (key[i] > best) {
        best = key[i];
        best_p = p[i];
        id = lane + 32 * i;
      }
    }
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
    a.weights[u64(row) * a.used + lane] = my_p / fmaxf(sum, LEAST_SUM) * a.scale;
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

DEVICE float dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

constexpr int EXPERTS_A_BLOCK = 2;  // share what is read of x
constexpr int HELD = 4;             // fours of an expert's row that a thread holds before the rows are there

}  // namespace mixers

// Up to 16 rows. Every block has two experts' logits; the last block to arrive chooses for all.
KERNEL_BOUNDS(route_small, RouteArgs, 512, 1) {
  using namespace mixers;
  let_go();
  const u32 t = threadIdx.x, fours = a.router.cols / 4, first = blockIdx.x * EXPERTS_A_BLOCK;
  const float4 zero = make_float4(0.f, 0.f, 0.f, 0.f);
  float4 w[EXPERTS_A_BLOCK][HELD];
#pragma unroll
  for (int e = 0; e < EXPERTS_A_BLOCK; e++) {
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      const u32 at = t + i * blockDim.x;
      w[e][i] = at < fours && first + e < a.experts ? router_four(a.router, first + e, at) : zero;
    }
  }
  depend();
  SHARED(float, parts, 16 * EXPERTS_A_BLOCK * 16);
  const u32 warps = blockDim.x / 32, warp = t / 32, lane = t & 31u;
  for (u32 row = 0; row < a.rows; row++) {
    const float *x = a.x + u64(row) * a.router.cols;
    float sum[EXPERTS_A_BLOCK] = {0.f, 0.f};
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      const u32 at = t + i * blockDim.x;
      if (at < fours) {
        const float4 v = *reinterpret_cast<const float4 *>(x + 4 * at);
#pragma unroll
        for (int e = 0; e < EXPERTS_A_BLOCK; e++) sum[e] += dot(w[e][i], v);
      }
    }
    for (u32 at = t + HELD * blockDim.x; at < fours; at += blockDim.x) {
      const float4 v = *reinterpret_cast<const float4 *>(x + 4 * at);
#pragma unroll
      for (int e = 0; e < EXPERTS_A_BLOCK; e++)
        if (first + e < a.experts) sum[e] += dot(router_four(a.router, first + e, at), v);
    }
#pragma unroll
    for (int e = 0; e < EXPERTS_A_BLOCK; e++) {
      const float all = warp_sum(sum[e]);
      if (lane == 0) parts[(row * EXPERTS_A_BLOCK + e) * 16 + warp] = all;
    }
  }
  __syncthreads();
  if (t < a.rows * EXPERTS_A_BLOCK && first + t % EXPERTS_A_BLOCK < a.experts) {
    float sum = 0.f;
    for (u32 i = 0; i < warps; i++) sum += parts[t * 16 + i];
    a.logits[u64(t / EXPERTS_A_BLOCK) * a.experts + first + t % EXPERTS_A_BLOCK] = sum;
  }
  if (t < 32) __threadfence();
  __syncthreads();
  SHARED(u32, is_last, 1);
  if (t == 0) is_last[0] = atomicAdd(a.arrived, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!is_last[0]) return;
  __threadfence();
  for (u32 row = warp; row < a.rows; row += warps) choose(a, row);
  if (t == 0) *a.arrived = 0;
}

// Any number of rows, a warp each.
KERNEL_BOUNDS(route_wide, RouteArgs, 256, 1) {
  using namespace mixers;
  let_go();
  depend();
  const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (row < a.rows) choose(a, row);
}
