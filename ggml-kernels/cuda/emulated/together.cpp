// What the threads of a block do together: barriers, exchanges, matrices, copies. Layouts are PTX's.
#include "device.h"
#include "team.h"

namespace emulated {

namespace {

void check_mask(std::uint32_t mask) {
  if (mask != ~0u) report("mask %08x: only full warps work together", mask);
}

// Every lane's fragments, as matrices [16][K] and [K][8]; a register holds `per` neighbours of a row of a, of a column of b.
template <int K, int per, typename T, typename Value>
void unpack(const Warp &warp, T a[16][K], T b[K][8], Value value) {
  for (int lane = 0; lane < 32; lane++) {
    const int group = lane / 4, place = lane % 4 * per;
    const std::uint32_t *ra = static_cast<const std::uint32_t *>(warp.first[lane]);
    const std::uint32_t *rb = static_cast<const std::uint32_t *>(warp.second[lane]);
    for (int i = 0; i < per; i++) {
      for (int r = 0; r < 4; r++) a[group + (r & 1) * 8][place + (r >> 1) * (K / 2) + i] = value(ra[r], i);
      for (int r = 0; r < 2; r++) b[place + r * (K / 2) + i][group] = value(rb[r], i);
    }
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

void depend() {
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
      int x[16][32], y[32][8];
      unpack<32, 4>(warp, x, y, [](std::uint32_t r, int i) { return int(i8(r >> (8 * i))); });
      multiply_all<32>(warp, x, y);
    } else {
      float x[16][16], y[16][8];
      if (what == MMA_F16)
        unpack<16, 2>(warp, x, y, [](std::uint32_t r, int i) { return f16_value(u16(r >> (16 * i))); });
      else
        unpack<16, 2>(warp, x, y, [](std::uint32_t r, int i) { return __uint_as_float(r >> (16 * i) << 16); });
      multiply_all<16>(warp, x, y);
    }
  });
}

}  // namespace emulated
