#include "team.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

// Saves what a function must keep, stores the stack pointer in *from, and goes on where `to` was saved.
extern "C" void emulated_switch(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch, @function
emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulated_switch, .-emulated_switch
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl emulated_switch
.hidden emulated_switch
.type emulated_switch, %function
emulated_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emulated_switch, .-emulated_switch
)");
#else
#error "the switch of fibers is written for x86-64 and aarch64"
#endif

namespace emulated {

__thread Fiber *current = nullptr;

namespace {

constexpr std::size_t STACK = 256 * 1024, GUARD = 16;
constexpr unsigned char FRESH = 0xff, FENCE = 0xa5;

unsigned char *pages(std::size_t bytes) {
  void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::perror("emulated card: mmap");
    std::abort();
  }
  return static_cast<unsigned char *>(p);
}

int &site_count() {
  static int count = 0;
  return count;
}

const char *name_of(Together what) {
  switch (what) {
    case SYNC_WARP: return "__syncwarp";
    case SHUFFLE: return "a shuffle";
    case BALLOT: return "a vote";
    case LDMATRIX: return "ldmatrix";
    case LDMATRIX_TRANS: return "ldmatrix_trans";
    case MMA_F16: return "mma_f16";
    case MMA_BF16: return "mma_bf16";
    case MMA_S8: return "mma_s8";
    default: return "nothing";
  }
}

// The first set bit after `after`, going round; before it where blocks run in reverse.
std::uint32_t next_bit(std::uint32_t bits, std::uint32_t after) {
  if (manner().reversed) {
    const std::uint32_t below = bits & ((1u << after) - 1u);
    return 31u - std::uint32_t(__builtin_clz(below ? below : bits));
  }
  const std::uint32_t above = after == 31 ? 0 : bits & ~((2u << after) - 1u);
  return std::uint32_t(__builtin_ctz(above ? above : bits));
}

// Where a fiber begins; the stack it came from is never returned to.
void begin() { current->team->main(*current); }

}  // namespace

SharedSite::SharedSite() : number(__atomic_fetch_add(&site_count(), 1, __ATOMIC_SEQ_CST)) {}

void report(const char *format, ...) {
  std::fprintf(stderr, "emulated card: ");
  if (const Fiber *f = current) {
    const Index &b = f->block->index, &t = f->thread;
    std::fprintf(stderr, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): ", f->team->launch()->kernel->name, b.x, b.y,
                 b.z, t.x, t.y, t.z);
  }
  va_list values;
  va_start(values, format);
  std::vfprintf(stderr, format, values);
  va_end(values);
  std::fprintf(stderr, "\n");
  std::abort();
}

Team::Team() {
  // Two regions of shared memory: arrays of the source, and the launch's own, which ends at a page that can't be touched.
  const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
  const std::size_t arrays = (STATIC_SHARED * 2 + page - 1) / page * page;
  const std::size_t asked = (ALL_SHARED + page - 1) / page * page;
  arena_ = pages(arrays + asked + page);
  cursor_ = arena_;
  dynamic_end_ = arena_ + arrays + asked;
  mprotect(dynamic_end_, page, PROT_NONE);
}

// Stacks for so many threads, each above a page that can't be touched.
void Team::reach(std::uint32_t threads) {
  while (stacks_.size() < threads) {
    unsigned char *stack = pages(STACK);
    mprotect(stack, std::size_t(sysconf(_SC_PAGESIZE)), PROT_NONE);
    stacks_.push_back(stack);
  }
  if (fibers_.size() < threads) {
    fibers_.resize(threads);
    copies_.resize(threads);
  }
}

