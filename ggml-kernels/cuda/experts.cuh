// The experts of up to 16 tokens: h = min(silu(gate x), limit) * clamp(up x, -limit, limit), then
// x += sum of weight * down h in the router's order, and the shared expert last. A dense layer is a shared expert alone.
#pragma once
#include "eight.cuh"

namespace products {

struct GateUpArgs {
  Matrix gate, up;                // stacks of the routed experts, of ff rows each
  Matrix shared_gate, shared_up;  // rows 0: none
  Acts in;
  Acts out;  // rows (row, slot): used routed ones, then the shared one; cols the longest of them
  const u32 *ids;  // [rows, used]
  float limit, shared_limit;
  u32 used;
  u32 own;  // gate_up_eight's bytes of a warp's stage
};

// 32 values of h by one warp.
DEVICE void store_h(const GateUpArgs &a, bool is_shared, u32 b, u32 slot, u32 block, float g, float u) {
  const u32 lane = threadIdx.x % 32;
  const float limit = is_shared ? a.shared_limit : a.limit;
  const float h = fminf(g / (1.f + __expf(-g)), limit) * fmaxf(fminf(u, limit), -limit);
  const u64 row = b * (a.used + (a.shared_gate.rows > 0 ? 1 : 0)) + slot, at = row * a.out.cols + block * 32 + lane;
  a.out.x[at] = h;
  const float d = warp_max(fabsf(h)) / 127.f;
  const int q = d > 0 ? static_cast<int>(rintf(h / d)) : 0;
  int sum = q;
#pragma unroll
  for (int o = 8; o > 0; o >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, o);
  a.out.q[at] = static_cast<i8>(q);
  if (lane == 0) a.out.d[at / 32] = d;
  if (lane % 16 == 0) a.out.s[at / 16] = static_cast<i16>(sum);
}

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
  store_h(a, is_shared, b, slot, block, parts[threadIdx.x], parts[32 + threadIdx.x]);
}

// The same where all matrices are q4_k or q5_k. In shared memory: the activations, then `own` bytes of each of eight
// warps, for eight whole rows.
DEVICE void gate_up_by_eights(const GateUpArgs &a) {
  DYNAMIC_SHARED(u8, shared);
  SHARED(float, parts, 64);
  SHARED(u64, arrivals, 8);
  const u32 warp = threadIdx.x / 32, b = blockIdx.y, superblocks = a.in.cols / 256;
  const u32 shared_blocks = a.shared_gate.rows / 32, blocks = a.gate.rows / 32;
  const bool is_shared = blockIdx.x < shared_blocks;
  const u32 slot = is_shared ? a.used : (blockIdx.x - shared_blocks) / blocks;
  const u32 block = is_shared ? blockIdx.x : (blockIdx.x - shared_blocks) % blocks;
  // The first four warps have the gate's rows, the others up's.
  const Matrix &m = is_shared ? (warp < 4 ? a.shared_gate : a.shared_up) : (warp < 4 ? a.gate : a.up);
  Stage weights;
  weights.begin(shared + superblocks * STAGED_BYTES + warp * a.own, arrivals + warp, m.row_bytes);
  u64 expert = 0;
  if (!is_shared) {  // as above
    depend();
    let_go();
    expert = a.ids[b * a.used + slot];
  }
  const u8 *rows = m.data + (expert * m.rows + block * 32 + warp % 4 * 8) * m.row_bytes;
  const Eight eight = {rows, m.row_bytes, 8, m.type, 0, superblocks};
  weights.bring(eight);
  if (is_shared) depend(), let_go();
  const Staged staged = staged_at(shared, superblocks, 1);
  stage<1>(a.in, b, a.in.cols, 0, superblocks, staged, threadIdx.x, blockDim.x);
  __syncthreads();
  const float v = take_eight<3>(weights, eight, staged);
  if (threadIdx.x % 4 == 0) parts[threadIdx.x / 4] = v;
  __syncthreads();
  if (threadIdx.x < 32) store_h(a, is_shared, b, slot, block, parts[threadIdx.x], parts[32 + threadIdx.x]);
}

