// KDA of many rows, in three kernels: kda_prepare, every token at once; kda_scan, S from token to token; kda_finish,
// norm and gate.
//
// S moves on by four tokens at a time. With K, Q rows of k and q, d the decays, c_i = d_1 .. d_i inside the four
// (products of what is at most 1: nothing is ever divided by a decay, so any gate is safe):
//   A_ij = beta_i k_i . (d_j+1 .. d_i) k_j (j < i)   P_ij = q_i . (d_j+1 .. d_i) k_j (j <= i)
//   W = (1 + A)^-1 beta c k      U = (1 + A)^-1 beta v - W S      O = c q S + P U
//   S <- c_4 S + ((d_i+1 .. d_4) k_i)^T U
// All but the products with S is kda_prepare's. It is one sweep of S in 3.25 multiplications an element and token where
// token by token needs 4, and an eighth of the waiting. All in f32.
//
// Fours begin at positions divisible by four, wherever a pass begins: a token's bits depend on where its sequence was
// cut only where it was not cut between fours. Lanes never meet.
//
// None of the three lets the next kernel go early, and each begins alone: a scan's blocks that begin while others are
// still there come to lie by several on one multiprocessor, and take as many times as long.
#pragma once
#include "kda.cuh"

struct KdaPrepareArgs {
  KdaRows in;
  KdaWeights w;
  const WideLane *lanes;
  float *fours;  // records, see below
};

struct KdaScanArgs {
  const WideLane *lanes;
  const float *fours;
  float *o;  // [rows, inner], not normed
  u64 layer;
  u32 heads, taps;
};

struct KdaFinishArgs {
  const float *o;     // [rows, inner]
  const float *open;  // the gate's projection
  const float *norm;  // [d]
  float *y;           // f32 [rows, inner], or null
  u16 *h;             // f16 [rows, inner], or null
  u32 rows, heads, open_row;
  float eps;
};

