// KDA of many rows, in three kernels: kda_prepare, every sixteen tokens at once; kda_scan, S from sixteen to sixteen;
// kda_finish, norm and gate. The first two have files of their own; here is what they share, and the last.
//
// With K, Q rows of k and q, d the decays, c_i = d_1 .. d_i inside the chunk (products of what is at most 1: nothing
// is ever divided by a decay, so any gate is safe):
//   A_ij = beta_i k_i . (d_j+1 .. d_i) k_j (j < i)   P_ij = q_i . (d_j+1 .. d_i) k_j (j <= i)
//   W = (1 + A)^-1 beta c k      U = (1 + A)^-1 beta v - W S      O = c q S + P U
//   S <- c_16 S + ((d_i+1 .. d_16) k_i)^T U
// kda_prepare makes all that S has no part in, in f32. kda_scan's products are tensor cores': each value is two of
// bf16, of which hi hi + hi lo + lo hi is summed in f32, so a product is off by some 2^-16.
//
// Chunks begin at positions divisible by sixteen, wherever a pass begins: a token's bits depend on where its sequence
// was cut only where it was cut inside a chunk. Lanes never meet.
//
// None of the three lets the next kernel go early, and each begins alone: a scan's blocks that begin while others are
// still there come to lie by several on one multiprocessor, and take as many times as long.
#pragma once
#include "kda.cuh"

namespace mixers {

constexpr int CHUNK = 16;

// A record of a chunk of a head, in words. [16, d] of bf16, two to a word, its upper part and what that leaves: W, c q,
// and what k adds, (d_i+1 .. d_16) k_i. P [16, 16] likewise. Then f32: c_16 [d] and (1 + A)^-1 beta v, turned, [d, 16].
// Records lie [chunk, head]; lane i's begin at (row + 30 i) / 16, which leaves each room for one that begins and one
// that ends inside a chunk.
template <int D>
struct Record {
  static constexpr int HALF = CHUNK * D / 2, P_HALF = CHUNK * CHUNK / 2;
  static constexpr int W = 0, Q = 2 * HALF, K = 4 * HALF, P = 6 * HALF, C = P + 2 * P_HALF, V = C + D;
  static constexpr int LEN = V + CHUNK * D;
};

DEVICE u64 first_chunk(const WideLane &lane, u32 number) { return (lane.row + 2 * (CHUNK - 1) * u64(number)) / CHUNK; }
DEVICE u32 count_chunks(const WideLane &lane) {
  return lane.rows == 0 ? 0 : (lane.position % CHUNK + lane.rows + CHUNK - 1) / CHUNK;
}

// Where 16 bytes of a row of bf16 lie in it: so that eight rows' same columns meet no bank twice.
template <int D>
DEVICE u32 place_of(u32 row, u32 piece) {
  return D == 32 ? piece ^ (row / 2 & 3u) : piece ^ (row & 7u);
}

// Two values in two parts.
DEVICE void split_two(float x, float y, u32 &hi, u32 &lo) {
  hi = pack_bf16(x, y);
  const float2 there = unpack_bf16(hi);
  lo = pack_bf16(x - there.x, y - there.y);
}

}  // namespace mixers

struct KdaFinishArgs {
  const float *o;     // [rows, inner], not normed
  const float *open;  // the gate's projection
  const float *norm;  // [d]
  float *y;           // f32 [rows, inner], or null
  u16 *h;             // f16 [rows, inner], or null
  u32 rows, heads, open_row;
  float eps;
};

namespace mixers {

// rms_norm(o) * norm * sigmoid(open). A warp a row of a head.
template <int D>
DEVICE void kda_finish(const KdaFinishArgs &a) {
  constexpr int EACH = D / 32;
  const u32 l = threadIdx.x & 31u;
  float norm[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) norm[i] = __ldg(a.norm + l * EACH + i);
  depend();
  const u64 at = u64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (at >= u64(a.rows) * a.heads) return;
  const u64 row = at / a.heads;
  const u32 head = u32(at % a.heads);
  const float *o = a.o + at * D + l * EACH, *open = a.open + row * a.open_row + head * D + l * EACH;
  float x[EACH], gate[EACH], sum = 0.f;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    x[i] = o[i];
    gate[i] = open[i];
    sum = fmaf(x[i], x[i], sum);
  }
  const float scale = rsqrtf(warp_sum(sum) * (1.f / D) + a.eps);
#pragma unroll
  for (int i = 0; i < EACH; i++) x[i] = x[i] * scale * norm[i] * sigmoid(gate[i]);
  const u64 place = at * D + l * EACH;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    if (a.y) a.y[place + i] = x[i];
    if (a.h && EACH == 1) a.h[place + i] = f16_bits(to_f16(x[i]));
  }
  if (a.h && EACH > 1) {
#pragma unroll
    for (int i = 0; i + 1 < EACH; i += 2)
      *reinterpret_cast<u32 *>(a.h + place + i) = pack_f16(x[i], x[i + 1]);
  }
}

}  // namespace mixers

KERNEL_BOUNDS(kda_finish_32, KdaFinishArgs, 256, 1) { mixers::kda_finish<32>(a); }
KERNEL_BOUNDS(kda_finish_64, KdaFinishArgs, 256, 1) { mixers::kda_finish<64>(a); }
KERNEL_BOUNDS(kda_finish_128, KdaFinishArgs, 256, 1) { mixers::kda_finish<128>(a); }
