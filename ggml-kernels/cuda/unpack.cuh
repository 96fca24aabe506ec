// Weights as tiles take them. A warp owns 8 GROUPS rows of W; a span of their columns lies raw in shared memory, where
// that warp alone copies and reads it; a step is 64 of its columns, four pieces of 16 as one mma wants.
// Lane l, g = l / 4, t = l % 4, holds four columns of row 8 n + g of a piece. GROUPS 4, where lanes fetch A themselves:
// 4 t .. 4 t + 3, the mma's columns 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 by another name, which A's fragments share.
// GROUPS 2, where the tensor cores fetch A: those columns by their own names.
//
// A format says: STEPS of a span, CHUNKS of 16 bytes of a row's span and where they come from, STRIDE of a row in shared
// memory (chosen so that the eight rows of a load meet different banks), RING spans at a time, and
// - decode: lane = row, a span's scales into the warp's table, once
// - begin: this lane's raw words of a step into registers
// - get: one piece of them as halves.
// Unpacked weights carry LIFT, so that small ones are no subnormal halves; whoever stores divides by it.
#pragma once
#include "model.cuh"

namespace wide {

constexpr int STEP = 64;
constexpr float LIFT = 64.f;
// Words of a row in a warp's table of scales, where one row lies beside another.
constexpr int TABLE = 8;

constexpr u32 LOW = 0x0f0f0f0fu;
constexpr u32 HALVES_1024 = 0x64006400u;

struct Chunk {
  u32 offset;
  bool is_there;
};

// Bytes 0, 1 (2, 3) of w as halves 1024 + byte.
DEVICE u32 first_two(u32 w) { return __byte_perm(w, HALVES_1024, 0x5150); }
DEVICE u32 last_two(u32 w) { return __byte_perm(w, HALVES_1024, 0x5352); }
DEVICE u32 both(u32 low) { return __byte_perm(low, 0, 0x1010); }
DEVICE u32 both_high(u32 high) { return __byte_perm(high, 0, 0x3232); }

DEVICE u32 word_at(const u8 *p) { return *reinterpret_cast<const u32 *>(p); }
DEVICE u32 half_word_at(const u8 *p) { return *reinterpret_cast<const u16 *>(p); }
// A lane's four of 16 bytes.
template <int GROUPS>
DEVICE u32 four_of(const u8 *p, u32 t) {
  if (GROUPS == 4) return word_at(p + t * 4);
  return half_word_at(p + t * 2) | half_word_at(p + 8 + t * 2) << 16;
}

// Bytes of columns that lie in their order from step to step.
struct Straight {
  DEVICE static u32 column(u32 step, u32 chunk) { return step * STEP + chunk * 8; }
};

// (byte - zero) * scale, a row's two scales of this step being those of its first and its last 32 columns.
template <u32 ZERO>
struct Scaled {
  DEVICE static void halves(u32 bytes, u32 scale, u32 b[2]) {
    b[0] = mul_f16x2(sub_f16x2(first_two(bytes), ZERO), scale);
    b[1] = mul_f16x2(sub_f16x2(last_two(bytes), ZERO), scale);
  }
};

template <int TYPE, int GROUPS>
struct Format;

// Q4_K and Q5_K: byte * scale - min.
template <bool FIVE, int GROUPS>
struct Q45 : Straight {
  static constexpr int ROWS = GROUPS * 8;
  static constexpr int STEPS = 4, RING = 2, CHUNKS = FIVE ? 11 : 9, STRIDE = CHUNKS * 16;
  static constexpr bool HAS_TABLE = true;
  u32 words[GROUPS][2], high[GROUPS][2], scales[GROUPS][2], shift;

  DEVICE static u32 place(u32 row, u32 chunk) { return row * STRIDE + chunk * 16; }
  DEVICE static Chunk chunk(u32 span, u32 chunk, u32) { return {(span * CHUNKS + chunk) * 16, true}; }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }

