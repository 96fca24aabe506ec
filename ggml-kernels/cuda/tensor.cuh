// Products of 3 to 16 rows on tensor cores: 16 rows of weights meet 8 rows of activations at a time.
//
// A warp streams pieces of 16 rows (a superblock of each; of q8_0 half one) through a ring of its own in shared memory.
// A single tile's few superblocks of q4_k come there all at once instead.
// The integers of 32 values (q6_k: 16) are summed exactly, then scaled in f32, block after block along the row.
//
// Within 32 values the order of the columns is free, if weights and activations share it: where a block has one scale,
// lane t of a row's four has values 8t to 8t + 7, two registers that lie side by side.
//
// The arithmetic of a row never depends on how many rows of activations share the launch. It is not the one of `stream`:
// the same products, added in another order.
#pragma once
#include "eight.cuh"

namespace products {

constexpr u32 TILE = 16;            // rows of weights
constexpr u32 RING = 7680;          // bytes of a warp's ring
constexpr u32 SCALE_BYTES = 1152;   // and of its scales; later of its sums
constexpr u32 TENSOR_OWN = RING + SCALE_BYTES + 16;  // and what tells that a tile has come
constexpr u32 TENSOR_STAGED = 256 + 8 * 8;  // a superblock of one row

// Activations in shared memory: 1 << shift rows.
struct Columns {
  u8 *q;      // [blocks of 32][rows][32]
  float *ds;  // [blocks of 32][rows][2]: d, and d times the block's sum
  u32 shift;
};

// Rows [row, row + (1 << shift)) of `in`; zeros where there are none, and beyond `cols`.
DEVICE void stage_columns(const Acts &in, u32 row, u32 cols, u32 superblocks, const Columns &to) {
  constexpr int AHEAD = 4;
  const u32 all = superblocks * 8 << (to.shift + 1), mask = (1u << to.shift) - 1;
  for (u32 first = threadIdx.x; first < all; first += AHEAD * blockDim.x) {
    uint4 q[AHEAD];
    float d[AHEAD];
    u32 s[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      const u32 i = first + k * blockDim.x, half = i & 1, b = i >> 1 & mask, block = i >> 1 >> to.shift;
      q[k] = make_uint4(0, 0, 0, 0), d[k] = 0, s[k] = 0;
      if (i >= all || block * 32 >= cols || row + b >= in.rows) continue;
      const u64 from = static_cast<u64>(row + b) * in.cols + block * 32;
      q[k] = *reinterpret_cast<const uint4 *>(in.q + from + half * 16);
      if (half) continue;
      d[k] = in.d[from / 32];
      s[k] = *reinterpret_cast<const u32 *>(in.s + from / 16);
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      const u32 i = first + k * blockDim.x;
      if (i >= all) continue;
      *reinterpret_cast<uint4 *>(to.q + i * 16) = q[k];
      if (i & 1) continue;
      const int sum = static_cast<i16>(s[k] & 0xffffu) + static_cast<i16>(s[k] >> 16);
      *reinterpret_cast<float2 *>(to.ds + i) = make_float2(d[k], d[k] * static_cast<float>(sum));
    }
  }
}

// What a lane reads of the activations: row g of each of NT tiles, and the factors of its columns of the sums.
template <int NT>
struct Reader {
  const u8 *q[NT];
  const float *ds[NT];
  u32 shift;

