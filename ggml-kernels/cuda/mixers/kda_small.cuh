// KDA of up to 16 rows, each the one token of a sequence. Two kernels: kda_step has 32 columns of a head's S in
// registers (64 where there are many) and takes them one token on; kda_gate norms and gates a head's row and moves the
// tails on, which every block of kda_step has read by then.
//
// A sequence's slot is read before depend(). That is sound: in a step no kernel but this layer's two writes this
// layer's part of a slot, and steps are graphs of one stream, each complete before the next begins.
#pragma once
#include "kda.cuh"

struct KdaStepArgs {
  KdaRows in;
  KdaWeights w;
  Matrix f_b;  // the decay's second matrix [inner, d]; data null where the decay is whole
  const Lane *lanes;
  float *o;  // [lanes, inner], not normed
};

struct KdaGateArgs {
  KdaRows in;
  KdaWeights w;
  Matrix g_b;  // the output gate's second matrix; data null where the gate is whole
  const Lane *lanes;
  const float *o;     // [lanes, inner]
  const float *open;  // the output gate's projection, whole or low-rank
  const float *norm;  // [d]
  Acts out;           // [lanes, inner]; x or q may be null
  u32 open_row;
  float eps;
};

namespace mixers {

// A warp's 16 rows of a head's D x D matrix: lane l has 16 columns of every row l / LANES + i * 32 / LANES.
template <int D>
struct Narrow {
  static constexpr int LANES = D / 16, STEPS = D / 32;
  uint4 w[STEPS];
  float d[STEPS];
};

template <int D>
DEVICE u32 narrow_row(u32 head, int i) {
  return head * D + threadIdx.x / 32 * 16 + i * (32 / Narrow<D>::LANES) + (threadIdx.x & 31u) / Narrow<D>::LANES;
}

DEVICE bool is_ready(const Matrix &m) { return m.type == Q8_0 || m.type == F16 || m.type == BF16; }

DEVICE const uint4 *narrow_part(const Matrix &m, u32 row, u32 part) {
  return reinterpret_cast<const uint4 *>(m.data + u64(row) * m.row_bytes) + part;
}

// Brings what can be brought before x is there and leaves registers for others: of 16 bits the first half. F32 and Q4_0
// are read when it is.
template <int D>
DEVICE void load_narrow(Narrow<D> &n, const Matrix &m, u32 head) {
  const u32 part = threadIdx.x % Narrow<D>::LANES;
#pragma unroll
  for (int i = 0; i < Narrow<D>::STEPS; i++) {
    const u32 row = narrow_row<D>(head, i);
    if (m.type == Q8_0) {
      n.w[i] = load_once(narrow_part(m, row, part));
      n.d[i] = to_float(__ldg(reinterpret_cast<const f16 *>(narrow_part(m, row, D / 16)) + part / 2));
    } else if (is_ready(m)) {
      n.w[i] = load_once(narrow_part(m, row, 2 * part));
    }
  }
}

// Halves of what is left are swapped until each lane has one row.
template <int LEFT, int OFFSET>
DEVICE void narrow_halves(float *v) {
  halve<LEFT, OFFSET>(v);
  if constexpr (LEFT > 1) narrow_halves<LEFT / 2, OFFSET / 2>(v);
}

// What a lane reads of x [D] early: for 8 bits four values, which it quantizes for all.
template <int D>
DEVICE float4 load_input(const Matrix &m, const float *x) {
  const u32 first = m.type == Q8_0 ? threadIdx.x % (D / 4) : threadIdx.x % Narrow<D>::LANES * 4;
  return reinterpret_cast<const float4 *>(x)[first];
}

// One value of a row of F32 or Q4_0.
DEVICE float slow_value(const Matrix &m, const u8 *row, u32 d, u32 column) {
  if (m.type == F32) return __ldg(reinterpret_cast<const float *>(row) + column);
  // Column c of a block is the low half of byte c, or from 16 on the high half of byte c - 16.
  const u32 block = column / 32, at = column % 32;
  const u32 nibble = __ldg(row + block * 16 + at % 16) >> (at / 16 * 4) & 15u;
  return to_float(__ldg(reinterpret_cast<const f16 *>(row + d / 2) + block)) * float(int(nibble) - 8);
}

DEVICE float dot_pair(float2 w, float x, float y, float sum) { return fmaf(w.y, y, fmaf(w.x, x, sum)); }
DEVICE float dot_words(const uint4 &w, const float4 &x, const float4 &y, bool is_f16, float sum) {
  sum = dot_pair(is_f16 ? unpack_f16(w.x) : unpack_bf16(w.x), x.x, x.y, sum);
  sum = dot_pair(is_f16 ? unpack_f16(w.y) : unpack_bf16(w.y), x.z, x.w, sum);
  sum = dot_pair(is_f16 ? unpack_f16(w.z) : unpack_bf16(w.z), y.x, y.y, sum);
  return dot_pair(is_f16 ? unpack_f16(w.w) : unpack_bf16(w.w), y.z, y.w, sum);
}

// The product with x of one of the warp's rows: lane l's is row l / LANES + (l % LANES / 2) * 32 / LANES, which its
// neighbour has too. For 8 bits x is quantized as any product's input is.
template <int D>
DEVICE float narrow_product(const Narrow<D> &n, const Matrix &m, u32 head, const float4 &in, const float *x) {
  constexpr int LANES = Narrow<D>::LANES, STEPS = Narrow<D>::STEPS;
  const u32 part = threadIdx.x % LANES;
  float sum[STEPS] = {};
  if (m.type == Q8_0) {
    const float4 v = in;
    float most = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
#pragma unroll
    for (int offset = 4; offset > 0; offset >>= 1) most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, offset));
    const float inverse = most > 0.f ? __fdividef(127.f, most) : 0.f;
    const u32 word = quantized(v.x, inverse) | quantized(v.y, inverse) << 8 | quantized(v.z, inverse) << 16 |
                     quantized(v.w, inverse) << 24;
    int q[4];
#pragma unroll
    for (int i = 0; i < 4; i++) q[i] = int(__shfl_sync(ALL_LANES, word, int(part * 4 + i)));
    const float scale = __shfl_sync(ALL_LANES, most, int(part / 2 * 8)) * (1.f / 127.f);
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      int all = __dp4a(int(n.w[i].x), q[0], 0);
      all = __dp4a(int(n.w[i].y), q[1], all);
      all = __dp4a(int(n.w[i].z), q[2], all);
      all = __dp4a(int(n.w[i].w), q[3], all);
      sum[i] = n.d[i] * scale * float(all);
    }
  } else if (is_ready(m)) {
    const float4 *rest = reinterpret_cast<const float4 *>(x) + part * 4 + 1;
    const float4 second = rest[0], third = rest[1], last = rest[2];
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const uint4 more = load_once(narrow_part(m, narrow_row<D>(head, i), 2 * part + 1));
      sum[i] = dot_words(n.w[i], in, second, m.type == F16, 0.f);
      sum[i] = dot_words(more, third, last, m.type == F16, sum[i]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const u8 *row = m.data + u64(narrow_row<D>(head, i)) * m.row_bytes;
#pragma unroll 1
      for (u32 c = 16 * part; c < 16 * part + 16; c++) sum[i] = fmaf(slow_value(m, row, D, c), x[c], sum[i]);
    }
  }
  if constexpr (STEPS > 1) narrow_halves<STEPS / 2, LANES / 2>(sum);
  return sum[0] + __shfl_xor_sync(ALL_LANES, sum[0], 1);
}

