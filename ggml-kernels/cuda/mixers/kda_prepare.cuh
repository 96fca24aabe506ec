// kda_prepare: convolutions, norms, gates, and what sixteen tokens say without S (kda_wide.cuh).
#pragma once
#include "kda_wide.cuh"

struct KdaPrepareArgs {
  KdaRows in;
  KdaWeights w;
  const WideLane *lanes;
  u32 *chunks;  // records
};

namespace mixers {

// Two channels of a thread, which lie beside each other.
DEVICE float2 times(const float2 &a, const float2 &b) { return make_float2(a.x * b.x, a.y * b.y); }
DEVICE float2 times(float a, const float2 &b) { return make_float2(a * b.x, a * b.y); }
DEVICE float2 add_times(float a, const float2 &b, const float2 &c) {
  return make_float2(fmaf(a, b.x, c.x), fmaf(a, b.y, c.y));
}
DEVICE float2 add_times(const float2 &a, const float2 &b, const float2 &c) {
  return make_float2(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y));
}
DEVICE float dot(const float2 &a, const float2 &b) { return fmaf(a.x, b.x, a.y * b.y); }
DEVICE float2 pair_at(const float *p) { return *reinterpret_cast<const float2 *>(p); }

// Raw rows of a projection and what lies before them, its tail in the slot.
struct Raw {
  const float *rows;  // the lane's first, at the thread's channels
  const float *tail;  // [taps - 1, inner], there too
  u32 stride, inner;
  int kept, count;  // of the tail, of the lane
  // Where a token lies. One that is not there lies where some other does: nobody looks at what comes of it.
  DEVICE const float *at(int token) const {
    return token >= 0 ? rows + u64(min(token, count - 1)) * stride : tail + u64(max(kept + token, 0)) * inner;
  }
};

// The lane's new tail: its last rows, behind what it keeps of the old one. Whoever writes has read.
DEVICE void move_tail(const Raw &raw, float *to) {
  float2 value[MOST_TAPS - 1];
#pragma unroll
  for (int i = 0; i + 1 < MOST_TAPS; i++) {
    if (i < raw.kept) value[i] = pair_at(raw.at(raw.count - raw.kept + i));
  }
#pragma unroll
  for (int i = 0; i + 1 < MOST_TAPS; i++) {
    if (i < raw.kept) *reinterpret_cast<float2 *>(to + u64(i) * raw.inner) = value[i];
  }
}

// A convolution of tokens that come one after another.
struct Conv {
  float2 tap[MOST_TAPS];       // the newest last, zeros before the oldest
  float2 past[MOST_TAPS - 1];  // raw rows before the next token, the newest last
  DEVICE Conv(const Raw &raw, const float *weights, u32 channel, int token) {
    const int taps = raw.kept + 1;
#pragma unroll
    for (int i = 0; i < MOST_TAPS; i++) {
      const int there = i - MOST_TAPS + taps;
      const float *of = weights + u64(channel) * taps + there;
      tap[i] = there < 0 ? make_float2(0.f, 0.f) : make_float2(__ldg(of), __ldg(of + taps));
    }
#pragma unroll
    for (int i = 0; i + 1 < MOST_TAPS; i++) past[i] = pair_at(raw.at(token + i + 1 - MOST_TAPS));
  }
  DEVICE float2 next(const float2 &x) {
    float2 sum = times(tap[MOST_TAPS - 1], x);
#pragma unroll
    for (int i = 0; i + 1 < MOST_TAPS; i++) sum = add_times(tap[i], past[i], sum);
#pragma unroll
    for (int i = 0; i + 2 < MOST_TAPS; i++) past[i] = past[i + 1];
    past[MOST_TAPS - 2] = x;
    return make_float2(silu(sum.x), silu(sum.y));
  }
};

// What the sixteen tokens of a chunk are, each thread's channels for itself.
template <int D>
struct Tokens {
  float q[CHUNK][D], k[CHUNK][D], v[CHUNK][D], d[CHUNK][D];
};
DEVICE float2 &at(float *row, u32 t) { return reinterpret_cast<float2 *>(row)[t]; }

