// The fibers that run a block, and how they wait for each other.
#pragma once
#include <atomic>
#include <vector>

#include "block.h"

namespace emulated {

constexpr std::uint32_t MAX_THREADS = 1024, LANES = 32;
// As sm_90 has it: of one block, without asking for more, and after asking.
constexpr std::size_t STATIC_SHARED = 48 * 1024, ALL_SHARED = 227 * 1024;

struct Launch {
  const Kernel *kernel;
  Index grid, dim;
  std::size_t shared;
  std::vector<std::uint64_t> args;
  bool overlaps;                        // starts before its predecessor has ended
  std::atomic<bool> depended{false};
  std::atomic<bool> keeps_next{false};  // lets go after depend()
  std::uint32_t threads() const { return dim.x * dim.y * dim.z; }
  std::uint64_t blocks() const { return std::uint64_t(grid.x) * grid.y * grid.z; }
};

// How blocks run, for tests that look for races: as environment variables at the start of the process.
struct Manner {
  bool reversed;  // EMULATED_REVERSED: last warps, lanes and blocks first
  bool eager;     // EMULATED_EAGER: asynchronous copies land when issued, else when waited for
  unsigned threads;  // EMULATED_THREADS
  std::size_t memory;  // EMULATED_MEMORY: bytes of the card
  unsigned compute;    // EMULATED_COMPUTE: which card it says that it is, 90 or 80
};
const Manner &manner();

// The end of the process, said with the place of the fiber that runs.
[[noreturn]] void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct Copies {
  struct Copy {
    void *to;
    const void *from;
    int bytes;
    bool read;
  };
  std::vector<Copy> copies;
  std::vector<std::size_t> groups;  // where each committed group ends
  std::size_t copied = 0, waited = 0;
  void clear() { copies.clear(), groups.clear(), copied = waited = 0; }
};

struct Warp {
  std::uint32_t number, bit;
  std::uint32_t full;     // lanes there are
  std::uint32_t ready;    // may run
  std::uint32_t arrived;  // at the primitive `what`
  std::uint32_t held;     // in depend()
  Together what;
  unsigned turn;
  std::uint64_t values[2][LANES];  // what lanes show each other: this primitive's and the next one's
  // Of the lanes that wait in a primitive.
  void *results[LANES];
  const void *first[LANES], *second[LANES];
};

class Team {
 public:
  Team();
  // Runs a block to its end; or, `until_depend`, until all its threads have ended or wait for others or for
  // release().
  void run(Launch &launch, std::uint64_t number, bool until_depend);
  void release();

  // For the fiber that runs.
  void meet(Fiber &fiber, Together what);  // returns when all lanes have come
  template <typename Work>
  void meet_and(Fiber &fiber, Together what, Work work);  // `work` by the last that comes
  void barrier(Fiber &fiber);
  void hold(Fiber &fiber);
  void *shared(const SharedSite &site, std::size_t bytes);
  void *dynamic() { return dynamic_; }
  Launch *launch() { return launch_; }
  [[noreturn]] void main(Fiber &fiber);

 private:
  struct Site {
    std::uint64_t block;
    unsigned char *at;
    std::size_t bytes;
  };
  void start(Launch &launch, std::uint64_t number);
  void go();
  void end();
  bool come(Fiber &fiber, Together what);
  void leave(Fiber &fiber);
  void go_to(Fiber &from, Fiber &to);
  [[noreturn]] void stuck(const Warp &warp);
  void reach(std::uint32_t threads);

  Launch *launch_ = nullptr;
  Block block_{};
  std::vector<Fiber> fibers_;
  std::vector<Copies> copies_;
  std::vector<unsigned char *> stacks_;
  Warp warps_[MAX_THREADS / LANES];
  std::uint32_t warp_count_ = 0, ready_warps_ = 0;
  std::uint32_t threads_ = 0, waiting_ = 0, ended_ = 0, held_ = 0;
  bool hold_ = false;
  void *main_stack_ = nullptr;
  std::uint64_t blocks_run_ = 0;
  std::vector<Site> sites_;
  std::vector<int> used_;
  unsigned char *arena_, *cursor_, *dynamic_end_, *dynamic_ = nullptr;
  std::size_t dynamic_bytes_ = 0;
};

template <typename Work>
void Team::meet_and(Fiber &fiber, Together what, Work work) {
  Warp &warp = *fiber.warp;
  if (come(fiber, what)) {
    work(warp);
    warp.arrived = 0;
    warp.ready = warp.full;
    warp.turn ^= 1;
  } else {
    leave(fiber);
  }
}

}  // namespace emulated
