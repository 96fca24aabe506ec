// kda_scan: S from chunk to chunk on tensor cores (kda_wide.cuh). All is turned, columns of S before its rows: what a
// product leaves in registers is then what the next one takes.
#pragma once
#include "kda_wide.cuh"

struct KdaScanArgs {
  const WideLane *lanes;
  const u32 *chunks;
  float *o;  // [rows, inner], not normed
  u64 layer;
  u32 heads, taps, stages, pad;  // stages: 3 or 4
};

namespace mixers {

constexpr u32 SCAN_COLUMNS = 32, SCAN_THREADS = 128;

// A record without the other blocks' columns of V.
template <int D>
struct Stage {
  static constexpr int V = Record<D>::V, LEN = V + CHUNK * int(SCAN_COLUMNS);
};

// Two tiles that lie beside each other, as a left factor, and as two right ones.
struct Left {
  u32 hi[4], lo[4];
};
struct Right {
  u32 hi[4], lo[4];  // of the first tile's product the first two
};
DEVICE Left split(const float x[4], const float y[4]) {
  Left f;
  split_two(x[0], x[1], f.hi[0], f.lo[0]);
  split_two(x[2], x[3], f.hi[1], f.lo[1]);
  split_two(y[0], y[1], f.hi[2], f.lo[2]);
  split_two(y[2], y[3], f.hi[3], f.lo[3]);
  return f;
}

// The three products of two parts, each summed on its own: none waits for another.
struct Sums {
  float parts[3][4];
  DEVICE float operator[](int e) const { return parts[0][e] + (parts[1][e] + parts[2][e]); }
};
DEVICE void multiply(Sums sum[2], const Left &a, const Right &b) {
#pragma unroll
  for (int n = 0; n < 2; n++) {
    mma_bf16(sum[n].parts[0], a.hi, b.hi + 2 * n);
    mma_bf16(sum[n].parts[1], a.hi, b.lo + 2 * n);
    mma_bf16(sum[n].parts[2], a.lo, b.hi + 2 * n);
  }
}

// Grid: blocks of 32 columns of the heads, lanes. A warp has 16 columns and half of S's rows; both halves of a column
// tell each other what they know of U, and of O each gathers eight tokens. Dynamic shared memory: stages.
// Loads stand well before what they are for: a warp has its scheduler to itself, so nobody else fills the time.
template <int D>
DEVICE void kda_scan(const KdaScanArgs &a) {
  constexpr int ROWS = D / 2, TILES = ROWS / 8, PAIRS = TILES / 2;
  DYNAMIC_SHARED(u32, stages);
  SHARED(float4, told_u, 2 * SCAN_THREADS);
  SHARED(float4, told_o, SCAN_THREADS);
  depend();
  const WideLane lane = a.lanes[blockIdx.y];
  const u32 t = threadIdx.x, l = t & 31u, g = l / 4, pair = l % 4 * 2, part = t / 32 % 2;
  const u32 head = blockIdx.x / (D / SCAN_COLUMNS), inner = a.heads * D;
  const u32 column = blockIdx.x % (D / SCAN_COLUMNS) * SCAN_COLUMNS, own = t / 64 * 16 + g;
  const u32 count = count_chunks(lane);
  const u32 *record = a.chunks + (first_chunk(lane, blockIdx.y) * a.heads + head) * u64(Record<D>::LEN);
  const u64 next = u64(a.heads) * Record<D>::LEN;

  // Behind the last chunk comes the last again, for nobody.
  u32 brought = 0;
  u32 *filled = stages, *const last = stages + (a.stages - 1) * Stage<D>::LEN;
  auto bring = [&] {
    constexpr u32 SHARED_PIECES = Stage<D>::V / 4, PIECES = Stage<D>::LEN / 4;
#pragma unroll
    for (u32 first = 0; first < PIECES; first += SCAN_THREADS) {
      const u32 piece = min(first + t, PIECES - 1);
      const u32 from = piece < SHARED_PIECES ? piece : piece + column * CHUNK / 4;
      cp_async16(filled + 4 * piece, record + 4 * from);
    }
    cp_async_commit();
    brought++;
    record += brought < count ? next : 0;
    filled = filled == last ? stages : filled + Stage<D>::LEN;
  };
  if (count > 0) {
    for (u32 i = 0; i < a.stages - 1; i++) bring();
  }

  // Of tile n: row part ROWS + 8 n + pair and the next, of column `own`, then of column own + 8.
  float s[TILES][4];
  const u64 tails = 3 * u64(a.taps - 1) * inner;
  const u64 matrix = a.layer + tails + u64(head) * D * D + (part * ROWS + pair) * D + column + own;
#pragma unroll
  for (int n = 0; n < TILES; n++) {
#pragma unroll
    for (int e = 0; e < 4; e++) s[n][e] = lane.from[matrix + (8 * n + e % 2) * D + e / 2 * 8];
  }

  // What this lane names of eight rows by eight columns, four of them to an ldmatrix: tokens by S's rows, W and Q as
  // they lie, K turned.
  const u32 eight = l / 8, in_eight = l % 8, first_piece = part * ROWS / 8;
  const u32 wq_token = eight / 2 * 8 + in_eight, k_token = eight % 2 * 8 + in_eight;
  const u32 *stage = stages;
  auto wq = [&](int matrix_of, int n) {
    const u32 *at = stage + matrix_of + wq_token * (D / 2) + place_of<D>(wq_token, first_piece + 2 * n + eight % 2) * 4;
    Right b;
    ldmatrix_x4(b.hi, at);
    ldmatrix_x4(b.lo, at + Record<D>::HALF);
    return b;
  };
  auto turned = [&](int n) {
    const u32 piece = place_of<D>(k_token, first_piece + 2 * n + eight / 2);
    const u32 *at = stage + Record<D>::K + k_token * (D / 2) + piece * 4;
    Right b;
    ldmatrix_x4_trans(b.hi, at);
    ldmatrix_x4_trans(b.lo, at + Record<D>::HALF);
    return b;
  };
  int token = int(part * 8 + pair) - int(lane.position % CHUNK);
  float *o_at = a.o + (long long)(int(lane.row) + token) * inner + head * D + column + own;
  // O of the chunk before, but for what the other half knows of it.
  float mine[4];
  auto finish = [&](const float4 &more) {
    const float all[4] = {mine[0] + more.x, mine[1] + more.y, mine[2] + more.z, mine[3] + more.w};
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const int at = token + e % 2;
      if (at >= 0 && at < int(lane.rows)) o_at[e % 2 * u64(inner) + e / 2 * 8] = all[e];
    }
    token += CHUNK;
    o_at += CHUNK * u64(inner);
  };

