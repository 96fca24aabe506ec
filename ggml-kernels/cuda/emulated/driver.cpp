// The part of the CUDA driver's C interface that a program of ours calls, as libcuda.so.1. One card, one context.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "memory.h"
#include "streams.h"

using namespace emulated;

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct Context *CUcontext;
typedef struct Loaded *CUmodule;
typedef struct Function *CUfunction;
typedef Stream *CUstream;
typedef Event *CUevent;
typedef struct Graph *CUgraph;
typedef struct Graph *CUgraphExec;

struct Context {
  int retained;
};
struct Function {
  const Kernel *kernel;
  int dynamic_shared;
};
struct Loaded {
  std::map<std::string, Function> functions;
  std::map<std::string, std::pair<void *, std::size_t>> globals;
};
struct Graph {
  std::shared_ptr<Works> works;
};
struct LaunchAttribute {
  int id;
  char pad[4];
  union {
    char bytes[64];
    int number;
    unsigned size[3];
  } value;
};
struct LaunchConfig {
  unsigned grid[3], block[3], shared;
  CUstream stream;
  const LaunchAttribute *attributes;
  unsigned count;
};

namespace {

enum : CUresult {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  OUT_OF_RESOURCES = 701,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_IMPLICIT = 906,
};

struct ErrorText {
  CUresult code;
  const char *name, *text;
};
const ErrorText errors[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {OUT_OF_RESOURCES, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing one"},
};

// One call at a time; a kernel's blocks have threads of their own.
std::recursive_mutex &door() {
  static auto *mutex = new std::recursive_mutex;
  return *mutex;
}
bool initialized = false;
Context context;
thread_local CUcontext here = nullptr;
const char TAG[] = "deltad emulated kernels ";

#define CALL extern "C" __attribute__((visibility("default"))) CUresult
#define ENTER                                              \
  std::lock_guard<std::recursive_mutex> lock(door());      \
  if (!initialized) return NOT_INITIALIZED;                \
  if (!here) return INVALID_CONTEXT

bool known(const Stream *stream) {
  for (const Stream *s : streams())
    if (s == stream) return true;
  return stream == nullptr;
}

// What may not be called while a stream is captured ends that capture, unless it is relaxed.
bool capturing() {
  bool any = false;
  for (Stream *s : streams())
    if (s->captured && !s->capture_is_relaxed) any = s->capture_failed = true;
  return any;
}

CUresult accept(CUstream stream, Work work) {
  if (!known(stream)) return INVALID_HANDLE;
  if (!stream)
    for (Stream *s : streams())
      if (s->captured && s->waits_for_default) {
        s->capture_failed = true;
        return CAPTURE_IMPLICIT;
      }
  enqueue(stream, std::move(work));
  return SUCCESS;
}

void *pointer(CUdeviceptr p) { return reinterpret_cast<void *>(p); }

Work copy(void *to, const void *from, std::size_t bytes) {
  Work work{Work::COPY};
  work.to = to;
  work.from = from;
  work.count = bytes;
  return work;
}

CUresult to_card(CUdeviceptr to, const void *from, std::size_t bytes, CUstream stream) {
  if (!owns(pointer(to), bytes)) return INVALID_VALUE;
  Work work = copy(pointer(to), from, bytes);
  if (!host_owns(from, bytes)) {
    // Pageable memory may be written over as soon as this returns.
    const auto *first = static_cast<const unsigned char *>(from);
    work.staged = std::make_shared<std::vector<unsigned char>>(first, first + bytes);
  }
  return accept(stream, std::move(work));
}

CUresult from_card(void *to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  if (!owns(pointer(from), bytes)) return INVALID_VALUE;
  const CUresult answer = accept(stream, copy(to, pointer(from), bytes));
  if (answer == SUCCESS && stream && !stream->captured && !host_owns(to, bytes)) drain(*stream);
  return answer;
}

CUresult within_card(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  if (!owns(pointer(to), bytes) || !owns(pointer(from), bytes)) return INVALID_VALUE;
  return accept(stream, copy(pointer(to), pointer(from), bytes));
}

CUresult set(CUdeviceptr to, std::uint32_t value, std::size_t count, Work::Kind kind, CUstream stream) {
  if (!owns(pointer(to), kind == Work::SET32 ? count * 4 : count)) return INVALID_VALUE;
  if (kind == Work::SET32 && to % 4) return INVALID_VALUE;
  Work work{kind};
  work.to = pointer(to);
  work.value = value;
  work.count = count;
  return accept(stream, std::move(work));
}

CUresult launch(const LaunchConfig &config, CUfunction function, void **params, void **extra) {
  if (!function) return INVALID_HANDLE;
  const Kernel &kernel = *function->kernel;
  auto made = std::make_shared<Launch>();
  made->kernel = &kernel;
  made->grid = {config.grid[0], config.grid[1], config.grid[2]};
  made->dim = {config.block[0], config.block[1], config.block[2]};
  made->shared = config.shared;
  made->overlaps = false;
  for (unsigned i = 0; i < config.count; i++) {
    const LaunchAttribute &attribute = config.attributes[i];
    if (attribute.id == 6)
      made->overlaps = attribute.value.number != 0;
    else if (attribute.id != 0)
      return NOT_SUPPORTED;
  }
  for (unsigned size : config.grid)
    if (size == 0) return INVALID_VALUE;
  for (unsigned size : config.block)
    if (size == 0 || size > 1024) return INVALID_VALUE;
  if (config.grid[0] > 0x7fffffffu || config.grid[1] > 65535 || config.grid[2] > 65535) return INVALID_VALUE;
  if (config.block[2] > 64 || made->threads() > 1024) return INVALID_VALUE;
  if (int(made->threads()) > kernel.max_threads) return OUT_OF_RESOURCES;
  if (int(config.shared) > function->dynamic_shared) return INVALID_VALUE;
  made->args.resize((kernel.args + 7) / 8);
  if (params) {
    std::memcpy(made->args.data(), params[0], kernel.args);
  } else if (extra) {
    const void *buffer = nullptr;
    std::size_t bytes = 0;
    for (; *extra; extra += 2) {
      if (*extra == reinterpret_cast<void *>(1)) buffer = extra[1];
      if (*extra == reinterpret_cast<void *>(2)) bytes = *static_cast<std::size_t *>(extra[1]);
    }
    if (!buffer || bytes != kernel.args) return INVALID_VALUE;
    std::memcpy(made->args.data(), buffer, bytes);
  } else {
    return INVALID_VALUE;
  }
  Work work{Work::LAUNCH};
  work.launch = made;
  return accept(config.stream, std::move(work));
}

}  // namespace

CALL cuInit(unsigned flags) {
  std::lock_guard<std::recursive_mutex> lock(door());
  if (flags) return INVALID_VALUE;
  if (!initialized) watch_signals();
  initialized = true;
  return SUCCESS;
}
CALL cuDriverGetVersion(int *version) {
  *version = 13000;
  return SUCCESS;
}
CALL cuGetErrorName(CUresult error, const char **name) {
  for (const auto &e : errors)
    if (e.code == error) return *name = e.name, SUCCESS;
  return *name = nullptr, INVALID_VALUE;
}
CALL cuGetErrorString(CUresult error, const char **text) {
  for (const auto &e : errors)
    if (e.code == error) return *text = e.text, SUCCESS;
  return *text = nullptr, INVALID_VALUE;
}

CALL cuDeviceGetCount(int *count) {
  if (!initialized) return NOT_INITIALIZED;
  *count = 1;
  return SUCCESS;
}
CALL cuDeviceGet(CUdevice *device, int index) {
  if (!initialized) return NOT_INITIALIZED;
  if (index != 0) return INVALID_DEVICE;
  *device = 0;
  return SUCCESS;
}
CALL cuDeviceGetName(char *name, int length, CUdevice) {
  std::snprintf(name, std::size_t(length), "Emulated card");
  return SUCCESS;
}
CALL cuDeviceGetUuid_v2(char *uuid, CUdevice) {
  std::memcpy(uuid, "emulated card 0 ", 16);
  return SUCCESS;
}
CALL cuDeviceTotalMem_v2(std::size_t *bytes, CUdevice) {
  *bytes = memory_total();
  return SUCCESS;
}
CALL cuDeviceGetAttribute(int *value, int attribute, CUdevice) {
  switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;            // threads of a block
    case 4: *value = 64; break;
    case 5: *value = 0x7fffffff; break;                      // blocks of a grid
    case 6: case 7: *value = 65535; break;
    case 8: *value = int(STATIC_SHARED); break;
    case 10: *value = 32; break;
    case 12: case 82: *value = 65536; break;                 // registers
    case 13: *value = 1000000; break;
    case 16: *value = 4; break;                              // multiprocessors
    case 31: case 41: *value = 1; break;
    case 38: *value = 4 << 20; break;
    case 39: *value = 2048; break;
    case 75: *value = int(manner().compute / 10); break;     // compute capability
    case 76: *value = int(manner().compute % 10); break;
    case 81: *value = 228 * 1024; break;
    case 97: *value = int(ALL_SHARED); break;
    default: *value = 0;
  }
  return SUCCESS;
}