// Sums over the channels of token i: j's k as k_i sees it, then as q_i does.
constexpr int SUMS = 2 * CHUNK, HALF = CHUNK / 2;
// Of eight sums in a lane's own order: first what is summed over lanes 16, 8 and 4 apart. Where a lane's number has the
// bit it holds the upper half first, so nothing is chosen on the way.
DEVICE float gather_eight(const float *v) {
  float four[4], two[2];
#pragma unroll
  for (int i = 0; i < 4; i++) four[i] = v[i] + __shfl_xor_sync(ALL_LANES, v[i + 4], 16);
#pragma unroll
  for (int i = 0; i < 2; i++) two[i] = four[i] + __shfl_xor_sync(ALL_LANES, four[i + 2], 8);
  return two[0] + __shfl_xor_sync(ALL_LANES, two[1], 4);
}
// Which of eight tokens a lane holds in place 0; place i holds that number with the bits of i turned.
DEVICE u32 own_order(u32 lane) { return lane / 4; }

// Tokens [8 N - 8, 8 N): of each the sums with all before it, by a loop whose code is short (a chunk's, laid out in
// full, is more than a multiprocessor keeps at hand). `seen`: each j's k as the last token saw it, eight by eight in
// the lane's own order, nothing where j is later.
template <int N, int D>
DEVICE void warp_sums(Tokens<D> &tokens, u32 t, bool owns, float2 (*seen)[HALF], float *to) {
  const u32 l = threadIdx.x & 31u;
#pragma unroll 1
  for (int token = 0; token < HALF; token++) {
    const int i = HALF * (N - 1) + token;
    float2 q = {}, k = {}, d = {};
    if (owns) q = at(tokens.q[i], t), k = at(tokens.k[i], t), d = at(tokens.d[i], t);
    const u32 place = u32(token) ^ own_order(l);
    float k_sums[N], q_sums[N];
#pragma unroll
    for (int eight = 0; eight < N; eight++) {
      float of_k[HALF], of_q[HALF];
#pragma unroll
      for (int j = 0; j < HALF; j++) {
        float2 &mine = seen[eight][j];
        mine = times(d, mine);
        if (eight == N - 1) mine = place == u32(j) ? k : mine;
        of_k[j] = dot(k, mine);
        of_q[j] = dot(q, mine);
      }
      k_sums[eight] = gather_eight(of_k);
      q_sums[eight] = gather_eight(of_q);
    }
    // Lanes 2 apart share out the eights, neighbours k's and q's.
    if (N == 2) {
      const bool upper = (l & 2u) != 0;
      const float k_give = upper ? k_sums[0] : k_sums[N - 1], q_give = upper ? q_sums[0] : q_sums[N - 1];
      k_sums[0] = (upper ? k_sums[N - 1] : k_sums[0]) + __shfl_xor_sync(ALL_LANES, k_give, 2);
      q_sums[0] = (upper ? q_sums[N - 1] : q_sums[0]) + __shfl_xor_sync(ALL_LANES, q_give, 2);
    } else {
      k_sums[0] += __shfl_xor_sync(ALL_LANES, k_sums[0], 2);
      q_sums[0] += __shfl_xor_sync(ALL_LANES, q_sums[0], 2);
    }
    const bool of_q = (l & 1u) != 0;
    const float give = of_q ? k_sums[0] : q_sums[0];
    const float sum = (of_q ? q_sums[0] : k_sums[0]) + __shfl_xor_sync(ALL_LANES, give, 1);
    const u32 eight = l / 2 % 2;
    if (eight < N) to[i * SUMS + (of_q ? CHUNK : 0) + eight * HALF + own_order(l)] = sum;
  }
}

template <int WARPS>
DEVICE float over_warps(const float *parts, int stride) {
  float sum = parts[0];
#pragma unroll
  for (int w = 1; w < WARPS; w++) sum += parts[w * stride];
  return sum;
}

// The thread's two channels of a row, in two parts of bf16.
template <int D>
DEVICE void write_row(u32 *matrix, u32 row, u32 t, const float2 &x) {
  u32 *to = matrix + row * (D / 2) + place_of<D>(row, t / 4) * 4 + t % 4;
  split_two(x.x, x.y, to[0], to[Record<D>::HALF]);
}

