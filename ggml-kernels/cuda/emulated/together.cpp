// What the threads of a block do together: barriers, exchanges, matrices, copies. Layouts are PTX's.
#include "device.h"
#include "team.h"

namespace emulated {

namespace {

void check_mask(std::uint32_t mask) {
  if (mask != ~0u) report("mask %08x: only full warps work together", mask);
}

// Every lane's fragments, as bits of a [16][K] and of b's columns [8][K]; a register holds four bytes of either.
template <int K, typename Bits>
void gather(const Warp &warp, Bits a[16][K], Bits b[8][K]) {
  constexpr int per = 4 / sizeof(Bits);
  for (int lane = 0; lane < 32; lane++) {
    const int group = lane / 4, place = lane % 4 * per;
    const std::uint32_t *ra = static_cast<const std::uint32_t *>(warp.first[lane]);
    const std::uint32_t *rb = static_cast<const std::uint32_t *>(warp.second[lane]);
    for (int r = 0; r < 4; r++) std::memcpy(&a[group + (r & 1) * 8][place + (r >> 1) * (K / 2)], &ra[r], 4);
    for (int r = 0; r < 2; r++) std::memcpy(&b[group][place + r * (K / 2)], &rb[r], 4);
  }
}

template <int K, typename T>
void multiply_all(const Warp &warp, const T a[16][K], const T b[K][8]) {
  for (int row = 0; row < 16; row++) {
    T sum[8];
    for (int column = 0; column < 8; column++)
      sum[column] = static_cast<T *>(warp.results[row % 8 * 4 + column / 2])[row / 8 * 2 + column % 2];
    for (int k = 0; k < K; k++)
      for (int column = 0; column < 8; column++) sum[column] += a[row][k] * b[k][column];
    for (int column = 0; column < 8; column++)
      static_cast<T *>(warp.results[row % 8 * 4 + column / 2])[row / 8 * 2 + column % 2] = sum[column];
  }
}

void to_floats(Together what, const u16 *bits, float *values, int count) {
  if (what == MMA_BF16) {
    for (int i = 0; i < count; i++) values[i] = __uint_as_float(u32(bits[i]) << 16);
    return;
  }
#if defined(__F16C__)
  for (int i = 0; i < count; i += 8)
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(bits + i))));
#else
  for (int i = 0; i < count; i++) values[i] = f16_value(bits[i]);
#endif
}

void copy(const Copies::Copy &c) {
  if (c.read)
    std::memcpy(c.to, c.from, std::size_t(c.bytes));
  else
    std::memset(c.to, 0, std::size_t(c.bytes));
}

}  // namespace

void *shared(const SharedSite &site, std::size_t bytes) { return current->team->shared(site, bytes); }
void *dynamic_shared() { return current->team->dynamic(); }

void sync_block() { current->team->barrier(*current); }

void sync_warp(std::uint32_t mask) {
  check_mask(mask);
  current->team->meet(*current, SYNC_WARP);
}

std::uint64_t shuffle_bits(std::uint32_t mask, std::uint64_t bits, int from) {
  check_mask(mask);
  Fiber &fiber = *current;
  const unsigned turn = fiber.warp->turn;
  fiber.warp->values[turn][fiber.lane] = bits;
  fiber.team->meet(fiber, SHUFFLE);
  return fiber.warp->values[turn][from & 31];
}

std::uint32_t ballot(std::uint32_t mask, bool predicate) {
  check_mask(mask);
  Fiber &fiber = *current;
  const unsigned turn = fiber.warp->turn;
  fiber.warp->values[turn][fiber.lane] = predicate;
  fiber.team->meet(fiber, BALLOT);
  std::uint32_t votes = 0;
  for (unsigned lane = 0; lane < LANES; lane++) votes |= std::uint32_t(fiber.warp->values[turn][lane]) << lane;
  return votes;
}

void let_go() { current->let_go = true; }

void depend() {
  // Who lets go later holds the next launch back until what came before this one is done.
  if (!current->let_go) current->team->launch()->keeps_next.store(true, std::memory_order_relaxed);
  current->team->launch()->depended.store(true, std::memory_order_relaxed);
  current->team->hold(*current);
}

// What a copy brings is in its place when it is waited for, not sooner (EMULATED_EAGER: at once).
void copy_later(void *to, const void *from, int bytes, bool read) {
  if (reinterpret_cast<std::uintptr_t>(to) % unsigned(bytes) || reinterpret_cast<std::uintptr_t>(from) % unsigned(bytes))
    report("an asynchronous copy of %d bytes from %p to %p: not aligned", bytes, from, to);
  Copies::Copy c{to, from, bytes, read};
  if (manner().eager)
    copy(c);
  else
    current->copies->copies.push_back(c);
}

void copies_commit() { current->copies->groups.push_back(current->copies->copies.size()); }

void copies_wait(int newest) {
  Copies &all = *current->copies;
  while (all.groups.size() - all.waited > std::size_t(newest)) {
    for (const std::size_t end = all.groups[all.waited++]; all.copied < end; all.copied++) copy(all.copies[all.copied]);
  }
  if (all.waited == all.groups.size() && all.copied == all.copies.size()) all.clear();
}

void load_matrices(std::uint32_t *r, int count, bool transposed, const void *row) {
  Fiber &fiber = *current;
  if (int(fiber.lane) < 8 * count && reinterpret_cast<std::uintptr_t>(row) % 16)
    report("ldmatrix of a row at %p: not aligned to 16", row);
  fiber.warp->results[fiber.lane] = r;
  fiber.warp->first[fiber.lane] = row;
  fiber.team->meet_and(fiber, transposed ? LDMATRIX_TRANS : LDMATRIX, [&](Warp &warp) {
    for (int matrix = 0; matrix < count; matrix++) {
      std::uint16_t values[8][8];
      for (int i = 0; i < 8; i++) std::memcpy(values[i], warp.first[matrix * 8 + i], 16);
      for (int lane = 0; lane < 32; lane++) {
        const int i = lane / 4, j = lane % 4 * 2;
        const std::uint32_t low = transposed ? values[j][i] : values[i][j];
        const std::uint32_t high = transposed ? values[j + 1][i] : values[i][j + 1];
        static_cast<std::uint32_t *>(warp.results[lane])[matrix] = low | high << 16;
      }
    }
  });
}

void multiply(Together what, void *c, const std::uint32_t *a, const std::uint32_t *b) {
  Fiber &fiber = *current;
  fiber.warp->results[fiber.lane] = c;
  fiber.warp->first[fiber.lane] = a;
  fiber.warp->second[fiber.lane] = b;
  fiber.team->meet_and(fiber, what, [&](Warp &warp) {
    if (what == MMA_S8) {
      i8 a8[16][32], b8[8][32];
      int x[16][32], y[32][8];
      gather<32>(warp, a8, b8);
      for (int i = 0; i < 16 * 32; i++) x[i / 32][i % 32] = a8[i / 32][i % 32];
      for (int k = 0; k < 32; k++)
        for (int column = 0; column < 8; column++) y[k][column] = b8[column][k];
      multiply_all<32>(warp, x, y);
    } else {
      alignas(32) u16 a16[16][16], b16[8][16];
      alignas(32) float x[16][16], columns[8][16], y[16][8];
      gather<16>(warp, a16, b16);
      to_floats(what, a16[0], x[0], 256);
      to_floats(what, b16[0], columns[0], 128);
      for (int k = 0; k < 16; k++)
        for (int column = 0; column < 8; column++) y[k][column] = columns[column][k];
      multiply_all<16>(warp, x, y);
    }
  });
}

}  // namespace emulated
