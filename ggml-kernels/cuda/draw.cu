// The next token of a row of logits, or the few that it is among, found where the logits are.
//
// A token weighs e^-d, d its logit's distance below the row's largest, over the temperature. A piece is 4096 tokens of
// a row, eight neighbours to each thread. NaN counts as the least number, infinities as the last ones that are numbers.
// The same logits and wish give the same token; the few come in any order.
#include "device.cuh"

// Any but the first two are cut: BEST to so many, those of at least a WEIGHT to them.
enum DrawKind : u32 { NOTHING = 0, LIKELIEST = 1, ANY = 2, BEST = 3, WEIGHT = 4, MASS = 5 };

struct DrawWish {
  double unit;  // ANY: which part of the whole weight comes before the token
  float cold;   // 1 / temperature
  float share;  // WEIGHT: the least one; MASS: what the few must weigh of the whole
  u32 kind;
  u32 best;
};
struct DrawPiece {
  float most;  // its largest logit
  u32 token;   // whose: the lowest of equals
  float mass;  // its weight, held against its own largest
  u32 pad;
};
struct Drawn {
  u32 token;  // LIKELIEST, ANY
  u32 count;  // the few's; more than MOST_FEW: not all are there
  float most;
  float mass;  // all tokens' weight
};
struct Few {
  u32 token;
  float logit;
};

struct DrawArgs {
  const float *logits;     // [rows, vocab]
  const DrawWish *wishes;  // [rows]
  DrawPiece *pieces;       // [rows, count]
  u32 *bins;               // [rows, BINS]
  Drawn *drawn;            // [rows]
  Few *few;                // [rows, MOST_FEW]
  u32 vocab, count;
};

