// Tests of the emulated card itself, against plain loops and against what a card refuses. scripts/cuda.sh builds and
// runs it in every manner.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../device.cuh"

extern "C" {
typedef struct Stream_ *St;
typedef struct Function_ *Fn;
struct Attribute {
  int id, pad, number, rest[15];
};
struct Config {
  unsigned grid[3], block[3], shared;
  void *stream;
  const Attribute *attributes;
  unsigned count;
};
int cuInit(unsigned);
int cuDevicePrimaryCtxRetain(void **, int);
int cuCtxSetCurrent(void *);
int cuModuleLoadData(void **, const void *);
int cuModuleGetFunction(void **, void *, const char *);
int cuModuleGetGlobal_v2(u64 *, std::size_t *, void *, const char *);
int cuMemAlloc_v2(u64 *, std::size_t);
int cuMemFree_v2(u64);
int cuMemAllocHost_v2(void **, std::size_t);
int cuMemcpyHtoD_v2(u64, const void *, std::size_t);
int cuMemcpyDtoH_v2(void *, u64, std::size_t);
int cuMemcpyHtoDAsync_v2(u64, const void *, std::size_t, void *);
int cuMemsetD8_v2(u64, unsigned char, std::size_t);
int cuStreamCreate(void **, unsigned);
int cuStreamSynchronize(void *);
int cuStreamBeginCapture_v2(void *, int);
int cuStreamEndCapture(void *, void **);
int cuGraphInstantiateWithFlags(void **, void *, u64);
int cuGraphLaunch(void *, void *);
int cuFuncSetAttribute(void *, int, int);
int cuLaunchKernelEx(const Config *, void *, void **, void **);
}

