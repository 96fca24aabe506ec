// Runs launches: blocks over system threads, one kernel after another, except that some blocks of a kernel that may
// overlap with those before it are begun early, up to their depend().
#pragma once
#include <memory>

#include "team.h"

namespace emulated {

typedef std::shared_ptr<Launch> LaunchPtr;

const Kernel *find_kernel(const char *name);
const Text *texts();

// Catches what a kernel does to memory that isn't there.
void watch_signals();

// In the order given. The launches from `from` up to `to` follow each other without anything between.
void run_launches(const std::vector<LaunchPtr> &launches);

}  // namespace emulated