namespace mixers {

// A record of four tokens of a head: W [4, d], c q [4, d], what k adds [4, d], c_4 [d], (1 + A)^-1 beta v [4, d],
// P [4, 4]. Records lie [four, head]; lane i's begin at four (row + 6 i) / 4, which leaves each room for one that
// begins and one that ends inside a four.
template <int D>
struct Record {
  static constexpr int Q = 4 * D, K = 8 * D, C = 12 * D, V = 13 * D, P = 17 * D, LEN = 17 * D + 16;
};

DEVICE u64 first_four(const WideLane &lane, u32 number) { return (lane.row + 6 * u64(number)) / 4; }
DEVICE u32 count_fours(const WideLane &lane) { return lane.rows == 0 ? 0 : (lane.position % 4 + lane.rows + 3) / 4; }

constexpr u32 FOURS_A_BLOCK = 4;
constexpr int DOTS = 24;  // q.q and k.k of each token, then A's and P's products by their column
DEVICE int dots_of_column(int j) { return 8 + 8 * j - j * j; }
DEVICE int dot_of_a(int i, int j) { return dots_of_column(j) + 2 * (i - j) - 1; }
DEVICE int dot_of_p(int i, int j) { return dots_of_column(j) + 2 * (i - j); }

// 24 sums over the warp: lane l ends with three of them, see where they are written.
DEVICE void warp_dots(float v[DOTS]) {
  halve<12, 16>(v);
  halve<6, 8>(v);
  halve<3, 4>(v);
#pragma unroll
  for (int i = 0; i < 3; i++) {
    v[i] += __shfl_xor_sync(ALL_LANES, v[i], 2);
    v[i] += __shfl_xor_sync(ALL_LANES, v[i], 1);
  }
}

// One channel's convolution over tokens that come one after another.
struct Conv {
  float tap[MOST_TAPS];   // the newest last, zeros before the oldest
  float past[MOST_TAPS];  // raw values before the next token, the newest last; past[0] is nobody's
};
DEVICE float convolve(Conv &c, float x) {
  float sum = c.tap[MOST_TAPS - 1] * x;
#pragma unroll
  for (int i = 0; i + 1 < MOST_TAPS; i++) sum = fmaf(c.tap[i], c.past[i + 1], sum);
#pragma unroll
  for (int i = 1; i + 1 < MOST_TAPS; i++) c.past[i] = c.past[i + 1];
  c.past[MOST_TAPS - 1] = x;
  return silu(sum);
}

// Ready for token `next` of the lane (below 0: its first).
DEVICE Conv begin_conv(const KdaWeights &w, const float *conv, const float *rows, u32 stride, const float *tail,
                       const WideLane &lane, int next, u32 channel, u32 inner) {
  Conv c;
  const int first = next < 0 ? 0 : next;
#pragma unroll
  for (int i = 0; i < MOST_TAPS; i++) {
    const int tap = i - MOST_TAPS + int(w.taps), token = first + i - MOST_TAPS;
    c.tap[i] = tap >= 0 ? __ldg(conv + u64(channel) * w.taps + tap) : 0.f;
    c.past[i] = 0.f;
    if (token + int(w.taps) - 1 < first || i == 0) continue;  // no tap sees it
    c.past[i] = token >= 0 ? rows[(lane.row + u64(token)) * stride + channel]
                           : tail[u64(int(w.taps) - 1 + token) * inner + channel];
  }
  return c;
}

// The lane's new tail: its last rows, behind what it keeps of the old one. One thread a channel, which has read the
// old tail before.
DEVICE void move_tail(const KdaWeights &w, const float *rows, u32 stride, const float *from, float *to,
                      const WideLane &lane, u32 channel, u32 inner) {
  const int kept = int(w.taps) - 1;
  float value[MOST_TAPS];
#pragma unroll
  for (int i = 0; i < MOST_TAPS - 1; i++) {
    const int token = int(lane.rows) - kept + i;
    value[i] = 0.f;
    if (i < kept)
      value[i] = token >= 0 ? rows[(lane.row + u64(token)) * stride + channel] : from[u64(kept + token) * inner + channel];
  }
#pragma unroll
  for (int i = 0; i < MOST_TAPS - 1; i++)
    if (i < kept) to[u64(i) * inner + channel] = value[i];
}

// Grid: blocks of 16 tokens of the longest lane, heads, lanes. D threads, a channel each. The block of a lane's first
// tokens, alone in reading its tails, writes the new ones.
template <int D>
DEVICE void kda_prepare(const KdaPrepareArgs &a) {
  constexpr int WARPS = D / 32;
  SHARED(float, dots, 2 * WARPS * DOTS);
  depend();
  const WideLane &lane = a.lanes[blockIdx.z];
  const u32 t = threadIdx.x, head = blockIdx.y, inner = a.w.heads * D, channel = head * D + t, stride = a.in.row;
  const u32 count = count_fours(lane), start = blockIdx.x * FOURS_A_BLOCK;
  const u64 tail = tail_len(a.w, D);
  const float *from = lane.from + a.w.layer;
  float *to = lane.to + a.w.layer;
  Conv q_conv, k_conv, v_conv;
  int token = int(start * 4) - int(lane.position % 4);
  if (start < count) {
    q_conv = begin_conv(a.w, a.w.conv_q, a.in.q, stride, from, lane, token, channel, inner);
    k_conv = begin_conv(a.w, a.w.conv_k, a.in.k, stride, from + tail, lane, token, channel, inner);
    v_conv = begin_conv(a.w, a.w.conv_v, a.in.v, stride, from + 2 * tail, lane, token, channel, inner);
  }
  if (blockIdx.x == 0) {
    move_tail(a.w, a.in.q, stride, from, to, lane, channel, inner);
    move_tail(a.w, a.in.k, stride, from + tail, to + tail, lane, channel, inner);
    move_tail(a.w, a.in.v, stride, from + 2 * tail, to + 2 * tail, lane, channel, inner);
  }
  const float a_head = __ldg(a.w.a + head), bias = __ldg(a.w.dt_bias + channel);
  const u32 end = min(start + FOURS_A_BLOCK, count);
  for (u32 four = start; four < end; four++, token += 4) {
    float raw_q[4], raw_k[4], raw_v[4], raw_decay[4], beta[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool there = token + i >= 0 && token + i < int(lane.rows);
      const u64 row = lane.row + u64(there ? token + i : 0);
      raw_q[i] = there ? a.in.q[row * stride + channel] : 0.f;
      raw_k[i] = there ? a.in.k[row * stride + channel] : 0.f;
      raw_v[i] = there ? a.in.v[row * stride + channel] : 0.f;
      raw_decay[i] = there ? a.in.decay[row * a.in.decay_row + channel] : 0.f;
      beta[i] = there ? a.in.beta[row * a.in.beta_row + head] : 0.f;
    }
    // Who is not there leaves S as it is.
    float q[4], k[4], v[4], d[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const bool there = token + i >= 0 && token + i < int(lane.rows);
      q[i] = k[i] = v[i] = 0.f;
      d[i] = 1.f;
      if (there) {
        q[i] = convolve(q_conv, raw_q[i]);
        k[i] = convolve(k_conv, raw_k[i]);
        v[i] = convolve(v_conv, raw_v[i]);
        d[i] = decay_of(a.w, a_head, raw_decay[i] + bias);
      }
      beta[i] = there ? sigmoid(beta[i]) : 0.f;
    }
    float sum[DOTS];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      sum[i] = q[i] * q[i];
      sum[4 + i] = k[i] * k[i];
      float between = k[i];  // as token j's k and q see it
#pragma unroll
      for (int j = i; j < 4; j++) {
        if (j > i) {
          between *= d[j];
          sum[dot_of_a(j, i)] = k[j] * between;
        }
        sum[dot_of_p(j, i)] = q[j] * between;
      }
    }
    warp_dots(sum);
    float *parts = dots + (four & 1u) * (WARPS * DOTS);
    const u32 l = t & 31u;
    if (l % 4 == 0) {
      float *mine = parts + t / 32 * DOTS + (l / 16) * 12 + (l / 8 % 2) * 6 + (l / 4 % 2) * 3;
#pragma unroll
      for (int i = 0; i < 3; i++) mine[i] = sum[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < DOTS; i += 4) {
      float4 all = *reinterpret_cast<const float4 *>(parts + i);
#pragma unroll
      for (int w = 1; w < WARPS; w++) {
        const float4 more = *reinterpret_cast<const float4 *>(parts + w * DOTS + i);
        all = make_float4(all.x + more.x, all.y + more.y, all.z + more.z, all.w + more.w);
      }
      sum[i] = all.x;
      sum[i + 1] = all.y;
      sum[i + 2] = all.z;
      sum[i + 3] = all.w;
    }
    constexpr float ROOT = D == 128 ? 0.08838834764f : D == 64 ? 0.125f : 0.1767766953f;
    float A[4][4], P[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float of_q = rsqrtf(sum[i] + L2_EPS) * ROOT, of_k = rsqrtf(sum[4 + i] + L2_EPS);
      q[i] *= of_q;
      k[i] *= of_k;
      sum[i] = of_q;
      sum[4 + i] = of_k;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
      for (int j = i; j < 4; j++) {
        if (j > i) A[j][i] = sum[dot_of_a(j, i)] * beta[j] * sum[4 + j] * sum[4 + i];
        if (j > i) P[i][j] = 0.f;
        P[j][i] = sum[dot_of_p(j, i)] * sum[j] * sum[4 + i];
      }
    }
    float *record = a.fours + ((first_four(lane, blockIdx.z) + four) * a.w.heads + head) * u64(Record<D>::LEN);
    float W[4], U[4], c = 1.f, after = 1.f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      c *= d[i];
      W[i] = beta[i] * c * k[i];
      U[i] = beta[i] * v[i];
#pragma unroll
      for (int j = 0; j < i; j++) {
        W[i] = fmaf(-A[i][j], W[j], W[i]);
        U[i] = fmaf(-A[i][j], U[j], U[i]);
      }
      record[i * D + t] = W[i];
      record[Record<D>::Q + i * D + t] = c * q[i];
      record[Record<D>::V + i * D + t] = U[i];
    }
    record[Record<D>::C + t] = c;
#pragma unroll
    for (int i = 3; i >= 0; i--) {
      record[Record<D>::K + i * D + t] = after * k[i];
      after *= d[i];
    }
    if (t == 0) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        *reinterpret_cast<float4 *>(record + Record<D>::P + 4 * i) = make_float4(P[i][0], P[i][1], P[i][2], P[i][3]);
    }
  }
}

