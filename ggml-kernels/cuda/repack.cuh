// Rows between the file's form and the card's: `repack` once at load, `embed` a row a token.
#pragma once
#include "model.cuh"

namespace products {

struct RepackArgs {
  const u8 *from;  // rows as in the file, at any address
  u8 *to;
  u64 rows;
  u32 type, cols, from_bytes, to_bytes;  // of a row
};

// Where byte `at` of a row on the card lies in the file's row; -1: nowhere, it is padding.
DEVICE int source_of(u32 type, u32 cols, u32 from_bytes, u32 at) {
  u32 unit, body, skip, end;  // a block's bytes in front of its d or behind it, where they begin, its length in the file
  switch (type) {
    case Q4_0: unit = 32, body = 16, skip = 2, end = 18; break;
    case Q8_0: unit = 32, body = 32, skip = 2, end = 34; break;
    case Q6_K: unit = 256, body = 208, skip = 0, end = 210; break;
    default: return at < from_bytes ? static_cast<int>(at) : -1;
  }
  const u32 blocks = cols / unit;
  if (at < blocks * body) return at / body * end + skip + at % body;
  at -= blocks * body;
  return at < blocks * 2 ? static_cast<int>(at / 2 * end + (skip ? 0 : body) + at % 2) : -1;
}

struct EmbedArgs {
  Matrix table;
  const Lane *lanes;   // whose tokens; null: of `tokens`
  const u32 *tokens;
  float *out;          // [rows, the table's cols]
};

DEVICE float f16_at(const u8 *p) { return to_float(*reinterpret_cast<const f16 *>(p)); }

// Value k of a row on the card.
DEVICE float value_of(u32 type, const u8 *row, u32 cols, u32 k) {
  switch (type) {
    case F32: return reinterpret_cast<const float *>(row)[k];
    case F16: return to_float(reinterpret_cast<const f16 *>(row)[k]);
    case BF16: return to_float(reinterpret_cast<const bf16 *>(row)[k]);
    case Q8_0: return static_cast<float>(reinterpret_cast<const i8 *>(row)[k]) * f16_at(row + cols + k / 32 * 2);
    case Q4_0: {
      const u8 b = row[k / 32 * 16 + k % 16];
      return static_cast<float>((k % 32 < 16 ? b & 15 : b >> 4) - 8) * f16_at(row + cols / 2 + k / 32 * 2);
    }
    case Q6_K: {
      const u8 *b = row + k / 256 * 208;
      const u32 half = k % 256 / 128, l = k % 32, quarter = k % 128 / 32;
      const u8 low = b[half * 64 + quarter % 2 * 32 + l];
      const int q = ((quarter / 2 ? low >> 4 : low & 15) | ((b[128 + half * 32 + l] >> (2 * quarter)) & 3) << 4) - 32;
      const int scale = reinterpret_cast<const i8 *>(b)[192 + half * 8 + quarter * 2 + l / 16];
      return f16_at(row + cols / 256 * 208 + k / 256 * 2) * static_cast<float>(scale) * static_cast<float>(q);
    }
    default: {
      const u8 *b = row + k / 256 * (type == Q4_K ? 144 : 176), *s = b + 4;
      const u32 j = k % 256 / 32;
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
      const int min = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
      const u8 w = b[(type == Q4_K ? 16 : 48) + j / 2 * 32 + k % 32];
      int q = j % 2 ? w >> 4 : w & 15;
      if (type == Q5_K) q += ((b[16 + k % 32] >> j) & 1) * 16;
      return f16_at(b) * static_cast<float>(scale) * static_cast<float>(q) - f16_at(b + 2) * static_cast<float>(min);
    }
  }
}

}  // namespace products

// Grid: any; a thread makes words of 4 bytes.
KERNEL(repack, products::RepackArgs) {
  const u32 words = a.to_bytes / 4;
  for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < a.rows * words; i += static_cast<u64>(gridDim.x) * blockDim.x) {
    const u64 row = i / words;
    const u32 at = static_cast<u32>(i % words) * 4;
    u32 word = 0;
    for (u32 b = 0; b < 4; b++) {
      const int source = products::source_of(a.type, a.cols, a.from_bytes, at + b);
      if (source >= 0) word |= static_cast<u32>(a.from[row * a.from_bytes + source]) << (8 * b);
    }
    *reinterpret_cast<u32 *>(a.to + row * a.to_bytes + at) = word;
  }
}

// Grid: (cols / 256 rounded up, rows).
KERNEL(embed, products::EmbedArgs) {
  depend();
  let_go();
  const u32 k = blockIdx.x * blockDim.x + threadIdx.x;
  if (k >= a.table.cols) return;
  const u32 token = a.lanes ? a.lanes[blockIdx.y].token : a.tokens[blockIdx.y];
  const u8 *row = a.table.data + static_cast<u64>(token) * a.table.row_bytes;
  a.out[static_cast<u64>(blockIdx.y) * a.table.cols + k] = products::value_of(a.table.type, row, a.table.cols, k);
}
