// Causal attention of a wide pass over expanded keys and values, for a group of heads: a block has 128 queries of
// one head and walks the lane's rows in tiles of 64. Each warp has 32 queries.
// A query's sums depend on its own rows alone, so the cut of a pass changes no bit (unless the keys are split).
#pragma once
#include "mla_common.cuh"

struct MlaFlashArgs {
  const f16 *q;           // [rows, heads * (nope + rope)]; scores are powers of two
  const f16 *k;           // [keys, group * nope]
  const f16 *rotated;     // [keys, rope]: the keys' other columns, of all heads
  const f16 *v;           // [keys, group * v]
  const WideLane *lanes;
  const u32 *starts;      // [lanes]: where in keys a lane's rows begin
  const float *gate;      // [rows, heads], rows gate_stride apart; nowhere: no gate
  f16 *out;               // [rows, heads * v]
  float *out32;           // the same; nowhere: not asked
  float *sums;            // splits > 1: [splits, rows, heads, v], for mla_merge instead of `out`
  float2 *heads_of;       // [splits, rows, heads]
  u32 rows, heads, first, group, nope, rope, v_width, splits, gate_stride, pad;
};

namespace mla {

constexpr u32 FLASH_THREADS = 128, FLASH_QUERIES = 128, FLASH_KEYS = 64;

// NOPE, ROPE, V: 0 for any.
template <u32 NOPE, u32 ROPE, u32 V>
struct Flash {
  static constexpr u32 MOST_V = V ? V : 128;
  u32 nope, rope, width, v_width, k_pitch, v_pitch;

  // ROWS rows to shared memory, as zeros from `seen` on.
  template <u32 ROWS, u32 COLUMNS>
  static __device__ __forceinline__ void load(f16 *to, u32 pitch, const f16 *from, u32 stride, u32 any_columns, u32 seen) {
    if constexpr (COLUMNS != 0) {
      constexpr u32 CHUNKS = COLUMNS / 8, STEP = FLASH_THREADS / CHUNKS;
      if (seen >= ROWS) {
        f16 *there = to + threadIdx.x / CHUNKS * pitch + threadIdx.x % CHUNKS * 8;
        const f16 *here = from + threadIdx.x / CHUNKS * stride + threadIdx.x % CHUNKS * 8;
#pragma unroll
        for (u32 i = 0; i < ROWS / STEP; i++) cp_async16(there + i * STEP * pitch, here + i * (STEP * stride));
        return;
      }
    }
    const u32 chunks = (COLUMNS ? COLUMNS : any_columns) / 8;
#pragma unroll 1
    for (u32 i = threadIdx.x; i < ROWS * chunks; i += FLASH_THREADS) {
      const u32 row = i / chunks, at = i % chunks * 8;
      const bool is = row < seen;
      cp_async16_if(to + row * pitch + at, from + static_cast<u64>(is ? row : 0) * stride + at, is);
    }
  }

