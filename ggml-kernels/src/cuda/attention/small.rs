//! Passes of one token a lane.

use super::args::{AttendArgs, FinishArgs, RowArgs, Shares};
use super::{MlaShape, Rows, at_least, speeds};
use crate::cuda::driver::{Buffer, CudaError, Device, Kernel, Overlap, Part, Stream};
use crate::cuda::weights::{Acts, Lane, Matrix, WeightType};

/// Lanes of a pass at most.
const MOST_LANES: u32 = 16;
/// Columns of `attend`'s grid at most: what `finish` has room for.
const MOST_COLUMNS: u32 = 192;
/// Columns of the rank that a block of `finish` takes.
const SLICE: u32 = 128;

/// For any rank: blocks of 128 of its columns, each for one lane.
const FINISH: [&str; 4] = [
    "mla_finish",
    "mla_finish_f16",
    "mla_finish_bf16",
    "mla_finish_q8_0",
];
/// For a rank of 512: blocks of 32 results, each for all lanes.
const LARGE_FINISH: [&str; 4] = [
    "mla_finish_k",
    "mla_finish_k_f16",
    "mla_finish_k_bf16",
    "mla_finish_k_q8_0",
];

/// The kernels of small passes, with their working memory for so many lanes. One pass at a time.
#[derive(Debug)]
pub struct SmallMla {
    device: Device,
    shape: MlaShape,
    eps: f32,
    lanes: u32,
    attend: Attend,
    shares: Shares,
    speeds: Option<Buffer<u64>>,
    absorbed: Buffer<half::f16>,
    sums: Buffer<half::f16>,
    heads_of: Buffer<f32>,
    parts: Buffer<f32>,
    done: Buffer<u32>,
}

/// A layer's weights beside the great products.
#[derive(Debug, Clone, Copy)]
pub struct MlaWeights<'a> {
    /// Of `kv_a_norm`.
    pub norm: Part<'a, f32>,
    /// `heads` matrices `[rank, nope]`.
    pub k_b: Matrix,
    /// `heads` matrices `[v, rank]`.
    pub v_b: Matrix,
}

/// What a pass has of each lane.
#[derive(Debug, Clone, Copy)]
pub struct SmallPass<'a> {
    /// This layer's number among those with a cache.
    pub layer: u32,
    pub lanes: Part<'a, Lane>,
    /// `[heads, nope + rope]`.
    pub q: Rows<'a>,
    /// `[rank + rope]`; none where the rows are in the cache already.
    pub kv: Option<Rows<'a>>,
    /// `[heads]`, before the sigmoid.
    pub gate: Option<Rows<'a>>,
}

/// A form of the kernel.
#[derive(Debug)]
struct Attend {
    kernel: Kernel,
    heads: u32,
    shared: u32,
}