void Team::start(Launch &launch, std::uint64_t number) {
  launch_ = &launch;
  const Index &grid = launch.grid, &dim = launch.dim;
  block_.grid = grid;
  block_.dim = dim;
  block_.index = {std::uint32_t(number % grid.x), std::uint32_t(number / grid.x % grid.y),
                  std::uint32_t(number / grid.x / grid.y)};
  threads_ = launch.threads();
  reach(threads_);
  waiting_ = ended_ = held_ = 0;
  warp_count_ = (threads_ + LANES - 1) / LANES;
  ready_warps_ = warp_count_ == 32 ? ~0u : (1u << warp_count_) - 1u;
  for (std::uint32_t w = 0; w < warp_count_; w++) {
    Warp &warp = warps_[w];
    const std::uint32_t lanes = threads_ - w * LANES;
    warp.number = w;
    warp.bit = 1u << w;
    warp.full = warp.ready = lanes >= LANES ? ~0u : (1u << lanes) - 1u;
    warp.arrived = warp.held = 0;
    warp.turn = 0;
  }
  for (std::uint32_t t = 0; t < threads_; t++) {
    Fiber &fiber = fibers_[t];
    fiber.thread = {t % dim.x, t / dim.x % dim.y, t / dim.x / dim.y};
    fiber.lane = t % LANES;
    fiber.block = &block_;
    fiber.warp = &warps_[t / LANES];
    fiber.team = this;
    fiber.copies = &copies_[t];
    fiber.let_go = false;
    fiber.copies->clear();
    // Stacks begin at different offsets in their pages: else all would fight for the same cache lines.
    void **top = reinterpret_cast<void **>(stacks_[t] + STACK - 64 - t * 192 % 4096);
#if defined(__x86_64__)
    top[-1] = nullptr;  // as if called: 8 bytes off 16
    top[-2] = reinterpret_cast<void *>(&begin);
    fiber.stack_pointer = top - 8;
#else
    top[-9] = reinterpret_cast<void *>(&begin);
    fiber.stack_pointer = top - 20;
#endif
  }
  blocks_run_++;
  cursor_ = arena_;
  used_.clear();
  dynamic_bytes_ = launch.shared;
  dynamic_ = dynamic_end_ - (launch.shared + 127) / 128 * 128;
  std::memset(dynamic_, FRESH, launch.shared);
  std::memset(dynamic_ + launch.shared, FENCE, std::size_t(dynamic_end_ - dynamic_) - launch.shared);
}

void Team::go() {
  Warp &warp = warps_[manner().reversed ? 31 - __builtin_clz(ready_warps_) : __builtin_ctz(ready_warps_)];
  const int lane = manner().reversed ? 31 - __builtin_clz(warp.ready) : __builtin_ctz(warp.ready);
  current = &fibers_[warp.number * LANES + std::uint32_t(lane)];
  emulated_switch(&main_stack_, current->stack_pointer);
  if (ended_ == threads_) end();
}

void Team::run(Launch &launch, std::uint64_t number, bool until_depend) {
  hold_ = until_depend;
  start(launch, number);
  go();
}

void Team::release() {
  hold_ = false;
  if (ended_ == threads_) return;
  for (std::uint32_t w = 0; w < warp_count_; w++) {
    Warp &warp = warps_[w];
    warp.ready |= warp.held;
    if (warp.ready) ready_warps_ |= warp.bit;
    warp.held = 0;
  }
  held_ = 0;
  go();
}

void Team::end() {
  current = &fibers_[0];
  for (int number : used_) {
    const Site &site = sites_[std::size_t(number)];
    for (std::size_t i = 0; i < GUARD; i++)
      if (site.at[site.bytes + i] != FENCE) report("a write beyond a shared array of %zu bytes", site.bytes);
  }
  for (const unsigned char *p = dynamic_ + dynamic_bytes_; p < dynamic_end_; p++)
    if (*p != FENCE) report("a write beyond the %zu bytes of dynamic shared memory", dynamic_bytes_);
  current = nullptr;
}

void Team::main(Fiber &fiber) {
  launch_->kernel->run(launch_->args.data());
  ended_++;
  fiber.warp->ready &= ~(1u << fiber.lane);
  leave(fiber);
  std::abort();
}