// Which of the head's channels narrow_product gave this lane.
template <int D>
DEVICE u32 narrow_channel() {
  const u32 lane = threadIdx.x & 31u;
  return narrow_row<D>(0, int(lane % Narrow<D>::LANES / 2));
}

// What the tokens before this one give the convolution, and the newest tap.
struct Taps {
  float before, newest;
};
DEVICE Taps taps_of(const KdaWeights &w, const float *conv, const float *tail, u32 channel, u32 inner) {
  float tap[MOST_TAPS], x[MOST_TAPS];
#pragma unroll
  for (int i = 0; i < MOST_TAPS; i++) {
    tap[i] = u32(i) < w.taps ? __ldg(conv + u64(channel) * w.taps + i) : 0.f;
    x[i] = u32(i) + 1 < w.taps ? __ldcg(tail + u64(i) * inner + channel) : 0.f;
  }
  Taps t = {0.f, tap[0]};
#pragma unroll
  for (int i = 0; i < MOST_TAPS; i++) {
    t.before = fmaf(tap[i], x[i], t.before);
    if (u32(i) + 1 == w.taps) t.newest = tap[i];
  }
  return t;
}

// Grid: heads, D / 32 / FOURS blocks of columns, lanes. 2 D threads: a warp has 16 rows of the block's columns, a lane
// FOURS times four neighbours of 32.
template <int D, int FOURS>
DEVICE void kda_step(const KdaStepArgs &a) {
  constexpr int WARPS = D / 16;
  SHARED(float, q, D);
  SHARED(float, k, D);
  SHARED(float, decay, D);
  SHARED(float, v, 32 * FOURS);
  SHARED(float, squares, WARPS);
  SHARED(float, seen_of, WARPS * 32 * FOURS);
  SHARED(float, asked_of, WARPS * 32 * FOURS);
  SHARED(float, qk_of, WARPS);
  let_go();
  const u32 t = threadIdx.x, lane = t & 31u, warp = t / 32, head = blockIdx.x, column = blockIdx.y * 32 * FOURS, b = blockIdx.z;
  const u32 inner = a.w.heads * D, own = head * D;
  const u64 tail = tail_len(a.w, D);
  const bool is_q = t < D;
  const u32 channel = own + (is_q ? t : t - D);

  const float *from = a.lanes[b].from + a.w.layer;
  float *to = a.lanes[b].to + a.w.layer;
  const u32 row = warp * 16 + lane / 8 * 4, four = column + lane % 8 * 4;
  const u64 place = 3 * tail + u64(own + row) * D + four;
  float4 s[FOURS][4];
#pragma unroll
  for (int f = 0; f < FOURS; f++)
#pragma unroll
    for (int i = 0; i < 4; i++) s[f][i] = __ldcg(reinterpret_cast<const float4 *>(from + place + i * D + 32 * f));
  Narrow<D> f_b;
  float a_head = __ldg(a.w.a + head), bias;
  if (a.f_b.data) {
    load_narrow<D>(f_b, a.f_b, head);
    bias = __ldg(a.w.dt_bias + own + narrow_channel<D>());
  } else {
    bias = __ldg(a.w.dt_bias + channel);
  }
  const Taps taps = taps_of(a.w, is_q ? a.w.conv_q : a.w.conv_k, from + (is_q ? 0 : tail), channel, inner);
  Taps v_taps = {0.f, 0.f};
  if (warp < FOURS) v_taps = taps_of(a.w, a.w.conv_v, from + 2 * tail, own + column + t, inner);

  depend();
  const float raw = (is_q ? a.in.q : a.in.k)[u64(b) * a.in.row + channel];
  const float raw_v = warp < FOURS ? a.in.v[u64(b) * a.in.row + own + column + t] : 0.f;
  const float raw_beta = a.in.beta[u64(b) * a.in.beta_row + head];
  const float *raw_decay = a.in.decay + u64(b) * a.in.decay_row;
  // All that is waited for is asked for by now.
  if (a.f_b.data) {
    const float4 in = load_input<D>(a.f_b, raw_decay);
    const float x = narrow_product<D>(f_b, a.f_b, head, in, raw_decay);
    if ((lane & 1u) == 0) decay[narrow_channel<D>()] = decay_of(a.w, a_head, x + bias);
  } else if (is_q) {
    decay[t] = decay_of(a.w, a_head, raw_decay[channel] + bias);
  }
  const float value = silu(fmaf(taps.newest, raw, taps.before));
  (is_q ? q : k)[channel - own] = value;
  if (warp < FOURS) v[t] = silu(fmaf(v_taps.newest, raw_v, v_taps.before));
  const float of_warp = warp_sum(value * value);
  if (lane == 0) squares[warp] = of_warp;
  __syncthreads();

  // One sweep: S decays; what k and q see of it is summed. What q sees of the update to come follows from q . k.
  float q_squares = 0.f, k_squares = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS / 2; i++) {
    q_squares += squares[i];
    k_squares += squares[WARPS / 2 + i];
  }
  const float q_scale = rsqrtf(q_squares + L2_EPS) * (D == 128 ? 0.08838834764f : D == 64 ? 0.125f : 0.1767766953f);
  const float k_scale = rsqrtf(k_squares + L2_EPS);
  const float4 k4 = *reinterpret_cast<const float4 *>(k + row), q4 = *reinterpret_cast<const float4 *>(q + row);
  const float4 d4 = *reinterpret_cast<const float4 *>(decay + row);
  const float ks[4] = {k4.x, k4.y, k4.z, k4.w}, qs[4] = {q4.x, q4.y, q4.z, q4.w}, ds[4] = {d4.x, d4.y, d4.z, d4.w};
  float seen[FOURS][4] = {}, asked[FOURS][4] = {}, qk = 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