constexpr int SCAN_STAGES = 6;
template <int D>
struct Stage {
  // The record's vectors, then the block's 32 columns of V, then P.
  static constexpr int V = 13 * D, P = V + 4 * 32, LEN = P + 16;
};

// Grid: blocks of 32 columns of the heads, lanes. The columns are shared out among WARPS warps; ROWS lanes share a
// column's rows, and a thread has COLS columns. Dynamic shared memory: SCAN_STAGES stages.
template <int D, int ROWS, int WARPS>
DEVICE void kda_scan(const KdaScanArgs &a) {
  constexpr int COLS = ROWS / WARPS, STEPS = D / (4 * ROWS);
  static_assert(STEPS >= 1, "a lane has rows by four");
  DYNAMIC_SHARED(float, stages);
  depend();
  const WideLane lane = a.lanes[blockIdx.y];
  const u32 t = threadIdx.x, l = t & 31u, warp = t / 32;
  const u32 head = blockIdx.x / (D / 32), column = blockIdx.x % (D / 32) * 32, inner = a.heads * D;
  const u32 rl = l % ROWS, own = warp * (32 / WARPS) + l / ROWS * COLS;
  const u32 count = count_fours(lane);
  const u64 matrix = a.layer + 3 * u64(a.taps - 1) * inner + u64(head) * D * D + column + own;
  const float *record =
      a.fours + (first_four(lane, blockIdx.y) * a.heads + head) * u64(Record<D>::LEN);
  const u64 next = u64(a.heads) * Record<D>::LEN;

  // A stage's 16 bytes that this thread brings, the last ones by several: no branch parts the warps, so the compiler
  // may move what is added between what is shared.
  constexpr u32 VECTORS = 13 * D / 4, ITEMS = VECTORS + 36, EACH = (ITEMS + 32 * WARPS - 1) / (32 * WARPS);
  u32 source[EACH], target[EACH];
#pragma unroll
  for (u32 n = 0; n < EACH; n++) {
    const u32 item = min(t + n * 32 * WARPS, ITEMS - 1), rest = item < VECTORS ? 0 : item - VECTORS;
    target[n] = 4 * item;
    source[n] = item < VECTORS ? 4 * item
                : rest < 32    ? Record<D>::V + rest / 8 * D + column + rest % 8 * 4
                               : Record<D>::P + 4 * (rest - 32);
  }
  // Behind the last four comes the last again, for nobody.
  u32 brought = 0;
  float *filled = stages;
  auto bring = [&] {
#pragma unroll
    for (u32 n = 0; n < EACH; n++) cp_async16(filled + target[n], record + source[n]);
    cp_async_commit();
    brought++;
    record += brought < count ? next : 0;
    filled = filled == stages + (SCAN_STAGES - 1) * Stage<D>::LEN ? stages : filled + Stage<D>::LEN;
  };
  if (count > 0) {
#pragma unroll
    for (u32 i = 0; i < SCAN_STAGES - 1; i++) bring();
  }

  // Row 4 (i ROWS + rl) + j of the matrix.
  float s[STEPS][4][COLS];
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
      for (int c = 0; c < COLS; c++) s[i][j][c] = lane.from[matrix + u64(4 * (i * ROWS + rl) + j) * D + c];
    }
  }

  // The token and column whose o this lane writes.
  const u32 my_token = rl / COLS % 4, my_column = rl % COLS;
  const bool writes = rl / COLS < 4;
  int token = int(my_token) - int(lane.position % 4);
  float *o = a.o + (long long)(int(lane.row) + token) * inner + head * D + column + own + my_column;
  const float *stage = stages;
  for (u32 four = 0; four < count; four++, token += 4) {
    cp_async_wait<SCAN_STAGES - 2>();
    __syncthreads();
    bring();
    float u[4][COLS] = {}, asked[4 * COLS] = {};
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
#pragma unroll
      for (int n = 0; n < 4; n++) {
        const float4 w4 = *reinterpret_cast<const float4 *>(stage + n * D + 4 * (i * ROWS + rl));
#pragma unroll
        for (int c = 0; c < COLS; c++)
          u[n][c] = fmaf(w4.w, s[i][3][c], fmaf(w4.z, s[i][2][c], fmaf(w4.y, s[i][1][c], fmaf(w4.x, s[i][0][c], u[n][c]))));
      }
    }
