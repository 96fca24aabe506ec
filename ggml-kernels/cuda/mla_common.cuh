// What MLA's kernels share: where a row of the cache lies, how far a pair is turned, and eight neighbouring
// weights of a row of any type.
#pragma once
#include "model.cuh"

namespace mla {

// Row `row` of a layer: blocks hold [layers, BLOCK_ROWS, latent].
DEVICE f16 *row_of(const u64 *table, u32 layer, u32 latent, u32 row) {
  f16 *block = reinterpret_cast<f16 *>(table[row / BLOCK_ROWS]);
  return block + (static_cast<u64>(layer) * BLOCK_ROWS + row % BLOCK_ROWS) * latent;
}

// A pair's cosine and sine at a position. speed: turns a position, in 2^-64 of a turn; the product's overflow is
// whole turns, so that no digit is lost however long the text.
DEVICE float2 turn(u64 speed, u32 position) {
  const u64 turned = speed * position;
  const float angle = static_cast<float>(static_cast<int>(static_cast<u32>(turned >> 32))) * 1.4629180792671596e-9f;
  return make_float2(cosf(angle), sinf(angle));
}

DEVICE float sigmoid(float v) { return 1.f / (1.f + __expf(-v)); }

// One value of a row of any type, however slow.
DEVICE float weight_at(const u8 *row, u32 type, u32 cols, u32 col) {
  const u32 in = col % 256;
  switch (type) {
    case F32: return reinterpret_cast<const float *>(row)[col];
    case F16: return to_float(reinterpret_cast<const f16 *>(row)[col]);
    case BF16: return to_float(reinterpret_cast<const bf16 *>(row)[col]);
    case Q4_0: {
      const u32 byte = row[col / 32 * 16 + col % 16];
      const int q = static_cast<int>(col % 32 < 16 ? byte & 15 : byte >> 4) - 8;
      return to_float(reinterpret_cast<const f16 *>(row + cols / 2)[col / 32]) * static_cast<float>(q);
    }
    case Q8_0:
      return to_float(reinterpret_cast<const f16 *>(row + cols)[col / 32]) *
             static_cast<float>(reinterpret_cast<const i8 *>(row)[col]);
    case Q4_K:
    case Q5_K: {
      const u8 *block = row + col / 256 * (type == Q4_K ? 144 : 176);
      const u8 *scales = block + 4;
      const u32 sub = in / 32;
      u32 scale, least;
      if (sub < 4) {
        scale = scales[sub] & 63;
        least = scales[sub + 4] & 63;
      } else {
        scale = (scales[sub + 4] & 15) | (scales[sub - 4] >> 6 << 4);
        least = (scales[sub + 4] >> 4) | (scales[sub] >> 6 << 4);
      }
      const u32 byte = block[(type == Q4_K ? 16 : 48) + in / 64 * 32 + in % 32];
      u32 q = sub & 1 ? byte >> 4 : byte & 15;
      if (type == Q5_K) q |= (block[16 + in % 32] >> sub & 1) << 4;
      const f16 *dm = reinterpret_cast<const f16 *>(block);
      return to_float(dm[0]) * static_cast<float>(scale * q) - to_float(dm[1]) * static_cast<float>(least);
    }
    default: {  // Q6_K
      const u32 count = cols / 256, at = col / 256, half = in / 128, quarter = in % 128 / 32, i = in % 32;
      const u8 *block = row + at * 208;
      const u32 low = block[half * 64 + (quarter & 1) * 32 + i] >> (quarter >> 1) * 4 & 15;
      const u32 high = block[128 + half * 32 + i] >> quarter * 2 & 3;
      const int q = static_cast<int>(low | high << 4) - 32;
      const int scale = reinterpret_cast<const i8 *>(block)[192 + in / 16];
      return to_float(reinterpret_cast<const f16 *>(row + count * 208)[at]) * static_cast<float>(scale * q);
    }
  }
}

// Eight neighbouring weights as they lie in memory; `at` is a multiple of eight. An empty one weighs nothing.
struct HalfChunk {
  uint4 bits;
  __device__ __forceinline__ void clear() { bits = make_uint4(0, 0, 0, 0); }
  __device__ __forceinline__ void load(const u8 *row, u32, u32, u32 at) {
    bits = load_once(reinterpret_cast<const uint4 *>(row + at * 2));
  }
  __device__ __forceinline__ float dot(const float x[8]) const {
    const u32 b[4] = {bits.x, bits.y, bits.z, bits.w};
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 w = unpack_f16(b[i]);
      sum = fmaf(w.x, x[2 * i], sum);
      sum = fmaf(w.y, x[2 * i + 1], sum);
    }
    return sum;
  }
};

