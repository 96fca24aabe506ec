//! Sparse layers: the router's choice and the experts. Scalar twin: [`crate::reference::moe`].

use ggml_sys as sys;

use super::{Op, refuse};
use crate::graph::{Graph, GraphError};
use crate::quant::TensorType;
use crate::tensor::{Indices, Tensor};

/// How the router chooses. `groups_used == groups` means that groups do not matter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    pub used: usize,
    pub groups: usize,
    pub groups_used: usize,
    /// The chosen weights sum to this.
    pub scale: f32,
}

/// One matrix per expert: gate and up `[hidden, ff, experts]`, down `[ff, hidden, experts]`.
#[derive(Debug, Clone, Copy)]
pub struct Experts {
    pub gate: Tensor,
    pub up: Tensor,
    pub down: Tensor,
    /// What their gated products are bounded by; infinity: nothing.
    pub limit: f32,
}

impl Graph<'_> {
    /// The chosen experts and their weights, from router logits `[experts, tokens]` and the
    /// selection bias `[experts]`: ids `[used, tokens]`, weights `[1, used, tokens]`.
    pub fn route(
        &self,
        logits: Tensor,
        bias: Tensor,
        r: Routing,
    ) -> Result<(Indices, Tensor), GraphError> {
        let [experts, tokens, ..] = logits.ne;
        let probs = self.sigmoid(self.ordered(logits)?)?;
        // Before the scores, for the whole chain from here to the scaled weights is one kernel where
        // a backend finds it in this order (ggml-cuda does, for a power of two of experts).
        let by_expert = self.reshape(probs, [1, experts, tokens, 1])?;
        // The bias only chooses; the weights are the unbiased probabilities.
        let mut scores = self.add(probs, bias)?;
        // A probability is a number, so the sum is one where the bias is.
        scores.ordered = bias.ordered;
        if r.groups > 1 && r.groups_used < r.groups {
            scores = self.keep_best_groups(scores, r)?;
        }
        let ids = self.top_k(scores, r.used)?;
        let weights = self.get_rows(by_expert, ids)?;
        let weights = self.reshape(weights, [r.used, tokens, 1, 1])?;
        // ggml's and the peers' guard against a sum of zero: the least F16 that is normal.
        let sum = self.clamp_min(self.sum_rows(weights)?, 6.103_515_6e-5)?;
        let weights = self.reshape(self.div(weights, sum)?, [1, r.used, tokens, 1])?;
        let weights = self.scale(weights, r.scale)?;
        // Now, for the experts would pull the choice up and leave the weights behind.
        self.compute_next(weights)?;
        Ok((ids, weights))
    }

    /// Scores `[experts, tokens]` with every expert outside the best groups at -inf. A group
    /// scores the sum of its two best (DeepSeek-V3's rule).
    fn keep_best_groups(&self, scores: Tensor, r: Routing) -> Op {
        let [experts, tokens, ..] = scores.ne;
        if !experts.is_multiple_of(r.groups) || r.groups_used == 0 {
            return refuse("route", format!("{experts} experts in {} groups", r.groups));
        }
        let size = experts / r.groups;
        let grouped = self.reshape(scores, [size, r.groups, tokens, 1])?;
        let best = self.top_k(grouped, 2.min(size))?;
        let cells = self.reshape(scores, [1, size, r.groups, tokens])?;
        let best = self.get_rows(cells, best)?;
        let best = self.reshape(best, [2.min(size), r.groups, tokens, 1])?;
        let of_group = self.reshape(self.sum_rows(best)?, [r.groups, tokens, 1, 1])?;
        let chosen = self.top_k(of_group, r.groups_used)?;
        let kept = self.get_rows(grouped, chosen)?;
        let none = self.filled_like(grouped, f32::NEG_INFINITY)?;
        let masked = self.set_rows(none, kept, chosen)?;
        self.reshape(masked, [experts, tokens, 1, 1])
    }

    fn filled_like(&self, a: Tensor, value: f32) -> Op {
        self.owns("fill", &[a])?;
        if a.ty != TensorType::F32 || !a.contiguous() {
            return refuse("fill", format!("{} {:?}", a.ty, a.ne));
        }
        self.take(1)?;
        // SAFETY: a contiguous F32 tensor of this graph, whose sizes the result takes. The result is a
        // tensor of its own, which may be written.
        Ok(unsafe {
            let raw = sys::ggml_fill(self.context(), a.ptr.as_ptr(), value);
            self.wrap(raw, true, TensorType::F32)
        })
    }

    /// `sum over the chosen of weight * down(swiglu(gate x, up x))`: x `[hidden, tokens]`, ids
    /// `[used, tokens]`, weights `[1, used, tokens] -> [hidden, tokens]`.
    pub fn experts(&self, x: Tensor, e: Experts, ids: Indices, weights: Tensor) -> Op {
        let [hidden, tokens, ..] = x.ne;
        let used = ids.ne()[0];
        let x = self.reshape(x, [hidden, 1, tokens, 1])?;
        let up = self.mul_mat_id(e.up, x, ids)?;
        let gate = self.mul_mat_id(e.gate, x, ids)?;
        let out = self.mul_mat_id(e.down, self.swiglu(gate, up, e.limit)?, ids)?;
        let out = self.mul(out, weights)?;
        let slice = |at: usize| {
            let strides = [out.nb[2], out.nb[3], out.nb[3]];
            self.view(out, [out.ne[0], tokens, 1, 1], strides, at * out.nb[1])
        };
        let mut sum = slice(0)?;
        for at in 1..used {
            sum = self.add(sum, slice(at)?)?;
        }
        if used == 1 {
            sum = self.cont(sum, [out.ne[0], tokens, 1, 1])?;
        }
        Ok(sum)
    }
}