  DEVICE Reader(const Columns &c, u32 lane) {
    const u32 last = (1u << c.shift) - 1;
    shift = c.shift;
#pragma unroll
    for (int n = 0; n < NT; n++) {
      const u32 row = n * 8 + lane / 4, pair = n * 8 + lane % 4 * 2;
      q[n] = c.q + (row < last ? row : last) * 32;
      ds[n] = c.ds + (pair < last ? pair : last - 1) * 2;
    }
  }
  DEVICE const u8 *block(int n, u32 block) const { return q[n] + (block << shift) * 32; }
  // d, sum of one column, then of the next.
  DEVICE float4 factors(int n, u32 block) const {
    return *reinterpret_cast<const float4 *>(ds[n] + (block << shift) * 2);
  }
};

DEVICE u32 word_at(const u8 *p) { return *reinterpret_cast<const u32 *>(p); }
DEVICE uint2 words_at(const u8 *p) { return *reinterpret_cast<const uint2 *>(p); }

// acc += scales of two rows times d of two columns times the integers' products.
DEVICE void multiply_block(float acc[4], const u32 a[4], const u32 b[2], float first, float second, const float4 &f) {
  int c[4] = {MAGIC, MAGIC, MAGIC, MAGIC};
  mma_s8(c, a, b);
  acc[0] = fmaf(f.x, first * magic_float(c[0]), acc[0]);
  acc[1] = fmaf(f.z, first * magic_float(c[1]), acc[1]);
  acc[2] = fmaf(f.x, second * magic_float(c[2]), acc[2]);
  acc[3] = fmaf(f.z, second * magic_float(c[3]), acc[3]);
}
DEVICE void subtract_minima(float acc[4], float first, float second, const float4 &f) {
  acc[0] = fmaf(-first, f.y, acc[0]);
  acc[1] = fmaf(-first, f.w, acc[1]);
  acc[2] = fmaf(-second, f.y, acc[2]);
  acc[3] = fmaf(-second, f.w, acc[3]);
}

// Where a warp's 16 rows lie.
struct Rows {
  const u8 *first;
  u32 last, row_bytes, cols;  // last: the greatest row of the 16 that is there
  DEVICE const u8 *at(u32 row) const { return first + static_cast<u64>(row < last ? row : last) * row_bytes; }
};

// PARTS pieces of 16 bytes from `offset` on of every row, the first `there` of them.
template <int PARTS, int STRIDE>
DEVICE void copy_rows(u8 *to, const Rows &rows, u32 offset, u32 there, u32 lane) {
#pragma unroll
  for (int i = 0; i < (PARTS * 16 + 31) / 32; i++) {
    const u32 x = lane + i * 32, row = x / PARTS, part = x % PARTS;
    if (row < TILE && part < there) cp_async16(to + row * STRIDE + part * 16, rows.at(row) + offset + part * 16);
  }
}

// A type's COLS of a piece, its rows' STRIDE in the ring (no bank is met twice where that is cheap), and how it is
// loaded, its scales decoded (by all lanes: two to a row), and multiplied.
struct TensorQ4K {
  static constexpr int COLS = 256, STRIDE = 160, BYTES = 16 * STRIDE, QS = 16;
  DEVICE static void load(u8 *to, const Rows &rows, u32 piece, u32 lane) {
    copy_rows<9, STRIDE>(to, rows, piece * 144, 9, lane);
  }
  DEVICE static void decode_head(const u8 *row, u32 half, float2 *to) {
    const uint4 h = *reinterpret_cast<const uint4 *>(row);
    u32 s[2], m[2];
    k_scales(h, s, m);
    const u32 scales = half ? s[1] : s[0], mins = half ? m[1] : m[0];
    const float d = half_float(h.x & 0xffffu), min = half_float(h.x >> 16);
#pragma unroll
    for (int j = 0; j < 4; j++) to[j] = make_float2(d * byte_float(scales, j), min * byte_float(mins, j));
  }
  DEVICE static void decode(const u8 *from, u32, u32, float *scales, u32 lane) {
    const u32 row = lane % 16, half = lane / 16;
    decode_head(from + row * STRIDE, half, reinterpret_cast<float2 *>(scales) + row * 9 + half * 4);
  }
  DEVICE static void unpack(uint2 w, uint2, int, u32 lo[2], u32 hi[2]) {
    lo[0] = w.x & NIBBLES, lo[1] = w.y & NIBBLES;
    hi[0] = w.x >> 4 & NIBBLES, hi[1] = w.y >> 4 & NIBBLES;
  }
  template <int NT>
  DEVICE static void multiply(const u8 *from, u32 piece, const float *scales, const Reader<NT> &in, u32 lane,
                              float acc[NT][4]) {
    multiply_k<TensorQ4K, NT>(from, piece, scales, in, lane, acc);
  }
  // q5_k too.
  template <class T, int NT>
  DEVICE static void multiply_k(const u8 *from, u32 piece, const float *scales, const Reader<NT> &in, u32 lane,
                                float acc[NT][4]) {
    const u32 g = lane / 4, t = lane % 4;
    const u8 *upper = from + g * T::STRIDE + t * 8, *lower = upper + 8 * T::STRIDE;
    const float2 *first = reinterpret_cast<const float2 *>(scales) + g * 9, *second = first + 8 * 9;
    const uint2 high_upper = words_at(upper + 16), high_lower = words_at(lower + 16);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      u32 a[2][4], lo[2], hi[2];
      T::unpack(words_at(upper + T::QS + j * 32), high_upper, j, lo, hi);
      a[0][0] = lo[0], a[0][2] = lo[1], a[1][0] = hi[0], a[1][2] = hi[1];
      T::unpack(words_at(lower + T::QS + j * 32), high_lower, j, lo, hi);
      a[0][1] = lo[0], a[0][3] = lo[1], a[1][1] = hi[0], a[1][3] = hi[1];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const u32 block = piece * 8 + j * 2 + half;
        const float2 s = first[j * 2 + half], z = second[j * 2 + half];
#pragma unroll
        for (int n = 0; n < NT; n++) {
          const uint2 w = words_at(in.block(n, block) + t * 8);
          const u32 b[2] = {w.x, w.y};
          const float4 f = in.factors(n, block);
          multiply_block(acc[n], a[half], b, s.x, z.x, f);
          subtract_minima(acc[n], s.y, z.y, f);
        }
      }
    }
  }
};

