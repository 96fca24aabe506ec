#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "team.h"

namespace emulated {

namespace {

struct Allocation {
  std::size_t bytes, mapped;
  unsigned char *pages;  // the first; the page after `mapped` bytes can't be touched
};
typedef std::map<std::uintptr_t, Allocation> Allocations;

constexpr std::size_t ALIGNMENT = 256, ADDRESSES = std::size_t(1) << 44;
constexpr unsigned char FRESH = 0xff, FENCE = 0xa5;

Allocations &device() {
  static auto *all = new Allocations;
  return *all;
}
std::map<std::uintptr_t, std::size_t> &host() {
  static auto *all = new std::map<std::uintptr_t, std::size_t>;
  return *all;
}
std::size_t used = 0;

std::size_t up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

// Addresses are taken one after another from a region that nothing else uses.
unsigned char *addresses(std::size_t bytes) {
  static unsigned char *next = nullptr, *end = nullptr;
  if (!next) {
    void *p = mmap(nullptr, ADDRESSES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
      std::perror("emulated card: mmap");
      std::abort();
    }
    next = static_cast<unsigned char *>(p);
    end = next + ADDRESSES;
  }
  if (std::size_t(end - next) < bytes) {
    std::fprintf(stderr, "emulated card: out of addresses\n");
    std::abort();
  }
  unsigned char *p = next;
  next += bytes;
  return p;
}

const std::pair<const std::uintptr_t, Allocation> *before(const void *p) {
  auto at = device().upper_bound(reinterpret_cast<std::uintptr_t>(p));
  if (at == device().begin()) return nullptr;
  return &*--at;
}

void check(std::uintptr_t address, const Allocation &a, const char *since) {
  const unsigned char *data = reinterpret_cast<const unsigned char *>(address), *end = a.pages + a.mapped;
  // All of what follows, and the last bytes of what precedes.
  for (const unsigned char *p = data + a.bytes; p < end; p++)
    if (*p != FENCE)
      report("byte %zu after an allocation of %zu bytes was written; since it was last looked at ran: %s",
             std::size_t(p - data) - a.bytes, a.bytes, since);
  for (const unsigned char *p = data - a.pages > 64 ? data - 64 : a.pages; p < data; p++)
    if (*p != FENCE)
      report("byte %zu before an allocation of %zu bytes was written; since it was last looked at ran: %s",
             std::size_t(data - p), a.bytes, since);
}

}  // namespace

void *allocate(std::size_t bytes) {
  const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE));
  const std::size_t taken = up(bytes, 2 << 20 > bytes ? ALIGNMENT : 2 << 20);
  if (bytes > memory_total() || used + taken > memory_total()) return nullptr;
  const std::size_t body = up(bytes, ALIGNMENT), mapped = up(body, page);
  unsigned char *pages = addresses(mapped + page);
  if (mprotect(pages, mapped, PROT_READ | PROT_WRITE) != 0) return nullptr;
  unsigned char *data = pages + mapped - body;
  std::memset(pages, FENCE, std::size_t(data - pages));
  std::memset(data, FRESH, bytes);
  std::memset(data + bytes, FENCE, body - bytes);
  device()[reinterpret_cast<std::uintptr_t>(data)] = {bytes, mapped, pages};
  used += taken;
  return data;
}

bool release(void *p) {
  auto at = device().find(reinterpret_cast<std::uintptr_t>(p));
  if (at == device().end()) return false;
  check(at->first, at->second, "see before");
  const Allocation a = at->second;
  used -= up(a.bytes, 2 << 20 > a.bytes ? ALIGNMENT : 2 << 20);
  mmap(a.pages, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  device().erase(at);
  return true;
}

bool owns(const void *p, std::size_t bytes) {
  const auto *a = before(p);
  if (!a) return false;
  const std::size_t offset = std::size_t(reinterpret_cast<std::uintptr_t>(p) - a->first);
  return offset <= a->second.bytes && bytes <= a->second.bytes - offset;
}

std::size_t memory_total() { return manner().memory; }
std::size_t memory_free() { return memory_total() - used; }

void check_fences(const char *since) {
  for (const auto &a : device()) check(a.first, a.second, since);
}

void describe(const void *p, char *text, std::size_t length) {
  const auto *a = before(p);
  if (!a) {
    std::snprintf(text, length, "no allocation of the card is near");
    return;
  }
  const std::size_t offset = std::size_t(reinterpret_cast<std::uintptr_t>(p) - a->first);
  std::snprintf(text, length, "byte %zu from the start of the nearest allocation of %zu bytes below", offset, a->second.bytes);
}

void *allocate_host(std::size_t bytes) {
  void *p = nullptr;
  if (posix_memalign(&p, 4096, bytes ? bytes : 1) != 0) return nullptr;
  std::memset(p, FRESH, bytes);
  host()[reinterpret_cast<std::uintptr_t>(p)] = bytes;
  return p;
}

bool release_host(void *p) {
  if (!host().erase(reinterpret_cast<std::uintptr_t>(p))) return false;
  std::free(p);
  return true;
}

bool host_owns(const void *p, std::size_t bytes) {
  auto at = host().upper_bound(reinterpret_cast<std::uintptr_t>(p));
  if (at == host().begin()) return false;
  --at;
  const std::size_t offset = std::size_t(reinterpret_cast<std::uintptr_t>(p) - at->first);
  return offset <= at->second && bytes <= at->second - offset;
}

}  // namespace emulated