struct DownArgs {
  Matrix down;         // stack of the routed experts
  Matrix shared_down;  // rows 0: none
  Acts in;             // gate_up's out
  float *x;            // [rows, down's rows], added to
  const u32 *ids;      // [rows, used]
  const float *weights;
  u32 used;
  u32 rows;        // down's rows: of either matrix
  u32 stride, pad;  // stride: of a row of down_eight's stages
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

// The same where all matrices are q4_k or q5_k. Blocks have their share of all eights of rows of x, in order; each warp
// has its tasks of each, the next of which comes while others compute. Grid: as many as run at once, or as there are
// eights. In shared memory, each warp's: its activations, its stage.
DEVICE void down_by_eights(const DownArgs &a) {
  constexpr u32 U = 4;
  DYNAMIC_SHARED(u8, shared);
  SHARED(float, parts, 2 * DOWN_TASKS * 8);
  SHARED(u64, arrivals, 9);
  const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const u32 cuts = (a.down.cols + 256 * U - 1) / (256 * U), shared_cuts = (a.shared_down.cols + 256 * U - 1) / (256 * U);
  const u32 routed = a.used * cuts, tasks = routed + (a.shared_down.rows > 0 ? shared_cuts : 0);
  const u32 slots = a.used + (a.shared_down.rows > 0 ? 1 : 0), units = (a.rows + 7) / 8;
  const u32 all = a.in.rows / slots * units;
  const u32 begin = u64(all) * blockIdx.x / gridDim.x, end = u64(all) * (blockIdx.x + 1) / gridDim.x;
  u8 *own = shared + warp * (U * STAGED_BYTES + 8 * a.stride);
  const Staged staged = staged_at(own, U, 1);
  let_go();
  // The ids were whole before gate_up let this kernel start: see there.
  const auto eight_of = [&](u32 unit, u32 task) {
    const u32 b = unit / units, first = unit % units * 8;
    const bool is_shared = task >= routed;
    const Matrix &m = is_shared ? a.shared_down : a.down;
    const u64 expert = is_shared ? 0 : __ldcg(a.ids + b * a.used + task / cuts);
    const u32 from = (is_shared ? task - routed : task % cuts) * U, superblocks = m.cols / 256;
    const u32 there = a.rows - first < 8 ? a.rows - first : 8, count = superblocks - from < U ? superblocks - from : U;
    return Eight{m.data + (expert * m.rows + first) * m.row_bytes, m.row_bytes, there, m.type, from, count};
  };
  Stage weights;
  weights.begin(own + U * STAGED_BYTES, arrivals + warp, a.stride);
  u32 unit = begin, task = warp;
  Eight eight = eight_of(unit, task);
  weights.bring(eight);
  depend();
  u32 held = ~0u;  // the row of x whose h is staged, where a warp has one task
  for (u32 turn = 0; unit < end; unit++, turn ^= 1) {
    const u32 b = unit / units, first = unit % units * 8;
    float *of = parts + turn * DOWN_TASKS * 8;
    for (task = warp; task < tasks; task += warps) {
      if (tasks > warps || held != b) {
        held = b;
        const bool is_shared = task >= routed;
        const u32 slot = is_shared ? a.used : task / cuts, cols = is_shared ? a.shared_down.cols : a.down.cols;
        __syncwarp();
        stage<1>(a.in, b * slots + slot, cols, eight.first, eight.count, staged, lane, 32);
        __syncwarp();
      }
      const float v = take_eight<4>(weights, eight, staged);
      const bool is_last = task + warps >= tasks;
      __syncwarp();
      if (!is_last || unit + 1 < end) {
        eight = is_last ? eight_of(unit + 1, warp) : eight_of(unit, task + warps);
        weights.bring(eight);
      }
      if (lane % 4 == 0) of[task * 8 + lane / 4] = v;
    }
    __syncthreads();
    if (warp != unit % warps || lane >= 8 || first + lane >= a.rows) continue;
    float sum = 0;
    for (u32 slot = 0; slot < slots; slot++) {
      const u32 n = slot < a.used ? cuts : shared_cuts, from = slot * cuts;
      float v = 0;
      for (u32 i = 0; i < n; i++) v += of[(from + i) * 8 + lane];
      sum = fmaf(slot < a.used ? a.weights[b * a.used + slot] : 1.f, v, sum);
    }
    a.x[u64(b) * a.rows + first + lane] += sum;
  }
}

}  // namespace products

KERNEL_BOUNDS(gate_up, products::GateUpArgs, 256, 3) { products::gate_up<9>(a); }
KERNEL_BOUNDS(down, products::DownArgs, 288, 3) { products::down<4, 2>(a); }
KERNEL_BOUNDS(gate_up_eight, products::GateUpArgs, 256, 3) { products::gate_up_by_eights(a); }
KERNEL_BOUNDS(down_eight, products::DownArgs, 288, 3) { products::down_by_eights(a); }