CALL cuDevicePrimaryCtxRetain(CUcontext *made, CUdevice device) {
  std::lock_guard<std::recursive_mutex> lock(door());
  if (!initialized) return NOT_INITIALIZED;
  if (device != 0) return INVALID_DEVICE;
  context.retained++;
  *made = &context;
  return SUCCESS;
}
CALL cuDevicePrimaryCtxRelease_v2(CUdevice) {
  std::lock_guard<std::recursive_mutex> lock(door());
  if (context.retained == 0) return INVALID_CONTEXT;
  context.retained--;
  return SUCCESS;
}
CALL cuCtxSetCurrent(CUcontext which) {
  if (!initialized) return NOT_INITIALIZED;
  if (which && which != &context) return INVALID_CONTEXT;
  here = which;
  return SUCCESS;
}
CALL cuCtxGetCurrent(CUcontext *which) {
  *which = here;
  return SUCCESS;
}
CALL cuCtxSynchronize() {
  ENTER;
  if (capturing()) return CAPTURE_UNSUPPORTED;
  drain_all();
  return SUCCESS;
}

CALL cuMemGetInfo_v2(std::size_t *free, std::size_t *total) {
  ENTER;
  *free = memory_free();
  *total = memory_total();
  return SUCCESS;
}
CALL cuMemAlloc_v2(CUdeviceptr *p, std::size_t bytes) {
  ENTER;
  if (bytes == 0) return INVALID_VALUE;
  if (capturing()) return CAPTURE_UNSUPPORTED;
  void *made = allocate(bytes);
  if (!made) return OUT_OF_MEMORY;
  *p = reinterpret_cast<CUdeviceptr>(made);
  return SUCCESS;
}
CALL cuMemFree_v2(CUdeviceptr p) {
  ENTER;
  if (p == 0) return SUCCESS;
  if (capturing()) return CAPTURE_UNSUPPORTED;
  drain_all();
  return release(pointer(p)) ? SUCCESS : INVALID_VALUE;
}
CALL cuMemAllocHost_v2(void **p, std::size_t bytes) {
  ENTER;
  if (capturing()) return CAPTURE_UNSUPPORTED;
  *p = allocate_host(bytes);
  return *p ? SUCCESS : OUT_OF_MEMORY;
}
CALL cuMemHostAlloc(void **p, std::size_t bytes, unsigned) { return cuMemAllocHost_v2(p, bytes); }
CALL cuMemFreeHost(void *p) {
  ENTER;
  if (capturing()) return CAPTURE_UNSUPPORTED;
  drain_all();
  return release_host(p) ? SUCCESS : INVALID_VALUE;
}

