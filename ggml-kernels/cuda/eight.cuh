// Rows of q4_k and q5_k times one row of 8 bits, eight rows a warp: four lanes a row, each with a quarter of every
// superblock (64 values), so that a lane has all values of its two scales. The rows come through shared memory, on
// compute capability 9.0 and later by bulk copies: one, where they are whole.
#pragma once
#include "dot.cuh"

namespace products {

DEVICE bool is_eight(u32 type) { return type == Q4_K || type == Q5_K; }

// Of up to eight rows of a matrix (of a tile for tensor cores up to 16), superblocks [first, first + count).
struct Eight {
  const u8 *rows;
  u32 row_bytes, there, type, first, count;

  DEVICE u32 superblock() const { return type == Q4_K ? 144 : 176; }
};

// Where an eight comes to, for one warp alone; one after the other.
struct Stage {
  u8 *own;
  u64 *arrival;
  u32 stride, taken;

  // `at`: row_stride bytes for each row, as many as any's part at least; `bar`: nobody else's while the kernel runs.
  DEVICE void begin(u8 *at, u64 *bar, u32 row_stride) {
    own = at, arrival = bar, stride = row_stride, taken = 0;
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 == 0) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(bar)) : "memory");
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
#endif
  }
  // The eight before was taken, by all lanes.
  DEVICE void bring(const Eight &e) {
    const u32 bytes = e.count * e.superblock();
    const u8 *from = e.rows + e.first * e.superblock();
#if __CUDA_ARCH__ >= 900
    if (threadIdx.x % 32 > 0) return;
    expect(e.there * bytes);
    const bool is_whole = bytes == e.row_bytes && bytes == stride;
    const u32 copies = is_whole ? 1 : e.there, size = is_whole ? e.there * bytes : bytes;
#pragma unroll 1
    for (u32 i = 0; i < copies; i++) ask(own + i * stride, from + u64(i) * e.row_bytes, size);
#else
    const u32 pieces = bytes / 16;
    for (u32 i = threadIdx.x % 32; i < e.there * pieces; i += 32)
      cp_async16(own + i / pieces * stride + i % pieces * 16, from + u64(i / pieces) * e.row_bytes + i % pieces * 16);
    cp_async_commit();
#endif
  }
  // The same, each row asked for by a lane of its own: sooner for rows in parts, later for one copy.
  DEVICE void bring_by_lanes(const Eight &e) {
#if __CUDA_ARCH__ >= 900
    const u32 bytes = e.count * e.superblock(), lane = threadIdx.x % 32;
    if (lane == 0) expect(e.there * bytes);
    __syncwarp();
    if (lane < e.there) ask(own + lane * stride, e.rows + e.first * e.superblock() + u64(lane) * e.row_bytes, bytes);
#else
    bring(e);
#endif
  }
#if __CUDA_ARCH__ >= 900
  DEVICE void expect(u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrival)), "r"(bytes)
                 : "memory");
  }
  DEVICE void ask(u8 *to, const u8 *from, u32 bytes) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(arrival))
                 : "memory");
  }
#endif
  // Until what was brought is there.
  DEVICE void wait() {
#if __CUDA_ARCH__ >= 900
    u32 is_there = 0;
    while (!is_there)
      asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                   : "=r"(is_there)
                   : "r"(shared_address(arrival)), "r"(taken & 1)
                   : "memory");
    taken++;
#else
    cp_async_wait<0>();
    __syncwarp();
#endif
  }
};

// A quarter's two scales and minima of a superblock's eight, 6 bits each: bytes 0 and 1.
DEVICE void quarter_scales(const uint4 &h, u32 quarter, u32 &scales, u32 &mins) {
  const u32 shift = quarter % 2 * 16, y = h.y >> shift, z = h.z >> shift, w = h.w >> shift;
  scales = quarter < 2 ? y & 0x3f3fu : (w & 0x0f0fu) | ((y >> 2) & 0x3030u);
  mins = quarter < 2 ? z & 0x3f3fu : ((w >> 4) & 0x0f0fu) | ((z >> 2) & 0x3030u);
}

DEVICE int dot16_unsigned(const u32 *w, const uint4 &q, int sum) {
  return dot4_unsigned(w[3], q.w, dot4_unsigned(w[2], q.z, dot4_unsigned(w[1], q.y, dot4_unsigned(w[0], q.x, sum))));
}

// Which quarter of superblocks a lane has, and which 16 of its 32 bytes it takes first: where a row's stride is an even
// number of 16 bytes, every other row the second, so that lanes that read at once meet no bank twice.
struct Quarter {
  u32 at, first;
  DEVICE uint4 chunk(const i8 *q, u32 i) const { return *reinterpret_cast<const uint4 *>(q + swizzle(4 * at + i) * 16); }
};