#pragma unroll
    for (int f = 0; f < FOURS; f++) {
      float4 &x = s[f][i];
      x = make_float4(x.x * ds[i], x.y * ds[i], x.z * ds[i], x.w * ds[i]);
      seen[f][0] = fmaf(ks[i], x.x, seen[f][0]);
      seen[f][1] = fmaf(ks[i], x.y, seen[f][1]);
      seen[f][2] = fmaf(ks[i], x.z, seen[f][2]);
      seen[f][3] = fmaf(ks[i], x.w, seen[f][3]);
      asked[f][0] = fmaf(qs[i], x.x, asked[f][0]);
      asked[f][1] = fmaf(qs[i], x.y, asked[f][1]);
      asked[f][2] = fmaf(qs[i], x.z, asked[f][2]);
      asked[f][3] = fmaf(qs[i], x.w, asked[f][3]);
    }
    qk = fmaf(qs[i], ks[i], qk);
  }
#pragma unroll
  for (int offset = 8; offset <= 16; offset *= 2) {
#pragma unroll
    for (int f = 0; f < FOURS; f++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        seen[f][i] += __shfl_xor_sync(ALL_LANES, seen[f][i], offset);
        asked[f][i] += __shfl_xor_sync(ALL_LANES, asked[f][i], offset);
      }
    qk += __shfl_xor_sync(ALL_LANES, qk, offset);
  }
  if (lane < 8) {
#pragma unroll
    for (int f = 0; f < FOURS; f++) {
      const u32 at = (warp * FOURS + f) * 32 + 4 * lane;
      *reinterpret_cast<float4 *>(seen_of + at) = make_float4(seen[f][0], seen[f][1], seen[f][2], seen[f][3]);
      *reinterpret_cast<float4 *>(asked_of + at) = make_float4(asked[f][0], asked[f][1], asked[f][2], asked[f][3]);
    }
    if (lane == 0) qk_of[warp] = qk;
  }
  __syncthreads();

  const float beta = sigmoid(raw_beta);
  float all_qk = 0.f;