struct TensorQ5K {
  static constexpr int COLS = 256, STRIDE = 176, BYTES = 16 * STRIDE, QS = 48;
  DEVICE static void load(u8 *to, const Rows &rows, u32 piece, u32 lane) {
    copy_rows<11, STRIDE>(to, rows, piece * 176, 11, lane);
  }
  DEVICE static void decode(const u8 *from, u32, u32, float *scales, u32 lane) {
    const u32 row = lane % 16, half = lane / 16;
    TensorQ4K::decode_head(from + row * STRIDE, half, reinterpret_cast<float2 *>(scales) + row * 9 + half * 4);
  }
  DEVICE static void unpack(uint2 w, uint2 fifth, int j, u32 lo[2], u32 hi[2]) {
    Q5K::fifth(w.x, fifth.x >> (2 * j), lo[0], hi[0]);
    Q5K::fifth(w.y, fifth.y >> (2 * j), lo[1], hi[1]);
  }
  template <int NT>
  DEVICE static void multiply(const u8 *from, u32 piece, const float *scales, const Reader<NT> &in, u32 lane,
                              float acc[NT][4]) {
    TensorQ4K::multiply_k<TensorQ5K, NT>(from, piece, scales, in, lane, acc);
  }
};

// Bytes below 64 less 32, bytes below 16 less 8.
DEVICE u32 less_32(u32 v) { return (v + 0x60606060u) ^ 0x80808080u; }
DEVICE u32 less_8(u32 v) { return (v + 0x78787878u) ^ 0x80808080u; }