#pragma unroll
    for (int offset = 1; offset < ROWS; offset *= 2) {
#pragma unroll
      for (int n = 0; n < 4; n++) {
#pragma unroll
        for (int c = 0; c < COLS; c++) u[n][c] += __shfl_xor_sync(ALL_LANES, u[n][c], offset);
      }
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
#pragma unroll
      for (int n = 0; n < 4; n++) {
        const float4 q4 = *reinterpret_cast<const float4 *>(stage + Record<D>::Q + n * D + 4 * (i * ROWS + rl));
#pragma unroll
        for (int c = 0; c < COLS; c++) {
          float &sum = asked[n * COLS + c];
          sum = fmaf(q4.w, s[i][3][c], fmaf(q4.z, s[i][2][c], fmaf(q4.y, s[i][1][c], fmaf(q4.x, s[i][0][c], sum))));
        }
      }
    }
#pragma unroll
    for (int n = 0; n < 4; n++) {
#pragma unroll
      for (int c = 0; c < COLS; c++) u[n][c] = stage[Stage<D>::V + n * 32 + own + c] - u[n][c];
    }
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
      const float4 c4 = *reinterpret_cast<const float4 *>(stage + Record<D>::C + 4 * (i * ROWS + rl));
#pragma unroll
      for (int c = 0; c < COLS; c++) {
        s[i][0][c] *= c4.x;
        s[i][1][c] *= c4.y;
        s[i][2][c] *= c4.z;
        s[i][3][c] *= c4.w;
      }
