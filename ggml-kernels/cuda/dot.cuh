// Rows of quantized weights times rows of 8 bits: how a warp streams a matrix.
//
// A row is cut into superblocks of 256 values. LANES lanes (8, or 16 for q8_0) hold one superblock, 16 bytes of
// weights each, so a warp has 4 (2) rows in its hands, and step after step takes up to U superblocks of each. All of a
// step's weights are in registers before the first is used, and a register is loaded again for the next step as soon
// as its content is used up: the memory always has a full queue. What belongs to a superblock as a whole (scales,
// minima) is decoded by one lane of the row and goes through shared memory to the others.
//
// The arithmetic of a row never depends on how many rows of activations share the launch.
#pragma once
#include "model.cuh"

namespace products {

// Activations in shared memory: superblock after superblock, in each RB rows side by side.
struct Staged {
  i8 *q;        // [superblocks][RB][256], 16-byte chunks in the order of swizzle()
  float *d;     // [superblocks][RB][8]
  float *sums;  // [superblocks][RB][16]: d times the sum of 16 values
};

constexpr u32 STAGED_BYTES = 256 + 8 * 4 + 16 * 4;  // a superblock of one row

// Where chunk x of a superblock lies: the eight chunks that any type's eight lanes read at once lie in different banks.
DEVICE u32 swizzle(u32 x) { return x & 8 ? 8 + ((x & 7) ^ 7) : x; }

DEVICE Staged staged_at(u8 *shared, u32 superblocks, u32 rows) {
  Staged s;
  s.q = reinterpret_cast<i8 *>(shared);
  s.d = reinterpret_cast<float *>(shared + superblocks * rows * 256);
  s.sums = s.d + superblocks * rows * 8;
  return s;
}

// The part of `s` from superblock `first` on.
template <int RB>
DEVICE Staged staged_from(Staged s, u32 first) {
  s.q += first * RB * 256;
  s.d += first * RB * 8;
  s.sums += first * RB * 16;
  return s;
}

// Superblocks [first, first + count) of rows [row, row + RB) of `in`, of which `cols` values count; zeros beyond. Thread
// `thread` of `threads` does its share; the caller synchronizes.
template <int RB>
DEVICE void stage(const Acts &in, u32 row, u32 cols, u32 first, u32 count, const Staged &to, u32 thread, u32 threads) {
  for (u32 i = thread; i < count * RB * 16; i += threads) {
    const u32 x = i % 16, b = i / 16 % RB, at = (first + i / 16 / RB) * 256 + x * 16;
    uint4 q = make_uint4(0, 0, 0, 0);
    float d = 0, sum = 0;
    if (at < cols && row + b < in.rows) {
      const u64 from = static_cast<u64>(row + b) * in.cols + at;
      q = *reinterpret_cast<const uint4 *>(in.q + from);
      d = in.d[from / 32];
      sum = d * static_cast<float>(in.s[from / 16]);
    }
    *reinterpret_cast<uint4 *>(to.q + i / 16 * 256 + swizzle(x) * 16) = q;
    if (x % 2 == 0) to.d[i / 2] = d;
    to.sums[i] = sum;
  }
}

DEVICE float byte_float(u32 v, int at) { return static_cast<float>((v >> (8 * at)) & 255u); }
DEVICE float signed_byte_float(u32 v, int at) {
  return static_cast<float>(static_cast<int>(static_cast<i8>((v >> (8 * at)) & 255u)));
}

// Four unsigned bytes times four signed ones.
DEVICE int dot4_unsigned(u32 a, u32 b, int c) {
#ifdef __CUDACC__
  int d;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#else
  for (int i = 0; i < 4; i++) c += static_cast<int>((a >> (8 * i)) & 255u) * static_cast<int>(static_cast<i8>(b >> (8 * i)));
  return c;
#endif
}

// An integer sum that starts here is a float's bits: with MAGIC_FLOAT subtracted it is the sum, exactly while
// its magnitude is below 2^22 (16 products here: below 16 * 255 * 128).
constexpr int MAGIC = 0x4b400000;
constexpr float MAGIC_FLOAT = 12582912.f;
DEVICE float magic_float(int v) { return __int_as_float(v) - MAGIC_FLOAT; }

DEVICE float half_float(u32 bits) { return to_float(bits_f16(static_cast<u16>(bits))); }
DEVICE float half_of(const uint4 &v, int at) {
  const u32 word = at < 2 ? v.x : at < 4 ? v.y : at < 6 ? v.z : v.w;
  return half_float(at % 2 ? word >> 16 : word & 0xffffu);
}

constexpr u32 NIBBLES = 0x0f0f0f0fu, HIGH_NIBBLES = 0xf0f0f0f0u;

DEVICE void low_and_high(const uint4 &w, u32 *lo, u32 *hi) {
  lo[0] = w.x & NIBBLES, lo[1] = w.y & NIBBLES, lo[2] = w.z & NIBBLES, lo[3] = w.w & NIBBLES;
  hi[0] = w.x & HIGH_NIBBLES, hi[1] = w.y & HIGH_NIBBLES, hi[2] = w.z & HIGH_NIBBLES, hi[3] = w.w & HIGH_NIBBLES;
}

// The eight 6-bit scales and minima of q4_k and q5_k.
DEVICE void k_scales(const uint4 &h, u32 scales[2], u32 mins[2]) {
  scales[0] = h.y & 0x3f3f3f3fu;
  mins[0] = h.z & 0x3f3f3f3fu;
  scales[1] = (h.w & NIBBLES) | ((h.y >> 2) & 0x30303030u);
  mins[1] = ((h.w >> 4) & NIBBLES) | ((h.z >> 2) & 0x30303030u);
}

// A type says, for lane c of a row: BYTES of a superblock, LOADS of 16 bytes a lane takes of it and where; the
// chunks of activations its low and high halves meet (PAIRS: it has both); the header of a superblock, decoded into
// 8 or 16 scales (lane c's at scale(c); SCALE_PAIRS: its low and its high one from 2 * scale(c) on) and MINS weights of
// the sums, all times one factor.
struct Q4K {
  static constexpr int LANES = 8, LOADS = 1, BYTES = 144, SCALES = 8, MINS = 8;
  static constexpr bool PAIRS = true, SCALE_PAIRS = true;
  DEVICE static u32 first_value(u32) { return 0; }
  DEVICE static u32 load_at(u32 c, int) { return 16 + 16 * c; }
  DEVICE static u32 low_chunk(u32 c) { return c / 2 * 4 + c % 2; }
  DEVICE static u32 high_chunk(u32 c) { return c / 2 * 4 + 2 + c % 2; }
  DEVICE static u32 scale(u32 c) { return c / 2; }
  DEVICE static u32 head_at(u32, u32 superblock) { return superblock * BYTES; }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }
  DEVICE static float decode(const uint4 &h, u32, float *scales, float *mins) {
    u32 s[2], m[2];
    k_scales(h, s, m);
    const float d = half_float(h.x & 0xffffu);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      // The high nibbles are multiplied where they stand, 16 times too large.
      scales[j] = (j % 2 ? d * 0.0625f : d) * byte_float(s[j / 4], j % 4);
      mins[j] = byte_float(m[j / 4], j % 4);
    }
    return half_float(h.x >> 16);
  }
  DEVICE static void unpack(const uint4 *w, u32, u32 *lo, u32 *hi) { low_and_high(w[0], lo, hi); }
};

