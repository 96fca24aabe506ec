// The processor's side of ../device.cuh: the same names with the same meanings, for a thread of a block that is a fiber
// (block.h). Slow where that finds mistakes: see there what is noticed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#endif

typedef std::uint8_t u8;
typedef std::uint16_t u16;
typedef std::uint32_t u32;
typedef unsigned long long u64;
typedef std::int8_t i8;
typedef std::int16_t i16;
struct f16 {
  u16 bits;
};
struct bf16 {
  u16 bits;
};

#define VECTOR2(T, name, alignment)                                             \
  struct alignas(alignment) name {                                              \
    T x, y;                                                                     \
  };                                                                            \
  static inline name make_##name(T x, T y) { return name{x, y}; }
#define VECTOR4(T, name, alignment)                                             \
  struct alignas(alignment) name {                                              \
    T x, y, z, w;                                                               \
  };                                                                            \
  static inline name make_##name(T x, T y, T z, T w) { return name{x, y, z, w}; }
VECTOR2(float, float2, 8)
VECTOR2(int, int2, 8)
VECTOR2(u32, uint2, 8)
VECTOR2(i16, short2, 4)
VECTOR2(u16, ushort2, 4)
VECTOR2(i8, char2, 2)
VECTOR4(float, float4, 16)
VECTOR4(int, int4, 16)
VECTOR4(u32, uint4, 16)
VECTOR4(i16, short4, 8)
VECTOR4(u16, ushort4, 8)
VECTOR4(i8, char4, 4)
VECTOR4(u8, uchar4, 4)
#undef VECTOR2
#undef VECTOR4
struct uint3 {
  u32 x, y, z;
};

#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define DEVICE inline __attribute__((always_inline))

#include "block.h"

#define threadIdx (::emulated::current->thread)
#define blockIdx (::emulated::current->block->index)
#define blockDim (::emulated::current->block->dim)
#define gridDim (::emulated::current->block->grid)

#define KERNEL(name, Args)                                                                              \
  static void name(const Args &a);                                                                      \
  static const ::emulated::Kernel name##_kernel(                                                        \
      #name, sizeof(Args), 1024, [](const void *args) { name(*static_cast<const Args *>(args)); });     \
  static void name(const Args &a)
#define KERNEL_BOUNDS(name, Args, max_threads, min_blocks)                                              \
  static void name(const Args &a);                                                                      \
  static const ::emulated::Kernel name##_kernel(                                                        \
      #name, sizeof(Args), max_threads, [](const void *args) { name(*static_cast<const Args *>(args)); }); \
  static void name(const Args &a)
#define SHARED(T, name, n)                                 \
  static const ::emulated::SharedSite name##_shared_site;  \
  T(&name)[n] = *static_cast<T(*)[n]>(::emulated::shared(name##_shared_site, sizeof(T[n])))
#define GLOBAL_TEXT(name, text) static const ::emulated::Text name##_text(#name, text);
#define DYNAMIC_SHARED(T, name) T *name = static_cast<T *>(::emulated::dynamic_shared())

template <typename To, typename From>
static inline To emulated_bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &v, sizeof to);
  return to;
}
DEVICE float __uint_as_float(u32 v) { return emulated_bits<float>(v); }
DEVICE float __int_as_float(int v) { return emulated_bits<float>(v); }
DEVICE u32 __float_as_uint(float v) { return emulated_bits<u32>(v); }
DEVICE int __float_as_int(float v) { return emulated_bits<int>(v); }