#pragma unroll
      for (int n = 0; n < 4; n++) {
        const float4 k4 = *reinterpret_cast<const float4 *>(stage + Record<D>::K + n * D + 4 * (i * ROWS + rl));
#pragma unroll
        for (int c = 0; c < COLS; c++) {
          s[i][0][c] = fmaf(k4.x, u[n][c], s[i][0][c]);
          s[i][1][c] = fmaf(k4.y, u[n][c], s[i][1][c]);
          s[i][2][c] = fmaf(k4.z, u[n][c], s[i][2][c]);
          s[i][3][c] = fmaf(k4.w, u[n][c], s[i][3][c]);
        }
      }
    }
    share_sums<2 * COLS>(asked);
#pragma unroll
    for (int offset = 4 * COLS; offset < ROWS; offset *= 2) asked[0] += __shfl_xor_sync(ALL_LANES, asked[0], offset);
    const float4 p = *reinterpret_cast<const float4 *>(stage + Stage<D>::P + 4 * my_token);
    const float ps[4] = {p.x, p.y, p.z, p.w};
    float value = asked[0];
#pragma unroll
    for (int n = 0; n < 4; n++) {
      float of_mine = u[n][0];
#pragma unroll
      for (int c = 1; c < COLS; c++) of_mine = my_column == u32(c) ? u[n][c] : of_mine;
      value = fmaf(ps[n], of_mine, value);
    }
    if (writes && token >= 0 && token < int(lane.rows)) *o = value;
    o += 4 * u64(inner);
    stage = stage == stages + (SCAN_STAGES - 1) * Stage<D>::LEN ? stages : stage + Stage<D>::LEN;
  }
  cp_async_wait<0>();
