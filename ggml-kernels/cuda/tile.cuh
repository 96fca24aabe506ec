// A tile of A Wt on tensor cores: M x 16 rows of A (f16) and 32 rows of W a warp, f32 sums. A passes through shared
// memory, three steps of 64 columns at a time; each warp unpacks its own rows of W into fragments, a piece ahead of the
// mma. Every sum takes the columns in one order, whatever M, the other rows and the number of blocks are: a row's bits
// depend on that row alone.
#pragma once
#include "unpack.cuh"

namespace wide {

constexpr int STAGES = 3;
constexpr int FRAGMENTS = 4;
constexpr int WARP_ROWS = FRAGMENTS * 8;

// What a tile takes of shared memory, whatever the type.
template <int M, int WARPS>
struct TileBytes {
  static constexpr int value = STAGES * M * 16 * STEP * 2 + WARPS * WARP_BYTES;
};

// c[i][n]: 16 rows i of A against 8 rows n of the warp's. `offsets`, in shared memory: where each row of A lies behind a,
// in 16 bytes. `late`: what is no weight was written by the kernel before. PARTIAL: only the first `live` of M are asked
// for, and paid for.
template <int TYPE, int M, int WARPS, bool PARTIAL>
DEVICE void multiply(float (&c)[M][FRAGMENTS][4], const u8 *a, const u32 *offsets, const Weights &w, u8 *shared,
                     bool late, int live) {
  using F = Format<TYPE, FRAGMENTS>;
  constexpr int STAGE = M * 16 * STEP * 2, THREADS = WARPS * 32, COPIES = M * 4 / WARPS;
  const int thread = threadIdx.x, lane = thread % 32, g = lane / 4, t = lane % 4;
  u8 *ring = shared + STAGES * STAGE + thread / 32 * WarpBytes<TYPE, FRAGMENTS>::value;
  u32 *table = reinterpret_cast<u32 *>(ring + F::RING * WARP_ROWS * F::STRIDE);
  const u32 steps = (w.cols + STEP - 1) / STEP, spans = (steps + F::STEPS - 1) / F::STEPS;

  const u32 chunk = thread % 8;
  u8 *const to = shared + thread / 8 * (STEP * 2) + (chunk ^ (thread / 8 & 3) << 1) * 16;
  const auto copy_a = [&](u32 step) {
    const u32 column = F::column(step, chunk);
    const bool is_there = column < w.cols;
    const u8 *from = a + (is_there ? column * 2 : 0);
    u8 *stage = to + step % STAGES * STAGE;
#pragma unroll
    for (int i = 0; i < COPIES; ++i)
      if (!PARTIAL || i * (THREADS / 8) < live * 16)
        cp_async16_if(stage + i * (THREADS / 8) * (STEP * 2), from + u64(offsets[thread / 8 + i * (THREADS / 8)]) * 16, is_there);
  };

  const SpanCopy<TYPE, FRAGMENTS> copy(ring, w, lane);
  u32 extra = 0;
#pragma unroll
  for (u32 span = 0; span + 1 < F::RING; ++span)
    if (span < spans) extra = copy.start(span, w.cols);
  if (late) depend();
  copy_a(0);
  cp_async_commit();
  if (steps > 1) copy_a(1);
  cp_async_commit();
  let_go();

#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int n = 0; n < FRAGMENTS; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) c[i][n][e] = 0.f;

  F weights;
  u32 now[FRAGMENTS][2], next[FRAGMENTS][2];
  u32 span = 0, inner = 0;
  const auto begin = [&]() {
    const u8 *slot = ring + span % F::RING * (WARP_ROWS * F::STRIDE);
    if (inner == 0) decode_span<TYPE, FRAGMENTS>(slot, table, extra, span, w.cols, lane);
    weights.begin(slot, table, inner, lane);
  };
  cp_async_wait<1>();
  __syncwarp();
  begin();
  weights.get(0, now);

  const u8 *const fragments = shared + g * (STEP * 2) + t * 8;
  for (u32 step = 0; step < steps; ++step) {
    cp_async_wait<1>();
    __syncthreads();
    if (step + 2 < steps) copy_a(step + 2);
    // The slot's last reader was this warp, before the barrier.
    if (inner == 0 && span + F::RING - 1 < spans) extra = copy.start(span + F::RING - 1, w.cols);
    cp_async_commit();
    const u8 *stage = fragments + step % STAGES * STAGE;
#pragma unroll
    for (int piece = 0; piece < 4; ++piece) {
      if (piece < 3) {
        weights.get(piece + 1, next);
      } else {
        // What comes next has been here since the wait above, or longer.
        if (++inner == F::STEPS) inner = 0, ++span;
        if (step + 1 < steps) begin();
        weights.get(0, next);
      }
      const u8 *rows = stage + (piece ^ (g & 3)) * 32;
      uint2 upper = *reinterpret_cast<const uint2 *>(rows), lower = *reinterpret_cast<const uint2 *>(rows + 8 * STEP * 2);
#pragma unroll
      for (int i = 0; i < M; ++i) {
        if (PARTIAL && i >= live) break;
        const u32 x[4] = {upper.x, lower.x, upper.y, lower.y};
        if (i + 1 < M) {
          upper = *reinterpret_cast<const uint2 *>(rows + (i + 1) * 16 * (STEP * 2));
          lower = *reinterpret_cast<const uint2 *>(rows + ((i + 1) * 16 + 8) * (STEP * 2));
        }
#pragma unroll
        for (int n = 0; n < FRAGMENTS; ++n) mma_f16(c[i][n], x, now[n]);
      }
#pragma unroll
      for (int n = 0; n < FRAGMENTS; ++n) now[n][0] = next[n][0], now[n][1] = next[n][1];
    }
  }
  if (TYPE != F16 && TYPE != BF16) {
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int n = 0; n < FRAGMENTS; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) c[i][n][e] *= 1.f / LIFT;
  }
}

// By the type of the job.
template <int M, int WARPS, bool PARTIAL>
DEVICE void multiply_any(float (&c)[M][FRAGMENTS][4], u32 type, const u8 *a, const u32 *offsets, const Weights &w,
                         u8 *shared, bool late, int live) {
  switch (type) {
    case F16: return multiply<F16, M, WARPS, PARTIAL>(c, a, offsets, w, shared, late, live);
    case BF16: return multiply<BF16, M, WARPS, PARTIAL>(c, a, offsets, w, shared, late, live);
    case Q4_0: return multiply<Q4_0, M, WARPS, PARTIAL>(c, a, offsets, w, shared, late, live);
    case Q8_0: return multiply<Q8_0, M, WARPS, PARTIAL>(c, a, offsets, w, shared, late, live);
    case Q4_K: return multiply<Q4_K, M, WARPS, PARTIAL>(c, a, offsets, w, shared, late, live);
    case Q5_K: return multiply<Q5_K, M, WARPS, PARTIAL>(c, a, offsets, w, shared, late, live);
    default: return multiply<Q6_K, M, WARPS, PARTIAL>(c, a, offsets, w, shared, late, live);
  }
}

}  // namespace wide