  for (u32 chunk = 0; chunk < count; chunk++) {
    if (a.stages == 4) cp_async_wait<2>();
    else cp_async_wait<1>();
    __syncthreads();
    Right w[PAIRS], q[PAIRS], k[PAIRS];
    Left rows[PAIRS];
#pragma unroll
    for (int n = 0; n < PAIRS; n++) w[n] = wq(Record<D>::W, n);
    float2 decay[TILES];
    const float *c = reinterpret_cast<const float *>(stage + Record<D>::C) + part * ROWS + pair;
#pragma unroll
    for (int n = 0; n < TILES; n++) decay[n] = *reinterpret_cast<const float2 *>(c + 8 * n);
    const float4 more_o = told_o[t ^ 32u];
#pragma unroll
    for (int n = 0; n < PAIRS; n++) rows[n] = split(s[2 * n], s[2 * n + 1]);
#pragma unroll
    for (int n = 0; n < PAIRS; n++) q[n] = wq(Record<D>::Q, n);
    Sums u[2] = {}, o[2] = {};
#pragma unroll
    for (int n = 0; n < PAIRS; n++) multiply(u, rows[n], w[n]);
    if (chunk > 0) finish(more_o);
#pragma unroll
    for (int n = 0; n < PAIRS; n++) k[n] = turned(n);
    float mine_u[2][4];
#pragma unroll
    for (int n = 0; n < PAIRS; n++) {
      multiply(o, rows[n], q[n]);
      if (n != (PAIRS - 1) / 2) continue;
#pragma unroll
      for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int e = 0; e < 4; e++) mine_u[m][e] = u[m][e];
        told_u[m * SCAN_THREADS + t] = make_float4(mine_u[m][0], mine_u[m][1], mine_u[m][2], mine_u[m][3]);
      }
    }