struct Q5K : Q4K {
  static constexpr int LOADS = 2, BYTES = 176;
  DEVICE static u32 load_at(u32 c, int load) { return load ? 16 + 16 * (c % 2) : 48 + 16 * c; }
  DEVICE static u32 head_at(u32, u32 superblock) { return superblock * BYTES; }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }
  DEVICE static float decode(const uint4 &h, u32, float *scales, float *mins) {
    u32 s[2], m[2];
    k_scales(h, s, m);
    const float d = half_float(h.x & 0xffffu);
#pragma unroll
    for (int j = 0; j < 8; j++) {
      scales[j] = d * byte_float(s[j / 4], j % 4);
      mins[j] = byte_float(m[j / 4], j % 4);
    }
    return half_float(h.x >> 16);
  }
  DEVICE static void fifth(u32 w, u32 bits, u32 &lo, u32 &hi) {
    lo = (w & NIBBLES) | ((bits << 4) & 0x10101010u);
    hi = ((w >> 4) & NIBBLES) | ((bits << 3) & 0x10101010u);
  }
  DEVICE static void unpack(const uint4 *w, u32 c, u32 *lo, u32 *hi) {
    const u32 shift = c / 2 * 2;
    fifth(w[0].x, w[1].x >> shift, lo[0], hi[0]);
    fifth(w[0].y, w[1].y >> shift, lo[1], hi[1]);
    fifth(w[0].z, w[1].z >> shift, lo[2], hi[2]);
    fifth(w[0].w, w[1].w >> shift, lo[3], hi[3]);
  }
};

