// A tile of A Wt on Hopper's warpgroups: the other way round, 64 rows of W (16 a warp, unpacked into registers, a piece
// ahead) by N rows of A, which the tensor cores read from shared memory themselves. As in tile.cuh every sum takes the
// columns in one order.
#pragma once
#include "hopper.cuh"
#include "store.cuh"
#include "unpack.cuh"

namespace wide {

constexpr int HOPPER_STAGES = 3, HOPPER_WARPS = 8, HOPPER_THREADS = HOPPER_WARPS * 32;
// Floats from one row of A to the next in what a warp leaves to be stored: its 16 columns, and room against conflicts.
constexpr int HOPPER_OUT = 20;
// Where the rows of A lie, behind A's stages.
constexpr int HOPPER_OFFSETS = 128 * 4;

template <int TYPE, int N>
DEVICE void hopper_tile(float (&c)[N / 8][4], const u8 *a, const Weights &w, u8 *shared, bool late) {
  using F = Format<TYPE, 2>;
  constexpr int STAGE = N * STEP * 2, COPIES = N * 8 / HOPPER_THREADS;
  static_assert(F::RING * F::ROWS * F::STRIDE * HOPPER_WARPS + HOPPER_STAGES * STAGE >= HOPPER_WARPS * N * HOPPER_OUT * 4, "");
  const int thread = threadIdx.x, lane = thread % 32;
  const u32 *offsets = reinterpret_cast<const u32 *>(shared + HOPPER_STAGES * STAGE);
  u8 *ring = shared + HOPPER_STAGES * STAGE + HOPPER_OFFSETS + thread / 32 * WarpBytes<TYPE, 2>::value;
  u32 *table = reinterpret_cast<u32 *>(ring + F::RING * F::ROWS * F::STRIDE);
  const u32 steps = (w.cols + STEP - 1) / STEP, spans = (steps + F::STEPS - 1) / F::STEPS;

  const u32 chunk = thread % 8;
  u8 *const to = shared + thread / 8 * (STEP * 2) + (chunk ^ (thread / 8 & 7)) * 16;
  const auto copy_a = [&](u32 step) {
    const u32 column = F::column(step, chunk);
    const bool is_there = column < w.cols;
    const u8 *from = a + (is_there ? column * 2 : 0);
    u8 *stage = to + step % HOPPER_STAGES * STAGE;
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
      constexpr int BY = HOPPER_THREADS / 8;
      cp_async16_if(stage + i * BY * (STEP * 2), from + u64(offsets[thread / 8 + i * BY]) * 16, is_there);
    }
  };

  const SpanCopy<TYPE, 2> copy(ring, w, lane);
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
  for (int i = 0; i < N / 8; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) c[i][e] = 0.f;

  F weights;
  u32 pieces[4][4];
  u32 span = 0, inner = 0;
  const auto begin = [&]() {
    const u8 *slot = ring + span % F::RING * (F::ROWS * F::STRIDE);
    if (inner == 0) decode_span<TYPE, 2>(slot, table, extra, span, w.cols, lane);
    weights.begin(slot, table, inner, lane);
  };
  const auto unpack = [&](int piece) {
    u32 b[2][2];
    weights.get(piece, b);
    pieces[piece][0] = b[0][0], pieces[piece][1] = b[1][0], pieces[piece][2] = b[0][1], pieces[piece][3] = b[1][1];
  };
  cp_async_wait<1>();
  __syncwarp();
  begin();
  unpack(0);