#pragma unroll
  for (int i = 0; i < WARPS; i++) all_qk += qk_of[i];
#pragma unroll
  for (int f = 0; f < FOURS; f++) {
    float4 all = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
      const float4 part = *reinterpret_cast<const float4 *>(seen_of + (i * FOURS + f) * 32 + lane % 8 * 4);
      all = make_float4(all.x + part.x, all.y + part.y, all.z + part.z, all.w + part.w);
    }
    const float4 v4 = *reinterpret_cast<const float4 *>(v + f * 32 + lane % 8 * 4);
    const float4 u = make_float4(beta * (v4.x - k_scale * all.x), beta * (v4.y - k_scale * all.y),
                                 beta * (v4.z - k_scale * all.z), beta * (v4.w - k_scale * all.w));
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float k_i = ks[i] * k_scale;
      const float4 x = s[f][i];
      *reinterpret_cast<float4 *>(to + place + i * D + 32 * f) =
          make_float4(fmaf(k_i, u.x, x.x), fmaf(k_i, u.y, x.y), fmaf(k_i, u.z, x.z), fmaf(k_i, u.w, x.w));
    }
    if (warp != f || lane >= 8) continue;
    float4 o = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
      const float4 part = *reinterpret_cast<const float4 *>(asked_of + (i * FOURS + f) * 32 + lane * 4);
      o = make_float4(o.x + part.x, o.y + part.y, o.z + part.z, o.w + part.w);
    }
    const float of_u = all_qk * k_scale;
    *reinterpret_cast<float4 *>(a.o + u64(b) * inner + own + four + 32 * f) =
        make_float4(q_scale * fmaf(of_u, u.x, o.x), q_scale * fmaf(of_u, u.y, o.y), q_scale * fmaf(of_u, u.z, o.z),
                    q_scale * fmaf(of_u, u.w, o.w));
  }
}

