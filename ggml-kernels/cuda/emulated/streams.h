// Streams, events and graphs. Work waits in its stream until somebody asks for its end: what was not waited for has not
// happened, which finds the host that reads too early.
#pragma once
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "run.h"

namespace emulated {

struct Stream;

struct Event {
  Stream *stream = nullptr;
  std::uint64_t place = 0;  // of its newest record in that stream
  std::chrono::steady_clock::time_point time;
  bool recorded = false;
};

struct Work;
typedef std::vector<Work> Works;

struct Work {
  enum Kind { LAUNCH, COPY, SET8, SET32, RECORD, WAIT, GRAPH, HOST } kind;
  LaunchPtr launch;
  void *to = nullptr;
  const void *from = nullptr;
  std::size_t count = 0;  // bytes, or values of SET32
  std::uint32_t value = 0;
  std::shared_ptr<std::vector<unsigned char>> staged;  // what a copy reads, where it read pageable memory
  Event *event = nullptr;
  std::uint64_t place = 0;
  Stream *other = nullptr;
  std::shared_ptr<Works> graph;
  void (*call)(void *) = nullptr;  // with `to`
  explicit Work(Kind kind) : kind(kind) {}
};

struct Stream {
  bool waits_for_default = true;
  std::deque<Work> works;
  std::uint64_t queued = 0, done = 0;
  // Under capture: what was asked for goes here.
  std::shared_ptr<Works> captured;
  bool capture_failed = false;
  // Meanwhile anything may be called, by anybody.
  bool capture_is_relaxed = false;
};

// The default stream is null: its work is done at once, after that of every stream that waits for it.
void enqueue(Stream *stream, Work work);
// Everything, or the first `upto` of all that were ever queued.
void drain(Stream &stream, std::uint64_t upto = ~std::uint64_t(0));
void drain_all();
std::vector<Stream *> &streams();

}  // namespace emulated