namespace {

void *module, *stream;
int failures = 0;

void check(bool right, const std::string &what) {
  if (right) return;
  std::printf("WRONG: %s\n", what.c_str());
  failures++;
}
void must(int answer, const char *what) {
  if (answer) std::printf("%s: error %d\n", what, answer), std::exit(1);
}
#define MUST(call) must(call, #call)

bool asked(const char *name) { return std::getenv(name) != nullptr; }

template <typename T>
struct Memory {
  u64 p = 0;
  std::size_t n;
  explicit Memory(std::size_t n) : n(n) { MUST(cuMemAlloc_v2(&p, n * sizeof(T))); }
  explicit Memory(const std::vector<T> &v) : Memory(v.size()) { MUST(cuMemcpyHtoD_v2(p, v.data(), n * sizeof(T))); }
  ~Memory() { MUST(cuMemFree_v2(p)); }
  T *on() const { return reinterpret_cast<T *>(p); }
  std::vector<T> read() const {
    std::vector<T> v(n);
    MUST(cuMemcpyDtoH_v2(v.data(), p, n * sizeof(T)));
    return v;
  }
};

template <typename Args>
int launch(const char *name, Args args, unsigned grid, unsigned threads, unsigned shared = 0, bool overlap = false) {
  void *function;
  MUST(cuModuleGetFunction(&function, module, name));
  const Attribute attribute{6, 0, overlap, {}};
  const Config config{{grid, 1, 1}, {threads, 1, 1}, shared, stream, &attribute, 1};
  void *params[] = {&args};
  return cuLaunchKernelEx(&config, function, params, nullptr);
}
void finish() { MUST(cuStreamSynchronize(stream)); }

// Whether it ends the process with this said. A fork has no threads but its own.
void dies(const std::string &what, const char *said, const std::function<void()> &work) {
  if (!asked("EMULATED_ONE")) return;
  int ends[2];
  if (pipe(ends)) std::exit(1);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    work();
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char part[512];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, std::size_t(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  check(!WIFEXITED(status) && text.find(said) != std::string::npos, what + ": said \"" + text + "\"");
}

u32 random_state = 1;
u32 any() { return random_state = random_state * 1664525u + 1013904223u, random_state >> 8; }

struct Mma {
  const u16 *a, *b;  // a [16][K] by rows, b [8][K]: b's columns
  float *c;
  int *d;
};
template <int what>
DEVICE void mma(const Mma &m) {
  // By ldmatrix from shared memory, as kernels do: a's four 8x8 quarters, b's two.
  SHARED(u16, x, 16 * 16);
  SHARED(u16, y, 8 * 16);
  const u32 lane = threadIdx.x;
  for (u32 i = lane; i < 256; i += 32) x[i] = m.a[i];
  for (u32 i = lane; i < 128; i += 32) y[i] = m.b[i];
  __syncthreads();
  u32 a[4], b[2];
  ldmatrix_x4(a, x + (lane % 8 + lane / 8 % 2 * 8) * 16 + lane / 16 * 8);
  ldmatrix_x2(b, y + lane % 8 * 16 + lane / 8 % 2 * 8);
  const u32 g = lane / 4, t = lane % 4;
  const u32 at[4] = {g * 8 + 2 * t, g * 8 + 2 * t + 1, (g + 8) * 8 + 2 * t, (g + 8) * 8 + 2 * t + 1};
  if (what == 2) {
    int d[4];
    for (int i = 0; i < 4; i++) d[i] = m.d[at[i]];
    mma_s8(d, a, b);
    for (int i = 0; i < 4; i++) m.d[at[i]] = d[i];
  } else {
    float c[4];
    for (int i = 0; i < 4; i++) c[i] = m.c[at[i]];
    if (what == 0)
      mma_f16(c, a, b);
    else
      mma_bf16(c, a, b);
    for (int i = 0; i < 4; i++) m.c[at[i]] = c[i];
  }
}
KERNEL(mma_of_f16, Mma) { mma<0>(a); }
KERNEL(mma_of_bf16, Mma) { mma<1>(a); }
KERNEL(mma_of_s8, Mma) { mma<2>(a); }

void products_are_those_of_plain_loops() {
  std::vector<u16> a(256), b(128);
  std::vector<float> c(128), x(256), y(128);
  std::vector<int> d(128);
  for (bool brain : {false, true}) {
    for (int i = 0; i < 256; i++) x[i] = float(int(any() % 129) - 64) / 8;
    for (int i = 0; i < 128; i++) y[i] = float(int(any() % 129) - 64) / 16, c[i] = float(any() % 100);
    for (int i = 0; i < 256; i++) a[i] = brain ? to_bf16(x[i]).bits : to_f16(x[i]).bits;
    for (int i = 0; i < 128; i++) b[i] = brain ? to_bf16(y[i]).bits : to_f16(y[i]).bits;
    Memory<u16> ma(a), mb(b);
    Memory<float> mc(c);
    MUST(launch(brain ? "mma_of_bf16" : "mma_of_f16", Mma{ma.on(), mb.on(), mc.on(), nullptr}, 1, 32));
    finish();
    const auto got = mc.read();
    for (int row = 0; row < 16; row++)
      for (int column = 0; column < 8; column++) {
        float sum = c[row * 8 + column];
        for (int k = 0; k < 16; k++) sum += x[row * 16 + k] * y[column * 16 + k];
        check(got[row * 8 + column] == sum, "mma_f16 or mma_bf16 at " + std::to_string(row) + ", " + std::to_string(column));
      }
  }
  // Two values of 8 bits to each of 16.
  for (auto &v : a) v = u16(any());
  for (auto &v : b) v = u16(any());
  for (auto &v : d) v = int(any() % 1000);
  Memory<u16> ma(a), mb(b);
  Memory<int> md(d);
  MUST(launch("mma_of_s8", Mma{ma.on(), mb.on(), nullptr, md.on()}, 1, 32));
  finish();
  const auto got = md.read();
  const i8 *ba = reinterpret_cast<const i8 *>(a.data()), *bb = reinterpret_cast<const i8 *>(b.data());
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 8; column++) {
      int sum = d[row * 8 + column];
      for (int k = 0; k < 32; k++) sum += ba[row * 32 + k] * bb[column * 32 + k];
      check(got[row * 8 + column] == sum, "mma_s8 at " + std::to_string(row) + ", " + std::to_string(column));
    }
}

struct Out {
  const u32 *in;
  u32 *out;
  u32 n, pad;
};
KERNEL(transposed, Out) {
  SHARED(u16, x, 256);  // four 8x8 matrices after each other
  for (u32 i = threadIdx.x; i < 256; i += 32) x[i] = u16(i);
  __syncthreads();
  u32 r[4];
  ldmatrix_x4_trans(r, x + threadIdx.x * 8);
  for (int i = 0; i < 4; i++) a.out[threadIdx.x * 4 + i] = r[i];
}
void transposed_matrices_are_transposed() {
  Memory<u32> out(128);
  MUST(launch("transposed", Out{nullptr, out.on(), 0, 0}, 1, 32));
  finish();
  const auto got = out.read();
  for (u32 lane = 0; lane < 32; lane++)
    for (u32 i = 0; i < 4; i++) {
      // Row lane / 4 and columns 2 (lane % 4).. of the transposed one.
      const u32 row = lane / 4, column = lane % 4 * 2;
      const u32 low = i * 64 + column * 8 + row, high = i * 64 + (column + 1) * 8 + row;
      check(got[lane * 4 + i] == (low | high << 16), "ldmatrix_x4_trans");
    }
}

KERNEL(exchanges, Out) {
  const u32 lane = threadIdx.x % 32, v = a.in[threadIdx.x];
  u32 *out = a.out + threadIdx.x * 6;
  out[0] = __shfl_xor_sync(ALL_LANES, v, 5);
  out[1] = __shfl_down_sync(ALL_LANES, v, 3);
  out[2] = __shfl_sync(ALL_LANES, v, 7);
  out[3] = __ballot_sync(ALL_LANES, v & 1);
  out[4] = __shfl_xor_sync(ALL_LANES, v, 1, 8);
  out[5] = u32(warp_sum(int(lane)));
}
void lanes_exchange_what_they_should() {
  std::vector<u32> in(96);
  for (auto &v : in) v = any();
  Memory<u32> from(in), to(96 * 6);
  MUST(launch("exchanges", Out{from.on(), to.on(), 0, 0}, 1, 96));
  finish();
  const auto got = to.read();
  for (u32 t = 0; t < 96; t++) {
    const u32 base = t / 32 * 32, lane = t % 32;
    u32 votes = 0;
    for (u32 i = 0; i < 32; i++) votes |= (in[base + i] & 1) << i;
    const u32 wanted[6] = {in[base + (lane ^ 5)], in[base + (lane + 3 < 32 ? lane + 3 : lane)], in[base + 7], votes,
                           in[base + (lane ^ 1)], 31 * 16};
    for (u32 i = 0; i < 6; i++) check(got[t * 6 + i] == wanted[i], "exchange " + std::to_string(i));
  }
}

// The last block sums what all left behind; blocks and threads in numbers.
KERNEL(sum_of_blocks, Out) {
  SHARED(u32, parts, 8);
  DYNAMIC_SHARED(u32, last);
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  const int sum = warp_sum(int(i < a.n ? a.in[i] : 0));
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = u32(sum);
  __syncthreads();
  if (threadIdx.x == 0) {
    u32 all = 0;
    for (u32 w = 0; w < blockDim.x / 32; w++) all += parts[w];
    atomicAdd(a.out, all);
    __threadfence();
    *last = atomicAdd(a.out + 1, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (*last && threadIdx.x == 5) a.out[2] = *(volatile u32 *)a.out;
}
void blocks_and_barriers_sum() {
  std::vector<u32> in(100000);
  u32 wanted = 0;
  for (auto &v : in) v = any() % 1000, wanted += v;
  Memory<u32> from(in), to(3);
  MUST(cuMemsetD8_v2(to.p, 0, 12));
  MUST(launch("sum_of_blocks", Out{from.on(), to.on(), 100000, 0}, 391, 256, 4));
  finish();
  check(to.read()[2] == wanted, "the sum of all blocks");
}

KERNEL(copies, Out) {
  SHARED(u32, x, 4 * 32);
  cp_async16_if(x + 4 * threadIdx.x, a.in + 4 * threadIdx.x, threadIdx.x % 2 == 0);
  cp_async_commit();
  if (a.n) cp_async_wait<0>();
  for (int i = 0; i < 4; i++) a.out[4 * threadIdx.x + i] = x[4 * threadIdx.x + i];
}
void copies_come_when_waited_for() {
  std::vector<u32> in(128);
  for (auto &v : in) v = any();
  Memory<u32> from(in), to(128);
  for (u32 waits : {0u, 1u}) {
    if (!waits && asked("EMULATED_EAGER")) continue;
    MUST(launch("copies", Out{from.on(), to.on(), waits, 0}, 1, 32));
    finish();
    const auto got = to.read();
    for (u32 i = 0; i < 128; i++) check(got[i] == (!waits ? ~0u : i / 4 % 2 ? 0u : in[i]), "an asynchronous copy");
  }
}

KERNEL(add_one, Out) {
  depend();
  if (threadIdx.x < a.n) a.out[threadIdx.x] = a.in[threadIdx.x] + 1;
}
KERNEL(add_one_too_soon, Out) {
  const u32 v = a.in[threadIdx.x];
  depend();
  a.out[threadIdx.x] = v + 1;
}
KERNEL(add_one_without_care, Out) { a.out[threadIdx.x] = a.in[threadIdx.x] + 1; }
void graphs_repeat_and_overlap() {
  void *host;
  MUST(cuMemAllocHost_v2(&host, 128));
  u32 *values = static_cast<u32 *>(host);
  Memory<u32> one(32), two(32), three(32);
  void *graph, *ready;
  for (const char *second : {"add_one", "add_one_too_soon"}) {
    MUST(cuStreamBeginCapture_v2(stream, 2));
    MUST(cuMemcpyHtoDAsync_v2(one.p, host, 128, stream));
    MUST(launch("add_one", Out{one.on(), two.on(), 32, 0}, 1, 32));
    MUST(launch(second, Out{two.on(), three.on(), 32, 0}, 1, 32, 0, true));
    MUST(cuStreamEndCapture(stream, &graph));
    MUST(cuGraphInstantiateWithFlags(&ready, graph, 0));
    for (u32 round = 1; round < 4; round++) {
      for (u32 i = 0; i < 32; i++) values[i] = i * round;
      MUST(cuGraphLaunch(ready, stream));
      finish();
      const auto got = three.read();
      bool right = true;
      for (u32 i = 0; i < 32; i++) right &= got[i] == i * round + 2;
      check(right == (second[7] == 0), std::string("a graph with ") + second);
    }
  }
  dies("an overlap without depend()", "never calls depend()", [&] {
    launch("add_one_without_care", Out{one.on(), two.on(), 32, 0}, 1, 32, 0, true);
    finish();
  });
}

KERNEL(lonely_barrier, Out) {
  if (threadIdx.x != 3) __syncthreads();
}
KERNEL(lonely_shuffle, Out) {
  if (threadIdx.x < 7) a.out[0] = __shfl_sync(ALL_LANES, 1u, 0);
}
KERNEL(barrier_and_shuffle, Out) {
  if (threadIdx.x < 7)
    __syncwarp();
  else
    __syncthreads();
}
KERNEL(part_of_a_warp, Out) { __syncwarp(0xff); }
KERNEL(beyond_memory, Out) { a.out[a.n] = 1; }
KERNEL(beyond_shared, Out) {
  SHARED(u32, x, 8);
  u32 *p = x;
  p[a.n] = 1;
}
KERNEL(beyond_dynamic, Out) {
  DYNAMIC_SHARED(u32, x);
  x[a.n] = 1;
}
KERNEL(misaligned, Out) {
  SHARED(u32, x, 8);
  cp_async16(x + 1, a.in);
}
KERNEL(too_much, Out) {
  SHARED(u32, x, 13000);
  x[a.n] = 1;
}
KERNEL_BOUNDS(bounded, Out, 64, 1) { a.out[0] = 1; }
void mistakes_are_found() {
  Memory<u32> out(10);
  const auto run = [&](const char *name, u32 n, unsigned threads = 64, unsigned shared = 0) {
    return [=, &out] {
      MUST(launch(name, Out{out.on(), out.on(), n, 0}, 2, threads, shared));
      finish();
    };
  };
  dies("a barrier", "wait at __syncthreads, 1 have ended", run("lonely_barrier", 0));
  dies("a shuffle", "wait in a shuffle", run("lonely_shuffle", 0));
  dies("both", "wait in __syncwarp", run("barrier_and_shuffle", 0));
  dies("a mask", "only full warps", run("part_of_a_warp", 0));
  dies("half a warp", "less than 32 threads", run("exchanges", 0, 16));
  dies("a value after an allocation", "byte 0 after an allocation of 40 bytes", run("beyond_memory", 10));
  dies("a value far after it", "byte 400000 from the start", run("beyond_memory", 100000));
  dies("a shared array", "beyond a shared array of 32 bytes", run("beyond_shared", 9));
  dies("dynamic shared memory", "beyond the 32 bytes of dynamic", run("beyond_dynamic", 9, 32, 32));
  dies("dynamic shared memory, far", "reads or writes", run("beyond_dynamic", 99, 32, 32));
  dies("a misaligned copy", "not aligned", run("misaligned", 0));
  dies("too much shared memory", "at most 49152", run("too_much", 0));
  check(launch("bounded", Out{}, 1, 96) == 701, "more threads than bounds allow");
  check(launch("bounded", Out{}, 0, 32) == 1, "no blocks");
  check(launch("bounded", Out{}, 1, 32, 50000) == 1, "shared memory that was not asked for");
  void *function;
  MUST(cuModuleGetFunction(&function, module, "bounded"));
  MUST(cuFuncSetAttribute(function, 8, 50000));
  check(launch("bounded", Out{nullptr, out.on(), 0, 0}, 1, 32, 50000) == 0, "shared memory that was asked for");
  finish();
  check(cuModuleGetFunction(&function, module, "no_such") == 500, "a kernel that isn't there");
  u64 p;
  check(cuMemAlloc_v2(&p, std::size_t(1) << 50) == 2, "memory that isn't there");
  check(cuMemcpyHtoD_v2(out.p, &p, 41) == 1, "a copy beyond memory");
}

void halves_are_rounded_as_the_card_does() {
  for (u32 bits = 0; bits < 0x10000; bits++) {
    const float v = to_float(bits_f16(u16(bits)));
    if (v == v) check(std::isinf(v) || to_f16(v).bits == bits, "a half there and back");
  }
  check(to_f16(1e9f).bits == 0x7bff && to_f16(-1e9f).bits == 0xfbff, "saturation");
  check(to_float(to_f16(NAN)) != to_float(to_f16(NAN)), "NaN stays NaN");
  check(to_f16(2049.f).bits == to_f16(2048.f).bits && to_f16(2051.f).bits == to_f16(2052.f).bits, "ties to even");
  check(to_float(to_bf16(1.00390625f)) == 1.f && to_float(to_bf16(1.01171875f)) == 1.015625f, "bf16 ties to even");
}

}  // namespace

int main() {
  if (asked("EMULATED_ONE")) setenv("EMULATED_THREADS", "1", 1);
  void *context;
  MUST(cuInit(0));
  MUST(cuDevicePrimaryCtxRetain(&context, 0));
  MUST(cuCtxSetCurrent(context));
  MUST(cuModuleLoadData(&module, "deltad emulated kernels test\n"));
  MUST(cuStreamCreate(&stream, 1));
  halves_are_rounded_as_the_card_does();
  products_are_those_of_plain_loops();
  transposed_matrices_are_transposed();
  lanes_exchange_what_they_should();
  blocks_and_barriers_sum();
  copies_come_when_waited_for();
  graphs_repeat_and_overlap();
  mistakes_are_found();
  std::printf(failures ? "%d wrong\n" : "the emulated card is right\n", failures);
  return failures != 0;
}