namespace draw {

constexpr u32 THREADS = 512, WARPS = THREADS / 32, EACH = 8, PIECE = THREADS * EACH;
constexpr u32 BINS = 512, BINS_A_UNIT = 16, MOST_FEW = 1024, NO_TOKEN = ~0u;
constexpr float LARGEST = 3.402823466e38f;

DEVICE float finite(float v) { return v != v ? -LARGEST : fminf(fmaxf(v, -LARGEST), LARGEST); }

// This thread's of a piece: so many are there.
struct Own {
  float v[EACH];
  u32 first, there;
};
DEVICE Own own_of(const DrawArgs &a, u32 row, u32 piece) {
  Own own;
  own.first = piece * PIECE + threadIdx.x * EACH;
  own.there = own.first >= a.vocab ? 0 : min(a.vocab - own.first, EACH);
#pragma unroll
  for (u32 i = 0; i < EACH; i++) own.v[i] = i < own.there ? finite(a.logits[u64(row) * a.vocab + own.first + i]) : -LARGEST;
  return own;
}

DEVICE float weight(float v, float most, float cold) { return expf((v - most) * cold); }

struct Top {
  float most, mass;
  u32 token;
};
// Of the lanes' tops: the largest, and of equals the lowest token's. Masses are added up against it.
DEVICE Top top_of_warp(Top t, float cold) {
  const float most = warp_max(t.most);
  const u32 token = __reduce_min_sync(ALL_LANES, t.most == most ? t.token : NO_TOKEN);
  // Whoever has no tokens has no mass, however far away.
  return {most, warp_sum(t.mass > 0.f ? t.mass * weight(t.most, most, cold) : 0.f), token};
}

// Of the row, to every thread; every warp does the same.
DEVICE Top top_of_row(const DrawArgs &a, u32 row, float cold) {
  Top t = {-LARGEST, 0.f, NO_TOKEN};
  for (u32 i = threadIdx.x & 31u; i < a.count; i += 32) {
    const DrawPiece p = a.pieces[u64(row) * a.count + i];
    const float most = fmaxf(t.most, p.most);
    t.mass = (t.mass > 0.f ? t.mass * weight(t.most, most, cold) : 0.f) + p.mass * weight(p.most, most, cold);
    if (t.token == NO_TOKEN || p.most > t.most) t.token = p.token;
    t.most = most;
  }
  return top_of_warp(t, cold);
}

// How far below the largest, in bins; the last one has all that is farther.
DEVICE u32 bin_of(float v, float most, float cold) { return u32(fminf((most - v) * cold * BINS_A_UNIT, float(BINS - 1))); }

// The last bin that has one of the `best`. Every warp does the same.
DEVICE u32 last_bin(const u32 *bins, u32 best) {
  constexpr u32 SHARE = BINS / 32;
  const u32 lane = threadIdx.x & 31u;
  u32 own = 0;
  for (u32 i = 0; i < SHARE; i++) own += bins[lane * SHARE + i];
  u32 upto = own;
#pragma unroll
  for (u32 by = 1; by < 32; by *= 2) {
    const u32 before = __shfl_up_sync(ALL_LANES, upto, by);
    if (lane >= by) upto += before;
  }
  u32 last = BINS - 1;
  if (upto >= best && upto - own < best) {
    u32 sum = upto - own;
    for (u32 i = 0; i < SHARE; i++) {
      sum += bins[lane * SHARE + i];
      if (sum >= best) {
        last = lane * SHARE + i;
        break;
      }
    }
  }
  return __reduce_min_sync(ALL_LANES, last);
}

// The token before which the weights of its row come to `left` of those of piece `piece` on. All threads come here.
DEVICE void find_token(const DrawArgs &a, u32 row, u32 piece, float left, float most, float cold) {
  SHARED(float, ends, WARPS);
  SHARED(u32, hits, WARPS);
  SHARED(u32, lasts, WARPS);
  const u32 lane = threadIdx.x & 31u, warp = threadIdx.x / 32;
  const Own own = own_of(a, row, piece);
  float w[EACH], end = 0.f;
  u32 last = 0;  // 1 more than the last token that weighs anything
#pragma unroll
  for (u32 i = 0; i < EACH; i++) {
    w[i] = i < own.there ? weight(own.v[i], most, cold) : 0.f;
    end += w[i];
    if (w[i] > 0.f) last = own.first + i + 1;
  }
#pragma unroll
  for (u32 by = 1; by < 32; by *= 2) {
    const float before = __shfl_up_sync(ALL_LANES, end, by);
    if (lane >= by) end += before;
  }
  if (lane == 31) ends[warp] = end;
  __syncthreads();
  float before_warp = 0.f;
  for (u32 i = 0; i < warp; i++) before_warp += ends[i];
  float begin = __shfl_up_sync(ALL_LANES, end, 1);
  begin = before_warp + (lane ? begin : 0.f);
  u32 hit = NO_TOKEN;
  float upto = begin;
#pragma unroll
  for (u32 i = 0; i < EACH; i++) {
    upto += w[i];
    if (hit == NO_TOKEN && w[i] > 0.f && left < upto) hit = own.first + i;
  }
  // Sums rounded apart may let two threads have it, or none: the first one, or the last that weighs anything.
  hit = __reduce_min_sync(ALL_LANES, hit);
  last = __reduce_max_sync(ALL_LANES, last);
  if (lane == 0) hits[warp] = hit, lasts[warp] = last;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (u32 i = 1; i < WARPS; i++) hit = min(hit, hits[i]), last = max(last, lasts[i]);
  a.drawn[row].token = hit != NO_TOKEN ? hit : last - 1;
}

}  // namespace draw