struct Q6K {
  static constexpr int LANES = 8, LOADS = 2, BYTES = 208, SCALES = 16, MINS = 16;
  static constexpr bool PAIRS = true, SCALE_PAIRS = true;
  DEVICE static u32 first_value(u32) { return 0; }
  DEVICE static u32 load_at(u32 c, int load) { return load ? 128 + 32 * (c / 4) + 16 * (c % 2) : 16 * c; }
  DEVICE static u32 low_chunk(u32 c) { return c / 4 * 8 + c % 4; }
  DEVICE static u32 high_chunk(u32 c) { return c / 4 * 8 + c % 4 + 4; }
  DEVICE static u32 scale(u32 c) { return c; }
  DEVICE static u32 head_at(u32, u32 superblock) { return superblock * BYTES + 192; }
  DEVICE static u32 extra(const u8 *row, u32 cols, u32 superblock) {
    return *reinterpret_cast<const u16 *>(row + cols / 256 * BYTES + superblock * 2);
  }
  DEVICE static float decode(const uint4 &h, u32 f16_d, float *scales, float *mins) {
    const u32 words[4] = {h.x, h.y, h.z, h.w};
    const float d = half_float(f16_d);
#pragma unroll
    for (int j = 0; j < 16; j++) {
      const float s = signed_byte_float(words[j / 4], j % 4);
      scales[j / 8 * 8 + j % 4 * 2 + j / 4 % 2] = d * s;
      mins[j] = s;
    }
    return 32.f * d;
  }
  DEVICE static void two_more(u32 w, u32 bits, u32 &lo, u32 &hi) {
    lo = (w & NIBBLES) | ((bits << 4) & 0x30303030u);
    hi = ((w >> 4) & NIBBLES) | (bits & 0x30303030u);
  }
  DEVICE static void unpack(const uint4 *w, u32 c, u32 *lo, u32 *hi) {
    const u32 shift = c / 2 % 2 * 2;
    two_more(w[0].x, w[1].x >> shift, lo[0], hi[0]);
    two_more(w[0].y, w[1].y >> shift, lo[1], hi[1]);
    two_more(w[0].z, w[1].z >> shift, lo[2], hi[2]);
    two_more(w[0].w, w[1].w >> shift, lo[3], hi[3]);
  }
};

