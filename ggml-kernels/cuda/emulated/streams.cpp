#include "streams.h"

#include <cstring>

#include "memory.h"

namespace emulated {

namespace {

std::string ran;  // the kernels since memory's fences were looked at

// Consecutive launches are handed over together: some may overlap.
class Batch {
 public:
  ~Batch() { run(); }
  void run() {
    if (launches_.empty()) return;
    for (const auto &launch : launches_) {
      if (ran.size() < 2000) ran += std::string(ran.empty() ? "" : ", ") + launch->kernel->name;
    }
    std::vector<LaunchPtr> now;
    now.swap(launches_);
    run_launches(now);
  }
  void add(const LaunchPtr &launch) { launches_.push_back(launch); }

 private:
  std::vector<LaunchPtr> launches_;
};

void perform(Work &work, Batch &batch) {
  if (work.kind == Work::LAUNCH) {
    batch.add(work.launch);
    return;
  }
  batch.run();
  switch (work.kind) {
    case Work::COPY:
      std::memmove(work.to, work.staged ? work.staged->data() : work.from, work.count);
      break;
    case Work::SET8:
      std::memset(work.to, int(work.value), work.count);
      break;
    case Work::SET32:
      for (std::size_t i = 0; i < work.count; i++) static_cast<std::uint32_t *>(work.to)[i] = work.value;
      break;
    case Work::RECORD:
      work.event->time = std::chrono::steady_clock::now();
      break;
    case Work::WAIT:
      if (work.other) drain(*work.other, work.place);
      break;
    case Work::GRAPH:
      for (Work &inner : *work.graph) perform(inner, batch);
      batch.run();
      break;
    case Work::HOST:
      work.call(work.to);
      break;
    default:
      break;
  }
}

void look_around() {
  if (ran.empty()) return;
  check_fences(ran.c_str());
  ran.clear();
}

}  // namespace

std::vector<Stream *> &streams() {
  static auto *all = new std::vector<Stream *>;
  return *all;
}

void drain(Stream &stream, std::uint64_t upto) {
  {
    Batch batch;
    while (!stream.works.empty() && stream.done < upto) {
      Work work = std::move(stream.works.front());
      stream.works.pop_front();
      stream.done++;
      perform(work, batch);
    }
  }
  look_around();
}

void drain_all() {
  for (Stream *stream : streams()) drain(*stream);
}

void enqueue(Stream *stream, Work work) {
  if (!stream) {
    for (Stream *other : streams())
      if (other->waits_for_default) drain(*other);
    {
      Batch batch;
      perform(work, batch);
    }
    look_around();
    return;
  }
  if (stream->captured) {
    stream->captured->push_back(std::move(work));
    return;
  }
  stream->works.push_back(std::move(work));
  stream->queued++;
  if (stream->works.size() > 4096) drain(*stream, stream->done + 2048);
}

}  // namespace emulated