void Team::go_to(Fiber &from, Fiber &to) {
  current = &to;
  emulated_switch(&from.stack_pointer, to.stack_pointer);
}

// To whichever fiber can run; returns when this one can again. Who comes here is not `ready`.
void Team::leave(Fiber &fiber) {
  Warp *warp = fiber.warp;
  if (warp->ready == 0) {
    if (warp->arrived && !warp->held && !held_) stuck(*warp);
    ready_warps_ &= ~warp->bit;
    if (ready_warps_ == 0) {
      if (ended_ == threads_ || held_) {
        current = nullptr;
        emulated_switch(&fiber.stack_pointer, main_stack_);
        return;
      }
      report("%u threads wait at __syncthreads, %u have ended without it", waiting_, ended_);
    }
    warp = &warps_[next_bit(ready_warps_, warp->number)];
    const std::uint32_t lane = next_bit(warp->ready, manner().reversed ? 0 : 31);
    go_to(fiber, fibers_[warp->number * LANES + lane]);
  } else {
    go_to(fiber, fibers_[warp->number * LANES + next_bit(warp->ready, fiber.lane)]);
  }
}

void Team::stuck(const Warp &warp) {
  report("lanes %08x of the warp wait in %s, lanes %08x don't come: they have ended or wait at __syncthreads", warp.arrived,
         name_of(warp.what), warp.full & ~warp.arrived);
}

bool Team::come(Fiber &fiber, Together what) {
  Warp &warp = *fiber.warp;
  if (warp.arrived == 0)
    warp.what = what;
  else if (warp.what != what)
    report("in %s while other lanes of the warp are in %s", name_of(what), name_of(warp.what));
  if (warp.full != ~0u) report("%s in a warp of less than 32 threads", name_of(what));
  warp.arrived |= 1u << fiber.lane;
  warp.ready &= ~(1u << fiber.lane);
  return warp.arrived == warp.full;
}

void Team::meet(Fiber &fiber, Together what) {
  meet_and(fiber, what, [](Warp &) {});
}

void Team::barrier(Fiber &fiber) {
  waiting_++;
  if (waiting_ == threads_) {
    waiting_ = 0;
    for (std::uint32_t w = 0; w < warp_count_; w++) warps_[w].ready = warps_[w].full;
    ready_warps_ = warp_count_ == 32 ? ~0u : (1u << warp_count_) - 1u;
    return;
  }
  fiber.warp->ready &= ~(1u << fiber.lane);
  leave(fiber);
}

void Team::hold(Fiber &fiber) {
  if (!hold_) return;
  held_++;
  fiber.warp->held |= 1u << fiber.lane;
  fiber.warp->ready &= ~(1u << fiber.lane);
  leave(fiber);
}

void *Team::shared(const SharedSite &place, std::size_t bytes) {
  if (sites_.size() <= std::size_t(place.number)) sites_.resize(std::size_t(place.number) + 1);
  Site &site = sites_[std::size_t(place.number)];
  if (site.block == blocks_run_) return site.at;
  used_.push_back(place.number);
  site.block = blocks_run_;
  site.at = cursor_;
  site.bytes = bytes;
  cursor_ += (bytes + GUARD + 15) / 16 * 16;
  const std::size_t total = std::size_t(cursor_ - arena_) - used_.size() * GUARD;
  if (total > STATIC_SHARED) report("%zu bytes of shared arrays, at most %zu are possible", total, STATIC_SHARED);
  if (total + dynamic_bytes_ > ALL_SHARED)
    report("%zu bytes of shared memory, at most %zu are possible", total + dynamic_bytes_, ALL_SHARED);
  std::memset(site.at, FRESH, bytes);
  std::memset(site.at + bytes, FENCE, GUARD);
  return site.at;
}

}  // namespace emulated
