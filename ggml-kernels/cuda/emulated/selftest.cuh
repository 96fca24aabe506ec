// The kernels of selftest.cpp. nvcc takes them too: a card must say the same.
#pragma once
#include "../device.cuh"

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

KERNEL(copies, Out) {
  SHARED(u32, x, 4 * 32);
  cp_async16_if(x + 4 * threadIdx.x, a.in + 4 * threadIdx.x, threadIdx.x % 2 == 0);
  cp_async_commit();
  if (a.n) cp_async_wait<0>();
  for (int i = 0; i < 4; i++) a.out[4 * threadIdx.x + i] = x[4 * threadIdx.x + i];
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

// Whatever answers in bits: the host computes it too.
constexpr u32 WORDS = 24;
DEVICE void words_of(u32 x, u32 y, u32 z, u32 *out) {
  const float f = __uint_as_float(x), g = float(int(y)) * 0.001f;
  u32 i = 0;
  out[i++] = u32(__dp4a(int(x), int(y), int(z)));
  out[i++] = __dp4a(x, y, z);
  out[i++] = __byte_perm(x, y, z);
  out[i++] = __funnelshift_r(x, y, z);
  out[i++] = __funnelshift_l(x, y, z);
  out[i++] = __vadd4(x, y);
  out[i++] = __vsub4(x, y);
  out[i++] = __vsubss4(x, y);
  out[i++] = __umulhi(x, y);
  out[i++] = u32(__popc(x) + 100 * __clz(int(y >> 7)) + 10000 * __ffs(int(z << 9)));
  out[i++] = f == f ? u32(f16_bits(to_f16(f))) : 0;
  out[i++] = f16_bits(to_f16(g));
  out[i++] = f == f ? u32(bf16_bits(to_bf16(f))) : 0;
  out[i++] = pack_f16(g, -g);
  out[i++] = pack_bf16(g, f == f ? f : 1.f);
  out[i++] = __float_as_uint(unpack_f16(x & 0x7bff7bffu).y);
  out[i++] = __float_as_uint(to_float(bits_f16(u16(y & 0x83ffu))));  // numbers below the smallest normal one
  out[i++] = __float_as_uint(unpack_bf16(x).y);
  // Small numbers: sums and products of halves stay numbers.
  const u32 a = x & 0x3bff3bffu, b = y & 0x3bffbbffu, c = z & 0xbbff3bffu;
  out[i++] = add_f16x2(a, b);
  out[i++] = sub_f16x2(a, c);
  out[i++] = mul_f16x2(b, c);
  out[i++] = u32(__float2int_rn(g));
  out[i++] = u32(__float2int_rd(g));
  out[i++] = __float_as_uint(__fmaf_rn(g, 0.1f, 3.f));
}
KERNEL(words, Out) {
  const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < a.n) words_of(a.in[3 * i], a.in[3 * i + 1], a.in[3 * i + 2], a.out + WORDS * i);
}

// Within what the card's approximations promise.
KERNEL(near, Out) {
  const float v = __uint_as_float(a.in[threadIdx.x]);
  float *out = reinterpret_cast<float *>(a.out) + 4 * threadIdx.x;
  out[0] = __expf(v);
  out[1] = fast_exp2(v);
  out[2] = rsqrtf(v * v + 1.f);
  out[3] = __logf(v * v + 2.f);
}

KERNEL(returns, Out) {
  if (threadIdx.x == 0) {
    a.out[1] = atomicAdd(a.out, 5u);
    a.out[2] = atomicMax(a.out, 3u);
    a.out[3] = atomicExch(a.out, 9u);
    a.out[4] = atomicCAS(a.out, 9u, 1u);
    a.out[5] = atomicInc(a.out, 1u);
    float *f = reinterpret_cast<float *>(a.out + 6);
    a.out[7] = __float_as_uint(atomicAdd(f, 1.5f));
  }
}