struct Q4_0Row {
  static constexpr int LANES = 8, LOADS = 1, BYTES = 128, SCALES = 8, MINS = 8;
  static constexpr bool PAIRS = true, SCALE_PAIRS = false;
  DEVICE static u32 first_value(u32 c) { return 32 * c; }
  DEVICE static u32 load_at(u32 c, int) { return 16 * c; }
  DEVICE static u32 low_chunk(u32 c) { return 2 * c; }
  DEVICE static u32 high_chunk(u32 c) { return 2 * c + 1; }
  DEVICE static u32 scale(u32 c) { return c; }
  DEVICE static u32 head_at(u32 cols, u32 superblock) { return cols / 2 + superblock * 16; }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }
  DEVICE static float decode(const uint4 &h, u32, float *scales, float *mins) {
#pragma unroll
    for (int j = 0; j < 8; j++) scales[j] = mins[j] = half_of(h, j);
    return 8.f;
  }
  DEVICE static void unpack(const uint4 *w, u32, u32 *lo, u32 *hi) { low_and_high(w[0], lo, hi); }
};

struct Q8_0Row {
  static constexpr int LANES = 16, LOADS = 1, BYTES = 256, SCALES = 8, MINS = 0;
  static constexpr bool PAIRS = false, SCALE_PAIRS = false;
  DEVICE static u32 first_value(u32 c) { return 16 * c; }
  DEVICE static u32 load_at(u32 c, int) { return 16 * c; }
  DEVICE static u32 low_chunk(u32 c) { return c; }
  DEVICE static u32 high_chunk(u32 c) { return c; }
  DEVICE static u32 scale(u32 c) { return c / 2; }
  DEVICE static u32 head_at(u32 cols, u32 superblock) { return cols + superblock * 16; }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }
  DEVICE static float decode(const uint4 &h, u32, float *scales, float *) {
#pragma unroll
    for (int j = 0; j < 8; j++) scales[j] = half_of(h, j);
    return 0.f;
  }
  DEVICE static void unpack(const uint4 *w, u32, u32 *lo, u32 *) {
    lo[0] = w[0].x, lo[1] = w[0].y, lo[2] = w[0].z, lo[3] = w[0].w;
  }
};

// The scales of a row in shared memory: rows lie so that the lanes that read at once meet no bank twice.
template <int SUPERBLOCKS, int SCALES>
struct ScaleStride {
  static constexpr int N = SUPERBLOCKS * SCALES, VALUE = N + (N % 32 == 0 ? SCALES : 0);
};

// One superblock's dot: 16 values of the low and 16 of the high half.
template <class T>
DEVICE float dot_chunks(const u32 *lo, const u32 *hi, const i8 *q, const float *d, u32 c, float2 scale, float acc) {
  const uint4 a = *reinterpret_cast<const uint4 *>(q + swizzle(T::low_chunk(c)) * 16);
  int low = MAGIC;
  if (T::PAIRS) {
    const uint4 b = *reinterpret_cast<const uint4 *>(q + swizzle(T::high_chunk(c)) * 16);
    int high = MAGIC;
    low = dot4_unsigned(lo[0], a.x, low), high = dot4_unsigned(hi[0], b.x, high);
    low = dot4_unsigned(lo[1], a.y, low), high = dot4_unsigned(hi[1], b.y, high);
    low = dot4_unsigned(lo[2], a.z, low), high = dot4_unsigned(hi[2], b.z, high);
    low = dot4_unsigned(lo[3], a.w, low), high = dot4_unsigned(hi[3], b.w, high);
    acc = fmaf(d[T::low_chunk(c) / 2], scale.x * magic_float(low), acc);
    return fmaf(d[T::high_chunk(c) / 2], scale.y * magic_float(high), acc);
  }
  low = __dp4a(static_cast<int>(lo[0]), static_cast<int>(a.x), low);
  low = __dp4a(static_cast<int>(lo[1]), static_cast<int>(a.y), low);
  low = __dp4a(static_cast<int>(lo[2]), static_cast<int>(a.z), low);
  low = __dp4a(static_cast<int>(lo[3]), static_cast<int>(a.w), low);
  return fmaf(d[T::low_chunk(c) / 2], scale.x * magic_float(low), acc);
}

// What a warp has to do: superblocks [first, first + count) of its rows, for units `unit`, `unit + stride`, .. < `end`.
// A unit is T's rows of a warp, `groups` times.
struct Work {
  u32 cols, first, count;
  u32 unit, end, stride;
};

