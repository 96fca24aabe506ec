// Products of many rows (prefill): on tensor cores for weights of 16 bits and less, in f32 for F32; experts by groups.
#include "grouped.cuh"
#include "plain.cuh"
#include "store.cuh"
#include "tile.cuh"
#include "warpgroup.cuh"

namespace wide {

constexpr u32 JOBS = 8;

// Jobs that share their rows. blockIdx.x counts tiles of rows, blockIdx.y tiles of all jobs' columns.
struct ProductArgs {
  const void *x;  // f16 (plain: f32) [rows, cols]
  Job jobs[JOBS];
  u32 rows, cols, stride, count;
};

// One job for every expert. blockIdx.x counts tiles of columns, blockIdx.y those of `tiles`.
struct ExpertArgs {
  const void *x;     // f16 (plain: f32): by token where the job is GATED, else by position
  const u32 *order;  // see GroupArgs
  const Tile *tiles;
  Job job;  // the first expert's. GATED: stores by position, else by pair
  u32 cols, stride, used, pad;
};

DEVICE const Job &job_of(const ProductArgs &a) {
  u32 job = 0;
  while (job + 1 < a.count && blockIdx.y >= a.jobs[job + 1].first_tile) ++job;
  return a.jobs[job];
}

// Columns of a job in a tile of `rows` rows of W.
DEVICE u32 columns(const Job &job, u32 rows) { return job.mode == GATED ? rows / 2 : rows; }

// The sums of the tile whose columns start at `first`, stored row by row where `row_of` says.
template <int M, int WARPS, bool PARTIAL, typename RowOf>
DEVICE void tile(const Job &job, const u8 *data, const u8 *up, const void *x, const u32 *offsets, u8 *shared, u32 cols,
                 u32 tile, u32 live, bool late, RowOf row_of) {
  float c[M][FRAGMENTS][4];
  const u32 thread = threadIdx.x, g = thread % 32 / 4, t = thread % 4;
  const bool is_gated = job.mode == GATED;
  const u32 wide = columns(job, WARP_ROWS), first = (tile * WARPS + thread / 32) * wide;
  const u8 *a = static_cast<const u8 *>(x);
  // Two types cannot share a tile: each has one to itself with every row twice, and what comes of the first waits in
  // shared memory behind what `multiply` takes.
  const bool is_mixed = is_gated && job.up.type != job.w.type;
  float *waiting = reinterpret_cast<float *>(shared + TileBytes<M, WARPS>::value) + thread;
  for (u32 turn = 0; turn <= u32(is_mixed); ++turn) {
    const Matrix &one = turn ? job.up : job.w;
    const Weights w = {turn ? up : data, is_gated && !is_mixed || turn ? up : data, first,
                       is_gated ? first : first + 16, one.rows, one.row_bytes, cols};
    if (turn) {
#pragma unroll
      for (int i = 0; i < M * 8; ++i) waiting[i * WARPS * 32] = c[i / 8][i / 4 % 2][i % 4];
      __syncthreads();
    }
    multiply_any<M, WARPS, PARTIAL>(c, one.type, a, offsets, w, shared, late, int(live + 15) / 16);
  }
  if (is_mixed) {
#pragma unroll
    for (int i = 0; i < M * 8; ++i) c[i / 8][i / 4 % 2][i % 4] = waiting[i * WARPS * 32];
  }
#pragma unroll
  for (int i = 0; i < M; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const u32 at = i * 16 + half * 8 + g;
      if (at >= live) continue;
      const u32 row = row_of(at);
#pragma unroll
      for (int n = 0; n < FRAGMENTS; ++n) {
        const u32 col = first + n * 8 + t * 2;
        if (!is_gated) store_pair(job, row, col, c[i][n][half * 2], c[i][n][half * 2 + 1]);
        if (is_gated && n < 2) store_gated(job, row, col, c[i][n] + half * 2, c[i][n + 2] + half * 2);
      }
    }
  }
}

template <int M, int WARPS>
DEVICE void product(const ProductArgs &a) {
  DYNAMIC_SHARED(u8, shared);
  SHARED(u32, offsets, M * 16);
  const Job &job = job_of(a);
  const u32 row = blockIdx.x * M * 16;
  for (u32 i = threadIdx.x; i < M * 16; i += WARPS * 32) offsets[i] = min(row + i, a.rows - 1) * (a.stride / 8);
  __syncthreads();
  tile<M, WARPS, false>(job, job.w.data, job.up.data, a.x, offsets, shared, a.cols, blockIdx.y - job.first_tile, a.rows - row,
                 true, [&](u32 at) { return row + at; });
}

// blockIdx.z: which part of a tile.
template <int M, int WARPS>
DEVICE void experts(const ExpertArgs &a) {
  DYNAMIC_SHARED(u8, shared);
  SHARED(u32, offsets, M * 16);
  depend();
  const Tile of = a.tiles[blockIdx.y];
  const u32 start = blockIdx.z * M * 16;
  if (of.count <= start) return;
  const bool is_gated = a.job.mode == GATED;
  const u32 first = of.first + start, count = min(of.count - start, u32(M * 16));
  for (u32 i = threadIdx.x; i < M * 16; i += WARPS * 32) {
    const u32 at = first + min(i, count - 1);
    offsets[i] = (is_gated ? a.order[at] / a.used : at) * (a.stride / 8);
  }
  __syncthreads();
  const Matrix &w = a.job.w, &up = a.job.up;
  tile<M, WARPS, true>(a.job, w.data + u64(of.expert) * w.rows * w.row_bytes,
                       up.data + u64(of.expert) * up.rows * up.row_bytes, a.x, offsets, shared, a.cols, blockIdx.x, count,
                       false, [&](u32 at) { return is_gated ? first + at : a.order[first + at]; });
}