CALL cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, std::size_t bytes, CUstream stream) {
  ENTER;
  return to_card(to, from, bytes, stream);
}
CALL cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  ENTER;
  return from_card(to, from, bytes, stream);
}
CALL cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, CUstream stream) {
  ENTER;
  return within_card(to, from, bytes, stream);
}
CALL cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, std::size_t bytes) {
  ENTER;
  return to_card(to, from, bytes, nullptr);
}
CALL cuMemcpyDtoH_v2(void *to, CUdeviceptr from, std::size_t bytes) {
  ENTER;
  return from_card(to, from, bytes, nullptr);
}
CALL cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
  ENTER;
  return within_card(to, from, bytes, nullptr);
}
CALL cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t count, CUstream stream) {
  ENTER;
  return set(to, value, count, Work::SET8, stream);
}
CALL cuMemsetD32Async(CUdeviceptr to, unsigned value, std::size_t count, CUstream stream) {
  ENTER;
  return set(to, value, count, Work::SET32, stream);
}
CALL cuMemsetD8_v2(CUdeviceptr to, unsigned char value, std::size_t count) {
  ENTER;
  return set(to, value, count, Work::SET8, nullptr);
}
CALL cuMemsetD32_v2(CUdeviceptr to, unsigned value, std::size_t count) {
  ENTER;
  return set(to, value, count, Work::SET32, nullptr);
}