struct EightQ4K {
  static constexpr u32 BYTES = 144;
  static constexpr float HIGH = 0.0625f;  // high nibbles are multiplied where they stand
  DEVICE static void unpack(const u8 *b, u32 quarter, u32 half, u32 *lo, u32 *hi) {
    low_and_high(*reinterpret_cast<const uint4 *>(b + 16 + 32 * quarter + 16 * half), lo, hi);
  }
};

struct EightQ5K {
  static constexpr u32 BYTES = 176;
  static constexpr float HIGH = 1.f;
  DEVICE static void unpack(const u8 *b, u32 quarter, u32 half, u32 *lo, u32 *hi) {
    const uint4 w = *reinterpret_cast<const uint4 *>(b + 48 + 32 * quarter + 16 * half);
    const uint4 fifths = *reinterpret_cast<const uint4 *>(b + 16 + 16 * half);
    const u32 shift = 2 * quarter;
    Q5K::fifth(w.x, fifths.x >> shift, lo[0], hi[0]);
    Q5K::fifth(w.y, fifths.y >> shift, lo[1], hi[1]);
    Q5K::fifth(w.z, fifths.z >> shift, lo[2], hi[2]);
    Q5K::fifth(w.w, fifths.w >> shift, lo[3], hi[3]);
  }
};

// A quarter of the superblock at `b`: its part of the sum, and of what the minima take from it.
template <class T>
DEVICE void add_quarter(const u8 *b, Quarter at, const i8 *q, const float *d, const float *sums, float &sum, float &less) {
  const uint4 h = *reinterpret_cast<const uint4 *>(b);
  u32 scales, mins, lo[4], hi[4];
  quarter_scales(h, at.at, scales, mins);
  int low = MAGIC, high = MAGIC;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const u32 half = i ^ at.first;
    T::unpack(b, at.at, half, lo, hi);
    low = dot16_unsigned(lo, at.chunk(q, half), low);
    high = dot16_unsigned(hi, at.chunk(q, 2 + half), high);
  }
  const float2 of = *reinterpret_cast<const float2 *>(d + 2 * at.at);
  const float4 s = *reinterpret_cast<const float4 *>(sums + 4 * at.at);
  const float factor = half_float(h.x & 0xffffu);
  sum = fmaf(of.x * (factor * byte_float(scales, 0)), magic_float(low), sum);
  sum = fmaf(of.y * (factor * T::HIGH * byte_float(scales, 1)), magic_float(high), sum);
  less = fmaf(half_float(h.x >> 16), fmaf(byte_float(mins, 1), s.z + s.w, byte_float(mins, 0) * (s.x + s.y)), less);
}

// `count` superblocks at `b`, of one row; `in` begins where they do.
template <class T, u32 AT_ONCE>
DEVICE float add_row(const u8 *b, Quarter at, u32 count, const Staged &in) {
  const i8 *q = in.q;
  const float *d = in.d, *sums = in.sums;
  float sum = 0, less = 0;
  const auto add = [&](u32 i) { add_quarter<T>(b + i * T::BYTES, at, q + i * 256, d + i * 8, sums + i * 16, sum, less); };
  for (; count >= AT_ONCE; count -= AT_ONCE) {
#pragma unroll
    for (u32 i = 0; i < AT_ONCE; i++) add(i);
    b += AT_ONCE * T::BYTES, q += AT_ONCE * 256, d += AT_ONCE * 8, sums += AT_ONCE * 16;
  }
#pragma unroll 1
  for (u32 i = 0; i < count; i++) add(i);
  return sum - less;
}

// The product of the eight that was brought, the row of lane / 4 to each lane. AT_ONCE only says how it is unrolled.
template <u32 AT_ONCE>
DEVICE float take_eight(Stage &stage, const Eight &e, const Staged &in) {
  const u32 r = threadIdx.x % 32 / 4;
  const Quarter at = {threadIdx.x % 4, stage.stride % 32 ? 0 : r % 2};
  const u8 *b = stage.own + r * stage.stride;
  stage.wait();
  float sum = e.type == Q4_K ? add_row<EightQ4K, AT_ONCE>(b, at, e.count, in) : add_row<EightQ5K, AT_ONCE>(b, at, e.count, in);
  sum += __shfl_xor_sync(ALL_LANES, sum, 1);
  return sum + __shfl_xor_sync(ALL_LANES, sum, 2);
}

}  // namespace products
