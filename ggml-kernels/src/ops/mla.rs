//! MLA, absorbed: every head attends to the same latent rows. Scalar twin:
//! [`crate::reference::mla`].

use ggml_sys as sys;

use super::{Op, refuse};
use crate::graph::Graph;
use crate::quant::TensorType;
use crate::tensor::{Indices, Tensor};

/// `GGML_ROPE_TYPE_NORMAL`: pairs are of neighbouring columns.
const NEIGHBOURS: i32 = 0;

impl Graph<'_> {
    /// `x [width, heads, tokens]` with neighbouring columns turned as pairs: pair `j` by
    /// `position * base^(-2j / width)`. positions: `[tokens]`.
    pub fn rope(&self, x: Tensor, positions: Indices, base: f32) -> Op {
        let positions = positions.tensor;
        self.owns("rope", &[x, positions])?;
        let [width, _, tokens, one] = x.ne;
        let fits = one == 1
            && width.is_multiple_of(2)
            && positions.ne == [tokens, 1, 1, 1]
            && x.ty == TensorType::F32
            && x.row_contiguous()
            && base > 0.0
            && base.is_finite();
        if !fits {
            let why = format!("{:?} at {:?} by {base}", x.ne, positions.ne);
            return refuse("rope", why);
        }
        self.take(1)?;
        // SAFETY: an F32 tensor of this graph with contiguous rows of an even width, and an I32
        // position for each of its tokens; no factors beside the base.
        Ok(unsafe {
            let (x, positions) = (x.ptr.as_ptr(), positions.ptr.as_ptr());
            let raw = sys::ggml_rope_ext(
                self.context(),
                x,
                positions,
                std::ptr::null_mut(),
                width as i32,
                NEIGHBOURS,
                0,
                base,
                1.0,
                0.0,
                1.0,
                0.0,
                0.0,
            );
            self.wrap(raw, false, TensorType::F32)
        })
    }

    /// `softmax(scale q k^T + mask) v` with one key and value head for all query heads.
    ///
    /// q: `[latent, tokens, heads]`; rows: `[latent, n_kv]`, whose first `rank` columns are the
    /// values; mask: `[n_kv, tokens]` F16 (0 or -inf), for one token too: backends with kernels for
    /// this width want one, over a multiple of 256 rows. Returns `[rank, heads, tokens]`.
    pub fn mla_attention(
        &self,
        q: Tensor,
        rows: Tensor,
        rank: usize,
        mask: Tensor,
        scale: f32,
    ) -> Op {
        self.owns("mla_attention", &[q, rows, mask])?;
        let [latent, tokens, _, one] = q.ne;
        let n_kv = rows.ne[1];
        let mask_fits =
            mask.ty == TensorType::F16 && mask.ne == [n_kv, tokens, 1, 1] && mask.contiguous();
        let fits = one == 1
            && rows.ne == [latent, n_kv, 1, 1]
            && q.ty == TensorType::F32
            && q.row_contiguous()
            && rows.row_contiguous()
            && rank <= latent
            && mask_fits;
        if !fits {
            let why = format!(
                "q {:?}, rows {:?}, rank {rank}, mask {} {:?}",
                q.ne, rows.ne, mask.ty, mask.ne
            );
            return refuse("mla_attention", why);
        }
        let values = self.view(
            rows,
            [rank, n_kv, 1, 1],
            [rows.nb[1], rows.nb[2], rows.nb[3]],
            0,
        )?;
        self.take(1)?;
        // SAFETY: tensors of this graph with agreeing sizes; the mask is F16 and
        // contiguous; a max_bias and softcap of 0 turn both off.
        Ok(unsafe {
            let raw = sys::ggml_flash_attn_ext(
                self.context(),
                q.ptr.as_ptr(),
                rows.ptr.as_ptr(),
                values.ptr.as_ptr(),
                mask.ptr.as_ptr(),
                scale,
                0.0,
                0.0,
            );
            sys::ggml_flash_attn_ext_set_prec(raw, sys::GGML_PREC_F32);
            self.wrap(raw, false, TensorType::F32)
        })
    }
}
