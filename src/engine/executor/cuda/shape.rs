//! A model's sizes, and its layers' small weights, as the kernels want to be told of them.

use std::sync::Arc;

use ggml_kernels::cpu::kda::KdaShape;
use ggml_kernels::cuda::attention::MlaShape;
use ggml_kernels::cuda::driver::Buffer;
use ggml_kernels::cuda::mixers::KdaLayer;
use ggml_kernels::cuda::weights::Stack;
use ggml_kernels::ops::moe::Routing;
use quantize::schema::{Ffn, Hparams, Mixer};

use super::place::Place;
use crate::engine::layers::KdaParts;

/// The widest of everything that a row has in some layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub hidden: usize,
    /// Of a row of KDA's q, k or v.
    pub inner: usize,
    /// Of q in either kind of layer, and of what else is as wide as k or a cached row.
    pub query: usize,
    pub key: usize,
    pub heads: usize,
    pub low_q: usize,
    /// Of what meets a mixer's output projection.
    pub mixed: usize,
    pub experts: usize,
    pub used: usize,
}

impl Sizes {
    pub fn of(h: &Hparams) -> Sizes {
        let (kda, mla) = (h.kda, h.mla);
        let inner = kda.d_inner();
        Sizes {
            hidden: h.hidden,
            inner,
            query: inner.max(mla.heads * mla.qk()),
            key: inner.max(mla.latent()),
            heads: kda.heads.max(mla.heads),
            low_q: mla.q_lora_rank.unwrap_or(0),
            mixed: inner.max(mla.heads * mla.v),
            experts: h.moe.experts,
            used: h.moe.used,
        }
    }
}

/// Of every kind of feed-forward layer that the card computes: the width that all rows meet, how many
/// experts are chosen, and their width.
pub(super) fn ffns(h: &Hparams, experts: Place) -> impl Iterator<Item = (usize, usize, usize)> {
    let has = |ffn: Ffn| h.layers.iter().any(|l| l.ffn == ffn);
    let dense = has(Ffn::Dense).then_some((h.dense_ff, 0, 0));
    let shared = if h.moe.shared == 0 {
        0
    } else {
        h.moe.shared_ff
    };
    let used = match experts {
        Place::Card => h.moe.used,
        Place::Processor => 0,
    };
    let sparse = has(Ffn::Sparse).then_some((shared, used, h.moe.ff));
    dense.into_iter().chain(sparse)
}

/// `None`: no layer of it is MLA.
pub(super) fn mla_shape(h: &Hparams) -> Option<MlaShape> {
    let mla = h.mla;
    let is_there = h.layers.iter().any(|l| l.mixer == Mixer::Mla);
    is_there.then_some(MlaShape {
        heads: mla.heads as u32,
        nope: mla.qk_nope as u32,
        rope: mla.qk_rope as u32,
        rank: mla.kv_lora_rank as u32,
        v: mla.v as u32,
    })
}

pub(super) fn kda_shape(h: &Hparams) -> KdaShape {
    KdaShape {
        heads: h.kda.heads,
        head_dim: h.kda.head_dim,
        taps: h.kda.conv,
    }
}

/// KDA layer number `number`; each has `values` floats of a slot.
pub(super) fn kda_layer<'b>(
    h: &Hparams,
    parts: &'b KdaParts<Arc<Stack>, Buffer<f32>>,
    number: usize,
    values: usize,
) -> KdaLayer<'b> {
    KdaLayer {
        shape: kda_shape(h),
        gate: h.kda.gate,
        conv_q: parts.conv_q.all(),
        conv_k: parts.conv_k.all(),
        conv_v: parts.conv_v.all(),
        a: parts.a.all(),
        dt_bias: parts.dt_bias.all(),
        norm: parts.norm.all(),
        eps: h.norm_eps,
        offset: number * values,
    }
}

pub(super) fn routing(h: &Hparams) -> Routing {
    Routing {
        used: h.moe.used,
        groups: h.moe.groups,
        groups_used: h.moe.groups_used,
        scale: h.moe.scale,
    }
}