// How a warp's own shared memory is cut.
template <class T, int U, int GR>
struct Shape {
  static constexpr int N = T::LOADS == 1 ? U : (U + 1) / 2, ROWS = 32 / T::LANES;
  static constexpr int STRIDE = ScaleStride<N, T::SCALES>::VALUE;
  static constexpr int SCALES = GR * ROWS * STRIDE * 4, HEADS = GR * ROWS * N * 16, WEIGHTS = N * GR * T::LOADS * 512;
  static constexpr int OWN = SCALES + HEADS + WEIGHTS;
};

// Enough for every type.
template <int A, int B>
struct Larger {
  static constexpr int VALUE = A > B ? A : B;
};
template <int U, int GR>
struct Own {
  static constexpr int A = Larger<Shape<Q4K, U, GR>::OWN, Shape<Q5K, U, GR>::OWN>::VALUE;
  static constexpr int B = Larger<Shape<Q4_0Row, U, GR>::OWN, Shape<Q8_0Row, U, GR>::OWN>::VALUE;
  static constexpr int VALUE = (Larger<Larger<A, B>::VALUE, Shape<Q6K, U, GR>::OWN>::VALUE + 15) / 16 * 16;
};

// row(unit, i): the address of row i of a unit (i < GR * rows of a warp; any row where there is none).
// ready(): called once, when the first weights are under way: activations may be read from then on.
// emit(unit, i, b, value): the product of that row with row b of the activations, by one lane.
// own: OWN bytes of shared memory of this warp alone.
template <class T, int U, int GR, int RB, class Row, class Ready, class Emit>
DEVICE void stream(const Work &work, u8 *own, Row row, const Staged &in, Ready ready, Emit emit) {
  typedef Shape<T, U, GR> S;
  constexpr int N = S::N, ROWS = S::ROWS, ROUNDS = (N + T::LANES - 1) / T::LANES, STRIDE = S::STRIDE;
  static_assert(S::OWN <= Own<U, GR>::VALUE, "a warp's shared memory");
  const u32 lane = threadIdx.x % 32, c = lane % T::LANES, r = lane / T::LANES;
  // Superblocks of a row in which this lane has values.
  const u32 mine = (work.cols - T::first_value(c) + 255) / 256;
  float *scales = reinterpret_cast<float *>(own);
  uint4 *heads = reinterpret_cast<uint4 *>(own + S::SCALES) + r * N + c;
  uint4 *weights = reinterpret_cast<uint4 *>(own + S::SCALES + S::HEADS) + lane;
  u32 extra[ROUNDS][GR];
  const u8 *p[GR];

  u32 unit = work.unit, at = work.first;  // the step being loaded, its superblocks, and how many of them the lane has
  u32 n = 0, left = 0;
  auto aim = [&]() {
    n = 0, left = 0;
    if (unit >= work.end) return;
    const u32 there = work.first + work.count - at;
    n = there < N ? there : N;
    left = mine > at ? mine - at : 0;
    if (left > n) left = n;
#pragma unroll
    for (int g = 0; g < GR; g++) p[g] = row(unit, g * ROWS + r);
  };
  // A step's copies are N groups; the headers come with the first.
  auto load = [&](int i) {
    if (i == 0) {
#pragma unroll
      for (int k = 0; k < ROUNDS; k++)
#pragma unroll
        for (int g = 0; g < GR; g++)
          if (k * T::LANES + c < n) {
            const u32 superblock = at + k * T::LANES + c;
            cp_async16(heads + g * ROWS * N + k * T::LANES, p[g] + T::head_at(work.cols, superblock));
            extra[k][g] = T::extra(p[g], work.cols, superblock);
          }
    }
    if (i < n) {
#pragma unroll
      for (int g = 0; g < GR; g++)
#pragma unroll
        for (int l = 0; l < T::LOADS; l++)
          cp_async16_if(weights + ((i * GR + g) * T::LOADS + l) * 32, p[g] + (i < left ? T::load_at(c, l) + (at + i) * T::BYTES : 0),
                        i < left);
    }
    cp_async_commit();
  };

  aim();
#pragma unroll
  for (int i = 0; i < N; i++) load(i);
  ready();

  float acc[GR][RB];
  while (n > 0) {
    const u32 now = n, here = unit, from = at - work.first;
    if (from == 0) {
#pragma unroll
      for (int g = 0; g < GR; g++)
#pragma unroll
        for (int b = 0; b < RB; b++) acc[g][b] = 0;
    }
    const Staged step = staged_from<RB>(in, from);
    cp_async_wait<N - 1>();
    // Headers: scales to shared memory, the minima's part of the sum at once.
#pragma unroll
    for (int k = 0; k < ROUNDS; k++) {
      const u32 i = k * T::LANES + c;
      if (i < now) {
#pragma unroll
        for (int g = 0; g < GR; g++) {
          float s[T::SCALES], m[T::MINS ? T::MINS : 1];
          const float factor = T::decode(heads[g * ROWS * N + k * T::LANES], extra[k][g], s, m);
          float *to = scales + (g * ROWS + r) * STRIDE + i * T::SCALES;
#pragma unroll
          for (int j = 0; j < T::SCALES; j += 4)
            *reinterpret_cast<float4 *>(to + j) = make_float4(s[j], s[j + 1], s[j + 2], s[j + 3]);
          if (T::MINS > 0) {
#pragma unroll
            for (int b = 0; b < RB; b++) {
              const float *sums = step.sums + (i * RB + b) * 16;
              float t = 0;
#pragma unroll
              for (int j = 0; j < T::MINS; j++)
                t = fmaf(m[j], T::MINS == 16 ? sums[j] : sums[2 * j] + sums[2 * j + 1], t);
              acc[g][b] = fmaf(-factor, t, acc[g][b]);
            }
          }
        }
      }
    }
    const bool last = from + now >= work.count;
    at += now;
    if (last) {
      at = work.first;
      unit += work.stride;
    }
    aim();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < N; i++) {
      cp_async_wait<N - 1>();
      if (i < now) {
#pragma unroll
        for (int g = 0; g < GR; g++) {
          uint4 w[T::LOADS];
#pragma unroll
          for (int l = 0; l < T::LOADS; l++) w[l] = weights[((i * GR + g) * T::LOADS + l) * 32];
          u32 lo[4], hi[4];
          T::unpack(w, c, lo, hi);
          const float *at_scale = scales + (g * ROWS + r) * STRIDE + i * T::SCALES;
          float2 scale;
          if (T::SCALE_PAIRS) {
            scale = *reinterpret_cast<const float2 *>(at_scale + 2 * T::scale(c));
          } else {
            scale.x = at_scale[T::scale(c)];
            scale.y = scale.x * 0.0625f;  // of high nibbles where they stand
          }
#pragma unroll
          for (int b = 0; b < RB; b++)
            acc[g][b] = dot_chunks<T>(lo, hi, step.q + (i * RB + b) * 256, step.d + (i * RB + b) * 8, c, scale, acc[g][b]);
        }
      }
      load(i);
    }
    __syncwarp();
    if (last) {
#pragma unroll
      for (int g = 0; g < GR; g++)
#pragma unroll
        for (int b = 0; b < RB; b++) {
          float v = acc[g][b];
#pragma unroll
          for (int o = 1; o < T::LANES; o *= 2) v += __shfl_xor_sync(ALL_LANES, v, o);
          if (c == (g * RB + b) % T::LANES) emit(here, g * ROWS + r, b, v);
        }
    }
  }
}

