//! Passes of many tokens.

use super::args::{ExpandersArgs, FlashArgs, GatherArgs, MergeArgs, RowsArgs};
use super::{MlaShape, Rows, aligned, at_least, speeds};
use crate::cuda::driver::{Buffer, CudaError, Device, Overlap, Part, Stream};
use crate::cuda::weights::{Matrix, WideLane};
use half::f16;

/// Queries of a block of `flash`, and keys of its tile.
const QUERIES: u32 = 128;
const KEYS: u32 = 64;
/// Rows of a block of `gather`.
const GATHERED: u32 = 16;

/// The kernels of wide passes.
#[derive(Debug)]
pub struct WideMla {
    device: Device,
    shape: MlaShape,
    eps: f32,
    speeds: Option<Buffer<u64>>,
}

/// A layer's new rows and queries.
#[derive(Debug, Clone, Copy)]
pub struct RowsPass<'a> {
    /// This layer's number among those with a cache.
    pub layer: u32,
    /// On the card as here.
    pub lanes: (Part<'a, WideLane>, &'a [WideLane]),
    /// Of `kv_a_norm`.
    pub norm: Part<'a, f32>,
    /// `[rows, rank + rope]`.
    pub kv: Rows<'a>,
    /// `[rows, heads * (nope + rope)]`, and where they go as f16; none where nobody asks.
    pub q: Option<(Rows<'a>, Part<'a, f16>)>,
}

/// Attention of a group of heads.
#[derive(Debug, Clone)]
pub struct FlashPass<'a> {
    /// On the card as here.
    pub lanes: (Part<'a, WideLane>, &'a [WideLane]),
    /// Where in the keys a lane's rows begin; on the card as here.
    pub starts: (Part<'a, u32>, &'a [u32]),
    /// The heads of this group.
    pub heads: std::ops::Range<u32>,
    /// `[rows, heads * (nope + rope)]`, of all heads.
    pub queries: Part<'a, f16>,
    /// `[keys, group * nope]`.
    pub keys: Part<'a, f16>,
    /// `[keys, rope]`.
    pub rotated: Part<'a, f16>,
    /// `[keys, group * v]`.
    pub values: Part<'a, f16>,
    /// `[rows, heads]`, before the sigmoid.
    pub gate: Option<Rows<'a>>,
    /// `[rows, heads * v]`, of all heads.
    pub out: Part<'a, f16>,
    /// The same in f32.
    pub out32: Option<Part<'a, f32>>,
}

/// Working memory for passes whose keys are split: too few queries and heads to fill the card.
#[derive(Debug, Clone, Copy)]
pub struct Splits<'a> {
    pub count: u32,
    /// `[count, rows, heads, v]`.
    pub sums: Part<'a, f32>,
    /// `[count, rows, heads, 2]`.
    pub heads_of: Part<'a, f32>,
}

impl WideMla {
    /// `rope_base`: none where no column is rotated.
    pub fn new(
        device: &Device,
        shape: MlaShape,
        rope_base: Option<f32>,
        eps: f32,
    ) -> Result<WideMla, CudaError> {
        shape.check()?;
        let speeds = rope_base.map(|base| device.upload(&speeds(shape.rope, base)));
        Ok(WideMla {
            device: device.clone(),
            shape,
            eps,
            speeds: speeds.transpose()?,
        })
    }

    /// Normed and rotated rows into the lanes' blocks, and rotated queries.
    pub fn rows(&self, stream: &Stream, pass: &RowsPass<'_>) -> Result<(), CudaError> {
        let s = &self.shape;
        let rows = rows_of("MLA's rows", pass.lanes)?;
        pass.kv.check("MLA's new rows", rows, s.latent())?;
        at_least(
            "MLA",
            "weights of the norm",
            pass.norm.len(),
            s.rank as usize,
        )?;
        if let Some((q, to)) = &pass.q {
            let width = s.heads * s.query();
            q.check_quads("MLA's queries", rows, width)?;
            at_least(
                "MLA",
                "values of queries",
                to.len(),
                rows as usize * width as usize,
            )?;
        }
        let args = RowsArgs {
            kv: pass.kv.values.address(),
            q: pass.q.map_or(0, |(q, _)| q.values.address()),
            norm: pass.norm.address(),
            speeds: self.speeds.as_ref().map_or(0, |speeds| speeds.address()),
            lanes: pass.lanes.0.address(),
            queries: match &pass.q {
                Some((_, to)) => aligned("MLA's queries", to)?,
                None => 0,
            },
            lane_count: pass.lanes.1.len() as u32,
            rows,
            heads: s.heads,
            nope: s.nope,
            rope: s.rope,
            rank: s.rank,
            layer: pass.layer,
            q_stride: pass.q.map_or(0, |(q, _)| q.stride),
            kv_stride: pass.kv.stride,
            eps: self.eps,
            scale: s.scale(),
            pad: 0,
        };
        let kernel = self.device.kernel("mla_rows")?;
        // SAFETY: a block a row, and rows in, queries out and norm are as long, as just checked. Blocks of the
        // lanes' tables are the caller's promise.
        unsafe { stream.launch(&kernel, [rows, 1, 1], 256, 0, Overlap::WithPrevious, &args) }
    }