template <int N>
DEVICE void hopper_product(const ProductArgs &a) {
  HOPPER_SHARED(u8, shared);
  const Job &job = job_of(a);
  const u32 row = blockIdx.x * N;
  const auto row_of = [&](u32 at) { return row + at; };
  hopper_job<N>(job, job.w.data, job.up.data, a.x, a.stride, shared, a.cols, blockIdx.y - job.first_tile, a.rows - row, true,
                row_of, row_of);
}

DEVICE void hopper_experts(const ExpertArgs &a) {
  HOPPER_SHARED(u8, shared);
  depend();
  const Tile of = a.tiles[blockIdx.y];
  if (of.count == 0) return;
  const bool is_gated = a.job.mode == GATED;
  const Matrix &w = a.job.w, &up = a.job.up;
  const u8 *data = w.data + u64(of.expert) * w.rows * w.row_bytes;
  const u8 *second = up.data + u64(of.expert) * up.rows * up.row_bytes;
  const auto from = [&](u32 at) { return is_gated ? a.order[of.first + at] / a.used : of.first + at; };
  const auto row_of = [&](u32 at) { return is_gated ? of.first + at : a.order[of.first + at]; };
  const u32 cols = a.cols, count = of.count, stride = a.stride;
  if (count <= 32) {
    hopper_job<32>(a.job, data, second, a.x, stride, shared, cols, blockIdx.x, count, false, from, row_of);
  } else if (count <= 64) {
    hopper_job<64>(a.job, data, second, a.x, stride, shared, cols, blockIdx.x, count, false, from, row_of);
  } else if (count <= 96) {
    hopper_job<96>(a.job, data, second, a.x, stride, shared, cols, blockIdx.x, count, false, from, row_of);
  } else {
    hopper_job<128>(a.job, data, second, a.x, stride, shared, cols, blockIdx.x, count, false, from, row_of);
  }
}

DEVICE void product_plain(const ProductArgs &a) {
  const Job &job = job_of(a);
  const u32 row = blockIdx.x * PLAIN, first = (blockIdx.y - job.first_tile) * columns(job, PLAIN);
  const float *w = plain_row(job, job.w.data, job.up.data, first);
  depend();
  let_go();
  const u32 mine = min(row + threadIdx.x / 4, a.rows - 1);
  float c[4][4];
  multiply_plain(c, static_cast<const float *>(a.x) + u64(mine) * a.stride, w, a.cols);
  for (int i = 0; i < 4; ++i) {
    const u32 at = row + threadIdx.x / 16 * 4 + i;
    if (at < a.rows) store_plain(job, c, i, at, first);
  }
}

// blockIdx.z: which half of a tile.
DEVICE void experts_plain(const ExpertArgs &a) {
  depend();
  const Tile of = a.tiles[blockIdx.y];
  const u32 start = blockIdx.z * PLAIN;
  if (of.count <= start) return;
  let_go();
  const bool is_gated = a.job.mode == GATED;
  const u32 first = blockIdx.x * columns(a.job, PLAIN), mine = of.first + min(start + threadIdx.x / 4, of.count - 1);
  const Matrix &w = a.job.w, &up = a.job.up;
  const float *row = plain_row(a.job, w.data + u64(of.expert) * w.rows * w.row_bytes,
                               up.data + u64(of.expert) * up.rows * up.row_bytes, first);
  const u64 from = is_gated ? a.order[mine] / a.used : mine;
  float c[4][4];
  multiply_plain(c, static_cast<const float *>(a.x) + from * a.stride, row, a.cols);
  for (int i = 0; i < 4; ++i) {
    const u32 at = start + threadIdx.x / 16 * 4 + i;
    if (at >= of.count) continue;
    store_plain(a.job, c, i, is_gated ? of.first + at : a.order[of.first + at], first);
  }
}

}  // namespace wide

KERNEL_BOUNDS(wide_2, wide::ProductArgs, 64, 4) { wide::product<2, 2>(a); }
KERNEL_BOUNDS(wide_4, wide::ProductArgs, 128, 3) { wide::product<4, 4>(a); }
KERNEL_BOUNDS(wide_6, wide::ProductArgs, 128, 2) { wide::product<6, 4>(a); }
KERNEL_BOUNDS(wide_8, wide::ProductArgs, 128, 2) { wide::product<8, 4>(a); }
KERNEL_BOUNDS(wide_experts_2, wide::ExpertArgs, 64, 4) { wide::experts<2, 2>(a); }
KERNEL_BOUNDS(wide_experts_4, wide::ExpertArgs, 128, 3) { wide::experts<4, 4>(a); }
KERNEL_BOUNDS(wide_experts_8, wide::ExpertArgs, 128, 2) { wide::experts<8, 4>(a); }
KERNEL_BOUNDS(wide_hopper_64, wide::ProductArgs, 256, 2) { wide::hopper_product<64>(a); }
KERNEL_BOUNDS(wide_hopper_128, wide::ProductArgs, 256, 2) { wide::hopper_product<128>(a); }
KERNEL_BOUNDS(wide_hopper_experts, wide::ExpertArgs, 256, 2) { wide::hopper_experts(a); }
KERNEL_BOUNDS(wide_plain, wide::ProductArgs, 256, 2) { wide::product_plain(a); }
KERNEL_BOUNDS(wide_plain_experts, wide::ExpertArgs, 256, 2) { wide::experts_plain(a); }
KERNEL_BOUNDS(wide_group, wide::GroupArgs, 1024, 1) { wide::group(a); }
KERNEL_BOUNDS(wide_combine, wide::CombineArgs, 256, 4) { wide::combine(a); }
