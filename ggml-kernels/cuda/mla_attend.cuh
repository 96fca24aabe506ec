// Attention of one token a lane over its rows of the cache: each tile of rows is read once for up to 32 heads.
// The tiles of all lanes are one list, and each column of the grid takes an equal share of it: how long the lanes
// are is read on the card, so one captured graph serves every depth, and lanes of unequal length keep the card busy.
#pragma once
#include "mla_common.cuh"

// How the list of tiles is shared; mla_finish reads the shares the same way.
struct MlaShares {
  u32 rows;     // of a tile
  u32 columns;  // of the grid
  u32 least;    // tiles that are worth a column
};

struct MlaAttendArgs {
  const f16 *q;       // absorbed [batch, heads, rank + rope]; scores are powers of two
  const Lane *lanes;  // [batch]
  f16 *sums;          // [columns + batch, heads, rank]: the mean row that column i gathered for lane b is at i + b
  float2 *heads_of;   // [columns + batch, heads]: greatest score, sum of weights
  u32 batch, heads, rank, rope, layer;
  MlaShares shares;
};

namespace mla {

DEVICE u32 tiles_of(const Lane &lane, u32 rows) { return lane.position / rows + 1; }
DEVICE u32 columns_used(u32 tiles, const MlaShares &s) {
  const u32 worth = (tiles + s.least - 1) / s.least;
  return worth < s.columns ? worth : s.columns;
}
DEVICE u32 share_start(u32 column, u32 tiles, u32 used) {
  return static_cast<u32>(static_cast<u64>(column) * tiles / used);
}
// The column that has a tile.
DEVICE u32 column_of(u32 tile, u32 tiles, u32 used) {
  return static_cast<u32>(((static_cast<u64>(tile) + 1) * used - 1) / tiles);
}

constexpr int ATTEND_THREADS = 256;

// Rows of a lane's end that this very step may have written, through an earlier kernel or for another lane of the
// same sequence. All rows before them may be read before depend().
constexpr u32 FRESH_ROWS = 64;

// Where in the list of tiles a reader is.
struct Cursor {
  u32 lane, tile, tiles;
  __device__ __forceinline__ void seek(const MlaAttendArgs &a, u32 rows, u32 at) {
    lane = 0;
    tiles = tiles_of(a.lanes[0], rows);
    while (at >= tiles && lane + 1 < a.batch) {
      at -= tiles;
      lane++;
      tiles = tiles_of(a.lanes[lane], rows);
    }
    tile = at;
  }
  __device__ __forceinline__ void next(const MlaAttendArgs &a, u32 rows) {
    tile++;
    if (tile == tiles && lane + 1 < a.batch) {
      lane++;
      tile = 0;
      tiles = tiles_of(a.lanes[lane], rows);
    }
  }
};

// A tile's way into shared memory. Blocks' addresses are read a tile ahead.
template <int ROWS, u32 LATENT>
struct Loader {
  Cursor at;
  const f16 *rows;
  u32 seen;  // of this tile's rows
  __device__ __forceinline__ void look(const MlaAttendArgs &a) {
    const Lane lane = a.lanes[at.lane];
    rows = row_of(lane.table, a.layer, a.rank + a.rope, at.tile * ROWS);
    seen = lane.position + 1 - at.tile * ROWS;
  }
  __device__ __forceinline__ bool is_fresh() const { return seen < ROWS + FRESH_ROWS; }
  // Rows that the lane does not see are zeros: what lies there may be no number. A tile is contiguous in its block,
  // and has 16 bytes more to a row in shared memory.
  __device__ __forceinline__ void load(u32 any_latent, f16 *to) const {
    if constexpr (LATENT != 0) {
      constexpr u32 CHUNKS = ROWS * LATENT / 8;
#pragma unroll
      for (u32 i = 0; i < (CHUNKS + ATTEND_THREADS - 1) / ATTEND_THREADS; i++) {
        const u32 at = i * ATTEND_THREADS + threadIdx.x, row = at / (LATENT / 8);
        if ((i + 1) * ATTEND_THREADS <= CHUNKS || at < CHUNKS) cp_async16_if(to + (at + row) * 8, rows + at * 8, row < seen);
      }
    } else {
      const u32 chunks = any_latent / 8;
      for (u32 at = threadIdx.x; at < ROWS * chunks; at += ATTEND_THREADS) {
        const u32 row = at / chunks;
        cp_async16_if(to + (at + row) * 8, rows + at * 8, row < seen);
      }
    }
  }
};

constexpr int MOST_STEPS = 9;  // of 16 columns, of a warp's quarter of a row

// Scores: warps are 4 parts of a row's columns by 2 parts of a tile's rows; each holds its columns of all queries.
// Weighted sums: each warp has every eighth 16 columns for all heads. LATENT, RANK: 0 for any.
template <int M, int ROWS, int STAGES, u32 LATENT, u32 RANK>
struct Attend {
  static constexpr int HEADS = 16 * M, HALF = ROWS / 2, N = HALF / 8;
  static constexpr int PART_PITCH = ROWS + 8, WEIGHT_PITCH = ROWS + 8;
  static constexpr int LANES_A_HEAD = ATTEND_THREADS / HEADS, EACH = ROWS / LANES_A_HEAD;