  // Word i of a row: scale and -min of its group of 32 columns.
  DEVICE static void decode(const u8 *row, u32 *table, u32, u32, u32) {
    const uint4 head = *reinterpret_cast<const uint4 *>(row);
    const float2 d = unpack_f16(head.x);
    const float scale = d.x * LIFT, min = -d.y * LIFT;
    const u32 s[2] = {head.y & 0x3f3f3f3fu, (head.w & LOW) | (head.y >> 6 & 0x03030303u) << 4};
    const u32 m[2] = {head.z & 0x3f3f3f3fu, (head.w >> 4 & LOW) | (head.z >> 6 & 0x03030303u) << 4};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float by = scale * float(s[i / 4] >> (i % 4 * 8) & 255);
      const float less = min * float(m[i / 4] >> (i % 4 * 8) & 255);
      table[i * ROWS] = pack_f16(by, less);
    }
  }
  DEVICE void begin(const u8 *span, const u32 *table, u32 step, int lane) {
    const u32 g = lane / 4, t = lane % 4;
    shift = step * 2;
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const u8 *row = span + (n * 8 + g) * STRIDE;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        words[n][i] = four_of<GROUPS>(row + (FIVE ? 48 : 16) + step * 32 + i * 16, t);
        if (FIVE) high[n][i] = four_of<GROUPS>(row + 16 + i * 16, t);
        scales[n][i] = table[(step * 2 + i) * ROWS + n * 8 + g];
      }
    }
  }
  DEVICE void get(int piece, u32 b[GROUPS][2]) const {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      u32 bytes = words[n][piece & 1] >> (piece / 2 * 4) & LOW;
      if (FIVE) bytes |= (high[n][piece & 1] >> (shift + piece / 2) & 0x01010101u) << 4;
      const u32 scale = both(scales[n][piece / 2]), less = both_high(scales[n][piece / 2]);
      b[n][0] = fma_f16x2(sub_f16x2(first_two(bytes), HALVES_1024), scale, less);
      b[n][1] = fma_f16x2(sub_f16x2(last_two(bytes), HALVES_1024), scale, less);
    }
  }
};
template <int GROUPS>
struct Format<Q4_K, GROUPS> : Q45<false, GROUPS> {};
template <int GROUPS>
struct Format<Q5_K, GROUPS> : Q45<true, GROUPS> {};

// A byte's two nibbles are 64 columns apart, so a step is 32 columns and the 32 that lie 64 further.
template <int GROUPS>
struct Format<Q6_K, GROUPS> {
  static constexpr int ROWS = GROUPS * 8;
  static constexpr int STEPS = 4, RING = 2, CHUNKS = 13, STRIDE = 208;
  static constexpr bool HAS_TABLE = true;
  u32 low[GROUPS][2], high[GROUPS][2], scales[GROUPS][2];

  DEVICE static u32 column(u32 step, u32 chunk) {
    return step / 4 * 256 + (step & 2) * 64 + (step & 1) * 32 + (chunk & 4) * 16 + (chunk & 3) * 8;
  }
  DEVICE static u32 place(u32 row, u32 chunk) { return row * STRIDE + chunk * 16; }
  DEVICE static Chunk chunk(u32 span, u32 chunk, u32) { return {(span * CHUNKS + chunk) * 16, true}; }
  // The block's d, which lies behind all blocks of the row.
  DEVICE static u32 extra(const u8 *row, u32 span, u32 cols) {
    return *reinterpret_cast<const u16 *>(row + cols / 256 * 208 + span * 2);
  }
  // Word i of a row: the scales of columns 32 i .. and of 16 further.
  DEVICE static void decode(const u8 *row, u32 *table, u32 extra, u32, u32) {
    const float d = to_float(bits_f16(u16(extra))) * LIFT;
    const uint4 packed = *reinterpret_cast<const uint4 *>(row + 192);
    const u32 s[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const u32 pair = s[i / 2] >> (i % 2 * 16);
      table[i * ROWS] = pack_f16(d * float(i8(pair & 255)), d * float(i8(pair >> 8 & 255)));
    }
  }
  DEVICE void begin(const u8 *span, const u32 *table, u32 step, int lane) {
    const u32 g = lane / 4, t = lane % 4, part = step / 2, odd = step & 1;
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const u8 *row = span + (n * 8 + g) * STRIDE;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        low[n][i] = four_of<GROUPS>(row + part * 64 + odd * 32 + i * 16, t);
        high[n][i] = four_of<GROUPS>(row + 128 + part * 32 + i * 16, t) >> (odd * 2);
        scales[n][i] = table[(part * 4 + i * 2 + odd) * ROWS + n * 8 + g];
      }
    }
  }
  DEVICE void get(int piece, u32 b[GROUPS][2]) const {
    constexpr u32 ZERO = 0x64206420u;  // 1024 + 32
    const int i = piece & 1, half = piece / 2;
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const u32 bytes = (low[n][i] >> (half * 4) & LOW) | (high[n][i] >> (half * 4) & 0x03030303u) << 4;
      const u32 scale = i ? both_high(scales[n][half]) : both(scales[n][half]);
      Scaled<ZERO>::halves(bytes, scale, b[n]);
    }
  }
};