  for (u32 step = 0; step < steps; ++step) {
    cp_async_wait<1>();
    hopper_see();
    // All warps' products of the step before are through: its stage is free.
    __syncthreads();
    if (step + 2 < steps) copy_a(step + 2);
    // The slot's last reader was this warp, before the barrier.
    if (inner == 0 && span + F::RING - 1 < spans) extra = copy.start(span + F::RING - 1, w.cols);
    cp_async_commit();
    const u8 *stage = shared + step % HOPPER_STAGES * STAGE;
#pragma unroll
    for (int piece = 0; piece < 4; ++piece) {
      hopper_fence();
      hopper_multiply<N>(c, pieces[piece], stage + piece * 32);
      hopper_commit();
      if (piece < 3) unpack(piece + 1);
    }
    // What comes next has been here since the wait above, or longer; its first piece's registers are free.
    if (++inner == F::STEPS) inner = 0, ++span;
    if (step + 1 < steps) begin();
    hopper_wait<3>();
    unpack(0);
    hopper_wait<0>();
  }
  hopper_results(c);
  if (TYPE != F16 && TYPE != BF16) {
#pragma unroll
    for (int i = 0; i < N / 8; ++i)
#pragma unroll
      for (int e = 0; e < 4; ++e) c[i][e] *= 1.f / LIFT;
  }
}

// The tile's sums to where they go: a warp turns its 16 columns (8 of them GATED) in shared memory, to store rows.
// `first`: the warp's first column; `row_of`: where each of the tile's `live` rows goes.
template <int N, typename RowOf>
DEVICE void hopper_store(const Job &job, const float (&c)[N / 8][4], u8 *shared, u32 first, u32 live, RowOf row_of) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const bool is_gated = job.mode == GATED;
  float *mine = reinterpret_cast<float *>(shared) + threadIdx.x / 32 * (N * HOPPER_OUT);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N / 8; ++i) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float *row = mine + (i * 8 + t * 2 + e) * HOPPER_OUT + g;
      row[0] = is_gated ? gated(c[i][e], c[i][e + 2], job.limit) : c[i][e];
      if (!is_gated) row[8] = c[i][e + 2];
    }
  }
  __syncwarp();
  const u32 pairs = is_gated ? 4 : 8, rows = 32 / pairs, pair = lane % pairs * 2;
  for (u32 at = lane / pairs; at < min(live, u32(N)); at += rows) {
    const float2 v = *reinterpret_cast<const float2 *>(mine + at * HOPPER_OUT + pair);
    store_pair(job, row_of(at), first + pair, v.x, v.y);
  }
}

// A tile of a job by the type of its matrices, which is one. `from`: the row of x that is row `at` of the tile; `row_of`:
// where that one's results go.
template <int N, typename From, typename RowOf>
DEVICE void hopper_job(const Job &job, const u8 *data, const u8 *up, const void *x, u32 stride, u8 *shared, u32 cols,
                       u32 tile, u32 live, bool late, From from, RowOf row_of) {
  u32 *offsets = reinterpret_cast<u32 *>(shared + HOPPER_STAGES * N * STEP * 2);
  if (threadIdx.x < N) offsets[threadIdx.x] = from(min(threadIdx.x, live - 1)) * (stride / 8);
  __syncthreads();
  float c[N / 8][4];
  const bool is_gated = job.mode == GATED;
  const u32 first = (tile * HOPPER_WARPS + threadIdx.x / 32) * (is_gated ? 8 : 16);
  const Weights w = {data, is_gated ? up : data, first, is_gated ? first : first + 8, job.w.rows, job.w.row_bytes, cols};
  const u8 *a = static_cast<const u8 *>(x);
  switch (job.w.type) {
    case F16: hopper_tile<F16, N>(c, a, w, shared, late); break;
    case BF16: hopper_tile<BF16, N>(c, a, w, shared, late); break;
    case Q4_0: hopper_tile<Q4_0, N>(c, a, w, shared, late); break;
    case Q8_0: hopper_tile<Q8_0, N>(c, a, w, shared, late); break;
    case Q4_K: hopper_tile<Q4_K, N>(c, a, w, shared, late); break;
    case Q5_K: hopper_tile<Q5_K, N>(c, a, w, shared, late); break;
    default: hopper_tile<Q6_K, N>(c, a, w, shared, late); break;
  }
  hopper_store<N>(job, c, shared, first, live, row_of);
}

}  // namespace wide