  static constexpr int FIXED_BYTES = (4 * HEADS * PART_PITCH * 4 + HEADS * WEIGHT_PITCH * 2 + HEADS * 8 + 127) / 128 * 128;

  u32 queries[MOST_STEPS][M][4];
  float sums[4][2][M][4];

  // A lane's queries as a tile of its own, in a place of the ring that nobody has: whole lines instead of the pairs
  // that a product's registers take.
  static constexpr bool STAGED = LATENT != 0 && ROWS >= HEADS;
  __device__ __forceinline__ void stage_queries(const MlaAttendArgs &a, u32 lane_of, u32 first_head, f16 *to) {
    constexpr u32 CHUNKS = HEADS * LATENT / 8, EACH_THREAD = (CHUNKS + ATTEND_THREADS - 1) / ATTEND_THREADS;
    const uint4 *from = reinterpret_cast<const uint4 *>(a.q + (static_cast<u64>(lane_of) * a.heads + first_head) * LATENT);
    uint4 held[EACH_THREAD];
#pragma unroll
    for (u32 i = 0; i < EACH_THREAD; i++) {
      const u32 at = i * ATTEND_THREADS + threadIdx.x;
      held[i] = make_uint4(0, 0, 0, 0);
      if (at < CHUNKS && first_head + at / (LATENT / 8) < a.heads) held[i] = from[at];
    }
#pragma unroll
    for (u32 i = 0; i < EACH_THREAD; i++) {
      const u32 at = i * ATTEND_THREADS + threadIdx.x;
      if (at < CHUNKS) *reinterpret_cast<uint4 *>(to + (at + at / (LATENT / 8)) * 8) = held[i];
    }
    __syncthreads();
    const u32 lane = threadIdx.x % 32, part = threadIdx.x / 32 % 4;
#pragma unroll
    for (int s = 0; s < MOST_STEPS; s++) {
      const u32 col = (part + 4 * s) * 16;
#pragma unroll
      for (int m = 0; m < M; m++) {
        if (col < LATENT) ldmatrix_x4(queries[s][m], to + (m * 16 + lane % 16) * (LATENT + 8) + col + lane / 16 * 8);
      }
    }
  }

