//! A KDA layer on the card: its sizes, its small weights, its rows.

use super::super::driver::{CudaError, Part};
use super::super::weights::{Matrix, WeightType};
use super::{Strided, hold, same};
use crate::cpu::kda::{GateLaw, KdaShape};

/// What a layer has beside its projections.
#[derive(Debug, Clone, Copy)]
pub struct KdaLayer<'b> {
    pub shape: KdaShape,
    pub gate: GateLaw,
    /// `[inner, taps]`, the newest token's tap last.
    pub conv_q: Part<'b, f32>,
    pub conv_k: Part<'b, f32>,
    pub conv_v: Part<'b, f32>,
    /// `[heads]`, as the gate's law says.
    pub a: Part<'b, f32>,
    /// `[inner]`.
    pub dt_bias: Part<'b, f32>,
    /// `[head_dim]`.
    pub norm: Part<'b, f32>,
    /// Of the output's norm.
    pub eps: f32,
    /// Floats from a slot's start to this layer's.
    pub offset: usize,
}

/// Raw projections of a pass's rows. `decay`: whole, or a low-rank one's first product.
#[derive(Debug, Clone, Copy)]
pub struct KdaRows<'b> {
    pub q: Part<'b, f32>,
    pub k: Part<'b, f32>,
    pub v: Part<'b, f32>,
    /// From a row of q, k or v to the next.
    pub stride: usize,
    pub decay: Strided<'b>,
    pub beta: Strided<'b>,
}

/// The second matrix of a low-rank gate, `[inner, head_dim]`; `None`: the gate is whole.
pub type Second = Option<Matrix>;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct RowsArgs {
    q: u64,
    k: u64,
    v: u64,
    decay: u64,
    beta: u64,
    row: u32,
    decay_row: u32,
    beta_row: u32,
    pad: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct WeightArgs {
    conv_q: u64,
    conv_k: u64,
    conv_v: u64,
    a: u64,
    dt_bias: u64,
    layer: u64,
    heads: u32,
    taps: u32,
    law: u32,
    lower: f32,
}

/// The kernels of each width of a head.
pub(super) type Names = [&'static str; 3];

pub(super) const NO_MATRIX: Matrix = Matrix {
    data: 0,
    ty: 0,
    rows: 0,
    cols: 0,
    row_bytes: 0,
};

impl KdaLayer<'_> {
    pub(super) fn args(&self, place: &'static str) -> Result<WeightArgs, CudaError> {
        let KdaShape {
            heads,
            head_dim,
            taps,
        } = self.shape;
        let inner = self.shape.inner();
        name_of(place, [""; 3], head_dim)?;
        hold((1..=4).contains(&taps), place, "taps", taps, "1 to 4")?;
        for conv in [self.conv_q, self.conv_k, self.conv_v] {
            same(place, "convolution weights", conv.len(), inner * taps)?;
        }
        same(place, "a", self.a.len(), heads)?;
        same(place, "dt_bias", self.dt_bias.len(), inner)?;
        same(place, "norm", self.norm.len(), head_dim)?;
        let whole = self.offset.is_multiple_of(4);
        hold(
            whole,
            place,
            "the layer's offset",
            self.offset,
            "a multiple of 4",
        )?;
        let (law, lower) = match self.gate {
            GateLaw::Softplus => (0, 0.0),
            GateLaw::Bounded { lower } => (1, lower),
        };
        Ok(WeightArgs {
            conv_q: self.conv_q.address(),
            conv_k: self.conv_k.address(),
            conv_v: self.conv_v.address(),
            a: self.a.address(),
            dt_bias: self.dt_bias.address(),
            layer: self.offset as u64,
            heads: heads as u32,
            taps: taps as u32,
            law,
            lower,
        })
    }
}

impl KdaRows<'_> {
    /// `low`: the decay's rows are a low-rank gate's, `head_dim` wide.
    pub(super) fn args(
        &self,
        place: &'static str,
        shape: &KdaShape,
        rows: usize,
        low: bool,
    ) -> Result<RowsArgs, CudaError> {
        let inner = shape.inner();
        for (what, values) in [("q", self.q), ("k", self.k), ("v", self.v)] {
            let stride = self.stride;
            Strided { values, stride }.check(place, what, (rows, inner), false)?;
        }
        let width = if low { shape.head_dim } else { inner };
        self.decay.check(place, "the decay", (rows, width), low)?;
        self.beta.check(place, "beta", (rows, shape.heads), false)?;
        Ok(RowsArgs {
            q: self.q.address(),
            k: self.k.address(),
            v: self.v.address(),
            decay: self.decay.values.address(),
            beta: self.beta.values.address(),
            row: self.stride as u32,
            decay_row: self.decay.stride as u32,
            beta_row: self.beta.stride as u32,
            pad: 0,
        })
    }
}

/// That the kernels can take a low-rank gate's second matrix: rows of 256 are nobody's here.
pub(super) fn second(
    place: &'static str,
    m: Second,
    shape: &KdaShape,
) -> Result<Matrix, CudaError> {
    let Some(m) = m else {
        return Ok(NO_MATRIX);
    };
    same(
        place,
        "a gate's second matrix",
        m.rows as usize,
        shape.inner(),
    )?;
    same(place, "a row of it", m.cols as usize, shape.head_dim)?;
    let by_256 = [WeightType::Q4K, WeightType::Q5K, WeightType::Q6K];
    let short = !by_256.iter().any(|&ty| ty as u32 == m.ty);
    hold(short, place, "its type", m.ty, "one with short rows")?;
    Ok(m)
}

/// The kernel of a head's width.
pub(super) fn name_of(
    place: &'static str,
    names: Names,
    head_dim: usize,
) -> Result<&'static str, CudaError> {
    let at = [32, 64, 128].iter().position(|&d| d == head_dim);
    let at =
        at.ok_or_else(|| CudaError::refused(place, "a head", head_dim, "32, 64 or 128 wide"))?;
    Ok(names[at])
}