// 128 columns, and the scales of the 256 that they are half of.
template <int GROUPS>
struct Format<Q8_0, GROUPS> : Straight {
  static constexpr int ROWS = GROUPS * 8;
  static constexpr int STEPS = 2, RING = 3, CHUNKS = 9, STRIDE = 144;
  static constexpr bool HAS_TABLE = true;
  u32 words[GROUPS][4], scales[GROUPS][2];

  DEVICE static u32 place(u32 row, u32 chunk) { return row * STRIDE + chunk * 16; }
  DEVICE static Chunk chunk(u32 span, u32 chunk, u32 cols) {
    if (chunk == 8) return {cols + span / 2 * 16, true};
    const u32 column = span * 128 + chunk * 16;
    return {column, column < cols};
  }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }
  // Word i of a row: the scale of its group of 32 columns, twice. Behind the row's end: nothing.
  DEVICE static void decode(const u8 *row, u32 *table, u32, u32 span, u32 cols) {
    const uint2 d = *reinterpret_cast<const uint2 *>(row + 128 + (span & 1) * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = unpack_f16(i < 2 ? d.x : d.y);
      const float scale = span * 128 + i * 32 < cols ? (i % 2 ? pair.y : pair.x) * LIFT : 0.f;
      table[i * ROWS] = pack_f16(scale, scale);
    }
  }
  DEVICE void begin(const u8 *span, const u32 *table, u32 step, int lane) {
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const u8 *row = span + (n * 8 + g) * STRIDE + step * 64;
#pragma unroll
      for (int i = 0; i < 4; ++i) words[n][i] = four_of<GROUPS>(row + i * 16, t) ^ 0x80808080u;
#pragma unroll
      for (int i = 0; i < 2; ++i) scales[n][i] = table[(step * 2 + i) * ROWS + n * 8 + g];
    }
  }
  DEVICE void get(int piece, u32 b[GROUPS][2]) const {
    constexpr u32 ZERO = 0x64806480u;  // 1024 + 128
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) Scaled<ZERO>::halves(words[n][piece], scales[n][piece / 2], b[n]);
  }
};

// A byte's two nibbles are 16 columns apart.
template <int GROUPS>
struct Format<Q4_0, GROUPS> : Straight {
  static constexpr int ROWS = GROUPS * 8;
  static constexpr int STEPS = 4, RING = 2, CHUNKS = 9, STRIDE = 144;
  static constexpr bool HAS_TABLE = true;
  u32 words[GROUPS][2], scales[GROUPS][2];

  DEVICE static u32 place(u32 row, u32 chunk) { return row * STRIDE + chunk * 16; }
  DEVICE static Chunk chunk(u32 span, u32 chunk, u32 cols) {
    if (chunk == 8) return {cols / 2 + span * 16, true};
    return {span * 128 + chunk * 16, span * 256 + chunk * 32 < cols};
  }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }
  DEVICE static void decode(const u8 *row, u32 *table, u32, u32 span, u32 cols) {
    const uint4 packed = *reinterpret_cast<const uint4 *>(row + 128);
    const u32 d[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float2 pair = unpack_f16(d[i / 2]);
      const float scale = span * 256 + i * 32 < cols ? (i % 2 ? pair.y : pair.x) * LIFT : 0.f;
      table[i * ROWS] = pack_f16(scale, scale);
    }
  }
  DEVICE void begin(const u8 *span, const u32 *table, u32 step, int lane) {
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const u8 *row = span + (n * 8 + g) * STRIDE + step * 32;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        words[n][i] = four_of<GROUPS>(row + i * 16, t);
        scales[n][i] = table[(step * 2 + i) * ROWS + n * 8 + g];
      }
    }
  }
  DEVICE void get(int piece, u32 b[GROUPS][2]) const {
    constexpr u32 ZERO = 0x64086408u;  // 1024 + 8
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const u32 bytes = words[n][piece / 2] >> (piece % 2 * 4) & LOW;
      Scaled<ZERO>::halves(bytes, scales[n][piece / 2], b[n]);
    }
  }
};

// Nothing to unpack: pieces (GROUPS 4) or chunks are moved by their row, as A's are. They carry no LIFT.
template <bool BRAIN, int GROUPS>
struct Sixteen : Straight {
  static constexpr int ROWS = GROUPS * 8;
  static constexpr int STEPS = 1, RING = 4, CHUNKS = 8, STRIDE = 128;
  static constexpr bool HAS_TABLE = false;
  const u8 *row;
  u32 turn;