#pragma unroll
  for (int i = 0; i < STEPS; i++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
      for (int c = 0; c < COLS; c++) lane.to[matrix + u64(4 * (i * ROWS + rl) + j) * D + c] = s[i][j][c];
    }
  }
}

// rms_norm(o) * norm * sigmoid(open). A warp a row of a head.
template <int D>
DEVICE void kda_finish(const KdaFinishArgs &a) {
  constexpr int EACH = D / 32;
  const u32 l = threadIdx.x & 31u;
  float norm[EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++) norm[i] = __ldg(a.norm + l * EACH + i);
  depend();
  const u64 at = u64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  if (at >= u64(a.rows) * a.heads) return;
  const u64 row = at / a.heads;
  const u32 head = u32(at % a.heads);
  const float *o = a.o + at * D + l * EACH, *open = a.open + row * a.open_row + head * D + l * EACH;
  float x[EACH], gate[EACH], sum = 0.f;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    x[i] = o[i];
    gate[i] = open[i];
    sum = fmaf(x[i], x[i], sum);
  }
  const float scale = rsqrtf(warp_sum(sum) * (1.f / D) + a.eps);
#pragma unroll
  for (int i = 0; i < EACH; i++) x[i] = x[i] * scale * norm[i] * sigmoid(gate[i]);
  const u64 place = at * D + l * EACH;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    if (a.y) a.y[place + i] = x[i];
    if (a.h && EACH == 1) a.h[place + i] = f16_bits(to_f16(x[i]));
  }
  if (a.h && EACH > 1) {
#pragma unroll
    for (int i = 0; i + 1 < EACH; i += 2)
      *reinterpret_cast<u32 *>(a.h + place + i) = pack_f16(x[i], x[i + 1]);
  }
}

}  // namespace mixers

KERNEL_BOUNDS(kda_prepare_32, KdaPrepareArgs, 32, 1) { mixers::kda_prepare<32>(a); }
KERNEL_BOUNDS(kda_prepare_64, KdaPrepareArgs, 64, 1) { mixers::kda_prepare<64>(a); }
KERNEL_BOUNDS(kda_prepare_128, KdaPrepareArgs, 128, 1) { mixers::kda_prepare<128>(a); }
KERNEL_BOUNDS(kda_scan_32, KdaScanArgs, 128, 1) { mixers::kda_scan<32, 8, 4>(a); }
KERNEL_BOUNDS(kda_scan_64, KdaScanArgs, 128, 1) { mixers::kda_scan<64, 8, 4>(a); }
KERNEL_BOUNDS(kda_scan_128, KdaScanArgs, 128, 1) { mixers::kda_scan<128, 8, 4>(a); }
KERNEL_BOUNDS(kda_finish_32, KdaFinishArgs, 256, 1) { mixers::kda_finish<32>(a); }
KERNEL_BOUNDS(kda_finish_64, KdaFinishArgs, 256, 1) { mixers::kda_finish<64>(a); }
KERNEL_BOUNDS(kda_finish_128, KdaFinishArgs, 256, 1) { mixers::kda_finish<128>(a); }