// Grid: heads, chunks of the longest lane, lanes. Two channels to a thread; where a head has 32, half a warp has them
// all, and the others add nothing and write nothing. The block of a lane's first tokens moves its tails; it alone reads
// them, each thread its own channels'. Dynamic shared memory: Tokens.
template <int D>
DEVICE void kda_prepare(const KdaPrepareArgs &a) {
  constexpr int OWN = D / 2, THREADS = OWN < 32 ? 32 : OWN, WARPS = THREADS / 32;
  DYNAMIC_SHARED(Tokens<D>, dynamic);
  SHARED(float, sums, WARPS * CHUNK * SUMS);
  SHARED(float, squares, WARPS * CHUNK);  // of q
  SHARED(float, lower, CHUNK * CHUNK);    // A
  SHARED(float, of_q, CHUNK);
  SHARED(float, of_k, CHUNK);
  SHARED(float, betas, CHUNK);
  Tokens<D> &tokens = *dynamic;
  depend();
  const WideLane &lane = a.lanes[blockIdx.z];
  const u32 t = threadIdx.x % OWN, head = blockIdx.x, inner = a.w.heads * D, channel = head * D + 2 * t;
  const bool owns = OWN >= 32 || threadIdx.x < OWN;
  const u64 tail = tail_len(a.w, D);
  const float *from = lane.from + a.w.layer + channel;
  const u64 first = lane.row * u64(a.in.row) + channel;
  const int kept = int(a.w.taps) - 1, count = int(lane.rows);
  const Raw q_raw = {a.in.q + first, from, a.in.row, inner, kept, count};
  const Raw k_raw = {a.in.k + first, from + tail, a.in.row, inner, kept, count};
  const Raw v_raw = {a.in.v + first, from + 2 * tail, a.in.row, inner, kept, count};
  const int token = int(blockIdx.y * CHUNK) - int(lane.position % CHUNK);

  const bool has_rows = blockIdx.y < count_chunks(lane);
  if (has_rows && owns) {
    const Raw decay = {a.in.decay + lane.row * u64(a.in.decay_row) + channel, from, a.in.decay_row, 0, 0, count};
    // Raw rows come into the places of what is made of them.
#pragma unroll 4
    for (int i = 0; i < CHUNK; i++) {
      cp_async8(&at(tokens.q[i], t), q_raw.at(token + i));
      cp_async8(&at(tokens.k[i], t), k_raw.at(token + i));
      cp_async8(&at(tokens.v[i], t), v_raw.at(token + i));
      cp_async8(&at(tokens.d[i], t), decay.at(token + i));
    }
    cp_async_commit();
    const float a_head = __ldg(a.w.a + head);
    const float2 bias = make_float2(__ldg(a.w.dt_bias + channel), __ldg(a.w.dt_bias + channel + 1));
    Conv q_conv(q_raw, a.w.conv_q, channel, token), k_conv(k_raw, a.w.conv_k, channel, token);
    Conv v_conv(v_raw, a.w.conv_v, channel, token);
    cp_async_wait<0>();
    // Who is not there leaves S as it is: a decay of 1, a beta of 0.
#pragma unroll 1
    for (int four = 0; four < CHUNK; four += 4) {
#pragma unroll
      for (int r = 0; r < 4; r++) {
        float2 &q = at(tokens.q[four + r], t), &k = at(tokens.k[four + r], t), &v = at(tokens.v[four + r], t);
        float2 &d = at(tokens.d[four + r], t);
        const int mine = token + four + r;
        const bool there = mine >= 0 && mine < count;
        q = q_conv.next(q);
        k = k_conv.next(k);
        v = v_conv.next(v);
        d.x = there ? decay_of(a.w, a_head, d.x + bias.x) : 1.f;
        d.y = there ? decay_of(a.w, a_head, d.y + bias.y) : 1.f;
      }
    }
    if (threadIdx.x < CHUNK) {
      const int mine = token + int(threadIdx.x);
      const bool there = mine >= 0 && mine < count;
      betas[threadIdx.x] = there ? sigmoid(a.in.beta[(lane.row + u64(mine)) * a.in.beta_row + head]) : 0.f;
    }
  }
  if (blockIdx.y == 0 && owns) {
    float *to = lane.to + a.w.layer + channel;
    move_tail(q_raw, to);
    move_tail(k_raw, to + tail);
    move_tail(v_raw, to + 2 * tail);
  }
  if (!has_rows) return;

  const u32 warp = threadIdx.x / 32;
  float *of_warp = sums + warp * CHUNK * SUMS;
  {
    float each[CHUNK];
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
      each[i] = owns ? dot(at(tokens.q[i], t), at(tokens.q[i], t)) : 0.f;
    }
    const float mine = spread_sums<CHUNK>(each);
    const u32 l = threadIdx.x & 31u;
    if (l % (32 / CHUNK) == 0) squares[warp * CHUNK + l / (32 / CHUNK)] = mine;
  }
  float2 seen[2][HALF] = {};
  warp_sums<1>(tokens, t, owns, seen, of_warp);
  warp_sums<2>(tokens, t, owns, seen, of_warp);
  __syncthreads();

  u32 *record = a.chunks + ((first_chunk(lane, blockIdx.z) + blockIdx.y) * a.w.heads + head) * u64(Record<D>::LEN);
  constexpr float ROOT = D == 128 ? 0.08838834764f : D == 64 ? 0.125f : 0.1767766953f;
  u16 *p = reinterpret_cast<u16 *>(record + Record<D>::P);
  for (u32 entry = threadIdx.x; entry < CHUNK * CHUNK; entry += THREADS) {
    const int i = int(entry / CHUNK), j = int(entry % CHUNK);
    const float *k_sees = sums + i * SUMS, *q_sees = k_sees + CHUNK;
    const float q_norm = rsqrtf(over_warps<WARPS>(squares + i, CHUNK) + L2_EPS) * ROOT;
    const float k_norm = rsqrtf(over_warps<WARPS>(k_sees + i, CHUNK * SUMS) + L2_EPS);
    const float j_norm = rsqrtf(over_warps<WARPS>(sums + j * SUMS + j, CHUNK * SUMS) + L2_EPS);
    const float of_p = j <= i ? over_warps<WARPS>(q_sees + j, CHUNK * SUMS) * q_norm * j_norm : 0.f;
    lower[entry] = j < i ? over_warps<WARPS>(k_sees + j, CHUNK * SUMS) * betas[i] * k_norm * j_norm : 0.f;
    const bf16 hi = to_bf16(of_p);
    p[entry] = bf16_bits(hi);
    p[entry + CHUNK * CHUNK] = bf16_bits(to_bf16(of_p - to_float(hi)));
    if (i == j) {
      of_q[i] = q_norm;
      of_k[i] = k_norm;
    }
  }
  __syncthreads();
  if (!owns) return;

  // W and U as they are before (1 + A)^-1 take the place of q and v.
  float2 c = make_float2(1.f, 1.f), after = c;