    /// Causal attention of a group of heads; heads of other groups are left alone in `out`.
    pub fn flash(
        &self,
        stream: &Stream,
        pass: &FlashPass<'_>,
        splits: Option<&Splits<'_>>,
    ) -> Result<(), CudaError> {
        let s = &self.shape;
        let rows = self.check(pass)?;
        let group = pass.heads.len() as u32;
        let count = splits.map_or(1, |splits| splits.count);
        if let Some(splits) = splits {
            let each = count as usize * rows as usize * s.heads as usize;
            at_least(
                "MLA's splits",
                "sums",
                splits.sums.len(),
                each * s.v as usize,
            )?;
            at_least("MLA's splits", "heads", splits.heads_of.len(), each * 2)?;
        }
        let args = FlashArgs {
            q: aligned("MLA's queries", &pass.queries)?,
            k: aligned("MLA's keys", &pass.keys)?,
            rotated: aligned("MLA's keys", &pass.rotated)?,
            v: aligned("MLA's values", &pass.values)?,
            lanes: pass.lanes.0.address(),
            starts: pass.starts.0.address(),
            gate: pass.gate.map_or(0, |gate| gate.values.address()),
            out: aligned("MLA's result", &pass.out)?,
            out32: match &pass.out32 {
                Some(out) => aligned("MLA's result", out)?,
                None => 0,
            },
            sums: splits.map_or(0, |splits| splits.sums.address()),
            heads_of: splits.map_or(0, |splits| splits.heads_of.address()),
            rows,
            heads: s.heads,
            first: pass.heads.start,
            group,
            nope: s.nope,
            rope: s.rope,
            v_width: s.v,
            splits: count,
            gate_stride: pass.gate.map_or(0, |gate| gate.stride),
            pad: 0,
        };
        let large = (s.nope, s.rope, s.v) == (128, 64, 128);
        let kernel = self
            .device
            .kernel(if large { "mla_flash_k128" } else { "mla_flash" })?;
        let most = pass.lanes.1.iter().map(|lane| lane.rows).max().unwrap_or(0);
        let lanes = pass.lanes.1.len() as u32;
        let grid = [most.div_ceil(QUERIES), group, lanes * count];
        let shared = ((QUERIES + KEYS) * (s.query() + 8) + KEYS * (s.v + 8)) * 2;
        // SAFETY: `check` saw that queries, results and gates are as long as the lanes have rows, and keys and
        // values as long as the rows that they see; sums as the splits say.
        unsafe { stream.launch(&kernel, grid, 128, shared, Overlap::WithPrevious, &args) }
    }

    /// What the splits of all heads gathered, put together; after [`WideMla::flash`] of all groups.
    pub fn merge(
        &self,
        stream: &Stream,
        pass: &FlashPass<'_>,
        splits: &Splits<'_>,
    ) -> Result<(), CudaError> {
        let s = &self.shape;
        let rows = self.check(pass)?;
        let each = splits.count as usize * rows as usize * s.heads as usize;
        at_least(
            "MLA's splits",
            "sums",
            splits.sums.len(),
            each * s.v as usize,
        )?;
        at_least("MLA's splits", "heads", splits.heads_of.len(), each * 2)?;
        let args = MergeArgs {
            sums: splits.sums.address(),
            heads_of: splits.heads_of.address(),
            gate: pass.gate.map_or(0, |gate| gate.values.address()),
            out: pass.out.address(),
            out32: pass.out32.map_or(0, |out| out.address()),
            rows,
            heads: s.heads,
            v: s.v,
            splits: splits.count,
            gate_stride: pass.gate.map_or(0, |gate| gate.stride),
            pad: 0,
        };
        let kernel = self.device.kernel("mla_merge")?;
        // SAFETY: a block a row; sums and results were just seen to be as long.
        unsafe { stream.launch(&kernel, [rows, 1, 1], 256, 0, Overlap::WithPrevious, &args) }
    }

    /// The rows of a pass whose lengths fit each other.
    fn check(&self, pass: &FlashPass<'_>) -> Result<u32, CudaError> {
        let (s, place) = (&self.shape, "MLA's attention");
        let rows = rows_of(place, pass.lanes)?;
        if pass.heads.start >= pass.heads.end || pass.heads.end > s.heads {
            let wanted = format!("some of 0..{}", s.heads);
            let got = format!("{:?}", pass.heads);
            return Err(CudaError::refused(place, "heads", got, wanted));
        }
        let group = pass.heads.len();
        let keys = keys_of(place, pass.lanes.1, pass.starts)?;
        let (all, heads) = (rows as usize, s.heads as usize);
        at_least(
            place,
            "queries",
            pass.queries.len(),
            all * heads * s.query() as usize,
        )?;
        at_least(
            place,
            "keys",
            pass.keys.len(),
            keys * group * s.nope as usize,
        )?;
        at_least(
            place,
            "rotated columns",
            pass.rotated.len(),
            keys * s.rope as usize,
        )?;
        at_least(
            place,
            "values",
            pass.values.len(),
            keys * group * s.v as usize,
        )?;
        at_least(place, "results", pass.out.len(), all * heads * s.v as usize)?;
        if let Some(out) = &pass.out32 {
            at_least(place, "results", out.len(), all * heads * s.v as usize)?;
        }
        if let Some(gate) = &pass.gate {
            gate.check("MLA's gates", rows, s.heads)?;
        }
        Ok(rows)
    }
}