struct TensorQ6K {
  static constexpr int COLS = 256, STRIDE = 208, BYTES = 16 * STRIDE + 64;
  DEVICE static void load(u8 *to, const Rows &rows, u32 piece, u32 lane) {
    copy_rows<13, STRIDE>(to, rows, piece * 208, 13, lane);
    // Two superblocks' d: the one that is meant is at an even address only.
    if (lane < 16) cp_async4(to + 16 * STRIDE + lane * 4, rows.at(lane) + rows.cols / 256 * 208 + piece / 2 * 4);
  }
  DEVICE static void decode(const u8 *from, u32 piece, u32, float *scales, u32 lane) {
    const u32 row = lane % 16, half = lane / 16, both = word_at(from + 16 * STRIDE + row * 4);
    const float d = half_float(piece % 2 ? both >> 16 : both & 0xffffu);
    const uint2 s = words_at(from + row * STRIDE + 192 + half * 8);
    float *to = scales + row * 17 + half * 8;
#pragma unroll
    for (int j = 0; j < 8; j++) to[j] = d * signed_byte_float(j < 4 ? s.x : s.y, j % 4);
  }
  template <int NT>
  DEVICE static void multiply(const u8 *from, u32 piece, const float *scales, const Reader<NT> &in, u32 lane,
                              float acc[NT][4]) {
    const u32 g = lane / 4, t = lane % 4;
    const u8 *rows[2] = {from + g * STRIDE + t * 4, from + (g + 8) * STRIDE + t * 4};
    const float *first = scales + g * 17, *second = first + 8 * 17;
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
      for (int p = 0; p < 2; p++) {
        // [which of the four 32s: p or p + 2][which 16 of them][row]
        u32 a[2][2][2];
#pragma unroll
        for (int part = 0; part < 2; part++)
#pragma unroll
          for (int r = 0; r < 2; r++)
            Q6K::two_more(word_at(rows[r] + h * 64 + p * 32 + part * 16),
                          word_at(rows[r] + 128 + h * 32 + part * 16) >> (2 * p), a[0][part][r], a[1][part][r]);
#pragma unroll
        for (int q = 0; q < 2; q++) {
          const u32 of = h * 4 + p + 2 * q;
#pragma unroll
          for (int n = 0; n < NT; n++) {
            const u8 *values = in.block(n, piece * 8 + of) + t * 4;
            const float4 f = in.factors(n, piece * 8 + of);
#pragma unroll
            for (int part = 0; part < 2; part++) {
              const u32 left[4] = {less_32(a[q][part][0]), less_32(a[q][part][1]), 0, 0};
              const u32 b[2] = {word_at(values + part * 16), 0};
              multiply_block(acc[n], left, b, first[of * 2 + part], second[of * 2 + part], f);
            }
          }
        }
      }
  }
};

struct TensorQ4_0 {
  static constexpr int COLS = 256, STRIDE = 160, BYTES = 16 * STRIDE;
  DEVICE static void load(u8 *to, const Rows &rows, u32 piece, u32 lane) {
    const u32 there = (rows.cols - piece * COLS) / 32;
    copy_rows<8, STRIDE>(to, rows, piece * 128, there, lane);
    if (lane < 16) cp_async16(to + lane * STRIDE + 128, rows.at(lane) + rows.cols / 2 + piece * 16);
  }
  DEVICE static void decode(const u8 *from, u32 piece, u32 cols, float *scales, u32 lane) {
    const u32 row = lane % 16, half = lane / 16, there = (cols - piece * COLS) / 32;
    const uint2 d = words_at(from + row * STRIDE + 128 + half * 8);
    float *to = scales + row * 9 + half * 4;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const u32 both = j < 2 ? d.x : d.y;
      to[j] = half * 4 + j < there ? half_float(j % 2 ? both >> 16 : both & 0xffffu) : 0.f;
    }
  }
  template <int NT>
  DEVICE static void multiply(const u8 *from, u32 piece, const float *scales, const Reader<NT> &in, u32 lane,
                              float acc[NT][4]) {
    const u32 g = lane / 4, t = lane % 4;
    const u8 *upper = from + g * STRIDE + t * 4, *lower = upper + 8 * STRIDE;
    const float *first = scales + g * 9, *second = first + 8 * 9;
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const u32 x = word_at(upper + j * 16), y = word_at(lower + j * 16);
      const u32 a[4] = {less_8(x & NIBBLES), less_8(y & NIBBLES), less_8(x >> 4 & NIBBLES), less_8(y >> 4 & NIBBLES)};
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const u8 *values = in.block(n, piece * 8 + j) + t * 4;
        const u32 b[2] = {word_at(values), word_at(values + 16)};
        multiply_block(acc[n], a, b, first[j], second[j], in.factors(n, piece * 8 + j));
      }
    }
  }
};