impl Attend {
    fn choose(device: &Device, shape: &MlaShape) -> Result<(Attend, u32), CudaError> {
        let large = shape.rank == 512 && shape.rope == 64;
        let (most, latent) = (device.shared_memory(), shape.latent());
        let few = shape.heads <= 16;
        let forms: [(&'static str, bool, u32, u32, u32); 5] = [
            ("mla_attend_k16_32_5", large && few, 16, 32, 5),
            // With more stages, `finish` has no room beside it to fetch its weights early.
            ("mla_attend_k32_32_3", large && !few, 32, 32, 3),
            ("mla_attend_k16_16_4", large && few, 16, 16, 4),
            ("mla_attend_k32_16_4", large && !few, 32, 16, 4),
            if few {
                ("mla_attend_16_16_4", true, 16, 16, 4)
            } else {
                ("mla_attend_32_16_4", true, 32, 16, 4)
            },
        ];
        for (name, fits, heads, rows, stages) in forms {
            let fixed = 4 * heads * (rows + 8) * 4 + heads * (rows + 8) * 2 + heads * 8;
            let shared = fixed.next_multiple_of(128) + stages * rows * (latent + 8) * 2;
            if fits && shared <= most {
                let kernel = device.kernel(name)?;
                let attend = Attend {
                    kernel,
                    heads,
                    shared,
                };
                return Ok((attend, rows));
            }
        }
        let got = format!("{most} on {}", device.name());
        Err(CudaError::refused(
            "MLA",
            "bytes of shared memory",
            got,
            "more",
        ))
    }
}

impl SmallMla {
    /// For passes of up to `lanes` lanes. `rope_base`: none where no column is rotated.
    pub fn new(
        device: &Device,
        shape: MlaShape,
        rope_base: Option<f32>,
        eps: f32,
        lanes: u32,
    ) -> Result<SmallMla, CudaError> {
        shape.check()?;
        if lanes == 0 || lanes > MOST_LANES {
            let wanted = format!("1 to {MOST_LANES}");
            return Err(CudaError::refused("MLA", "lanes", lanes, wanted));
        }
        let (attend, rows) = Attend::choose(device, &shape)?;
        let columns = device.multiprocessors().clamp(1, MOST_COLUMNS);
        let slots = (columns + lanes) as usize * shape.heads as usize;
        let each = lanes as usize * shape.heads as usize;
        let slices = shape.rank.div_ceil(SLICE) as usize;
        let speeds = rope_base.map(|base| device.upload(&speeds(shape.rope, base)));
        Ok(SmallMla {
            device: device.clone(),
            shape,
            eps,
            lanes,
            attend,
            shares: Shares {
                rows,
                columns,
                least: 2,
            },
            speeds: speeds.transpose()?,
            absorbed: device.zeroed(each * shape.latent() as usize)?,
            sums: device.zeroed(slots * shape.rank as usize)?,
            heads_of: device.zeroed(slots * 2)?,
            parts: device.zeroed(each * slices * shape.v as usize)?,
            done: device.zeroed(each)?,
        })
    }

    /// Attention of one layer: stores each lane's row, and writes `[lanes, heads * v]` to `out`, quantized too
    /// where `out.q` is an address.
    ///
    /// `out`'s addresses, like the weights', are memory of this card of the lengths that its sizes say.
    pub fn run(
        &self,
        stream: &Stream,
        weights: &MlaWeights<'_>,
        pass: &SmallPass<'_>,
        out: Acts,
    ) -> Result<(), CudaError> {
        let batch = self.check(weights, pass, &out)?;
        let (s, gate) = (&self.shape, pass.gate.as_ref());
        let slices = s.rank.div_ceil(SLICE);
        let row = RowArgs {
            q: pass.q.values.address(),
            kv: pass.kv.map_or(0, |kv| kv.values.address()),
            norm: weights.norm.address(),
            speeds: self.speeds.as_ref().map_or(0, |speeds| speeds.address()),
            lanes: pass.lanes.address(),
            absorbed: self.absorbed.address(),
            k_b: weights.k_b,
            batch,
            heads: s.heads,
            nope: s.nope,
            rope: s.rope,
            rank: s.rank,
            layer: pass.layer,
            q_stride: pass.q.stride,
            kv_stride: pass.kv.map_or(0, |kv| kv.stride),
            eps: self.eps,
            scale: s.scale(),
        };
        let attend = AttendArgs {
            q: self.absorbed.address(),
            lanes: pass.lanes.address(),
            sums: self.sums.address(),
            heads_of: self.heads_of.address(),
            batch,
            heads: s.heads,
            rank: s.rank,
            rope: s.rope,
            layer: pass.layer,
            shares: self.shares,
        };
        let finish = FinishArgs {
            sums: self.sums.address(),
            heads_of: self.heads_of.address(),
            lanes: pass.lanes.address(),
            gate: gate.map_or(0, |gate| gate.values.address()),
            parts: self.parts.address(),
            done: self.done.address(),
            out,
            v_b: weights.v_b,
            batch,
            heads: s.heads,
            rank: s.rank,
            v: s.v,
            gate_stride: gate.map_or(0, |gate| gate.stride),
            shares: self.shares,
        };
        let rows = if pass.kv.is_some() { batch } else { 0 };
        let row_grid = [s.heads * s.rank.div_ceil(64) + rows, 1, 1];
        let attend_grid = [self.shares.columns, s.heads.div_ceil(self.attend.heads), 1];
        let large = s.rank == 512 && s.v.is_multiple_of(32);
        let finish_grid = match large {
            true => [s.heads * s.v / 32, 1, 1],
            false => [s.heads * slices, batch, 1],
        };
        let row_kernel = self.device.kernel(of_type(
            weights.k_b.ty,
            ["mla_row", "mla_row_f16", "mla_row_bf16", "mla_row_q8_0"],
        ))?;
        let finish_kernel = self.device.kernel(of_type(
            weights.v_b.ty,
            match large {
                true => LARGE_FINISH,
                false => FINISH,
            },
        ))?;
        let over = Overlap::WithPrevious;
        // SAFETY: `check` saw that rows, weights and results are as long as these grids reach; working memory was
        // made for as many lanes and columns. Blocks of the lanes' tables are the caller's promise.
        unsafe {
            stream.launch(&row_kernel, row_grid, 128, 0, over, &row)?;
            stream.launch(
                &self.attend.kernel,
                attend_grid,
                256,
                self.attend.shared,
                over,
                &attend,
            )?;
            stream.launch(&finish_kernel, finish_grid, 256, 0, over, &finish)
        }
    }

