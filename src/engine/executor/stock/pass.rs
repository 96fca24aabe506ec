//! One pass over a chunk of tokens: the layers as a graph. Shapes in comments are ggml's,
//! fastest first. Nothing of the graph's shape depends on how many tokens came before but the
//! number of rows that attention looks at, which is rounded up: where the pass stands in its text is
//! said by its inputs.

use ggml_kernels::graph::{Graph, GraphError};
use ggml_kernels::ops::kda::L2_EPS;
use ggml_kernels::ops::moe::{Experts, Routing};
use ggml_kernels::tensor::Tensor;
use quantize::schema::{GateLaw, Hparams};

use super::inputs::Inputs;
use super::state::{KDA_TENSORS, State};
use super::weights::{Weight, Weights};
use super::work::Work;
use crate::engine::Want;
use crate::engine::layers::{FfnParts, GateParts, KdaParts, MixerParts, MlaParts, Mlp, QueryParts};

type Op = Result<Tensor, GraphError>;

/// Tensors of a pass: the widest layer takes about 100, a router's slices two an expert used.
pub(super) fn tensors_needed(h: &Hparams) -> usize {
    128 + h.layers.len() * (160 + 2 * h.moe.used)
}

/// A pass as a graph: where its inputs come in and its logits out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Built {
    pub inputs: Inputs,
    /// `[n_vocab, wanted rows]`, if any are wanted.
    pub logits: Option<Tensor>,
}

/// Builds the pass; its inputs are those of `work`.
pub(super) fn build<'a>(
    graph: &Graph<'a>,
    weights: &'a Weights,
    state: &'a mut State,
    work: &Work<'_>,
) -> Result<Built, GraphError> {
    let inputs = Inputs::new(graph, &weights.hparams, work)?;
    let pass = Pass {
        graph,
        weights,
        h: &weights.hparams,
        tokens: work.tokens.len(),
        n_kv: work.n_kv(),
        inputs: &inputs,
    };
    let logits = pass.layers(state, work.want)?;
    Ok(Built { inputs, logits })
}

struct Pass<'g, 'a> {
    graph: &'g Graph<'a>,
    weights: &'a Weights,
    h: &'g Hparams,
    tokens: usize,
    /// Rows of the cache that attention looks at.
    n_kv: usize,
    inputs: &'g Inputs,
}