struct TensorQ8_0 {
  static constexpr int COLS = 128, STRIDE = 160, BYTES = 16 * STRIDE;
  DEVICE static void load(u8 *to, const Rows &rows, u32 piece, u32 lane) {
    const u32 there = (rows.cols - piece * COLS) / 16;
    copy_rows<8, STRIDE>(to, rows, piece * COLS, there, lane);
    if (lane < 16) cp_async8(to + lane * STRIDE + 128, rows.at(lane) + rows.cols + piece * 8);
  }
  DEVICE static void decode(const u8 *from, u32 piece, u32 cols, float *scales, u32 lane) {
    const u32 row = lane % 16, half = lane / 16, there = (cols - piece * COLS) / 32;
    const u32 d = word_at(from + row * STRIDE + 128 + half * 4);
    float *to = scales + row * 9 + half * 2;
    to[0] = half * 2 < there ? half_float(d & 0xffffu) : 0.f;
    to[1] = half * 2 + 1 < there ? half_float(d >> 16) : 0.f;
  }
  template <int NT>
  DEVICE static void multiply(const u8 *from, u32 piece, const float *scales, const Reader<NT> &in, u32 lane,
                              float acc[NT][4]) {
    const u32 g = lane / 4, t = lane % 4;
    const u8 *upper = from + g * STRIDE + t * 8, *lower = upper + 8 * STRIDE;
    const float *first = scales + g * 9, *second = first + 8 * 9;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const uint2 x = words_at(upper + j * 32), y = words_at(lower + j * 32);
      const u32 a[4] = {x.x, y.x, x.y, y.y};
#pragma unroll
      for (int n = 0; n < NT; n++) {
        const uint2 w = words_at(in.block(n, piece * 4 + j) + t * 8);
        const u32 b[2] = {w.x, w.y};
        multiply_block(acc[n], a, b, first[j], second[j], in.factors(n, piece * 4 + j));
      }
    }
  }
};