namespace emulated {
static inline float f16_value(u16 h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#else
  const u32 sign = u32(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) return __uint_as_float(sign | __float_as_uint(float(mantissa) * 0x1p-24f));
  return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
#endif
}
// To the nearest, ties to even.
static inline f16 f16_of(float v) {
#if defined(__F16C__)
  return f16{u16(_cvtss_sh(v, 0))};
#else
  const u32 bits = __float_as_uint(v), magnitude = bits & 0x7fffffffu;
  const u16 sign = u16(bits >> 16 & 0x8000u);
  if (magnitude > 0x7f800000u) return f16{u16(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return f16{u16(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) return f16{u16(sign | u16(std::rint(__uint_as_float(magnitude) * 0x1p24f)))};
  return f16{u16(sign | u16((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13))};
#endif
}
static inline bf16 bf16_of(float v) {
  const u32 bits = __float_as_uint(v);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
  return bf16{u16((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
}  // namespace emulated

DEVICE float to_float(f16 v) { return emulated::f16_value(v.bits); }
DEVICE float to_float(bf16 v) { return __uint_as_float(u32(v.bits) << 16); }
DEVICE float to_float(float v) { return v; }
DEVICE bf16 to_bf16(float v) { return emulated::bf16_of(v); }
DEVICE u16 f16_bits(f16 v) { return v.bits; }
DEVICE f16 bits_f16(u16 v) { return f16{v}; }
DEVICE u16 bf16_bits(bf16 v) { return v.bits; }
DEVICE bf16 bits_bf16(u16 v) { return bf16{v}; }
DEVICE u32 pack_f16_small(float a, float b) {
  return u32(emulated::f16_of(a).bits) | u32(emulated::f16_of(b).bits) << 16;
}
DEVICE u32 pack_bf16(float a, float b) { return u32(to_bf16(a).bits) | u32(to_bf16(b).bits) << 16; }
DEVICE float2 unpack_f16(u32 v) {
  return make_float2(emulated::f16_value(u16(v)), emulated::f16_value(u16(v >> 16)));
}
DEVICE float2 unpack_bf16(u32 v) {
  return make_float2(__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u));
}
DEVICE u32 add_f16x2(u32 a, u32 b) {
  const float2 x = unpack_f16(a), y = unpack_f16(b);
  return pack_f16_small(x.x + y.x, x.y + y.y);
}
DEVICE u32 sub_f16x2(u32 a, u32 b) {
  const float2 x = unpack_f16(a), y = unpack_f16(b);
  return pack_f16_small(x.x - y.x, x.y - y.y);
}
DEVICE u32 mul_f16x2(u32 a, u32 b) {
  const float2 x = unpack_f16(a), y = unpack_f16(b);
  return pack_f16_small(x.x * y.x, x.y * y.y);
}
// The product of two halves is exact in f32; the sum rounds once more than the card's.
DEVICE u32 fma_f16x2(u32 a, u32 b, u32 c) {
  const float2 x = unpack_f16(a), y = unpack_f16(b), z = unpack_f16(c);
  return pack_f16_small(x.x * y.x + z.x, x.y * y.y + z.y);
}

// Arithmetic that nvcc has built in.
DEVICE float rsqrtf(float v) { return 1.f / std::sqrt(v); }
DEVICE float fast_exp2(float v) { return std::exp2(v); }
DEVICE float emulated_exp(float v) { return std::exp(v); }
DEVICE float emulated_log(float v) { return std::log(v); }
// The C library has names such as __expf of its own; macros keep clear of them.
#define __expf emulated_exp
#define __logf emulated_log
#define __log2f(v) std::log2(float(v))
#define __sinf(v) std::sin(float(v))
#define __cosf(v) std::cos(float(v))
#define __sincosf(v, s, c) sincosf(v, s, c)
#define __powf(a, b) std::pow(float(a), float(b))
DEVICE float __fdividef(float a, float b) { return a / b; }
DEVICE float __frcp_rn(float v) { return 1.f / v; }
DEVICE float __fsqrt_rn(float v) { return std::sqrt(v); }
DEVICE float __fdiv_rn(float a, float b) { return a / b; }
DEVICE float __fmul_rn(float a, float b) {
  volatile float product = a * b;
  return product;
}
DEVICE float __fadd_rn(float a, float b) { return a + b; }
DEVICE float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
DEVICE int __float2int_rn(float v) { return int(std::nearbyint(v)); }
DEVICE int __float2int_rz(float v) { return int(v); }
DEVICE int __float2int_rd(float v) { return int(std::floor(v)); }
DEVICE float __int2float_rn(int v) { return float(v); }
DEVICE float __saturatef(float v) { return v > 0.f ? (v < 1.f ? v : 1.f) : 0.f; }
template <typename A, typename B>
static inline auto min(A a, B b) -> decltype(a + b) {
  return b < a ? b : a;
}
template <typename A, typename B>
static inline auto max(A a, B b) -> decltype(a + b) {
  return a < b ? b : a;
}
DEVICE int __popc(u32 v) { return __builtin_popcount(v); }
DEVICE int __clz(int v) { return v ? __builtin_clz(u32(v)) : 32; }
DEVICE int __ffs(int v) { return __builtin_ffs(v); }
DEVICE u32 __umulhi(u32 a, u32 b) { return u32(u64(a) * b >> 32); }
DEVICE u32 __byte_perm(u32 x, u32 y, u32 selector) {
  const u64 bytes = u64(y) << 32 | x;
  u32 result = 0;
  for (int i = 0; i < 4; i++) {
    const u32 s = selector >> (4 * i) & 15u;
    u32 byte = u32(bytes >> (8 * (s & 7u))) & 255u;
    if (s & 8u) byte = byte & 128u ? 255u : 0u;
    result |= byte << (8 * i);
  }
  return result;
}
DEVICE u32 __funnelshift_r(u32 low, u32 high, u32 shift) { return u32((u64(high) << 32 | low) >> (shift & 31u)); }
DEVICE u32 __funnelshift_l(u32 low, u32 high, u32 shift) {
  return u32((u64(high) << 32 | low) << (shift & 31u) >> 32);
}
DEVICE int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += int(i8(a >> (8 * i))) * int(i8(b >> (8 * i)));
  return c;
}
DEVICE u32 __dp4a(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 4; i++) c += (a >> (8 * i) & 255u) * (b >> (8 * i) & 255u);
  return c;
}
DEVICE u32 __vadd4(u32 a, u32 b) {
  return ((a & 0x7f7f7f7fu) + (b & 0x7f7f7f7fu)) ^ ((a ^ b) & 0x80808080u);
}
DEVICE u32 __vsub4(u32 a, u32 b) {
  return ((a | 0x80808080u) - (b & 0x7f7f7f7fu)) ^ ((a ^ ~b) & 0x80808080u);
}
DEVICE u32 __vsubss4(u32 a, u32 b) {
  u32 result = 0;
  for (int i = 0; i < 4; i++) {
    int v = int(i8(a >> (8 * i))) - int(i8(b >> (8 * i)));
    v = v > 127 ? 127 : v < -128 ? -128 : v;
    result |= (u32(v) & 255u) << (8 * i);
  }
  return result;
}

// Memory.
#define EMULATED_LOAD(name) \
  template <typename T>     \
  static inline T name(const T *p) { return *p; }
EMULATED_LOAD(__ldg)
EMULATED_LOAD(__ldcs)
EMULATED_LOAD(__ldcg)
EMULATED_LOAD(__ldca)
EMULATED_LOAD(__ldlu)
EMULATED_LOAD(__ldcv)
EMULATED_LOAD(load_once)
#undef EMULATED_LOAD
template <typename T>
static inline void __stcs(T *p, T v) { *p = v; }
template <typename T>
static inline void __stcg(T *p, T v) { *p = v; }
DEVICE void prefetch_l2(const void *) {}
DEVICE void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
DEVICE void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <typename T>
static inline T emulated_atomic_update(T *p, T (*next)(T, T), T v) {
  T old = *p;
  T made = next(old, v);
  while (!__atomic_compare_exchange(p, &old, &made, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) made = next(old, v);
  return old;
}
DEVICE u32 atomicAdd(u32 *p, u32 v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
DEVICE int atomicAdd(int *p, int v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
DEVICE u64 atomicAdd(u64 *p, u64 v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
static inline float atomicAdd(float *p, float v) {
  return emulated_atomic_update<float>(p, [](float a, float b) { return a + b; }, v);
}
static inline u32 atomicMax(u32 *p, u32 v) {
  return emulated_atomic_update<u32>(p, [](u32 a, u32 b) { return a < b ? b : a; }, v);
}
static inline int atomicMax(int *p, int v) {
  return emulated_atomic_update<int>(p, [](int a, int b) { return a < b ? b : a; }, v);
}
static inline u64 atomicMax(u64 *p, u64 v) {
  return emulated_atomic_update<u64>(p, [](u64 a, u64 b) { return a < b ? b : a; }, v);
}
static inline u32 atomicInc(u32 *p, u32 v) {
  return emulated_atomic_update<u32>(p, [](u32 a, u32 b) { return a >= b ? 0u : a + 1u; }, v);
}
DEVICE u32 atomicExch(u32 *p, u32 v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
static inline u32 atomicCAS(u32 *p, u32 compare, u32 v) {
  __atomic_compare_exchange_n(p, &compare, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return compare;
}

// Blocks, warps, and what lanes do together.
DEVICE void __syncthreads() { emulated::sync_block(); }
DEVICE void __syncwarp(u32 mask = 0xffffffffu) { emulated::sync_warp(mask); }
template <typename T>
static inline T __shfl_sync(u32 mask, T v, int from, int width = 32) {
  const int lane = emulated::lane(), base = lane & ~(width - 1);
  return emulated::shuffle(mask, v, base | (from & (width - 1)));
}
template <typename T>
static inline T __shfl_xor_sync(u32 mask, T v, int bits, int width = 32) {
  const int lane = emulated::lane(), from = lane ^ bits;
  return emulated::shuffle(mask, v, from / width > lane / width ? lane : from);
}
template <typename T>
static inline T __shfl_down_sync(u32 mask, T v, u32 by, int width = 32) {
  const int lane = emulated::lane(), from = lane + int(by);
  return emulated::shuffle(mask, v, from / width != lane / width ? lane : from);
}
template <typename T>
static inline T __shfl_up_sync(u32 mask, T v, u32 by, int width = 32) {
  const int lane = emulated::lane(), from = lane - int(by);
  return emulated::shuffle(mask, v, from < (lane & ~(width - 1)) ? lane : from);
}
DEVICE u32 __ballot_sync(u32 mask, int predicate) { return emulated::ballot(mask, predicate != 0); }
DEVICE int __any_sync(u32 mask, int predicate) { return emulated::ballot(mask, predicate != 0) != 0; }
DEVICE int __all_sync(u32 mask, int predicate) { return emulated::ballot(mask, predicate != 0) == 0xffffffffu; }
template <typename T>
static inline T __reduce_add_sync(u32 mask, T v) {
  for (int bits = 16; bits; bits >>= 1) v += __shfl_xor_sync(mask, v, bits);
  return v;
}
template <typename T>
static inline T __reduce_max_sync(u32 mask, T v) {
  for (int bits = 16; bits; bits >>= 1) v = max(v, __shfl_xor_sync(mask, v, bits));
  return v;
}
template <typename T>
static inline T __reduce_min_sync(u32 mask, T v) {
  for (int bits = 16; bits; bits >>= 1) v = min(v, __shfl_xor_sync(mask, v, bits));
  return v;
}

DEVICE void depend() { emulated::depend(); }
DEVICE void let_go() { emulated::let_go(); }

DEVICE void cp_async16(void *shared, const void *global) { emulated::copy_later(shared, global, 16, true); }
DEVICE void cp_async16_if(void *shared, const void *global, bool read) {
  emulated::copy_later(shared, global, 16, read);
}
DEVICE void cp_async8(void *shared, const void *global) { emulated::copy_later(shared, global, 8, true); }
DEVICE void cp_async4(void *shared, const void *global) { emulated::copy_later(shared, global, 4, true); }
DEVICE void cp_async_commit() { emulated::copies_commit(); }
template <int N>
static inline void cp_async_wait() { emulated::copies_wait(N); }

DEVICE void ldmatrix_x4(u32 r[4], const void *shared) { emulated::load_matrices(r, 4, false, shared); }
DEVICE void ldmatrix_x4_trans(u32 r[4], const void *shared) { emulated::load_matrices(r, 4, true, shared); }
DEVICE void ldmatrix_x2(u32 r[2], const void *shared) { emulated::load_matrices(r, 2, false, shared); }
DEVICE void ldmatrix_x2_trans(u32 r[2], const void *shared) { emulated::load_matrices(r, 2, true, shared); }
DEVICE void mma_f16(float c[4], const u32 a[4], const u32 b[2]) { emulated::multiply(emulated::MMA_F16, c, a, b); }
DEVICE void mma_bf16(float c[4], const u32 a[4], const u32 b[2]) { emulated::multiply(emulated::MMA_BF16, c, a, b); }
DEVICE void mma_s8(int c[4], const u32 a[4], const u32 b[2]) { emulated::multiply(emulated::MMA_S8, c, a, b); }