  __device__ __forceinline__ void load_queries(const MlaAttendArgs &a, u32 lane_of, u32 first_head) {
    const u32 lane = threadIdx.x % 32, part = threadIdx.x / 32 % 4, latent = LATENT ? LATENT : a.rank + a.rope;
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int side = 0; side < 2; side++) {
        const u32 head = first_head + m * 16 + side * 8 + g;
        const f16 *q = a.q + (static_cast<u64>(lane_of) * a.heads + head) * latent + 2 * t;
#pragma unroll
        for (int s = 0; s < MOST_STEPS; s++) {
          const u32 col = (part + 4 * s) * 16;
          const bool is = head < a.heads && col < latent;
          queries[s][m][side] = is ? *reinterpret_cast<const u32 *>(q + col) : 0;
          queries[s][m][side + 2] = is ? *reinterpret_cast<const u32 *>(q + col + 8) : 0;
        }
      }
    }
  }

  __device__ __forceinline__ void scores(const f16 *tile, u32 any_latent, float *parts) const {
    const u32 latent = LATENT ? LATENT : any_latent;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, part = warp % 4, half = warp / 4;
    const u32 pitch = latent + 8;
    float c[M][N][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) c[m][n][i] = 0.f;
      }
    }
    const u32 row = half * HALF + (lane / 16 % 2 * 8) % HALF + lane % 8;
    const f16 *from = tile + row * pitch + part * 16 + lane / 8 % 2 * 8;
#pragma unroll
    for (int s = 0; s < MOST_STEPS; s++) {
      if ((part + 4 * s) * 16 < latent) {
        u32 b[N][2];
        if constexpr (N == 1) {
          ldmatrix_x2(b[0], from + s * 64);
        } else {
#pragma unroll
          for (int n = 0; n < N; n += 2) ldmatrix_x4(b[n], from + n * 8 * pitch + s * 64);
        }
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
          for (int m = 0; m < M; m++) mma_f16(c[m][n], queries[s][m], b[n]);
        }
      }
    }
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int n = 0; n < N; n++) {
        float *to = parts + (part * HEADS + m * 16 + g) * PART_PITCH + half * HALF + n * 8 + 2 * t;
        *reinterpret_cast<float2 *>(to) = make_float2(c[m][n][0], c[m][n][1]);
        *reinterpret_cast<float2 *>(to + 8 * PART_PITCH) = make_float2(c[m][n][2], c[m][n][3]);
      }
    }
  }

  // Each head has neighbouring threads of one warp; all of them keep its greatest score and sum.
  __device__ __forceinline__ void weigh(const float *parts, u32 seen, f16 *weights, float *factors, float &most, float &sum) const {
    const u32 head = threadIdx.x / LANES_A_HEAD, first = threadIdx.x % LANES_A_HEAD * EACH;
    float s[EACH], top = most;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      s[i] = 0.f;
#pragma unroll
      for (int part = 0; part < 4; part++) s[i] += parts[(part * HEADS + head) * PART_PITCH + first + i];
      if (first + i >= seen) s[i] = -1e30f;
      top = fmaxf(top, s[i]);
    }
#pragma unroll
    for (int offset = LANES_A_HEAD / 2; offset > 0; offset /= 2) {
      top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, offset));
    }
    const float factor = fast_exp2(most - top);
    float more = 0.f;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      s[i] = fast_exp2(s[i] - top);
      more += s[i];
    }
    if constexpr (EACH == 1) {
      weights[head * WEIGHT_PITCH + first] = to_f16(s[0]);
    } else {
#pragma unroll
      for (int i = 0; i < EACH; i += 2) {
        *reinterpret_cast<u32 *>(weights + head * WEIGHT_PITCH + first + i) = pack_f16_small(s[i], s[i + 1]);
      }
    }