struct F32Values {
  static constexpr int VALUES = 4;
  DEVICE static void unpack(const uint4 &v, float *to) {
    to[0] = __uint_as_float(v.x), to[1] = __uint_as_float(v.y);
    to[2] = __uint_as_float(v.z), to[3] = __uint_as_float(v.w);
  }
};

template <bool BRAIN>
struct HalfValues {
  static constexpr int VALUES = 8;
  DEVICE static void unpack(const uint4 &v, float *to) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float2 pair = BRAIN ? unpack_bf16(words[i]) : unpack_f16(words[i]);
      to[2 * i] = pair.x, to[2 * i + 1] = pair.y;
    }
  }
};

// The same for rows of floats, against the f32 activations from row `first_row` on; `in` is read from memory.
template <class T, int GR, int RB, class Row, class Ready, class Emit>
DEVICE void stream_floats(const Work &work, Row row, const Acts &in, u32 first_row, Ready ready, Emit emit) {
  constexpr int V = T::VALUES, AHEAD = 4;
  const u32 lane = threadIdx.x % 32, c = lane % 8, r = lane / 8;
  const u32 from = work.first * 256, all = (work.first + work.count) * 256, to = all < work.cols ? all : work.cols;
  ready();
  for (u32 unit = work.unit; unit < work.end; unit += work.stride) {
    for (int g = 0; g < GR; g++) {
      const uint4 *p = reinterpret_cast<const uint4 *>(row(unit, g * 4 + r));
      float acc[RB];
#pragma unroll
      for (int b = 0; b < RB; b++) acc[b] = 0;
      for (u32 k = from; k < to; k += 8 * V * AHEAD) {
        uint4 w[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
          const u32 at = k + (i * 8 + c) * V;
          w[i] = make_uint4(0, 0, 0, 0);
          if (at < to) w[i] = load_once(p + at / V);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
          const u32 at = k + (i * 8 + c) * V;
          if (at >= to) continue;
          float v[V];
          T::unpack(w[i], v);
#pragma unroll
          for (int b = 0; b < RB; b++) {
            const u32 of = first_row + b < in.rows ? first_row + b : in.rows - 1;
            const float *x = in.x + static_cast<u64>(of) * in.cols + at;
#pragma unroll
            for (int j = 0; j < V; j++) acc[b] = fmaf(v[j], x[j], acc[b]);
          }
        }
      }
#pragma unroll
      for (int b = 0; b < RB; b++) {
        float v = acc[b];
#pragma unroll
        for (int o = 1; o < 8; o *= 2) v += __shfl_xor_sync(ALL_LANES, v, o);
        if (c == b % 8) emit(unit, g * 4 + r, b, v);
      }
    }
  }
}