  __device__ __forceinline__ void run(const MlaFlashArgs &a) {
    DYNAMIC_SHARED(f16, memory);
    let_go();
    nope = NOPE ? NOPE : a.nope;
    rope = ROPE ? ROPE : a.rope;
    v_width = V ? V : a.v_width;
    width = nope + rope;
    k_pitch = width + 8;
    v_pitch = v_width + 8;
    const u32 lane_at = blockIdx.z / a.splits, split = blockIdx.z % a.splits;
    const WideLane lane = a.lanes[lane_at];
    // The longest first: the last queries see most rows.
    const u32 tile_count = (lane.rows + FLASH_QUERIES - 1) / FLASH_QUERIES;
    if (blockIdx.x >= tile_count) return;
    const u32 query = (tile_count - 1 - blockIdx.x) * FLASH_QUERIES, in_group = blockIdx.y, head = a.first + in_group;
    const u32 queries = lane.rows - query < FLASH_QUERIES ? lane.rows - query : FLASH_QUERIES;
    const u32 all = lane.position + lane.rows, seen = lane.position + query + queries;
    const u32 key_tiles = (seen + FLASH_KEYS - 1) / FLASH_KEYS, share = (key_tiles + a.splits - 1) / a.splits;
    const u32 first_tile = split * share, end_tile = first_tile + share < key_tiles ? first_tile + share : key_tiles;
    const u32 start = a.starts[lane_at];
    const u32 tid = threadIdx.x, warp = tid / 32, thread = tid % 32, g = thread / 4, t = thread % 4;
    f16 *q_shared = memory, *k_shared = q_shared + FLASH_QUERIES * k_pitch, *v_shared = k_shared + FLASH_KEYS * k_pitch;

    // Rows behind the lane's end are zeros. Addresses are made anew from little: the sums fill the registers.
    const auto load_keys = [&](u32 tile) {
      const u32 key = start + tile * FLASH_KEYS, left = all - tile * FLASH_KEYS, stride = a.group * nope;
      load<FLASH_KEYS, NOPE>(k_shared, k_pitch, a.k + static_cast<u64>(key) * stride + in_group * nope, stride, nope, left);
      load<FLASH_KEYS, ROPE>(k_shared + nope, k_pitch, a.rotated + static_cast<u64>(key) * rope, rope, rope, left);
    };
    const auto load_values = [&](u32 tile) {
      const u32 key = start + tile * FLASH_KEYS, left = all - tile * FLASH_KEYS, stride = a.group * v_width;
      load<FLASH_KEYS, V>(v_shared, v_pitch, a.v + static_cast<u64>(key) * stride + in_group * v_width, stride, v_width, left);
    };
    float sums[2][MOST_V / 8][4], most[2][2], total[2][2];
#pragma unroll
    for (u32 m = 0; m < 2; m++) {
#pragma unroll
      for (u32 side = 0; side < 2; side++) {
        most[m][side] = -1e30f;
        total[m][side] = 0.f;
      }
#pragma unroll
      for (u32 n = 0; n < MOST_V / 8; n++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[m][n][i] = 0.f;
      }
    }
    depend();
    const u64 row = lane.row + query;
    if (first_tile < end_tile) {
      const u32 stride = a.heads * width;
      const f16 *q = a.q + row * stride + head * width;
      load<FLASH_QUERIES, NOPE>(q_shared, k_pitch, q, stride, nope, queries);
      load<FLASH_QUERIES, ROPE>(q_shared + nope, k_pitch, q + nope, stride, rope, queries);
      load_keys(first_tile);
    }
    cp_async_commit();
    const f16 *q_from = q_shared + (warp * 32 + thread % 16) * k_pitch + thread / 16 * 8;
    const f16 *k_from = k_shared + (thread / 16 * 8 + thread % 8) * k_pitch + thread / 8 % 2 * 8;
    const f16 *v_from = v_shared + thread % 16 * v_pitch + thread / 16 * 8;
    for (u32 tile = first_tile; tile < end_tile; tile++) {
      cp_async_wait<0>();
      __syncthreads();  // the keys are there, and the values before were left
      load_values(tile);
      cp_async_commit();
      float s[2][8][4];
#pragma unroll
      for (u32 m = 0; m < 2; m++) {
#pragma unroll
        for (u32 n = 0; n < 8; n++) {
#pragma unroll
          for (u32 i = 0; i < 4; i++) s[m][n][i] = 0.f;
        }
      }
#pragma unroll
      for (u32 k = 0; k < (NOPE ? (NOPE + ROPE) / 16 : 12); k++) {
        if (NOPE == 0 && k * 16 >= width) break;
        u32 x[2][4];
        ldmatrix_x4(x[0], q_from + k * 16);
        ldmatrix_x4(x[1], q_from + 16 * k_pitch + k * 16);
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
          u32 y[4];
          ldmatrix_x4(y, k_from + n * 16 * k_pitch + k * 16);
#pragma unroll
          for (u32 m = 0; m < 2; m++) {
            mma_f16(s[m][2 * n], x[m], y);
            mma_f16(s[m][2 * n + 1], x[m], y + 2);
          }
        }
      }
      cp_async_wait<0>();
      __syncthreads();  // the values are there, and the keys were left
      if (tile + 1 < end_tile) load_keys(tile + 1);
      cp_async_commit();
      // Row r of the lane sees rows <= position + r.
      const u32 mine = lane.position + query + warp * 32;
      if ((tile + 1) * FLASH_KEYS > mine + 1) {
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
#pragma unroll
          for (u32 n = 0; n < 8; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
              if (tile * FLASH_KEYS + n * 8 + 2 * t + i % 2 > mine + m * 16 + i / 2 * 8 + g) s[m][n][i] = -1e30f;
            }
          }
        }
      }
      bool changed = false;
      float by[2][2];
#pragma unroll
      for (u32 m = 0; m < 2; m++) {
#pragma unroll
        for (u32 side = 0; side < 2; side++) {
          float top = s[m][0][side * 2];
#pragma unroll
          for (u32 n = 0; n < 8; n++) top = fmaxf(top, fmaxf(s[m][n][side * 2], s[m][n][side * 2 + 1]));
          top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
          top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
          // Weights up to 2^8 are as good as weights up to 1, and seldom ask for the sums to be scaled.
          const float before = most[m][side];
          const bool up = top > before + 8.f;
          most[m][side] = up ? top : before;
          by[m][side] = up ? fast_exp2(before - top) : 1.f;
          changed = changed || up;
        }
      }
      if (__any_sync(ALL_LANES, changed)) {
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
#pragma unroll
          for (u32 side = 0; side < 2; side++) total[m][side] *= by[m][side];
#pragma unroll
          for (u32 n = 0; n < MOST_V / 8; n++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) sums[m][n][i] *= by[m][i / 2];
          }
        }
      }