#pragma unroll
    for (int offset = LANES_A_HEAD / 2; offset > 0; offset /= 2) more += __shfl_xor_sync(ALL_LANES, more, offset);
    most = top;
    sum = fmaf(sum, factor, more);
    if (threadIdx.x % LANES_A_HEAD == 0) {
      factors[head] = factor;
      factors[HEADS + head] = sum;
    }
  }

  __device__ __forceinline__ void gather(const f16 *tile, u32 any_latent, u32 any_rank, const f16 *weights, const float *factors) {
    const u32 latent = LATENT ? LATENT : any_latent, rank = RANK ? RANK : any_rank;
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, pitch = latent + 8;
    float by[M][2];
    bool changed = false;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int side = 0; side < 2; side++) {
        by[m][side] = factors[m * 16 + side * 8 + g];
        changed = changed || by[m][side] != 1.f;
      }
    }
    if (__any_sync(ALL_LANES, changed)) {
#pragma unroll
      for (int c = 0; c < 4; c++) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
#pragma unroll
          for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) sums[c][n][m][i] *= by[m][i / 2];
          }
        }
      }
    }
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) {
      u32 w[M][4];
#pragma unroll
      for (int m = 0; m < M; m++) {
        ldmatrix_x4(w[m], weights + (m * 16 + lane % 16) * WEIGHT_PITCH + k * 16 + lane / 16 * 8);
      }
#pragma unroll
      for (int c = 0; c < 4; c++) {
        const u32 col = (warp + 8 * c) * 16;
        if (col < rank) {
          u32 v[4];
          ldmatrix_x4_trans(v, tile + (k * 16 + lane % 16) * pitch + col + lane / 16 * 8);
#pragma unroll
          for (int m = 0; m < M; m++) {
            mma_f16(sums[c][0][m], w[m], v);
            mma_f16(sums[c][1][m], w[m], v + 2);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int c = 0; c < 4; c++) {
#pragma unroll
      for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
          for (int i = 0; i < 4; i++) sums[c][n][m][i] = 0.f;
        }
      }
    }
  }

  // Means, in f16: no greater than the rows that they are of, each off by 2^-11 of itself at most. factors: what
  // `weigh` left. Neighbouring threads trade pairs, so that four fill 32 bytes.
  __device__ __forceinline__ void give(const MlaAttendArgs &a, u32 slot, u32 first_head, const float *factors, float most, float sum) const {
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    const u64 row = static_cast<u64>(slot) * a.heads;
    const bool high = t % 2 != 0;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int side = 0; side < 2; side++) {
        const u32 at = m * 16 + side * 8 + g, head = first_head + at;
        const float by = 1.f / factors[HEADS + at];
        f16 *to = a.sums + (row + head) * a.rank + (high ? 6 + 2 * t : 2 * t);
#pragma unroll
        for (int c = 0; c < 4; c++) {
          const u32 col = (warp + 8 * c) * 16;
          const float *even = &sums[c][0][m][side * 2], *odd = &sums[c][1][m][side * 2];
          const u32 left = pack_f16(even[0] * by, even[1] * by), right = pack_f16(odd[0] * by, odd[1] * by);
          const u32 mine = high ? right : left, other = __shfl_xor_sync(ALL_LANES, high ? left : right, 1);
          if (head < a.heads && col < a.rank) {
            *reinterpret_cast<uint2 *>(to + col) = high ? make_uint2(other, mine) : make_uint2(mine, other);
          }
        }
      }
    }
    const u32 head = threadIdx.x / LANES_A_HEAD;
    if (threadIdx.x % LANES_A_HEAD == 0 && first_head + head < a.heads) {
      a.heads_of[row + first_head + head] = make_float2(most, sum);
    }
  }

  __device__ __forceinline__ void run(const MlaAttendArgs &a) {
    DYNAMIC_SHARED(u8, memory);
    const u32 latent = LATENT ? LATENT : a.rank + a.rope, tile_values = ROWS * (latent + 8), first_head = blockIdx.y * HEADS;
    float *parts = reinterpret_cast<float *>(memory);
    f16 *weights = reinterpret_cast<f16 *>(parts + 4 * HEADS * PART_PITCH);
    float *factors = reinterpret_cast<float *>(weights + HEADS * WEIGHT_PITCH);
    f16 *tiles = reinterpret_cast<f16 *>(memory + FIXED_BYTES);
    let_go();
    u32 all = 0;
    for (u32 b = 0; b < a.batch; b++) all += tiles_of(a.lanes[b], ROWS);
    const u32 used = columns_used(all, a.shares);
    if (blockIdx.x >= used) return;
    u32 left = share_start(blockIdx.x + 1, all, used) - share_start(blockIdx.x, all, used);
    u32 to_load = left, loaded = 0;
    Loader<ROWS, LATENT> loader, first[STAGES - 1];
    Cursor at;
    at.seek(a, ROWS, share_start(blockIdx.x, all, used));
    loader.at = at;
    const auto step = [&] {
      to_load--;
      loader.at.next(a, ROWS);
    };
    const auto load = [&] {
      if (to_load > 0) {
        loader.load(latent, tiles + loaded % STAGES * tile_values);
        step();
        if (to_load > 0) loader.look(a);
      }
      loaded++;
      cp_async_commit();
    };
    // The first tiles' addresses are read all at once.
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
      if (to_load > 0) {
        loader.look(a);
        first[i] = loader;
        step();
      }
    }
    bool waited = false;
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) {
      if (loaded < left) {
        if (!waited && first[i].is_fresh()) {
          depend();
          waited = true;
        }
        first[i].load(latent, tiles + i * tile_values);
      }
      loaded++;
      cp_async_commit();
    }
    if (!waited) depend();
    if (to_load > 0) loader.look(a);
    for (u32 stage = 0; left > 0;) {
      const u32 b = at.lane, here = at.tiles - at.tile < left ? at.tiles - at.tile : left;
      const u32 position = a.lanes[b].position;
      float most = -1e30f, sum = 0.f;
      if constexpr (STAGED) {
        // The place that `load` fills next; the lane before has left it.
        __syncthreads();
        stage_queries(a, b, first_head, tiles + loaded % STAGES * tile_values);
      } else {
        load_queries(a, b, first_head);
      }
      clear();
      cp_async_wait<STAGES - 2>();
      __syncthreads();
      scores(tiles + stage * tile_values, latent, parts);
      for (u32 i = 0; i < here; i++) {
        __syncthreads();  // the scores are there, and the tile before was left
        load();
        weigh(parts, position + 1 - (at.tile + i) * ROWS, weights, factors, most, sum);
        const bool more = i + 1 < here;
        if (more) cp_async_wait<STAGES - 2>();
        __syncthreads();
        const u32 next = stage + 1 == STAGES ? 0 : stage + 1;
        if (more) scores(tiles + next * tile_values, latent, parts);
        gather(tiles + stage * tile_values, latent, a.rank, weights, factors);
        stage = next;
      }
      give(a, blockIdx.x + b, first_head, factors, most, sum);
      left -= here;
      at.lane++;
      at.tile = 0;
      if (left > 0) at.tiles = tiles_of(a.lanes[at.lane], ROWS);
    }
  }
};

}  // namespace mla