    /// The lanes of a pass that fits.
    fn check(
        &self,
        weights: &MlaWeights<'_>,
        pass: &SmallPass<'_>,
        out: &Acts,
    ) -> Result<u32, CudaError> {
        let s = &self.shape;
        let lanes = pass.lanes.len();
        let batch = u32::try_from(lanes).unwrap_or(u32::MAX);
        if batch == 0 || batch > self.lanes {
            let wanted = format!("1 to {}", self.lanes);
            return Err(CudaError::refused("MLA", "lanes", lanes, wanted));
        }
        pass.q
            .check_quads("MLA's queries", batch, s.heads * s.query())?;
        if let Some(kv) = &pass.kv {
            kv.check("MLA's new rows", batch, s.latent())?;
        }
        if let Some(gate) = &pass.gate {
            gate.check("MLA's gates", batch, s.heads)?;
        }
        at_least(
            "MLA",
            "weights of the norm",
            weights.norm.len(),
            s.rank as usize,
        )?;
        for (what, matrix, rows, cols) in [
            ("rows and columns of k_b", &weights.k_b, s.rank, s.nope),
            ("rows and columns of v_b", &weights.v_b, s.v, s.rank),
        ] {
            if (matrix.rows, matrix.cols) != (rows, cols) {
                let got = format!("{} x {}", matrix.rows, matrix.cols);
                return Err(CudaError::refused(
                    "MLA",
                    what,
                    got,
                    format!("{rows} x {cols}"),
                ));
            }
        }
        let cols = s.heads * s.v;
        if out.cols != cols || out.rows < batch || out.x == 0 {
            let got = format!("{} x {}", out.rows, out.cols);
            return Err(CudaError::refused(
                "MLA",
                "its result",
                got,
                format!("{batch} x {cols}"),
            ));
        }
        if out.q != 0 && !cols.is_multiple_of(32) {
            let wanted = "a multiple of 32, to be quantized";
            return Err(CudaError::refused(
                "MLA",
                "columns of its result",
                cols,
                wanted,
            ));
        }
        Ok(batch)
    }
}

/// The kernel for weights of a type: for any, f16, bf16, q8_0.
fn of_type(ty: u32, names: [&'static str; 4]) -> &'static str {
    let is = |of: WeightType| ty == of as u32;
    let at = if is(WeightType::F16) {
        1
    } else if is(WeightType::Bf16) {
        2
    } else if is(WeightType::Q8_0) {
        3
    } else {
        0
    };
    names[at]
}