struct BrainChunk {
  uint4 bits;
  __device__ __forceinline__ void clear() { bits = make_uint4(0, 0, 0, 0); }
  __device__ __forceinline__ void load(const u8 *row, u32, u32, u32 at) {
    bits = load_once(reinterpret_cast<const uint4 *>(row + at * 2));
  }
  __device__ __forceinline__ float dot(const float x[8]) const {
    const u32 b[4] = {bits.x, bits.y, bits.z, bits.w};
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 w = unpack_bf16(b[i]);
      sum = fmaf(w.x, x[2 * i], sum);
      sum = fmaf(w.y, x[2 * i + 1], sum);
    }
    return sum;
  }
};

struct ByteChunk {  // Q8_0
  uint2 bits;
  f16 d;
  __device__ __forceinline__ void clear() {
    bits = make_uint2(0, 0);
    d = bits_f16(0);
  }
  __device__ __forceinline__ void load(const u8 *row, u32, u32 cols, u32 at) {
    bits = load_once(reinterpret_cast<const uint2 *>(row + at));
    d = reinterpret_cast<const f16 *>(row + cols)[at / 32];
  }
  __device__ __forceinline__ float dot(const float x[8]) const {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      sum = fmaf(static_cast<float>(static_cast<i8>(bits.x >> 8 * i)), x[i], sum);
      sum = fmaf(static_cast<float>(static_cast<i8>(bits.y >> 8 * i)), x[4 + i], sum);
    }
    return sum * to_float(d);
  }
};

struct AnyChunk {
  float w[8];
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = 0.f;
  }
  __device__ __forceinline__ void load(const u8 *row, u32 type, u32 cols, u32 at) {
#pragma unroll 1
    for (int i = 0; i < 8; i++) {
      const float v = weight_at(row, type, cols, at + i);
#pragma unroll
      for (int j = 0; j < 8; j++) w[j] = j == i ? v : w[j];
    }
  }
  __device__ __forceinline__ float dot(const float x[8]) const {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum = fmaf(w[i], x[i], sum);
    return sum;
  }
};

// Eight sums over the 16 lanes of half a warp: lane l of them gets the whole sum number (l >> 1) & 7 in bits
// reversed: bit 3 of l chooses the upper four, bit 2 the upper two of those, bit 1 the last.
DEVICE float sum_eight(const float v[8], u32 lane) {
  float four[4], two[2];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float mine = lane & 8 ? v[4 + i] : v[i], other = lane & 8 ? v[i] : v[4 + i];
    four[i] = mine + __shfl_xor_sync(ALL_LANES, other, 8);
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const float mine = lane & 4 ? four[2 + i] : four[i], other = lane & 4 ? four[i] : four[2 + i];
    two[i] = mine + __shfl_xor_sync(ALL_LANES, other, 4);
  }
  const float mine = lane & 2 ? two[1] : two[0], other = lane & 2 ? two[0] : two[1];
  const float one = mine + __shfl_xor_sync(ALL_LANES, other, 2);
  return one + __shfl_xor_sync(ALL_LANES, one, 1);
}
DEVICE u32 sum_number(u32 lane) { return (lane >> 3 & 1) * 4 + (lane >> 2 & 1) * 2 + (lane >> 1 & 1); }

// The sum over a block, for all its threads. `room`: a float for each warp.
DEVICE float block_sum(float v, float *room) {
  const float sum = warp_sum(v);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = sum;
  __syncthreads();
  float all = 0.f;
  for (u32 i = 0; i < blockDim.x / 32; i++) all += room[i];
  __syncthreads();
  return all;
}

}  // namespace mla
