// Products of up to 16 rows with matrices of any type, decode's whole weight traffic: `products` (several matrices of one
// input), `gate_up` and `down` (experts), `embed`, `repack`. Wrappers: src/cuda/products.rs.
#include "dot.cuh"
#include "experts.cuh"
#include "repack.cuh"
#include "tensor.cuh"

namespace products {

constexpr u32 JOBS = 8, WARPS = 8;

struct Job {
  Matrix matrix;
  float *out;
  u32 out_stride, add;  // add: out += product
  u32 first_block, blocks;  // tensor's shared units: units instead
};

struct ProductsArgs {
  Job jobs[JOBS];
  Acts in;
  u32 count;
  u32 splits;  // warps that share a unit of rows, each with its part of the columns: 1, 2, 4, 8 (tensor: any)
  u32 share;   // tensor: superblocks of such a part
  u32 shift;   // tensor: a block takes 1 << shift rows of the input
};

// Grid: (blocks of all jobs, batches of RB rows). A group of `splits` warps has one unit.
template <int U, int GR, int RB>
DEVICE void products(const ProductsArgs &a) {
  let_go();
  DYNAMIC_SHARED(u8, shared);  // the activations, then each warp's own
  SHARED(float, parts, WARPS * 4 * GR * RB);
  u32 j = 0;
  while (j + 1 < a.count && blockIdx.x >= a.jobs[j + 1].first_block) j++;
  const Job &job = a.jobs[j];
  const Matrix &m = job.matrix;
  const u32 warp = threadIdx.x / 32, first_row = blockIdx.y * RB, superblocks = (m.cols + 255) / 256;
  const u32 rows = unit_rows(m.type) * GR, units = (m.rows + rows - 1) / rows;
  const u32 per_block = blockDim.x / 32 / a.splits, split = warp % a.splits;
  const u32 share = (superblocks + a.splits - 1) / a.splits;
  Work work;
  work.cols = m.cols;
  work.first = split * share < superblocks ? split * share : superblocks;
  work.count = superblocks - work.first < share ? superblocks - work.first : share;
  work.unit = (blockIdx.x - job.first_block) * per_block + warp / a.splits;
  work.end = work.count > 0 ? units : 0;
  work.stride = units;
  const Staged staged = staged_at(shared, superblocks, RB);
  auto store = [&](u32 row, u32 b, float v) {
    if (row >= m.rows || first_row + b >= a.in.rows) return;
    float *to = job.out + static_cast<u64>(first_row + b) * job.out_stride + row;
    *to = job.add ? *to + v : v;
  };
  stream_any<U, GR, RB>(
      m.type, work, shared + superblocks * RB * STAGED_BYTES + warp * Own<U, GR>::VALUE,
      [&](u32 unit, u32 i) {
        const u32 row = unit * rows + i;
        return m.data + static_cast<u64>(row < m.rows ? row : m.rows - 1) * m.row_bytes;
      },
      a.in, first_row, staged_from<RB>(staged, work.first),
      [&]() {
        depend();
        if (m.type > BF16) stage<RB>(a.in, first_row, m.cols, 0, superblocks, staged, threadIdx.x, blockDim.x);
        __syncthreads();
      },
      [&](u32 unit, u32 i, u32 b, float v) {
        if (a.splits == 1) {
          store(unit * rows + i, b, v);
        } else {
          parts[(warp * 4 * GR + i) * RB + b] = v;
        }
      });
  if (a.splits == 1) return;
  __syncthreads();
  // Parts in the order of the columns.
  for (u32 t = threadIdx.x; t < per_block * rows * RB; t += blockDim.x) {
    const u32 group = t / (rows * RB), i = t / RB % rows, b = t % RB;
    const u32 unit = (blockIdx.x - job.first_block) * per_block + group;
    float v = 0;
    for (u32 s = 0; s * share < superblocks; s++) v += parts[((group * a.splits + s) * 4 * GR + i) * RB + b];
    if (unit < units) store(unit * rows + i, b, v);
  }
}

// The same for 3 rows and more, on tensor cores. Grid: (blocks, batches of 1 << shift rows). A group of `splits` warps has
// one unit of 16 rows, the next of all jobs' (whose blocks are units then); one warp alone goes on to others of its job.
template <int NT>
DEVICE void tensor(const ProductsArgs &a) {
  let_go();
  DYNAMIC_SHARED(u8, shared);  // the activations, then each warp's own
  const u32 warp = threadIdx.x / 32, first_row = blockIdx.y << a.shift, superblocks = (a.in.cols + 255) / 256;
  const u32 groups = blockDim.x / 32 / a.splits, split = warp % a.splits;
  const auto job_at = [&](u32 at) -> const Job & {
    u32 j = 0;
    while (j + 1 < a.count && at >= a.jobs[j + 1].first_block) j++;
    return a.jobs[j];
  };
  const bool is_split = a.splits > 1;
  const u32 at = is_split ? blockIdx.x * groups + warp / a.splits : blockIdx.x;
  const Job &job = job_at(at);
  const Matrix &m = job.matrix;
  const u32 units = (m.rows + TILE - 1) / TILE;
  Work work;
  work.cols = m.cols;
  work.first = split * a.share < superblocks ? split * a.share : superblocks;
  work.count = superblocks - work.first < a.share ? superblocks - work.first : a.share;
  work.unit = is_split ? at - job.first_block : (at - job.first_block) * groups + warp;
  work.end = work.count > 0 ? units : 0;
  work.stride = is_split ? units : job.blocks * groups;
  const Columns columns = {shared, reinterpret_cast<float *>(shared + (superblocks * 256 << a.shift)), a.shift};
  u8 *owns = shared + (superblocks * TENSOR_STAGED << a.shift), *own = owns + warp * TENSOR_OWN;
  const auto store = [&](const Job &job, u32 row, u32 b, float v) {
    if (row >= job.matrix.rows || b >> a.shift || first_row + b >= a.in.rows) return;
    float *to = job.out + static_cast<u64>(first_row + b) * job.out_stride + row;
    *to = job.add ? *to + v : v;
  };
  const auto ready = [&]() {
    depend();
    if (is_split || m.type > BF16) stage_columns(a.in, first_row, m.cols, superblocks, columns);
    __syncthreads();
  };
  const auto emit = [&](u32 unit, u32 i, u32 b, float v) {
    if (!is_split) {
      store(job, unit * TILE + i, b, v);
    } else {
      reinterpret_cast<float *>(own + RING)[b * TILE + i] = v;
    }
  };
  if (is_split && m.type == Q4_K && a.share <= AtOnce::MOST) {
    take_tile<NT>(m, work, own, columns, ready, emit);
  } else {
    stream_any_tiles<NT>(m, work, own, a.in, first_row, columns, ready, emit);
  }
  if (!is_split) return;
  __syncthreads();
  // Parts in the order of the columns.
  for (u32 t = threadIdx.x; t < groups * NT * 8 * TILE; t += blockDim.x) {
    const u32 group = t / (NT * 8 * TILE), i = t % (NT * 8 * TILE);
    float v = 0;
    for (u32 s = 0; s * a.share < superblocks; s++)
      v += reinterpret_cast<const float *>(owns + (group * a.splits + s) * TENSOR_OWN + RING)[i];
    const u32 of = blockIdx.x * groups + group;
    const Job &its = job_at(of);
    if (of - its.first_block < its.blocks) store(its, (of - its.first_block) * TILE + i % TILE, i / TILE, v);
  }
}

}  // namespace products

