// What Hopper's warpgroups do (compute capability 9.0 as it is, sm_90a): four warps whose first is a multiple of four
// multiply 64 rows of a in their registers with b in shared memory, while they go on. The emulated card multiplies at
// once; on other cards nobody asks.
//
// - hopper_fence before the first product and wherever registers of products were written since
// - hopper_commit ends a group of products; hopper_wait<N>: until N of the newest groups at most are under way. Their
//   registers and what they read stay as they are until then
// - hopper_see: what this thread's copies brought to shared memory, once waited for, for products behind a barrier.
#pragma once
#include "device.cuh"

#ifdef __CUDACC__
// What the launch asked for, 1024-aligned as it is where a kernel has no shared arrays. (Asking the compiler for it would
// pad those of every other kernel.)
#define HOPPER_SHARED(T, name) \
  DYNAMIC_SHARED(T, name);     \
  if (shared_address(name) % 1024 != 0) __trap()

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
DEVICE void hopper_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void hopper_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N>
DEVICE void hopper_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
DEVICE void hopper_see() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define HOPPER_FOUR(c) "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
template <int N>
struct Hopper;
template <>
struct Hopper<32> {
  DEVICE static void multiply(float (&c)[4][4], const u32 a[4], u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %21, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "{%16, %17, %18, %19}, %20, add, 1, 1, 0;\n}"
        : HOPPER_FOUR(c[0]), HOPPER_FOUR(c[1]), HOPPER_FOUR(c[2]), HOPPER_FOUR(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Hopper<64> {
  DEVICE static void multiply(float (&c)[8][4], const u32 a[4], u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, add, 1, 1, 0;\n}"
        : HOPPER_FOUR(c[0]), HOPPER_FOUR(c[1]), HOPPER_FOUR(c[2]), HOPPER_FOUR(c[3]),
          HOPPER_FOUR(c[4]), HOPPER_FOUR(c[5]), HOPPER_FOUR(c[6]), HOPPER_FOUR(c[7])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Hopper<96> {
  DEVICE static void multiply(float (&c)[12][4], const u32 a[4], u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %53, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n96k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "
        "{%48, %49, %50, %51}, %52, add, 1, 1, 0;\n}"
        : HOPPER_FOUR(c[0]), HOPPER_FOUR(c[1]), HOPPER_FOUR(c[2]), HOPPER_FOUR(c[3]),
          HOPPER_FOUR(c[4]), HOPPER_FOUR(c[5]), HOPPER_FOUR(c[6]), HOPPER_FOUR(c[7]),
          HOPPER_FOUR(c[8]), HOPPER_FOUR(c[9]), HOPPER_FOUR(c[10]), HOPPER_FOUR(c[11])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
template <>
struct Hopper<128> {
  DEVICE static void multiply(float (&c)[16][4], const u32 a[4], u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, add, 1, 1, 0;\n}"
        : HOPPER_FOUR(c[0]), HOPPER_FOUR(c[1]), HOPPER_FOUR(c[2]), HOPPER_FOUR(c[3]),
          HOPPER_FOUR(c[4]), HOPPER_FOUR(c[5]), HOPPER_FOUR(c[6]), HOPPER_FOUR(c[7]),
          HOPPER_FOUR(c[8]), HOPPER_FOUR(c[9]), HOPPER_FOUR(c[10]), HOPPER_FOUR(c[11]),
          HOPPER_FOUR(c[12]), HOPPER_FOUR(c[13]), HOPPER_FOUR(c[14]), HOPPER_FOUR(c[15])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(1));
  }
};
#undef HOPPER_FOUR

// c[i]: of the warp's 16 rows of a and 8 rows i of b, as mma_f16's. `b`: N rows of 64 halves each, 16 bytes j of row r at
// j ^ r % 8, from a multiple of 1024 bytes on, and behind that 32 bytes for each 16 columns.
template <int N>
DEVICE void hopper_multiply(float (&c)[N / 8][4], const u32 a[4], const void *b) {
  // In 16 bytes: the address; 1024 from 8 rows to the next 8. Turned by rows of 128 bytes.
  const u64 place = u64(shared_address(b) >> 4 & 0x3fff) | u64(1) << 16 | u64(64) << 32 | u64(1) << 62;
  Hopper<N>::multiply(c, a, place);
}
// Nothing that reads c goes before what ran ahead of it.
template <int N>
DEVICE void hopper_results(float (&c)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])::"memory");
}
#else
DEVICE void hopper_fence() { __trap(); }
DEVICE void hopper_commit() {}
template <int N>
DEVICE void hopper_wait() {}
DEVICE void hopper_see() {}
template <int N>
DEVICE void hopper_multiply(float (&)[N / 8][4], const u32 *, const void *) {}
template <int N>
DEVICE void hopper_results(float (&)[N][4]) {}
#endif
#else
// It ends at a page: a multiple of 1024 begins at one.
#define HOPPER_SHARED(T, name) DYNAMIC_SHARED(T, name)

DEVICE void hopper_fence() {}
DEVICE void hopper_commit() {}
template <int N>
static inline void hopper_wait() {}
DEVICE void hopper_see() {}
template <int N>
static inline void hopper_multiply(float (&c)[N / 8][4], const u32 a[4], const void *b) {
  const u64 lane = threadIdx.x % 32, from = reinterpret_cast<std::uintptr_t>(b) + lane / 4 * 128 + lane % 4 * 4;
  for (int i = 0; i < N / 8; ++i) {
    u32 pair[2];
    for (int half = 0; half < 2; ++half) {
      const u64 at = from + i * 1024 + half * 16;
      pair[half] = *reinterpret_cast<const u32 *>(at ^ (at >> 7 & 7) << 4);
    }
    mma_f16(c[i], a, pair);
  }
}
template <int N>
static inline void hopper_results(float (&)[N][4]) {}
#endif