// Names: heads, rows of a tile, stages; `k` the large models' 512 + 64 columns.
KERNEL_BOUNDS(mla_attend_32_16_4, MlaAttendArgs, 256, 1) { mla::Attend<2, 16, 4, 0, 0>().run(a); }
KERNEL_BOUNDS(mla_attend_16_16_4, MlaAttendArgs, 256, 1) { mla::Attend<1, 16, 4, 0, 0>().run(a); }
KERNEL_BOUNDS(mla_attend_k32_16_4, MlaAttendArgs, 256, 1) { mla::Attend<2, 16, 4, 576, 512>().run(a); }
KERNEL_BOUNDS(mla_attend_k16_16_4, MlaAttendArgs, 256, 1) { mla::Attend<1, 16, 4, 576, 512>().run(a); }
KERNEL_BOUNDS(mla_attend_k32_32_3, MlaAttendArgs, 256, 1) { mla::Attend<2, 32, 3, 576, 512>().run(a); }
KERNEL_BOUNDS(mla_attend_k32_32_5, MlaAttendArgs, 256, 1) { mla::Attend<2, 32, 5, 576, 512>().run(a); }
KERNEL_BOUNDS(mla_attend_k16_32_5, MlaAttendArgs, 256, 1) { mla::Attend<1, 32, 5, 576, 512>().run(a); }