// products_n{superblocks in flight}_b{rows at a time}. The wrapper counts on these sizes of a warp's shared memory.
static_assert(products::Own<5, 1>::VALUE == 4032 && products::Own<4, 2>::VALUE == 5888, "as in products/plan.rs");
static_assert(products::Own<9, 1>::VALUE == 6720 && products::STAGED_BYTES == 352, "as in products/experts.rs");
KERNEL_BOUNDS(products_n5_b1, products::ProductsArgs, 256, 4) { products::products<5, 1, 1>(a); }
KERNEL_BOUNDS(products_n5_b2, products::ProductsArgs, 256, 3) { products::products<5, 1, 2>(a); }
KERNEL_BOUNDS(products_n5_b4, products::ProductsArgs, 256, 3) { products::products<5, 1, 4>(a); }
KERNEL_BOUNDS(products_n5_b8, products::ProductsArgs, 256, 2) { products::products<5, 1, 8>(a); }
KERNEL_BOUNDS(products_n4_b1, products::ProductsArgs, 256, 2) { products::products<4, 2, 1>(a); }
KERNEL_BOUNDS(products_n4_b2, products::ProductsArgs, 256, 2) { products::products<4, 2, 2>(a); }
KERNEL_BOUNDS(products_n4_b4, products::ProductsArgs, 256, 2) { products::products<4, 2, 4>(a); }
KERNEL_BOUNDS(products_n4_b8, products::ProductsArgs, 256, 2) { products::products<4, 2, 8>(a); }
static_assert(products::TENSOR_OWN == 8848 && products::TENSOR_STAGED == 320, "as in products/tensor.rs");
KERNEL_BOUNDS(products_tensor_8, products::ProductsArgs, 288, 2) { products::tensor<1>(a); }
KERNEL_BOUNDS(products_tensor_16, products::ProductsArgs, 576, 1) { products::tensor<2>(a); }