// Either, by the type of the matrix. ROWS of a unit are 4 GR, but 2 GR of q8_0.
DEVICE u32 unit_rows(u32 type) { return type == Q8_0 ? 2 : 4; }

template <int U, int GR, int RB, class Row, class Ready, class Emit>
DEVICE void stream_any(u32 type, const Work &work, u8 *own, Row row, const Acts &in, u32 first_row,
                       const Staged &staged, Ready ready, Emit emit) {
  switch (type) {
    case Q4_K: return stream<Q4K, U, GR, RB>(work, own, row, staged, ready, emit);
    case Q5_K: return stream<Q5K, U, GR, RB>(work, own, row, staged, ready, emit);
    case Q6_K: return stream<Q6K, U, GR, RB>(work, own, row, staged, ready, emit);
    case Q4_0: return stream<Q4_0Row, U, GR, RB>(work, own, row, staged, ready, emit);
    case Q8_0: return stream<Q8_0Row, U, GR, RB>(work, own, row, staged, ready, emit);
    case F16: return stream_floats<HalfValues<false>, GR, RB>(work, row, in, first_row, ready, emit);
    case BF16: return stream_floats<HalfValues<true>, GR, RB>(work, row, in, first_row, ready, emit);
    default: return stream_floats<F32Values, GR, RB>(work, row, in, first_row, ready, emit);
  }
}

}  // namespace products