// rms_norm(o) * norm * sigmoid(gate), and the tails. Grid: heads, lanes. 2 D threads.
template <int D>
DEVICE void kda_gate(const KdaGateArgs &a) {
  constexpr int WARPS = D / 16;
  SHARED(float, open, D);
  SHARED(float, squares, WARPS);
  let_go();
  const u32 t = threadIdx.x, lane = t & 31u, warp = t / 32, head = blockIdx.x, b = blockIdx.y;
  const u32 inner = a.w.heads * D, own = head * D, taps = a.w.taps;
  const u64 tail = tail_len(a.w, D);
  Narrow<D> g_b;
  if (a.g_b.data) load_narrow<D>(g_b, a.g_b, head);
  const float norm = t < D ? __ldg(a.norm + t) : 0.f;
  // The first half of the threads moves q and v, the second k.
  const float *from = a.lanes[b].from + a.w.layer + (t < D ? 0 : tail);
  float *to = a.lanes[b].to + a.w.layer + (t < D ? 0 : tail);
  const u32 channel = own + t % D;
  float kept[MOST_TAPS] = {}, kept_v[MOST_TAPS] = {};
#pragma unroll
  for (int i = 1; i + 1 < MOST_TAPS; i++) {
    if (u32(i) + 1 < taps) {
      kept[i] = __ldcg(from + u64(i) * inner + channel);
      if (t < D) kept_v[i] = __ldcg(from + 2 * tail + u64(i) * inner + channel);
    }
  }

  depend();
  const float o = t < D ? a.o[u64(b) * inner + own + t] : 0.f;
  const float raw = (t < D ? a.in.q : a.in.k)[u64(b) * a.in.row + channel];
  const float raw_v = t < D ? a.in.v[u64(b) * a.in.row + channel] : 0.f;
  const float *gate = a.open + u64(b) * a.open_row;
  if (a.g_b.data) {
    const float4 in = load_input<D>(a.g_b, gate);
    const float x = narrow_product<D>(g_b, a.g_b, head, in, gate);
    if ((lane & 1u) == 0) open[narrow_channel<D>()] = sigmoid(x);
  } else if (t < D) {
    open[t] = sigmoid(gate[own + t]);
  }
  const float of_warp = warp_sum(o * o);
  if (lane == 0) squares[warp] = of_warp;
  __syncthreads();
  if (t < D) {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < WARPS / 2; i++) sum += squares[i];
    const float y = o * rsqrtf(sum * (1.f / D) + a.eps) * norm * open[t];
    const u64 place = u64(b) * inner + own + t;
    if (a.out.x) a.out.x[place] = y;
    if (a.out.q) {
      const float most = warp_max(fabsf(y));
      const int rounded = __float2int_rn(y * (most > 0.f ? __fdividef(127.f, most) : 0.f));
      int of_half = rounded;
#pragma unroll
      for (int offset = 8; offset > 0; offset >>= 1) of_half += __shfl_xor_sync(ALL_LANES, of_half, offset);
      a.out.q[place] = i8(rounded);
      if (lane % 16 == 0) a.out.s[place / 16] = i16(of_half);
      if (lane == 0) a.out.d[place / 32] = most * (1.f / 127.f);
    }
  }
#pragma unroll
  for (int i = 0; i + 1 < MOST_TAPS; i++) {
    if (u32(i) + 1 >= taps) continue;
    const bool newest = u32(i) + 2 == taps;
    to[u64(i) * inner + channel] = newest ? raw : kept[i + 1];
    if (t < D) to[2 * tail + u64(i) * inner + channel] = newest ? raw_v : kept_v[i + 1];
  }
}

}  // namespace mixers

KERNEL_BOUNDS(kda_step_32, KdaStepArgs, 64, 1) { mixers::kda_step<32, 1>(a); }
KERNEL_BOUNDS(kda_step_64, KdaStepArgs, 128, 1) { mixers::kda_step<64, 1>(a); }
KERNEL_BOUNDS(kda_step_128, KdaStepArgs, 256, 1) { mixers::kda_step<128, 1>(a); }
// What every block of a head does again (q, k, the decay) is done half as often; slower where the blocks are few.
KERNEL_BOUNDS(kda_step_128_many, KdaStepArgs, 256, 3) { mixers::kda_step<128, 2>(a); }
KERNEL_BOUNDS(kda_gate_32, KdaGateArgs, 64, 1) { mixers::kda_gate<32>(a); }
KERNEL_BOUNDS(kda_gate_64, KdaGateArgs, 128, 1) { mixers::kda_gate<64>(a); }
KERNEL_BOUNDS(kda_gate_128, KdaGateArgs, 256, 1) { mixers::kda_gate<128>(a); }