  DEVICE static u32 place(u32 row, u32 chunk) { return row * STRIDE + (chunk ^ (GROUPS == 4 ? (row & 3) << 1 : row & 7)) * 16; }
  DEVICE static Chunk chunk(u32 span, u32 chunk, u32 cols) {
    const u32 column = span * 64 + chunk * 8;
    return {column * 2, column < cols};
  }
  DEVICE static u32 extra(const u8 *, u32, u32) { return 0; }
  DEVICE static void decode(const u8 *, u32 *, u32, u32, u32) {}
  DEVICE void begin(const u8 *span, const u32 *, u32, int lane) {
    row = span + lane / 4 * STRIDE + lane % 4 * (GROUPS == 4 ? 8 : 4);
    turn = lane / 4 & (GROUPS == 4 ? 3 : 7);
  }
  DEVICE void get(int piece, u32 b[GROUPS][2]) const {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const u8 *at = row + n * 8 * STRIDE;
      uint2 v;
      if (GROUPS == 4) {
        v = *reinterpret_cast<const uint2 *>(at + (u32(piece) ^ turn) * 32);
      } else {
        v = make_uint2(word_at(at + (u32(piece * 2) ^ turn) * 16), word_at(at + (u32(piece * 2 + 1) ^ turn) * 16));
      }
      b[n][0] = v.x;
      b[n][1] = v.y;
      if (BRAIN) {
        const float2 x = unpack_bf16(v.x), y = unpack_bf16(v.y);
        b[n][0] = pack_f16(x.x, x.y);
        b[n][1] = pack_f16(y.x, y.y);
      }
    }
  }
};
template <int GROUPS>
struct Format<F16, GROUPS> : Sixteen<false, GROUPS> {};
template <int GROUPS>
struct Format<BF16, GROUPS> : Sixteen<true, GROUPS> {};

// Bytes of shared memory of a warp.
template <int TYPE, int GROUPS>
struct WarpBytes {
  using F = Format<TYPE, GROUPS>;
  static constexpr int value = F::ROWS * (F::RING * F::STRIDE + (F::HAS_TABLE ? TABLE * 4 : 0));
};
// The most that one takes: F16's.
constexpr int WARP_BYTES = 16384;
static_assert(WarpBytes<F16, 4>::value == WARP_BYTES, "");
static_assert(WarpBytes<Q8_0, 4>::value <= WARP_BYTES && WarpBytes<Q4_0, 4>::value <= WARP_BYTES, "");
static_assert(WarpBytes<Q4_K, 4>::value <= WARP_BYTES && WarpBytes<Q5_K, 4>::value <= WARP_BYTES, "");
static_assert(WarpBytes<Q6_K, 4>::value <= WARP_BYTES, "");

// Where the rows of W of a warp lie: half of them count from one row, half from another, perhaps of a second matrix.
// Rows past the last are the last again; nobody stores what comes of them.
struct Weights {
  const u8 *data, *data_b;
  u32 first, first_b, rows, row_bytes, cols;

  template <int ROWS>
  DEVICE const u8 *row(u32 r) const {
    const bool is_b = r >= ROWS / 2;
    const u32 at = is_b ? first_b + r - ROWS / 2 : first + r;
    return (is_b ? data_b : data) + u64(at < rows ? at : rows - 1) * row_bytes;
  }
};

// A lane's part of the copies of spans: one row, or every other chunk of it.
template <int TYPE, int GROUPS>
struct SpanCopy {
  using F = Format<TYPE, GROUPS>;
  static constexpr int BY = 32 / F::ROWS;
  const u8 *from;
  u8 *to;
  u32 row, first;

  DEVICE SpanCopy(u8 *ring, const Weights &w, int lane)
      : from(w.row<F::ROWS>(lane % F::ROWS)), to(ring), row(lane % F::ROWS), first(lane / F::ROWS) {}
  // Starts a span's; what comes besides, for decode.
  DEVICE u32 start(u32 span, u32 cols) const {
    u8 *slot = to + span % F::RING * (F::ROWS * F::STRIDE);
#pragma unroll
    for (int i = 0; i < F::CHUNKS; i += BY) {
      const u32 chunk = i + first;
      if (i + BY > F::CHUNKS && chunk >= F::CHUNKS) break;
      const Chunk at = F::chunk(span, chunk, cols);
      cp_async16_if(slot + F::place(row, chunk), from + (at.is_there ? at.offset : 0), at.is_there);
    }
    return F::extra(from, span, cols);
  }
};

// A span's scales into the warp's table, by all lanes.
template <int TYPE, int GROUPS>
DEVICE void decode_span(const u8 *slot, u32 *table, u32 extra, u32 span, u32 cols, int lane) {
  using F = Format<TYPE, GROUPS>;
  if (!F::HAS_TABLE) return;
  __syncwarp();
  if (lane < F::ROWS) F::decode(slot + lane * F::STRIDE, table + lane, extra, span, cols);
  __syncwarp();
}

}  // namespace wide
