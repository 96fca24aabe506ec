// Several sums over a warp at once, which costs little more than one.
#pragma once
#include "../device.cuh"

namespace mixers {

// Two lanes OFFSET apart swap halves of 2 LEFT sums: each goes on with LEFT of them.
template <int LEFT, int OFFSET>
DEVICE void halve(float *v) {
  const bool upper = (threadIdx.x & OFFSET) != 0;
#pragma unroll
  for (int i = 0; i < LEFT; i++) {
    const float keep = upper ? v[i + LEFT] : v[i], give = upper ? v[i] : v[i + LEFT];
    v[i] = keep + __shfl_xor_sync(ALL_LANES, give, OFFSET);
  }
}

// Of 2 LEFT sums over as many neighbouring lanes each lane gets the one of its number.
template <int LEFT>
DEVICE void share_sums(float *v) {
  halve<LEFT, LEFT>(v);
  if constexpr (LEFT > 1) share_sums<LEFT / 2>(v);
}

// Of COUNT sums over the warp lane l gets number l / (32 / COUNT). Each is added up in the same order whatever COUNT is.
template <int COUNT, int OFFSET = 16>
DEVICE float spread_sums(float *v) {
  if constexpr (COUNT > 1) {
    halve<COUNT / 2, OFFSET>(v);
    return spread_sums<COUNT / 2, OFFSET / 2>(v);
  } else {
    float sum = v[0];
#pragma unroll
    for (int offset = OFFSET; offset > 0; offset /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, offset);
    return sum;
  }
}

}  // namespace mixers
