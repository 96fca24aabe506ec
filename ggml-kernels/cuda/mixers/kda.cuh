// What both forms of KDA share: a layer's weights, its gate laws, its place in a slot.
#pragma once
#include "../model.cuh"
#include "norm.cuh"
#include "route.cuh"
#include "sums.cuh"

// Raw projections of a pass's rows: q, k, v `row` floats apart from one token to the next, the decay's (whole, or a
// low-rank one's first product) and beta's apart on their own.
struct KdaRows {
  const float *q, *k, *v, *decay, *beta;
  u32 row, decay_row, beta_row, pad;
};

struct KdaWeights {
  const float *conv_q, *conv_k, *conv_v;  // [inner, taps], the newest token's tap last
  const float *a;                         // [heads]
  const float *dt_bias;                   // [inner]
  u64 layer;                              // floats from a slot's start to this layer's
  u32 heads, taps;
  u32 law;  // 0: g = a softplus(x + dt_bias); 1: g = lower sigmoid(a (x + dt_bias))
  float lower;
};

namespace mixers {

constexpr float L2_EPS = 1e-6f;
constexpr int MOST_TAPS = 4;

constexpr float LOG2_E = 1.442695041f;

// Of x far below 0: x over infinity.
DEVICE float silu(float x) { return __fdividef(x, 1.f + fast_exp2(-LOG2_E * x)); }

// log(1 + e), 0 <= e <= 1, to 3 ulp: 2 atanh(e / (2 + e)), whose next term is below 1e-8.
DEVICE float log_1_plus(float e) {
  const float x = __fdividef(e, 2.f + e), y = x * x;
  float sum = fmaf(y, 2.f / 13.f, 2.f / 11.f);
  sum = fmaf(y, sum, 2.f / 9.f);
  sum = fmaf(y, sum, 2.f / 7.f);
  sum = fmaf(y, sum, 2.f / 5.f);
  sum = fmaf(y, sum, 2.f / 3.f);
  return x * fmaf(y, sum, 2.f);
}

// e^g of the biased projection.
DEVICE float decay_of(const KdaWeights &w, float a, float x) {
  const float softplus = fmaxf(x, 0.f) + log_1_plus(fast_exp2(-LOG2_E * fabsf(x)));
  return fast_exp2(LOG2_E * (w.law == 0 ? a * softplus : w.lower * sigmoid(a * x)));
}

// A layer in a slot: three tails [taps - 1, inner], then S [heads, d, d].
DEVICE u64 tail_len(const KdaWeights &w, u32 d) { return u64(w.taps - 1) * w.heads * d; }

}  // namespace mixers
