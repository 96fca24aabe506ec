//! The inputs of a pass: which tokens, where their rows go, what each may see.

use ggml_kernels::graph::{Graph, GraphError, Plan};
use ggml_kernels::quant::TensorType;
use ggml_kernels::tensor::{Indices, Tensor};
use half::f16;
use quantize::schema::Hparams;

use super::work::Work;

#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs {
    pub ids: Indices,
    /// Rows of the cache that are written, which are the tokens' positions.
    pub places: Indices,
    /// `[n_kv, tokens]`: 0 where a token looks, -inf where it does not.
    pub mask: Tensor,
    /// Where columns are rotated.
    pub positions: Option<Indices>,
}

impl Inputs {
    /// With the values of `work`.
    pub fn new(graph: &Graph, h: &Hparams, work: &Work<'_>) -> Result<Self, GraphError> {
        let (tokens, n_kv) = (work.tokens.len(), work.n_kv());
        let each = [tokens, 1, 1, 1];
        let places = graph.indices(&places(work), each, n_kv)?;
        Ok(Self {
            ids: graph.indices(work.tokens, each, h.vocab)?,
            places,
            mask: graph.input(TensorType::F16, [n_kv, tokens, 1, 1], mask(work))?,
            positions: h.mla.rope_base.map(|_| places),
        })
    }

    /// Gives a kept pass the values of `work`, which is of its shape.
    pub fn renew(&self, plan: &mut Plan, work: &Work<'_>) -> Result<(), GraphError> {
        plan.set_indices(self.ids, work.tokens)?;
        plan.set_indices(self.places, &places(work))?;
        plan.set(self.mask, mask(work))
    }
}

fn places(work: &Work<'_>) -> Vec<u32> {
    (work.past..work.end()).map(|at| at as u32).collect()
}

/// A token sees what came before it and itself, and no row behind.
fn mask(work: &Work<'_>) -> Vec<u8> {
    let n_kv = work.n_kv();
    let mut mask = vec![0u8; n_kv * work.tokens.len() * 2];
    let hidden = f16::NEG_INFINITY.to_ne_bytes();
    for (t, row) in mask.chunks_exact_mut(n_kv * 2).enumerate() {
        let behind = &mut row[(work.past + t + 1) * 2..];
        behind.as_chunks_mut().0.fill(hidden);
    }
    mask
}