#pragma unroll
    for (int n = 0; n < TILES; n++) {
      s[n][0] *= decay[n].x;
      s[n][1] *= decay[n].y;
      s[n][2] *= decay[n].x;
      s[n][3] *= decay[n].y;
    }
    Right p;
    const u32 *p_at = stage + Record<D>::P + (part * 8 + in_eight) * (CHUNK / 2) + eight % 2 * 4;
    ldmatrix_x2(p.hi, p_at);
    ldmatrix_x2(p.lo, p_at + Record<D>::P_HALF);
    float2 near[2], far[2];
    const float *v = reinterpret_cast<const float *>(stage + Stage<D>::V) + own * CHUNK + pair;
#pragma unroll
    for (int n = 0; n < 2; n++) {
      near[n] = *reinterpret_cast<const float2 *>(v + 8 * n);
      far[n] = *reinterpret_cast<const float2 *>(v + 8 * CHUNK + 8 * n);
    }
    __syncthreads();
    const float4 more_u[2] = {told_u[t ^ 32u], told_u[SCAN_THREADS + (t ^ 32u)]};
    float others_o[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
      mine[e] = part ? o[1][e] : o[0][e];
      others_o[e] = part ? o[0][e] : o[1][e];
    }
    told_o[t] = make_float4(others_o[0], others_o[1], others_o[2], others_o[3]);
    // Not sooner: what is told would wait behind it.
    bring();
#pragma unroll
    for (int n = 0; n < 2; n++) {
      mine_u[n][0] = near[n].x - (mine_u[n][0] + more_u[n].x);
      mine_u[n][1] = near[n].y - (mine_u[n][1] + more_u[n].y);
      mine_u[n][2] = far[n].x - (mine_u[n][2] + more_u[n].z);
      mine_u[n][3] = far[n].y - (mine_u[n][3] + more_u[n].w);
    }
    const Left tokens = split(mine_u[0], mine_u[1]);
#pragma unroll
    for (int n = 0; n < TILES; n++) mma_bf16(s[n], tokens.hi, k[n / 2].hi + n % 2 * 2);
#pragma unroll
    for (int n = 0; n < TILES; n++) mma_bf16(s[n], tokens.hi, k[n / 2].lo + n % 2 * 2);
#pragma unroll
    for (int n = 0; n < TILES; n++) mma_bf16(s[n], tokens.lo, k[n / 2].hi + n % 2 * 2);
    mma_bf16(mine, tokens.hi, p.hi);
    mma_bf16(mine, tokens.hi, p.lo);
    mma_bf16(mine, tokens.lo, p.hi);
    stage = stage == last ? stages : stage + Stage<D>::LEN;
  }
  cp_async_wait<0>();
  __syncthreads();
  if (count > 0) finish(told_o[t ^ 32u]);
#pragma unroll
  for (int n = 0; n < TILES; n++) {
#pragma unroll
    for (int e = 0; e < 4; e++) lane.to[matrix + (8 * n + e % 2) * D + e / 2 * 8] = s[n][e];
  }
}

}  // namespace mixers

KERNEL_BOUNDS(kda_scan_32, KdaScanArgs, 128, 1) { mixers::kda_scan<32>(a); }
KERNEL_BOUNDS(kda_scan_64, KdaScanArgs, 128, 1) { mixers::kda_scan<64>(a); }
KERNEL_BOUNDS(kda_scan_128, KdaScanArgs, 128, 1) { mixers::kda_scan<128>(a); }