#pragma unroll
      for (u32 k = 0; k < 4; k++) {
        u32 w[2][4];
#pragma unroll
        for (u32 m = 0; m < 2; m++) {
#pragma unroll
          for (u32 j = 0; j < 2; j++) {
            float *p = s[m][2 * k + j];
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
              p[i] = fast_exp2(p[i] - most[m][i / 2]);
              total[m][i / 2] += p[i];
            }
            w[m][2 * j] = pack_f16_small(p[0], p[1]);
            w[m][2 * j + 1] = pack_f16_small(p[2], p[3]);
          }
        }
#pragma unroll
        for (u32 n = 0; n < MOST_V / 16; n++) {
          if (V == 0 && n * 16 >= v_width) break;
          u32 y[4];
          ldmatrix_x4_trans(y, v_from + k * 16 * v_pitch + n * 16);
#pragma unroll
          for (u32 m = 0; m < 2; m++) {
            mma_f16(sums[m][2 * n], w[m], y);
            mma_f16(sums[m][2 * n + 1], w[m], y + 2);
          }
        }
      }
    }
#pragma unroll
    for (u32 m = 0; m < 2; m++) {
#pragma unroll
      for (u32 side = 0; side < 2; side++) {
        float all_weights = total[m][side];
        all_weights += __shfl_xor_sync(ALL_LANES, all_weights, 1);
        all_weights += __shfl_xor_sync(ALL_LANES, all_weights, 2);
        const u32 in_tile = warp * 32 + m * 16 + side * 8 + g;
        if (in_tile >= queries) continue;
        const u64 at = (row + in_tile) * a.heads + head;
        if (a.splits > 1) {
          const u64 to = static_cast<u64>(split) * a.rows * a.heads + at;
          if (t == 0) a.heads_of[to] = make_float2(most[m][side], all_weights);
#pragma unroll
          for (u32 n = 0; n < MOST_V / 8; n++) {
            if (V == 0 && n * 8 >= v_width) break;
            *reinterpret_cast<float2 *>(a.sums + to * v_width + n * 8 + 2 * t) =
                make_float2(sums[m][n][side * 2], sums[m][n][side * 2 + 1]);
          }
          continue;
        }
        float open = 1.f / all_weights;
        if (a.gate) open *= sigmoid(a.gate[(row + in_tile) * a.gate_stride + head]);
#pragma unroll
        for (u32 n = 0; n < MOST_V / 8; n++) {
          if (V == 0 && n * 8 >= v_width) break;
          const float x = sums[m][n][side * 2] * open, y = sums[m][n][side * 2 + 1] * open;
          *reinterpret_cast<u32 *>(a.out + at * v_width + n * 8 + 2 * t) = pack_f16(x, y);
          if (a.out32) *reinterpret_cast<float2 *>(a.out32 + at * v_width + n * 8 + 2 * t) = make_float2(x, y);
        }
      }
    }
  }
};

}  // namespace mla

KERNEL_BOUNDS(mla_flash, MlaFlashArgs, 128, 2) { mla::Flash<0, 0, 0>().run(a); }
KERNEL_BOUNDS(mla_flash_k128, MlaFlashArgs, 128, 2) { mla::Flash<128, 64, 128>().run(a); }
