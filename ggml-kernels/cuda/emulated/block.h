// A block of threads on the processor. Every thread is a fiber; a fiber runs until it waits for others. Noticed, with the
// kernel, block and thread, and the end of the process: a barrier or warp primitive that some of its threads don't reach,
// different primitives met by the lanes of a warp, partial masks and partial warps, misaligned copies and matrices,
// writes around shared arrays, more shared memory than there is. Shared memory starts as NaN.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace emulated {

// One KERNEL, in the list of all by its constructor.
struct Kernel {
  const char *name;
  std::size_t args;
  int max_threads;
  void (*run)(const void *args);
  const Kernel *next;
  Kernel(const char *name, std::size_t args, int max_threads, void (*run)(const void *args));
};

// One GLOBAL_TEXT.
struct Text {
  const char *name, *text;
  const Text *next;
  Text(const char *name, const char *text);
};

struct Index {
  std::uint32_t x, y, z;
};

// One SHARED in the source.
struct SharedSite {
  int number;
  SharedSite();
};

struct Launch;
class Team;
struct Warp;
struct Copies;

struct Block {
  Index index, dim, grid;
};

struct Fiber {
  Index thread;
  std::uint32_t lane;
  Block *block;
  Warp *warp;
  Team *team;
  Copies *copies;
  bool let_go;
  void *stack_pointer;
};

// The fiber that runs on this system thread; null outside of kernels.
extern __thread Fiber *current;

void *shared(const SharedSite &site, std::size_t bytes);
void *dynamic_shared();

enum Together { NOTHING, SYNC_WARP, SHUFFLE, BALLOT, LDMATRIX, LDMATRIX_TRANS, MMA_F16, MMA_BF16, MMA_S8 };

inline int lane() { return int(current->lane); }
void sync_block();
void sync_warp(std::uint32_t mask);
std::uint64_t shuffle_bits(std::uint32_t mask, std::uint64_t bits, int from);
template <typename T>
inline T shuffle(std::uint32_t mask, T v, int from) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  bits = shuffle_bits(mask, bits, from);
  std::memcpy(&v, &bits, sizeof v);
  return v;
}
std::uint32_t ballot(std::uint32_t mask, bool predicate);
void depend();
void let_go();
void copy_later(void *shared, const void *global, int bytes, bool read);
void copies_commit();
void copies_wait(int newest);
void load_matrices(std::uint32_t *r, int count, bool transposed, const void *row);
void multiply(Together what, void *c, const std::uint32_t *a, const std::uint32_t *b);

}  // namespace emulated
