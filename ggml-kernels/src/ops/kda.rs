//! KDA on ggml's operators: the causal convolution, the gate, and the recurrence
//! (`ggml_gated_delta_net` with a gate of full width). Scalar twin: [`crate::reference::kda`].

use ggml_sys as sys;

use super::{Op, refuse};
use crate::graph::{Graph, GraphError};
use crate::quant::TensorType;
use crate::tensor::Tensor;

/// Inside the root of the L2 norm of q and k, as the reference implementation has it.
pub const L2_EPS: f32 = 1e-6;

impl Graph<'_> {
    /// `silu(causal depthwise convolution)` of `x [inner, tokens]` with `weight [taps, inner]`
    /// (or `[taps, 1, inner]`), continuing from `tail [taps - 1, inner]`, which is overwritten
    /// with the new tail. Returns `[inner, tokens]`.
    pub fn causal_conv_silu(&self, x: Tensor, weight: Tensor, tail: Tensor) -> Op {
        let [inner, tokens, ..] = x.ne;
        let taps = weight.ne[0];
        let fits = weight.elements() == taps * inner
            && taps >= 2
            && tail.elements() == (taps - 1) * inner
            && tail.ne[0] == taps - 1
            && x.elements() == inner * tokens
            && [x, weight, tail].iter().all(|t| t.ty == TensorType::F32);
        if !fits {
            let why = format!("{:?} with {:?} after {:?}", x.ne, weight.ne, tail.ne);
            return refuse("causal_conv", why);
        }
        let columns = self.permute(x, [1, 0, 2, 3])?;
        let columns = self.concat(tail, columns, 0)?;
        // The last taps - 1 inputs are where the next pass begins.
        let last = self.view(
            columns,
            [taps - 1, inner, 1, 1],
            [columns.nb[1], columns.nb[2], columns.nb[3]],
            tokens * columns.nb[0],
        )?;
        self.copy(last, tail)?;
        let weight = self.reshape(weight, [taps, inner, 1, 1])?;
        self.silu(self.ssm_conv(columns, weight)?)
    }

    /// `x [taps - 1 + tokens, inner]`, `weight [taps, inner] -> [inner, tokens]`.
    fn ssm_conv(&self, x: Tensor, weight: Tensor) -> Op {
        self.owns("ssm_conv", &[x, weight])?;
        let fits = x.ne[0] >= weight.ne[0]
            && x.ne[1] == weight.ne[1]
            && x.ne[2..] == [1, 1]
            && weight.ne[2..] == [1, 1]
            && x.contiguous()
            && weight.contiguous();
        if !fits || x.ty != TensorType::F32 || weight.ty != TensorType::F32 {
            return refuse("ssm_conv", format!("{:?} with {:?}", x.ne, weight.ne));
        }
        self.take(1)?;
        // SAFETY: contiguous F32 tensors of this graph with agreeing sizes.
        Ok(unsafe {
            let raw = sys::ggml_ssm_conv(self.context(), x.ptr.as_ptr(), weight.ptr.as_ptr());
            self.wrap(raw, false, TensorType::F32)
        })
    }

    /// `x / sqrt(sum(x^2) + eps)` over `ne[0]`.
    pub fn l2_norm(&self, x: Tensor, eps: f32) -> Op {
        let n = x.ne[0] as f32;
        let unit_mean = self.rms_norm_plain(x, eps / n)?;
        self.scale(unit_mean, 1.0 / n.sqrt())
    }

    /// The recurrence `S <- diag(e^g) S; S <- S + k (beta (v - k^T S))^T; o = q^T S / sqrt(d)`.
    ///
    /// q, k, v, g: `[d, heads, tokens]`; beta: `[1, heads, tokens]`; state: `[d, d, heads]`, which
    /// holds S transposed (value index outside) and is overwritten. Returns `[d, heads, tokens]`.
    pub fn kda(
        &self,
        [q, k, v, g]: [Tensor; 4],
        beta: Tensor,
        state: Tensor,
    ) -> Result<Tensor, GraphError> {
        self.owns("kda", &[q, k, v, g, beta, state])?;
        let [d, heads, tokens, _] = q.ne;
        let fits = [q, k, v, g].iter().all(|t| t.ne == [d, heads, tokens, 1])
            && beta.ne == [1, heads, tokens, 1]
            && state.ne == [d, d, heads, 1]
            && [q, k, v].iter().all(|t| t.row_contiguous())
            && [g, beta, state].iter().all(|t| t.contiguous())
            && [q, k, v, g, beta, state]
                .iter()
                .all(|t| t.ty == TensorType::F32)
            && d > 1;
        if !fits {
            let sizes: Vec<_> = [q, k, v, g, beta, state].iter().map(|t| t.ne).collect();
            return refuse("kda", format!("q, k, v, g, beta, state of {sizes:?}"));
        }
        self.take(1)?;
        // SAFETY: F32 tensors of this graph, of the sizes and strides that ggml asserts; one
        // snapshot of the state (the last).
        let packed = unsafe {
            let [q, k, v, g] = [q, k, v, g].map(|t| t.ptr.as_ptr());
            let (beta, state) = (beta.ptr.as_ptr(), state.ptr.as_ptr());
            let raw = sys::ggml_gated_delta_net(self.context(), q, k, v, g, beta, state, 1);
            self.wrap(raw, false, TensorType::F32)
        };
        // The result is [d * heads, tokens + d]: outputs, then the new state.
        let row = packed.nb[0] * d;
        let out = self.view(
            packed,
            [d, heads, tokens, 1],
            [row, row * heads, row * heads * tokens],
            0,
        )?;
        // Flat and through a view on both sides: the one shape in which a backend may write the new
        // state itself (ggml-cuda looks for it), and the same copy where none does.
        let all = d * d * heads;
        let flat = |a, offset| self.view(a, [all, 1, 1, 1], [all * size_of::<f32>(); 3], offset);
        let (new_state, state) = (flat(packed, row * heads * tokens)?, flat(state, 0)?);
        self.copy(new_state, state)?;
        Ok(out)
    }
}