CALL cuModuleLoadData(CUmodule *made, const void *image) {
  ENTER;
  const char *text = static_cast<const char *>(image);
  const bool tagged = !std::strncmp(text, TAG, sizeof TAG - 1);
  const unsigned char fatbin[4] = {0x50, 0xed, 0x55, 0xba};
  if (!tagged && std::memcmp(text, fatbin, 4)) return INVALID_IMAGE;
  auto *loaded = new Loaded;
  for (const Text *global = texts(); global; global = global->next) {
    // The file of the emulated card carries the sources' name itself; a card's is one with ours.
    std::string value = global->text;
    if (tagged && !std::strcmp(global->name, "deltad_kernels_id"))
      value.assign(text + sizeof TAG - 1, std::strcspn(text + sizeof TAG - 1, "\n"));
    void *p = allocate(value.size() + 1);
    if (!p) {
      delete loaded;
      return OUT_OF_MEMORY;
    }
    std::memcpy(p, value.c_str(), value.size() + 1);
    loaded->globals[global->name] = {p, value.size() + 1};
  }
  *made = loaded;
  return SUCCESS;
}
CALL cuModuleLoadDataEx(CUmodule *made, const void *image, unsigned, void *, void **) {
  return cuModuleLoadData(made, image);
}
CALL cuModuleUnload(CUmodule module) {
  ENTER;
  drain_all();
  for (const auto &global : module->globals) release(global.second.first);
  delete module;
  return SUCCESS;
}
CALL cuModuleGetFunction(CUfunction *made, CUmodule module, const char *name) {
  ENTER;
  const Kernel *kernel = find_kernel(name);
  if (!kernel) return NOT_FOUND;
  *made = &module->functions.emplace(name, Function{kernel, int(STATIC_SHARED)}).first->second;
  return SUCCESS;
}
CALL cuModuleGetGlobal_v2(CUdeviceptr *p, std::size_t *bytes, CUmodule module, const char *name) {
  ENTER;
  const auto found = module->globals.find(name);
  if (found == module->globals.end()) return NOT_FOUND;
  if (p) *p = reinterpret_cast<CUdeviceptr>(found->second.first);
  if (bytes) *bytes = found->second.second;
  return SUCCESS;
}
CALL cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  ENTER;
  if (attribute == 9) return SUCCESS;  // how much of L1 is shared memory
  if (attribute != 8 || value < 0 || value > int(ALL_SHARED)) return INVALID_VALUE;
  function->dynamic_shared = value;
  return SUCCESS;
}
CALL cuFuncGetAttribute(int *value, int attribute, CUfunction function) {
  ENTER;
  switch (attribute) {
    case 0: *value = function->kernel->max_threads; break;
    case 8: *value = function->dynamic_shared; break;
    default: *value = 0;
  }
  return SUCCESS;
}
CALL cuFuncGetParamInfo(CUfunction function, std::size_t index, std::size_t *offset, std::size_t *bytes) {
  ENTER;
  if (index != 0) return INVALID_VALUE;
  *offset = 0;
  if (bytes) *bytes = function->kernel->args;
  return SUCCESS;
}

CALL cuLaunchKernelEx(const LaunchConfig *config, CUfunction function, void **params, void **extra) {
  ENTER;
  return launch(*config, function, params, extra);
}
CALL cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                    unsigned shared, CUstream stream, void **params, void **extra) {
  ENTER;
  return launch(LaunchConfig{{gx, gy, gz}, {bx, by, bz}, shared, stream, nullptr, 0}, function, params, extra);
}

CALL cuStreamCreate(CUstream *made, unsigned flags) {
  ENTER;
  auto *stream = new Stream;
  stream->waits_for_default = !(flags & 1);
  streams().push_back(stream);
  *made = stream;
  return SUCCESS;
}
CALL cuStreamDestroy_v2(CUstream stream) {
  ENTER;
  if (!stream || !known(stream)) return INVALID_HANDLE;
  drain(*stream);
  for (auto at = streams().begin(); at != streams().end(); ++at)
    if (*at == stream) {
      streams().erase(at);
      break;
    }
  // Events may still name it: it is empty, and kept.
  return SUCCESS;
}
CALL cuStreamSynchronize(CUstream stream) {
  ENTER;
  if (!known(stream)) return INVALID_HANDLE;
  if (!stream) {
    for (Stream *s : streams())
      if (s->waits_for_default && !s->captured) drain(*s);
    return SUCCESS;
  }
  if (stream->captured) {
    stream->capture_failed = true;
    return CAPTURE_UNSUPPORTED;
  }
  drain(*stream);
  return SUCCESS;
}
CALL cuStreamQuery(CUstream stream) { return cuStreamSynchronize(stream); }
CALL cuStreamIsCapturing(CUstream stream, int *status) {
  ENTER;
  *status = !stream || !stream->captured ? 0 : stream->capture_failed ? 2 : 1;
  return SUCCESS;
}
CALL cuStreamBeginCapture_v2(CUstream stream, int mode) {
  constexpr int RELAXED = 2;
  ENTER;
  if (!stream || !known(stream)) return CAPTURE_UNSUPPORTED;
  if (stream->captured) return CAPTURE_UNSUPPORTED;
  stream->captured = std::make_shared<Works>();
  stream->capture_failed = false;
  stream->capture_is_relaxed = mode == RELAXED;
  return SUCCESS;
}
CALL cuStreamEndCapture(CUstream stream, CUgraph *made) {
  ENTER;
  if (!stream || !stream->captured) return CAPTURE_INVALIDATED;
  auto works = std::move(stream->captured);
  stream->captured.reset();
  *made = nullptr;
  if (stream->capture_failed) return CAPTURE_INVALIDATED;
  *made = new Graph{works};
  return SUCCESS;
}