impl<'a> Pass<'_, 'a> {
    fn layers(&self, state: &'a mut State, want: Want) -> Result<Option<Tensor>, GraphError> {
        let (pass, graph, weights) = (self, self.graph, self.weights);
        let fixed = graph.state(&mut state.fixed)?;
        let rows = graph.state(&mut state.rows)?;
        let mut kda_states = fixed.chunks_exact(KDA_TENSORS);
        let mut mla_rows = rows.iter();
        let embedding = pass.weight(weights.parts.token_embd)?;
        let mut x = graph.get_rows(embedding, self.inputs.ids)?;
        x = graph.name(x, "embd");
        let last_layer = weights.parts.layers.len() - 1;
        for (at, layer) in weights.parts.layers.iter().enumerate() {
            let normed = pass.norm(x, layer.attn_norm)?;
            let mut mixed = match &layer.mixer {
                MixerParts::Kda(w) => {
                    let state = kda_states.next().ok_or(GraphError::TooLarge)?;
                    pass.kda(w, normed, state)?
                }
                MixerParts::Mla(w) => {
                    let rows = *mla_rows.next().ok_or(GraphError::TooLarge)?;
                    pass.mla(w, normed, rows)?
                }
            };
            if at == last_layer {
                // State is complete: only the wanted rows go on.
                match want {
                    Want::Nothing => return Ok(None),
                    Want::Last | Want::Drawn(_) => {
                        (x, mixed) = (pass.last_row(x)?, pass.last_row(mixed)?)
                    }
                    Want::All => {}
                }
            }
            x = graph.add(x, mixed)?;
            let normed = pass.norm(x, layer.ffn_norm)?;
            let out = match &layer.ffn {
                FfnParts::Dense(w) => pass.mlp(w, normed, f32::INFINITY)?,
                FfnParts::Sparse(w) => {
                    let limits = pass.h.layers[at].limits;
                    let logits = graph.mul_mat(pass.weight(w.router)?, normed)?;
                    let bias = pass.weight(w.router_bias)?;
                    let (ids, weights) = graph.route(logits, bias, pass.routing())?;
                    let experts = Experts {
                        gate: pass.weight(w.experts.gate)?,
                        up: pass.weight(w.experts.up)?,
                        down: pass.weight(w.experts.down)?,
                        limit: limits.experts,
                    };
                    let routed = graph.experts(normed, experts, ids, weights)?;
                    match &w.shared {
                        Some(shared) => {
                            graph.add(routed, pass.mlp(shared, normed, limits.shared)?)?
                        }
                        None => routed,
                    }
                }
            };
            x = graph.name(graph.add(x, out)?, &format!("l_out-{at}"));
        }
        let x = graph.name(pass.norm(x, weights.parts.output_norm)?, "result_norm");
        let logits = graph.mul_mat(pass.weight(weights.parts.output)?, x)?;
        graph.output(logits)?;
        Ok(Some(logits))
    }

    fn weight(&self, w: Weight) -> Op {
        self.graph.weight(w.storage(&self.weights.storages), w.at)
    }

    fn norm(&self, x: Tensor, weight: Weight) -> Op {
        self.graph
            .rms_norm(x, self.weight(weight)?, self.h.norm_eps)
    }

    fn project(&self, w: Weight, x: Tensor) -> Op {
        self.graph.mul_mat(self.weight(w)?, x)
    }

    fn mlp(&self, w: &Mlp<Weight>, x: Tensor, limit: f32) -> Op {
        let gate = self.project(w.gate, x)?;
        let up = self.project(w.up, x)?;
        self.project(w.down, self.graph.swiglu(gate, up, limit)?)
    }

    fn routing(&self) -> Routing {
        let moe = &self.h.moe;
        Routing {
            used: moe.used,
            groups: moe.groups,
            groups_used: moe.groups_used,
            scale: moe.scale,
        }
    }

    fn last_row(&self, x: Tensor) -> Op {
        let [width, rows, ..] = x.ne();
        let bytes = width * size_of::<f32>();
        let strides = [bytes; 3];
        self.graph
            .view(x, [width, 1, 1, 1], strides, (rows - 1) * bytes)
    }

    /// x `[hidden, tokens]`, normed; state as [`KDA_TENSORS`] says.
    fn kda(&self, w: &KdaParts<Weight, Weight>, x: Tensor, state: &[Tensor]) -> Op {
        let g = self.graph;
        let (d, heads, tokens) = (self.h.kda.head_dim, self.h.kda.heads, self.tokens);
        let by_head = [d, heads, tokens, 1];
        let convolved = |w, conv, tail| {
            let x = g.causal_conv_silu(self.project(w, x)?, self.weight(conv)?, tail)?;
            g.reshape(x, by_head)
        };
        let q = g.l2_norm(convolved(w.q, w.conv_q, state[0])?, L2_EPS)?;
        let k = g.l2_norm(convolved(w.k, w.conv_k, state[1])?, L2_EPS)?;
        let v = convolved(w.v, w.conv_v, state[2])?;
        let gate = self.gate(&w.decay, x)?;
        let gate = g.reshape(g.add(gate, self.weight(w.dt_bias)?)?, by_head)?;
        let a = g.reshape(self.weight(w.a)?, [1, heads, 1, 1])?;
        let gate = match self.h.kda.gate {
            GateLaw::Softplus => g.mul(g.softplus(gate)?, a)?,
            GateLaw::Bounded { lower } => g.scale(g.sigmoid(g.mul(gate, a)?)?, lower)?,
        };
        let beta = g.sigmoid(self.project(w.beta, x)?)?;
        let beta = g.reshape(beta, [1, heads, tokens, 1])?;
        let out = g.kda([q, k, v, gate], beta, state[3])?;
        let out = g.rms_norm(out, self.weight(w.norm)?, self.h.norm_eps)?;
        // Shaped first, so that the sigmoid and the product stand side by side: one kernel on CUDA.
        let open = g.sigmoid(g.reshape(self.gate(&w.open, x)?, by_head)?)?;
        let out = g.mul(out, open)?;
        self.project(w.output, g.reshape(out, [d * heads, tokens, 1, 1])?)
    }

    /// x `[hidden, tokens]`, normed; rows: this layer's cache `[latent, capacity]`.
    fn mla(&self, w: &MlaParts<Weight, Weight>, x: Tensor, rows: Tensor) -> Op {
        let g = self.graph;
        let m = &self.h.mla;
        let (tokens, f) = (self.tokens, size_of::<f32>());
        // The new rows: [norm(c), k_r].
        let kv = self.project(w.kv_a, x)?;
        let wide = m.latent() * f;
        let c = g.view(kv, [m.kv_lora_rank, tokens, 1, 1], [wide; 3], 0)?;
        let c = self.norm(c, w.kv_a_norm)?;
        let offset = m.kv_lora_rank * f;
        let k_r = g.view(kv, [m.qk_rope, 1, tokens, 1], [wide; 3], offset)?;
        let k_r = self.turned(k_r)?;
        let k_r = g.view(k_r, [m.qk_rope, tokens, 1, 1], [k_r.row_bytes(); 3], 0)?;
        let new = g.concat(c, k_r, 0)?;
        let rows = g.set_rows(rows, new, self.inputs.places)?;
        // Written even where nobody wants what attention says.
        g.compute_next(rows)?;
        let all = rows.row_bytes() * self.n_kv;
        let strides = [rows.row_bytes(), all, all];
        let rows = g.view(rows, [m.latent(), self.n_kv, 1, 1], strides, 0)?;
        // q' = q_nope W_kb, so that scores are q'.c + q_r.k_r for all heads over the same rows.
        let q = match &w.q {
            QueryParts::Whole(q) => self.project(*q, x)?,
            QueryParts::Narrow { a, norm, b } => {
                self.project(*b, self.norm(self.project(*a, x)?, *norm)?)?
            }
        };
        let strides = [
            m.qk() * f,
            m.qk() * m.heads * f,
            m.qk() * m.heads * tokens * f,
        ];
        let q_nope = g.view(q, [m.qk_nope, m.heads, tokens, 1], strides, 0)?;
        let q_r = g.view(q, [m.qk_rope, m.heads, tokens, 1], strides, m.qk_nope * f)?;
        let q_r = self.turned(q_r)?;
        let heads_outside = [0, 2, 1, 3];
        let absorbed = g.mul_mat(self.weight(w.k_b)?, g.permute(q_nope, heads_outside)?)?;
        let q = g.concat(absorbed, g.permute(q_r, heads_outside)?, 0)?;
        let scale = 1.0 / (m.qk() as f32).sqrt();
        let out = g.mla_attention(q, rows, m.kv_lora_rank, self.inputs.mask, scale)?;
        // [rank, heads, tokens] -> [v, heads, tokens]
        let out = g.mul_mat(self.weight(w.v_b)?, g.permute(out, heads_outside)?)?;
        let out = g.cont(
            g.permute(out, heads_outside)?,
            [m.v * m.heads, tokens, 1, 1],
        )?;
        let out = match w.gate {
            None => out,
            Some(gate) => {
                let gate = g.sigmoid(self.project(gate, x)?)?;
                let gate = g.reshape(gate, [1, m.heads, tokens, 1])?;
                let out = g.mul(g.reshape(out, [m.v, m.heads, tokens, 1])?, gate)?;
                g.reshape(out, [m.v * m.heads, tokens, 1, 1])?
            }
        };
        self.project(w.output, out)
    }

    /// A gate of KDA.
    fn gate(&self, w: &GateParts<Weight>, x: Tensor) -> Op {
        match *w {
            GateParts::Whole(w) => self.project(w, x),
            GateParts::Narrow { a, b } => self.project(b, self.project(a, x)?),
        }
    }

    /// `[width, heads, tokens]` of the part that is rotated, if it is.
    fn turned(&self, x: Tensor) -> Op {
        match (self.h.mla.rope_base, self.inputs.positions) {
            (Some(base), Some(positions)) => self.graph.rope(x, positions, base),
            _ => Ok(x),
        }
    }
}
