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

DEVICE float silu(float x) { return x * sigmoid(x); }

// e^g of the biased projection.
DEVICE float decay_of(const KdaWeights &w, float a, float x) {
  const float g = w.law == 0 ? a * (fmaxf(x, 0.f) + log1pf(expf(-fabsf(x)))) : w.lower * sigmoid(a * x);
  return expf(g);
}

// A layer in a slot: three tails [taps - 1, inner], then S [heads, d, d].
DEVICE u64 tail_len(const KdaWeights &w, u32 d) { return u64(w.taps - 1) * w.heads * d; }

}  // namespace mixers