CALL cuGraphInstantiateWithFlags(CUgraphExec *made, CUgraph graph, unsigned long long) {
  ENTER;
  *made = new Graph{std::make_shared<Works>(*graph->works)};
  return SUCCESS;
}
CALL cuGraphInstantiate_v2(CUgraphExec *made, CUgraph graph, void *, char *, std::size_t) {
  return cuGraphInstantiateWithFlags(made, graph, 0);
}
CALL cuGraphInstantiate(CUgraphExec *made, CUgraph graph, unsigned long long flags) {
  return cuGraphInstantiateWithFlags(made, graph, flags);
}
CALL cuGraphUpload(CUgraphExec, CUstream) { return SUCCESS; }
CALL cuGraphLaunch(CUgraphExec graph, CUstream stream) {
  ENTER;
  if (!known(stream)) return INVALID_HANDLE;
  if (stream && stream->captured) {
    stream->capture_failed = true;
    return CAPTURE_UNSUPPORTED;
  }
  Work work{Work::GRAPH};
  work.graph = graph->works;
  return accept(stream, std::move(work));
}
CALL cuGraphGetNodes(CUgraph graph, void **nodes, std::size_t *count) {
  ENTER;
  if (nodes) return NOT_SUPPORTED;
  *count = graph->works->size();
  return SUCCESS;
}
CALL cuGraphDestroy(CUgraph graph) {
  ENTER;
  delete graph;
  return SUCCESS;
}
CALL cuGraphExecDestroy(CUgraphExec graph) {
  ENTER;
  delete graph;
  return SUCCESS;
}

CALL cuLaunchHostFunc(CUstream stream, void (*call)(void *), void *data) {
  ENTER;
  if (!known(stream)) return INVALID_HANDLE;
  if (!call) return INVALID_VALUE;
  Work work{Work::HOST};
  work.call = call;
  work.to = data;
  return accept(stream, std::move(work));
}

CALL cuEventCreate(CUevent *made, unsigned) {
  ENTER;
  *made = new Event;
  return SUCCESS;
}
CALL cuEventDestroy_v2(CUevent event) {
  ENTER;
  drain_all();
  delete event;
  return SUCCESS;
}
CALL cuEventRecord(CUevent event, CUstream stream) {
  ENTER;
  if (!known(stream)) return INVALID_HANDLE;
  if (stream && stream->captured) {
    stream->capture_failed = true;
    return CAPTURE_UNSUPPORTED;
  }
  Work work{Work::RECORD};
  work.event = event;
  event->stream = stream;
  event->place = stream ? stream->queued + 1 : 0;
  event->recorded = true;
  return accept(stream, std::move(work));
}
CALL cuEventSynchronize(CUevent event) {
  ENTER;
  if (event->stream) drain(*event->stream, event->place);
  return SUCCESS;
}
CALL cuEventQuery(CUevent event) { return cuEventSynchronize(event); }
CALL cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  ENTER;
  if (!known(stream)) return INVALID_HANDLE;
  if (stream && stream->captured) {
    stream->capture_failed = true;
    return CAPTURE_UNSUPPORTED;
  }
  Work work{Work::WAIT};
  work.other = event->stream;
  work.place = event->place;
  return accept(stream, std::move(work));
}
CALL cuEventElapsedTime_v2(float *milliseconds, CUevent from, CUevent to) {
  ENTER;
  if (!from->recorded || !to->recorded) return INVALID_HANDLE;
  for (CUevent event : {from, to})
    if (event->stream && event->stream->done < event->place) return NOT_READY;
  *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
  return SUCCESS;
}
CALL cuEventElapsedTime(float *milliseconds, CUevent from, CUevent to) {
  return cuEventElapsedTime_v2(milliseconds, from, to);
}
