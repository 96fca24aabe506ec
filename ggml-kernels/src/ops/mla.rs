//! MLA, absorbed: every head attends to the same latent rows. Scalar twin:
//! [`crate::reference::mla`].

use ggml_sys as sys;

use super::{Op, refuse};
use crate::graph::Graph;
use crate::quant::TensorType;
use crate::tensor::Tensor;

impl Graph<'_> {
    /// `softmax(scale q k^T + mask) v` with one key and value head for all query heads.
    ///
    /// q: `[latent, tokens, heads]`; rows: `[latent, n_kv]`, whose first `rank` columns are the
    /// values; mask: `[n_kv, tokens]` F16 (0 or -inf), `None` lets every token see every row.
    /// Returns `[rank, heads, tokens]`.
    pub fn mla_attention(
        &self,
        q: Tensor,
        rows: Tensor,
        rank: usize,
        mask: Option<Tensor>,
        scale: f32,
    ) -> Op {
        self.owns("mla_attention", &[q, rows])?;
        let [latent, tokens, _, one] = q.ne;
        let n_kv = rows.ne[1];
        let mask_fits = mask.is_none_or(|m| {
            m.ty == TensorType::F16 && m.ne == [n_kv, tokens, 1, 1] && m.contiguous()
        });
        let fits = one == 1
            && rows.ne == [latent, n_kv, 1, 1]
            && q.ty == TensorType::F32
            && q.row_contiguous()
            && rows.row_contiguous()
            && rank <= latent
            && mask_fits;
        if !fits {
            let why = format!(
                "q {:?}, rows {:?}, rank {rank}, mask {mask:?}",
                q.ne, rows.ne
            );
            return refuse("mla_attention", why);
        }
        let values = self.view(
            rows,
            [rank, n_kv, 1, 1],
            [rows.nb[1], rows.nb[2], rows.nb[3]],
            0,
        )?;
        if let Some(mask) = mask {
            self.owns("mla_attention", &[mask])?;
        }
        self.take(1)?;
        // SAFETY: tensors of this graph with agreeing sizes; the mask is null or F16 and
        // contiguous; a max_bias and softcap of 0 turn both off.
        Ok(unsafe {
            let raw = sys::ggml_flash_attn_ext(
                self.context(),
                q.ptr.as_ptr(),
                rows.ptr.as_ptr(),
                values.ptr.as_ptr(),
                mask.map_or(std::ptr::null_mut(), |m| m.ptr.as_ptr()),
                scale,
                0.0,
                0.0,
            );
            sys::ggml_flash_attn_ext_set_prec(raw, sys::GGML_PREC_F32);
            self.wrap(raw, false, TensorType::F32)
        })
    }
}