// The pieces' tops. Grid: pieces, rows.
KERNEL_BOUNDS(draw_scan, DrawArgs, draw::THREADS, 1) {
  using namespace draw;
  SHARED(float, mosts, WARPS);
  SHARED(float, masses, WARPS);
  SHARED(u32, tokens, WARPS);
  let_go();
  depend();
  const u32 row = blockIdx.y, lane = threadIdx.x & 31u;
  const DrawWish wish = a.wishes[row];
  if (wish.kind == NOTHING) return;
  if (blockIdx.x == 0) a.bins[row * BINS + threadIdx.x] = 0;
  const Own own = own_of(a, row, blockIdx.x);
  Top t = {own.v[0], 0.f, own.there ? own.first : NO_TOKEN};
#pragma unroll
  for (u32 i = 1; i < EACH; i++) {
    if (i < own.there && own.v[i] > t.most) t.most = own.v[i], t.token = own.first + i;
  }
#pragma unroll
  for (u32 i = 0; i < EACH; i++) t.mass += i < own.there ? weight(own.v[i], t.most, wish.cold) : 0.f;
  t = top_of_warp(t, wish.cold);
  if (lane == 0) mosts[threadIdx.x / 32] = t.most, masses[threadIdx.x / 32] = t.mass, tokens[threadIdx.x / 32] = t.token;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  t = {-LARGEST, 0.f, NO_TOKEN};
  if (lane < WARPS) t = {mosts[lane], masses[lane], tokens[lane]};
  t = top_of_warp(t, wish.cold);
  if (lane == 0) a.pieces[u64(row) * a.count + blockIdx.x] = {t.most, t.token, t.mass, 0};
}

// One token where that is asked for, by the block after the pieces'; else, for the best, how far they are. Grid:
// pieces + 1, rows.
KERNEL_BOUNDS(draw_token, DrawArgs, draw::THREADS, 1) {
  using namespace draw;
  SHARED(u32, counts, BINS);
  SHARED(float, masses, THREADS);
  SHARED(float, rest, 1);
  SHARED(u32, chosen, 1);
  let_go();
  depend();
  const u32 row = blockIdx.y, piece = blockIdx.x;
  const DrawWish wish = a.wishes[row];
  if (wish.kind == NOTHING) return;
  if (piece < a.count) {
    if (wish.kind != BEST) return;
    const Top top = top_of_row(a, row, wish.cold);
    counts[threadIdx.x] = 0;
    __syncthreads();
    const Own own = own_of(a, row, piece);
    for (u32 i = 0; i < own.there; i++) atomicAdd(&counts[bin_of(own.v[i], top.most, wish.cold)], 1u);
    __syncthreads();
    if (counts[threadIdx.x] > 0) atomicAdd(&a.bins[row * BINS + threadIdx.x], counts[threadIdx.x]);
    return;
  }
  const Top top = top_of_row(a, row, wish.cold);
  if (threadIdx.x == 0) a.drawn[row] = {top.token, 0, top.most, top.mass};
  if (wish.kind != ANY) return;
  for (u32 i = threadIdx.x; i < a.count; i += THREADS) {
    const DrawPiece p = a.pieces[u64(row) * a.count + i];
    masses[i] = p.mass * weight(p.most, top.most, wish.cold);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double left = wish.unit * double(top.mass);
    for (u32 i = 0; i < a.count; i++) {
      const double mass = masses[i];
      if (mass <= 0) continue;
      chosen[0] = i, rest[0] = float(left);
      if (left < mass) break;
      left -= mass;
    }
  }
  __syncthreads();
  find_token(a, row, chosen[0], rest[0], top.most, wish.cold);
}

// The few that a cut leaves, or more. Grid: pieces, rows.
KERNEL_BOUNDS(draw_few, DrawArgs, draw::THREADS, 1) {
  using namespace draw;
  let_go();
  depend();
  const u32 row = blockIdx.y;
  const DrawWish wish = a.wishes[row];
  if (wish.kind < BEST) return;
  const Top top = top_of_row(a, row, wish.cold);
  // Of lighter ones a thousand weigh together what may be missing of the mass.
  const float least = wish.kind == WEIGHT ? wish.share : (1.f - wish.share) * top.mass * (1.f / MOST_FEW);
  const u32 last = wish.kind == BEST ? last_bin(a.bins + row * BINS, wish.best) : 0;
  const Own own = own_of(a, row, blockIdx.x);
  for (u32 i = 0; i < own.there; i++) {
    const bool is_in = wish.kind == BEST ? bin_of(own.v[i], top.most, wish.cold) <= last
                                         : weight(own.v[i], top.most, wish.cold) >= least * (1.f - 1e-5f);
    if (!is_in) continue;
    const u32 at = atomicAdd(&a.drawn[row].count, 1u);
    if (at < MOST_FEW) a.few[u64(row) * MOST_FEW + at] = {own.first + i, own.v[i]};
  }
}
