// The experts of up to 16 tokens: h = min(silu(gate x), limit) * clamp(up x, -limit, limit), then
// x += sum of weight * down h in the router's order, and the shared expert last. A dense layer is a shared expert alone.
#pragma once
#include "dot.cuh"

namespace products {

struct GateUpArgs {
  Matrix gate, up;                // stacks of the routed experts, of ff rows each
  Matrix shared_gate, shared_up;  // rows 0: none
  Acts in;
  Acts out;  // rows (row, slot): used routed ones, then the shared one; cols the longest of them
  const u32 *ids;  // [rows, used]
  float limit, shared_limit;
  u32 used, pad;
};

// Block: 32 values of h of one row and slot. Grid: (shared ones' blocks, then each slot's, rows).
template <int U>
DEVICE void gate_up(const GateUpArgs &a) {
  DYNAMIC_SHARED(u8, shared);
  SHARED(float, parts, 64);
  const u32 warp = threadIdx.x / 32, b = blockIdx.y;
  const u32 shared_blocks = a.shared_gate.rows / 32, blocks = a.gate.rows / 32;
  const bool is_shared = blockIdx.x < shared_blocks;
  const u32 slot = is_shared ? a.used : (blockIdx.x - shared_blocks) / blocks;
  const u32 block = is_shared ? blockIdx.x : (blockIdx.x - shared_blocks) % blocks;
  const Matrix &gate = is_shared ? a.shared_gate : a.gate, &up = is_shared ? a.shared_up : a.up;
  const u32 superblocks = (gate.cols + 255) / 256;
  const Staged staged = staged_at(shared, superblocks, 1);
  // The router is the kernel before this one: only a shared expert's weights may be read before it ends.
  // let_go() comes after depend(): what came before this kernel is whole when the next one starts.
  u64 expert = 0;
  if (!is_shared) {
    depend();
    let_go();
    expert = a.ids[b * a.used + slot];
  }
  const bool same = gate.type == up.type;
  for (u32 pass = 0; pass < (same ? 1 : 2); pass++) {
    const u32 type = pass ? up.type : gate.type, rows = unit_rows(type), half = 4 / rows;
    const Work work = {gate.cols, 0, superblocks, pass ? half : 0, same || pass ? 2 * half : half, 1};
    stream_any<U, 1, 1>(
        type, work, shared + superblocks * STAGED_BYTES + warp * Own<U, 1>::VALUE,
        [&](u32 unit, u32 i) {
          const Matrix &m = unit < half ? gate : up;
          return m.data + (expert * m.rows + block * 32 + warp * 4 + unit % half * rows + i) * m.row_bytes;
        },
        a.in, b, staged,
        [&]() {
          if (pass) return;
          if (is_shared) depend(), let_go();
          if (gate.type > BF16 || up.type > BF16)
            stage<1>(a.in, b, gate.cols, 0, superblocks, staged, threadIdx.x, blockDim.x);
          __syncthreads();
        },
        [&](u32 unit, u32 i, u32, float v) { parts[unit / half * 32 + warp * 4 + unit % half * rows + i] = v; });
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  const float limit = is_shared ? a.shared_limit : a.limit, g = parts[threadIdx.x], u = parts[32 + threadIdx.x];
  const float h = fminf(g / (1.f + __expf(-g)), limit) * fmaxf(fminf(u, limit), -limit);
  const u64 row = b * (a.used + (shared_blocks > 0 ? 1 : 0)) + slot, at = row * a.out.cols + block * 32 + threadIdx.x;
  a.out.x[at] = h;
  const float d = warp_max(fabsf(h)) / 127.f;
  const int q = d > 0 ? static_cast<int>(rintf(h / d)) : 0;
  int sum = q;
#pragma unroll
  for (int o = 8; o > 0; o >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, o);
  a.out.q[at] = static_cast<i8>(q);
  if (threadIdx.x == 0) a.out.d[at / 32] = d;
  if (threadIdx.x % 16 == 0) a.out.s[at / 16] = static_cast<i16>(sum);
}

struct DownArgs {
  Matrix down;         // stack of the routed experts
  Matrix shared_down;  // rows 0: none
  Acts in;             // gate_up's out
  float *x;            // [rows, down's rows], added to
  const u32 *ids;      // [rows, used]
  const float *weights;
  u32 used;
  u32 rows;  // down's rows: of either matrix
};

constexpr u32 DOWN_TASKS = 64;

// Block: 4 GR rows of x. A task is U superblocks of one slot; the block's warps share the tasks. Grid: (rows of x, rows).
template <int U, int GR>
DEVICE void down(const DownArgs &a) {
  DYNAMIC_SHARED(u8, shared);
  SHARED(float, parts, DOWN_TASKS * 4 * GR);
  constexpr u32 OWN = Own<U, GR>::VALUE + U * STAGED_BYTES;
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32, b = blockIdx.y;
  const u32 first = blockIdx.x * 4 * GR;
  const u32 cuts = (a.down.cols + 256 * U - 1) / (256 * U), shared_cuts = (a.shared_down.cols + 256 * U - 1) / (256 * U);
  const u32 routed = a.used * cuts, tasks = routed + (a.shared_down.rows > 0 ? shared_cuts : 0);
  const u32 slots = a.used + (a.shared_down.rows > 0 ? 1 : 0);
  u8 *own = shared + warp * OWN;
  const Staged staged = staged_at(own, U, 1);
  bool waited = false;
  let_go();
  // The ids were whole before gate_up let this kernel start: see there.
  for (u32 task = warp; task < tasks; task += warps) {
    const bool is_shared = task >= routed;
    const Matrix &m = is_shared ? a.shared_down : a.down;
    const u32 slot = is_shared ? a.used : task / cuts, cut = is_shared ? task - routed : task % cuts;
    const u64 expert = is_shared ? 0 : __ldcg(a.ids + b * a.used + slot);
    const u32 superblocks = (m.cols + 255) / 256, from = cut * U, count = superblocks - from < U ? superblocks - from : U;
    const u32 rows = unit_rows(m.type) * GR, in_row = b * slots + slot;
    const Work work = {m.cols, from, count, 0, 4 * GR / rows, 1};
    stream_any<U, GR, 1>(
        m.type, work, own + U * STAGED_BYTES,
        [&](u32 unit, u32 i) {
          const u32 row = first + unit * rows + i;
          return m.data + (expert * m.rows + (row < m.rows ? row : m.rows - 1)) * m.row_bytes;
        },
        a.in, in_row, staged,
        [&]() {
          if (!waited) depend();
          waited = true;
          if (m.type > BF16) stage<1>(a.in, in_row, m.cols, from, count, staged, lane, 32);
          __syncwarp();
        },
        [&](u32 unit, u32 i, u32, float v) { parts[task * 4 * GR + unit * rows + i] = v; });
  }
  if (!waited) depend();
  __syncthreads();
  const u32 row = first + threadIdx.x;
  if (threadIdx.x >= 4 * GR || row >= a.rows) return;
  float sum = 0;
  for (u32 slot = 0; slot < slots; slot++) {
    const u32 n = slot < a.used ? cuts : shared_cuts, task = slot * cuts;
    float v = 0;
    for (u32 i = 0; i < n; i++) v += parts[(task + i) * 4 * GR + threadIdx.x];
    sum = fmaf(slot < a.used ? a.weights[b * a.used + slot] : 1.f, v, sum);
  }
  a.x[static_cast<u64>(b) * a.rows + row] += sum;
}

}  // namespace products

KERNEL_BOUNDS(gate_up, products::GateUpArgs, 256, 3) { products::gate_up<9>(a); }
KERNEL_BOUNDS(down, products::DownArgs, 288, 3) { products::down<4, 2>(a); }
