// What a kernel may use: one small language for nvcc and, through emulated/device.h, for any C++17 compiler.
// Everything that differs between the two is here and there, nowhere else.
//
// - KERNEL(name, Args) { ... a.field ... }: one struct by value; KERNEL_BOUNDS adds __launch_bounds__.
//   A template does the work of several kernels: template <int N> DEVICE void body(const Args &a), and
//   KERNEL(name_8, Args) { body<8>(a); }.
// - SHARED(T, name, n): T name[n], 16-aligned, anywhere in a kernel or in a (templated) device function.
//   DYNAMIC_SHARED(T, name): T *name, 128-aligned, what the launch asked for.
// - Helpers of a family belong in a namespace of its own: all families are one translation unit.
// - All threads of a block reach every __syncthreads, all 32 lanes every warp primitive.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstdint>

typedef std::uint8_t u8;
typedef std::uint16_t u16;
typedef std::uint32_t u32;
typedef unsigned long long u64;
typedef std::int8_t i8;
typedef std::int16_t i16;
typedef __half f16;
typedef __nv_bfloat16 bf16;

#define DEVICE __device__ __forceinline__
#define KERNEL(name, Args) extern "C" __global__ void name(const __grid_constant__ Args a)
#define KERNEL_BOUNDS(name, Args, max_threads, min_blocks) \
  extern "C" __global__ void __launch_bounds__(max_threads, min_blocks) name(const __grid_constant__ Args a)
#define SHARED(T, name, n) __shared__ __align__(16) T name[n]
#define DYNAMIC_SHARED(T, name)                                          \
  extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[]; \
  T *name = reinterpret_cast<T *>(dynamic_shared_bytes)
// Text that the host finds by name.
#define GLOBAL_TEXT(name, text) \
  extern "C" {                  \
  __device__ char name[] = text; \
  }

DEVICE float to_float(f16 v) { return __half2float(v); }
DEVICE float to_float(bf16 v) { return __bfloat162float(v); }
DEVICE float to_float(float v) { return v; }
DEVICE bf16 to_bf16(float v) { return __float2bfloat16_rn(v); }
DEVICE u16 f16_bits(f16 v) { return __half_as_ushort(v); }
DEVICE f16 bits_f16(u16 v) { return __ushort_as_half(v); }
DEVICE u16 bf16_bits(bf16 v) { return __bfloat16_as_ushort(v); }
DEVICE bf16 bits_bf16(u16 v) { return __ushort_as_bfloat16(v); }

// Two halves of one register, a in the low half. No saturation: for values known to be small.
DEVICE u32 pack_f16_small(float a, float b) {
  const __half2 h = __floats2half2_rn(a, b);
  return *reinterpret_cast<const u32 *>(&h);
}
DEVICE u32 pack_bf16(float a, float b) {
  const __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const u32 *>(&h);
}
DEVICE float2 unpack_f16(u32 v) { return __half22float2(*reinterpret_cast<const __half2 *>(&v)); }
DEVICE float2 unpack_bf16(u32 v) {
  return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}

// Arithmetic on two halves at once.
DEVICE u32 add_f16x2(u32 a, u32 b) {
  u32 d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
DEVICE u32 sub_f16x2(u32 a, u32 b) {
  u32 d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
DEVICE u32 mul_f16x2(u32 a, u32 b) {
  u32 d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// 2^x, to 2 ulp.
DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What an earlier kernel of this step wrote may be read only after depend(): weights and what the host wrote
// may be loaded before it. let_go() allows the next kernel to start; its own depend() still waits for our end.
DEVICE void depend() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void let_go() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Weights: read once, kept out of L1.
DEVICE uint4 load_once(const uint4 *p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
DEVICE uint2 load_once(const uint2 *p) {
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
DEVICE u32 load_once(const u32 *p) {
  u32 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(v) : "l"(p));
  return v;
}
DEVICE void prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Copies that run on their own: global to shared, both 16-aligned (8, 4). What they bring may be read by
// this thread after cp_async_wait, by others after a __syncthreads that follows it.
DEVICE u32 shared_address(const void *p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }
DEVICE void cp_async16(void *shared, const void *global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
// Zeros where it may not read; `global` must still be an address of some allocation.
DEVICE void cp_async16_if(void *shared, const void *global, bool read) {
  const int bytes = read ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
DEVICE void cp_async8(void *shared, const void *global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
DEVICE void cp_async4(void *shared, const void *global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most N of this thread's newest groups are under way.
template <int N>
DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// 8x8 matrices of 16-bit values: lanes 8i..8i+7 name the rows (16 bytes, 16-aligned) of matrix i; r[i] of lane l
// is row l / 4, columns 2 (l % 4) and the next. `trans`: of the transposed matrix.
DEVICE void ldmatrix_x4(u32 r[4], const void *shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared))
               : "memory");
}
DEVICE void ldmatrix_x4_trans(u32 r[4], const void *shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(shared))
               : "memory");
}
DEVICE void ldmatrix_x2(u32 r[2], const void *shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(shared))
               : "memory");
}
DEVICE void ldmatrix_x2_trans(u32 r[2], const void *shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(shared))
               : "memory");
}

// c[16x8] += a[16x16] b[16x8]. Lane l, g = l / 4, t = l % 4: a[0] is row g, columns 2t and 2t+1; a[1] row g+8;
// a[2] row g, columns 2t+8 and the next; a[3] row g+8 of those. b[0] is rows 2t and 2t+1 of column g; b[1] rows 2t+8
// and the next. c[0], c[1] are row g, columns 2t and 2t+1; c[2], c[3] row g+8.
DEVICE void mma_f16(float c[4], const u32 a[4], const u32 b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_bf16(float c[4], const u32 a[4], const u32 b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// c[16x8] += a[16x32] b[32x8] in 8 bits: as above with four values to a register (columns 4t.., rows 4t.., the second
// half 16 further).
DEVICE void mma_s8(int c[4], const u32 a[4], const u32 b[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#else
#include "emulated/device.h"
#endif

// A number beyond f16 becomes its largest, +-65504; NaN stays NaN.
DEVICE float bound_f16(float v) {
  v = v > 65504.f ? 65504.f : v;
  return v < -65504.f ? -65504.f : v;
}
#ifdef __CUDACC__
DEVICE f16 to_f16(float v) { return __float2half_rn(bound_f16(v)); }
#else
DEVICE f16 to_f16(float v) { return emulated::f16_of(bound_f16(v)); }
#endif
// Two saturated halves of one register, a in the low half.
DEVICE u32 pack_f16(float a, float b) { return pack_f16_small(bound_f16(a), bound_f16(b)); }

constexpr u32 ALL_LANES = 0xffffffffu;

DEVICE float warp_sum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(ALL_LANES, v, offset);
  return v;
}
DEVICE int warp_sum(int v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_xor_sync(ALL_LANES, v, offset);
  return v;
}
DEVICE float warp_max(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, offset));
  return v;
}
