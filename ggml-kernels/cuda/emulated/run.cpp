#include "run.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "memory.h"

namespace emulated {

namespace {

const Kernel *&first_kernel() {
  static const Kernel *first = nullptr;
  return first;
}
const Text *&first_text() {
  static const Text *first = nullptr;
  return first;
}

std::size_t number(const char *name, std::size_t otherwise) {
  const char *text = std::getenv(name);
  return text && *text ? std::size_t(std::strtoull(text, nullptr, 10)) : otherwise;
}

// Blocks of one launch are given out by number; every system thread has a team of its own.
class Workers {
 public:
  explicit Workers(unsigned threads) : own_(new Team) {
    for (unsigned i = 1; i < threads; i++) {
      std::thread([this] { serve(); }).detach();
      helpers_++;
    }
  }

  void run(Launch &launch, const std::vector<std::uint64_t> &begun) {
    launch_ = &launch;
    begun_ = &begun;
    next_.store(0);
    if (helpers_ == 0 || launch.blocks() == 1) {
      work(*own_);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      running_ = helpers_;
      round_++;
    }
    start_.notify_all();
    work(*own_);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  void serve() {
    stack_t stack{};
    stack.ss_size = 128 * 1024;
    stack.ss_sp = std::malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
    sigset_t all;
    sigfillset(&all);
    for (int fault : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) sigdelset(&all, fault);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    Team team;
    std::uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
      }
      work(team);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  void work(Team &team) {
    const std::uint64_t blocks = launch_->blocks();
    for (std::uint64_t n = next_.fetch_add(1); n < blocks; n = next_.fetch_add(1)) {
      const std::uint64_t block = manner().reversed ? blocks - 1 - n : n;
      bool begun = false;
      for (std::uint64_t other : *begun_) begun |= other == block;
      if (!begun) team.run(*launch_, block, false);
    }
  }

  std::unique_ptr<Team> own_;
  unsigned helpers_ = 0, running_ = 0;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::uint64_t round_ = 0;
  Launch *launch_ = nullptr;
  const std::vector<std::uint64_t> *begun_ = nullptr;
  std::atomic<std::uint64_t> next_{0};
};

// Blocks begun before the launches in front of theirs.
struct Early {
  std::vector<std::uint64_t> blocks;
  std::vector<std::unique_ptr<Team>> teams;
};
constexpr std::size_t EARLY_LAUNCHES = 3;

std::vector<std::unique_ptr<Team>> &spare_teams() {
  static auto *teams = new std::vector<std::unique_ptr<Team>>;
  return *teams;
}

Early begin_early(Launch &launch) {
  Early early;
  const std::uint64_t last = launch.blocks() - 1;
  early.blocks = {0};
  if (last > 0) early.blocks.push_back(last);
  for (std::uint64_t block : early.blocks) {
    auto &spare = spare_teams();
    if (spare.empty()) spare.emplace_back(new Team);
    early.teams.push_back(std::move(spare.back()));
    spare.pop_back();
    early.teams.back()->run(launch, block, true);
  }
  return early;
}

void finish_early(Early &early) {
  for (auto &team : early.teams) {
    team->release();
    spare_teams().push_back(std::move(team));
  }
}

struct sigaction old_actions[NSIG];

void fault(int signal, siginfo_t *info, void *context) {
  if (current) {
    const char *what = signal == SIGFPE ? "a division by zero" : signal == SIGILL ? "undefined behaviour" : "no memory";
    if (signal == SIGFPE || signal == SIGILL) report("%s", what);
    char place[256];
    describe(info->si_addr, place, sizeof place);
    report("it reads or writes %p: %s", info->si_addr, place);
  }
  const struct sigaction &old = old_actions[signal];
  if (old.sa_flags & SA_SIGINFO) {
    old.sa_sigaction(signal, info, context);
  } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
    old.sa_handler(signal);
  } else {
    ::signal(signal, SIG_DFL);
    raise(signal);
  }
}

}  // namespace

Kernel::Kernel(const char *name, std::size_t args, int max_threads, void (*run)(const void *))
    : name(name), args(args), max_threads(max_threads), run(run), next(first_kernel()) {
  first_kernel() = this;
}

Text::Text(const char *name, const char *text) : name(name), text(text), next(first_text()) { first_text() = this; }

const Kernel *find_kernel(const char *name) {
  for (const Kernel *k = first_kernel(); k; k = k->next)
    if (!std::strcmp(k->name, name)) return k;
  return nullptr;
}

const Text *texts() { return first_text(); }

const Manner &manner() {
  static const Manner all = [] {
    Manner m{};
    m.reversed = number("EMULATED_REVERSED", 0);
    m.eager = number("EMULATED_EAGER", 0);
    const std::size_t cores = std::thread::hardware_concurrency();
    m.threads = unsigned(number("EMULATED_THREADS", cores < 1 ? 1 : cores > 8 ? 8 : cores));
    m.memory = number("EMULATED_MEMORY", std::size_t(4) << 30);
    m.compute = unsigned(number("EMULATED_COMPUTE", 90));
    return m;
  }();
  return all;
}

void watch_signals() {
  struct sigaction action {};
  action.sa_sigaction = fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) sigaction(signal, &action, &old_actions[signal]);
}

void run_launches(const std::vector<LaunchPtr> &launches) {
  static Workers *workers = new Workers(manner().threads);
  std::vector<Early> early(launches.size());
  std::size_t begun = 0;
  for (std::size_t i = 0; i < launches.size(); i++) {
    if (begun <= i) begun = i + 1;
    // A launch that waits for its predecessors' ends is a wall.
    while (begun < launches.size() && begun <= i + EARLY_LAUNCHES && launches[begun]->overlaps) {
      if (begun > i + 1 && launches[begun - 1]->keeps_next.load()) break;
      early[begun] = begin_early(*launches[begun]);
      begun++;
    }
    Launch &launch = *launches[i];
    finish_early(early[i]);
    workers->run(launch, early[i].blocks);
    if (launch.overlaps && !launch.depended.load())
      report("kernel %s was launched to overlap with the one before and never calls depend()", launch.kernel->name);
  }
}

}  // namespace emulated