#pragma unroll 4
  for (int i = 0; i < CHUNK; i++) {
    float2 &q = at(tokens.q[i], t), &k = at(tokens.k[i], t), &v = at(tokens.v[i], t);
    c = times(c, at(tokens.d[i], t));
    write_row<D>(record + Record<D>::Q, i, t, times(of_q[i], times(c, q)));
    k = times(of_k[i], k);
    q = times(betas[i], times(c, k));
    v = times(betas[i], v);
  }
  at(reinterpret_cast<float *>(record + Record<D>::C), t) = c;
#pragma unroll 4
  for (int i = CHUNK - 1; i >= 0; i--) {
    write_row<D>(record + Record<D>::K, i, t, times(after, at(tokens.k[i], t)));
    after = times(after, at(tokens.d[i], t));
  }
#pragma unroll 1
  for (int which = 0; which < 2; which++) {
    float2 x[CHUNK];
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
      x[i] = at(which == 0 ? tokens.q[i] : tokens.v[i], t);
#pragma unroll
      for (int j = 0; j < i; j++) x[i] = add_times(-lower[i * CHUNK + j], x[j], x[i]);
    }
    if (which == 0) {
#pragma unroll
      for (int i = 0; i < CHUNK; i++) write_row<D>(record + Record<D>::W, i, t, x[i]);
    } else {
      float4 *turned = reinterpret_cast<float4 *>(record + Record<D>::V + 2 * t * CHUNK);
#pragma unroll
      for (int i = 0; i < CHUNK; i += 4) {
        turned[i / 4] = make_float4(x[i].x, x[i + 1].x, x[i + 2].x, x[i + 3].x);
        turned[CHUNK / 4 + i / 4] = make_float4(x[i].y, x[i + 1].y, x[i + 2].y, x[i + 3].y);
      }
    }
  }
}

}  // namespace mixers

KERNEL_BOUNDS(kda_prepare_32, KdaPrepareArgs, 32, 1) { mixers::kda_prepare<32>(a); }
KERNEL_BOUNDS(kda_prepare_64, KdaPrepareArgs, 32, 1) { mixers::kda_prepare<64>(a); }
KERNEL_BOUNDS(kda_prepare_128, KdaPrepareArgs, 64, 6) { mixers::kda_prepare<128>(a); }