// Superblocks [first, first + count) of a matrix's units of 16 rows unit, unit + stride, .. < end.
// ready(), emit(): as in stream(); emit gets rows of a unit, rows of activations and the value.
template <class T, int NT, class Ready, class Emit>
DEVICE void stream_tiles(const Matrix &m, const Work &work, u8 *own, const Columns &columns, Ready ready, Emit emit) {
  constexpr int U = RING / T::BYTES, EACH = 256 / T::COLS;
  const u32 lane = threadIdx.x % 32, all = (m.cols + T::COLS - 1) / T::COLS, from = work.first * EACH;
  const u32 to = from + work.count * EACH < all ? from + work.count * EACH : all;
  float *scales = reinterpret_cast<float *>(own + RING);
  u32 next_unit = work.unit, next = from;
  auto load = [&](u32 slot) {
    if (next_unit < work.end) {
      const u32 first = next_unit * TILE, left = m.rows - first;
      const Rows rows = {m.data + static_cast<u64>(first) * m.row_bytes, left < TILE ? left - 1 : TILE - 1, m.row_bytes,
                         m.cols};
      T::load(own + slot * T::BYTES, rows, next, lane);
      if (++next == to) next = from, next_unit += work.stride;
    }
    cp_async_commit();
  };
  for (int i = 0; i < U; i++) load(i);
  ready();
  const Reader<NT> in(columns, lane);
  u32 slot = 0;
  for (u32 unit = work.unit; unit < work.end; unit += work.stride) {
    float acc[NT][4];
#pragma unroll
    for (int n = 0; n < NT; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0;
    for (u32 piece = from; piece < to; piece++) {
      cp_async_wait<U - 1>();
      __syncwarp();
      const u8 *here = own + slot * T::BYTES;
      T::decode(here, piece, m.cols, scales, lane);
      __syncwarp();
      T::template multiply<NT>(here, piece, scales, in, lane, acc);
      __syncwarp();
      load(slot);
      if (++slot == U) slot = 0;
    }
#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) emit(unit, lane / 4 + i / 2 * 8, n * 8 + lane % 4 * 2 + i % 2, acc[n][i]);
  }
}

// Rows of q4_k as they come at once: as in the file, STRIDE apart.
struct AtOnce {
  static constexpr u32 MOST = 3;  // superblocks
  static constexpr int STRIDE = 480, QS = TensorQ4K::QS;
  DEVICE static void unpack(uint2 w, uint2 high, int j, u32 lo[2], u32 hi[2]) { TensorQ4K::unpack(w, high, j, lo, hi); }
};
static_assert(TILE * AtOnce::STRIDE <= RING && AtOnce::MOST * 144 <= AtOnce::STRIDE, "a tile's room");

// What stream_tiles does with one unit of q4_k, in the same order. A third of its instructions are for asking, here one.
template <int NT, class Ready, class Emit>
DEVICE void take_tile(const Matrix &m, const Work &work, u8 *own, const Columns &columns, Ready ready, Emit emit) {
  const u32 lane = threadIdx.x % 32, first = work.unit * TILE;
  const bool is_there = work.unit < work.end;
  Stage weights;
  weights.begin(own, reinterpret_cast<u64 *>(own + RING + SCALE_BYTES), AtOnce::STRIDE);
  if (is_there) {
    const u32 there = m.rows - first < TILE ? m.rows - first : TILE;
    weights.bring_by_lanes({m.data + u64(first) * m.row_bytes, m.row_bytes, there, m.type, work.first, work.count});
  }
  ready();
  if (!is_there) return;
  const Reader<NT> in(columns, lane);
  const u32 row = lane % 16, half = lane / 16;
  float acc[NT][4], *scales = reinterpret_cast<float *>(own + RING);
  float2 *to = reinterpret_cast<float2 *>(scales) + row * 9 + half * 4;
#pragma unroll
  for (int n = 0; n < NT; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0;
  weights.wait();
#pragma unroll 1
  for (u32 i = 0; i < work.count; i++) {
    const u8 *here = own + i * 144;
    TensorQ4K::decode_head(here + row * AtOnce::STRIDE, half, to);
    __syncwarp();
    TensorQ4K::multiply_k<AtOnce, NT>(here, work.first + i, scales, in, lane, acc);
    __syncwarp();
  }
#pragma unroll
  for (int n = 0; n < NT; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) emit(work.unit, lane / 4 + i / 2 * 8, n * 8 + lane % 4 * 2 + i % 2, acc[n][i]);
}

template <int NT, class Ready, class Emit>
DEVICE void stream_any_tiles(const Matrix &m, const Work &work, u8 *own, const Acts &acts, u32 first_row,
                             const Columns &columns, Ready ready, Emit emit) {
  const auto row = [&](u32 unit, u32 i) {
    const u32 at = unit * TILE + i;
    return m.data + static_cast<u64>(at < m.rows ? at : m.rows - 1) * m.row_bytes;
  };
  switch (m.type) {
    case Q4_K: return stream_tiles<TensorQ4K, NT>(m, work, own, columns, ready, emit);
    case Q5_K: return stream_tiles<TensorQ5K, NT>(m, work, own, columns, ready, emit);
    case Q6_K: return stream_tiles<TensorQ6K, NT>(m, work, own, columns, ready, emit);
    case Q4_0: return stream_tiles<TensorQ4_0, NT>(m, work, own, columns, ready, emit);
    case Q8_0: return stream_tiles<TensorQ8_0, NT>(m, work, own, columns, ready, emit);
    case F16: return stream_floats<HalfValues<false>, 4, NT * 8>(work, row, acts, first_row, ready, emit);
    case BF16: return stream_floats<HalfValues<true>, 4, NT * 8>(work, row, acts, first_row, ready, emit);
    default: return stream_floats<F32Values, 4, NT * 8>(work, row, acts, first_row, ready, emit);
  }
}

}  // namespace products