/// All rows of lanes, those of this pass with them, out of their blocks: `out [keys, rank]`, what the expanding
/// products take, and `rotated [keys, rope]`.
pub fn gather_rows(
    stream: &Stream,
    device: &Device,
    shape: &MlaShape,
    layer: u32,
    lanes: (Part<'_, WideLane>, &[WideLane]),
    starts: (Part<'_, u32>, &[u32]),
    (out, rotated): (Part<'_, f16>, Part<'_, f16>),
) -> Result<(), CudaError> {
    shape.check()?;
    let place = "MLA's gathered rows";
    rows_of(place, lanes)?;
    let keys = keys_of(place, lanes.1, starts)?;
    at_least(place, "values", out.len(), keys * shape.rank as usize)?;
    at_least(
        place,
        "rotated columns",
        rotated.len(),
        keys * shape.rope as usize,
    )?;
    let args = GatherArgs {
        lanes: lanes.0.address(),
        starts: starts.0.address(),
        out: aligned(place, &out)?,
        rotated: aligned(place, &rotated)?,
        rank: shape.rank,
        rope: shape.rope,
        layer,
        pad: 0,
    };
    let most = lanes.1.iter().map(|lane| lane.position + lane.rows).max();
    let grid = [
        most.unwrap_or(0).div_ceil(GATHERED),
        lanes.1.len() as u32,
        1,
    ];
    let kernel = device.kernel("mla_gather")?;
    // SAFETY: rows go to `starts` and on, which was just seen to end inside; blocks of the lanes' tables are the
    // caller's promise.
    unsafe { stream.launch(&kernel, grid, 256, 0, Overlap::WithPrevious, &args) }
}

/// A stack of matrices in f16, rows below each other: `k_b` turned (`[heads * nope, rank]`), `v_b` as it is
/// (`[heads * v, rank]`). The matrix's address is memory of this card, as long as its sizes say.
pub fn expanders(
    stream: &Stream,
    device: &Device,
    from: Matrix,
    matrices: u32,
    turned: bool,
    to: Part<'_, f16>,
) -> Result<(), CudaError> {
    let values = matrices as usize * from.rows as usize * from.cols as usize;
    at_least("MLA's expanders", "values", to.len(), values)?;
    let args = ExpandersArgs {
        from,
        to: to.address(),
        matrices,
        turn: u32::from(turned),
    };
    let rows = matrices * if turned { from.cols } else { from.rows };
    let kernel = device.kernel("mla_expanders")?;
    // SAFETY: a block a row of the result, which is as long as just checked.
    unsafe { stream.launch(&kernel, [rows, 1, 1], 256, 0, Overlap::WithPrevious, &args) }
}

/// The rows of a pass: lanes have theirs one after the other.
fn rows_of(
    place: &'static str,
    (there, here): (Part<'_, WideLane>, &[WideLane]),
) -> Result<u32, CudaError> {
    if there.len() < here.len() {
        return Err(CudaError::refused(
            place,
            "lanes on the card",
            there.len(),
            here.len(),
        ));
    }
    let end = |lane: &WideLane| lane.row.checked_add(lane.rows);
    let ends: Option<Vec<u32>> = here.iter().map(end).collect();
    let Some(ends) = ends else {
        return Err(CudaError::refused(
            place,
            "a lane's rows",
            "more",
            "less than 2^32",
        ));
    };
    Ok(ends.into_iter().max().unwrap_or(0))
}

/// The keys that lanes reach.
fn keys_of(
    place: &'static str,
    lanes: &[WideLane],
    (there, here): (Part<'_, u32>, &[u32]),
) -> Result<usize, CudaError> {
    if there.len() < lanes.len() || here.len() != lanes.len() {
        let got = format!("{} and {}", there.len(), here.len());
        return Err(CudaError::refused(place, "starts", got, lanes.len()));
    }
    let end = |(lane, &start): (&WideLane, &u32)| {
        start as usize + lane.position as usize + lane.rows as usize
    };
    let keys = lanes.iter().zip(here).map(end).max().unwrap_or(0);
    if keys > u32::MAX as usize {
        return Err(CudaError::refused(place, "keys", keys, "less than 2^32"));
    }
    Ok(keys)
}
