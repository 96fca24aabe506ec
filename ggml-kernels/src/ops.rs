//! Operators, each with its shapes checked in Rust before ggml sees them, since ggml checks by
//! aborting. The plain ones are here; KDA, MLA and MoE have files of their own.

use ggml_sys as sys;

use crate::graph::{Graph, GraphError};
use crate::quant::TensorType;
use crate::tensor::{Indices, Tensor};

pub mod kda;
pub mod mla;
pub mod moe;

type Op = Result<Tensor, GraphError>;

fn refuse<T>(op: &'static str, why: String) -> Result<T, GraphError> {
    Err(GraphError::Shape { op, why })
}

/// Whether `b` repeats to the sizes of `a`.
fn repeats(b: &Tensor, a: &Tensor) -> bool {
    (0..4).all(|d| b.ne[d] > 0 && a.ne[d].is_multiple_of(b.ne[d]))
}

impl Graph<'_> {
    fn unary(
        &self,
        op: &'static str,
        a: Tensor,
        make: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
    ) -> Op {
        self.owns(op, &[a])?;
        if a.ty != TensorType::F32 || !a.row_contiguous() {
            return refuse(op, format!("{} {:?}, wanted F32 rows", a.ty, a.ne));
        }
        self.take(1)?;
        // SAFETY: an F32 tensor of this graph with contiguous rows, and room for the result.
        Ok(unsafe { self.wrap(make(self.context(), a.ptr.as_ptr()), false, a.ty) })
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&self, a: Tensor) -> Op {
        self.unary("silu", a, sys::ggml_silu)
    }
    pub fn sigmoid(&self, a: Tensor) -> Op {
        self.unary("sigmoid", a, sys::ggml_sigmoid)
    }
    /// `ln(1 + e^x)`.
    pub fn softplus(&self, a: Tensor) -> Op {
        self.unary("softplus", a, sys::ggml_softplus)
    }
    /// `[n, m] -> [1, m]`.
    pub fn sum_rows(&self, a: Tensor) -> Op {
        self.unary("sum_rows", a, sys::ggml_sum_rows)
    }

    fn binary(
        &self,
        op: &'static str,
        a: Tensor,
        b: Tensor,
        make: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
    ) -> Op {
        self.owns(op, &[a, b])?;
        let f32 = a.ty == TensorType::F32 && b.ty == TensorType::F32;
        if !f32 || !repeats(&b, &a) || !a.row_contiguous() || !b.row_contiguous() {
            let why = format!("{} {:?} with {} {:?}", a.ty, a.ne, b.ty, b.ne);
            return refuse(op, why);
        }
        self.take(1)?;
        // SAFETY: F32 tensors of this graph, the second repeating to the first.
        Ok(unsafe {
            let raw = make(self.context(), a.ptr.as_ptr(), b.ptr.as_ptr());
            self.wrap(raw, false, a.ty)
        })
    }

    /// `b` is repeated to the sizes of `a`, here and below.
    pub fn add(&self, a: Tensor, b: Tensor) -> Op {
        self.binary("add", a, b, sys::ggml_add)
    }
    pub fn mul(&self, a: Tensor, b: Tensor) -> Op {
        self.binary("mul", a, b, sys::ggml_mul)
    }
    pub fn div(&self, a: Tensor, b: Tensor) -> Op {
        self.binary("div", a, b, sys::ggml_div)
    }

    /// `min(silu(gate), limit) * clamp(up, -limit, limit)`, of equal sizes; a limit of infinity
    /// bounds nothing.
    pub fn swiglu(&self, gate: Tensor, up: Tensor, limit: f32) -> Op {
        if gate.ne != up.ne {
            return refuse("swiglu", format!("{:?} with {:?}", gate.ne, up.ne));
        }
        if limit == f32::INFINITY {
            return self.binary("swiglu", gate, up, sys::ggml_swiglu_split);
        }
        let gate = self.clamp(self.silu(gate)?, f32::NEG_INFINITY, limit)?;
        self.mul(gate, self.clamp(up, -limit, limit)?)
    }

    pub fn scale(&self, a: Tensor, by: f32) -> Op {
        self.owns("scale", &[a])?;
        if a.ty != TensorType::F32 || !a.contiguous() {
            return refuse(
                "scale",
                format!("{} {:?}, wanted contiguous F32", a.ty, a.ne),
            );
        }
        self.take(1)?;
        // SAFETY: a contiguous F32 tensor of this graph.
        Ok(unsafe {
            let raw = sys::ggml_scale(self.context(), a.ptr.as_ptr(), by);
            self.wrap(raw, false, a.ty)
        })
    }

    /// `max(x, least)`; not a number becomes `least` or infinity.
    pub fn clamp_min(&self, a: Tensor, least: f32) -> Op {
        self.clamp(a, least, f32::INFINITY)
    }

    /// `min(max(x, least), most)`; not a number becomes one of them.
    pub fn clamp(&self, a: Tensor, least: f32, most: f32) -> Op {
        self.owns("clamp", &[a])?;
        if a.ty != TensorType::F32 || !a.contiguous() {
            return refuse("clamp", format!("{} {:?}", a.ty, a.ne));
        }
        self.take(1)?;
        // SAFETY: a contiguous F32 tensor of this graph. The result is a tensor of its own: since
        // 0.25 ggml clamps in place only through `ggml_clamp_inplace`.
        Ok(unsafe {
            let raw = sys::ggml_clamp(self.context(), a.ptr.as_ptr(), least, most);
            self.wrap(raw, false, a.ty)
        })
    }

    /// The same values, not a number among them made the least or the most there is.
    pub(crate) fn ordered(&self, a: Tensor) -> Op {
        if a.ordered {
            return Ok(a);
        }
        let ordered = self.clamp_min(a, f32::NEG_INFINITY)?;
        Ok(Tensor {
            ordered: true,
            ..ordered
        })
    }

    /// `x / sqrt(mean(x^2) + eps)` over `ne[0]`, without a weight.
    pub fn rms_norm_plain(&self, a: Tensor, eps: f32) -> Op {
        self.owns("rms_norm", &[a])?;
        if a.ty != TensorType::F32 || !a.row_contiguous() || eps.is_nan() || eps < 0.0 {
            return refuse("rms_norm", format!("{} {:?}, eps {eps}", a.ty, a.ne));
        }
        self.take(1)?;
        // SAFETY: F32 rows of this graph, eps not negative.
        Ok(unsafe {
            let raw = sys::ggml_rms_norm(self.context(), a.ptr.as_ptr(), eps);
            self.wrap(raw, false, a.ty)
        })
    }

    pub fn rms_norm(&self, a: Tensor, weight: Tensor, eps: f32) -> Op {
        self.mul(self.rms_norm_plain(a, eps)?, weight)
    }

    /// `w [k, n, ..] , x [k, m, ..] -> [n, m, ..]`; `w` may be quantized and repeats over x's
    /// outer sizes.
    pub fn mul_mat(&self, w: Tensor, x: Tensor) -> Op {
        self.owns("mul_mat", &[w, x])?;
        let fits = w.ne[0] == x.ne[0]
            && (2..4).all(|d| w.ne[d] > 0 && x.ne[d].is_multiple_of(w.ne[d]))
            && x.ty == TensorType::F32
            && w.ty != TensorType::I32
            && w.row_contiguous()
            && w.nb[0] <= w.nb[1]
            && x.row_contiguous();
        if !fits {
            let why = format!("{} {:?} with {} {:?}", w.ty, w.ne, x.ty, x.ne);
            return refuse("mul_mat", why);
        }
        self.take(1)?;
        // SAFETY: tensors of this graph whose inner sizes agree; rows contiguous.
        Ok(unsafe {
            let raw = sys::ggml_mul_mat(self.context(), w.ptr.as_ptr(), x.ptr.as_ptr());
            self.wrap(raw, false, TensorType::F32)
        })
    }

    /// One matrix per expert: `w [k, n, experts]`, `x [k, 1 or used, tokens]`,
    /// `ids [used, tokens] -> [n, used, tokens]`, the ids below `experts`.
    pub fn mul_mat_id(&self, w: Tensor, x: Tensor, ids: Indices) -> Op {
        let Indices { tensor: ids, below } = ids;
        self.owns("mul_mat_id", &[w, x, ids])?;
        let fits = w.ne[0] == x.ne[0]
            && w.ne[3] == 1
            && x.ne[3] == 1
            && ids.ne[2] == 1
            && ids.ne[3] == 1
            && ids.ne[1] == x.ne[2]
            && ids.ne[0].is_multiple_of(x.ne[1])
            && below <= w.ne[2]
            && x.ty == TensorType::F32
            && w.ty != TensorType::I32
            && w.contiguous()
            && x.row_contiguous();
        if !fits {
            let why = format!("{:?} with {:?} by {:?} below {below}", w.ne, x.ne, ids.ne);
            return refuse("mul_mat_id", why);
        }
        self.take(1)?;
        // SAFETY: tensors of this graph with agreeing sizes, and ids that are matrices of `w`.
        Ok(unsafe {
            let (w, x, ids) = (w.ptr.as_ptr(), x.ptr.as_ptr(), ids.ptr.as_ptr());
            let raw = sys::ggml_mul_mat_id(self.context(), w, x, ids);
            self.wrap(raw, false, TensorType::F32)
        })
    }

    /// `a [n, rows, b, c]`, `ids [m, b, c] -> [n, m, b, c]`, F32, the ids below `rows`.
    pub fn get_rows(&self, a: Tensor, ids: Indices) -> Op {
        let Indices { tensor: ids, below } = ids;
        self.owns("get_rows", &[a, ids])?;
        let fits = below <= a.ne[1]
            && a.ty != TensorType::I32
            && a.ne[2] == ids.ne[1]
            && a.ne[3] == ids.ne[2]
            && ids.ne[3] == 1
            && a.row_contiguous();
        if !fits {
            return refuse(
                "get_rows",
                format!("{:?} by {:?} below {below}", a.ne, ids.ne),
            );
        }
        self.take(1)?;
        // SAFETY: tensors of this graph with agreeing sizes, and ids that are rows of `a`.
        Ok(unsafe {
            let raw = sys::ggml_get_rows(self.context(), a.ptr.as_ptr(), ids.ptr.as_ptr());
            self.wrap(raw, false, TensorType::F32)
        })
    }

    /// The indices of the `k` largest of each row, best first: `[n, m] -> [k, m]`. Where a
    /// value is not a number the choice is any, but in range.
    pub fn top_k(&self, a: Tensor, k: usize) -> Result<Indices, GraphError> {
        self.owns("top_k", &[a])?;
        if a.ty != TensorType::F32 || k == 0 || k > a.ne[0] || !a.contiguous() {
            return refuse("top_k", format!("{k} of {:?}", a.ne));
        }
        let below = a.ne[0];
        // `std::sort` may leave its array where the comparison is no order (libc++'s does), and a row
        // with a NaN has none.
        let ordered = self.ordered(a)?;
        self.take(2)?;
        // SAFETY: a contiguous F32 tensor of this graph with at least `k` values a row and no NaN;
        // the result is a window of a permutation of `0..below`.
        let tensor = unsafe {
            let raw = sys::ggml_argsort_top_k(self.context(), ordered.ptr.as_ptr(), k as i32);
            self.wrap(raw, false, TensorType::I32)
        };
        Ok(Indices { tensor, below })
    }

    /// Joins along dimension `dim`.
    pub fn concat(&self, a: Tensor, b: Tensor, dim: usize) -> Op {
        self.owns("concat", &[a, b])?;
        let fits = dim < 4 && (0..4).all(|d| d == dim || a.ne[d] == b.ne[d]);
        if !fits || a.ty != TensorType::F32 || b.ty != TensorType::F32 {
            let why = format!("{:?} with {:?} along {dim}", a.ne, b.ne);
            return refuse("concat", why);
        }
        self.take(1)?;
        // SAFETY: F32 tensors of this graph, equal in every other dimension.
        Ok(unsafe {
            let (a, b) = (a.ptr.as_ptr(), b.ptr.as_ptr());
            let raw = sys::ggml_concat(self.context(), a, b, dim as i32);
            self.wrap(raw, false, TensorType::F32)
        })
    }

    /// The same elements in a row, under other sizes. `a` must be contiguous.
    pub fn reshape(&self, a: Tensor, ne: [usize; 4]) -> Op {
        self.owns("reshape", &[a])?;
        let same = ne.iter().try_fold(1usize, |p, &n| p.checked_mul(n)) == Some(a.elements());
        let whole_rows = ne[0].is_multiple_of(a.ty.block_size());
        if !same || !a.contiguous() || !whole_rows {
            return refuse("reshape", format!("{:?} to {ne:?}", a.ne));
        }
        self.take(1)?;
        let [n0, n1, n2, n3] = ne.map(|n| n as i64);
        // SAFETY: a contiguous tensor of this graph with as many elements.
        Ok(unsafe {
            let raw = sys::ggml_reshape_4d(self.context(), a.ptr.as_ptr(), n0, n1, n2, n3);
            self.wrap(raw, a.writable, a.ty)
        })
    }

    /// A window: `ne` elements from byte `offset`, with strides `nb` (bytes) of dimensions 1 to 3.
    pub fn view(&self, a: Tensor, ne: [usize; 4], nb: [usize; 3], offset: usize) -> Op {
        self.owns("view", &[a])?;
        // The last byte that the window touches must lie inside what `a` touches.
        let end = |ne: [usize; 4], nb: [usize; 3]| -> Option<usize> {
            let mut end = a.ty.row_bytes(ne[0])?;
            for d in 0..3 {
                end = end.checked_add(ne[d + 1].checked_sub(1)?.checked_mul(nb[d])?)?;
            }
            Some(end)
        };
        let inside = end(ne, nb).and_then(|e| e.checked_add(offset));
        let whole = end(a.ne, [a.nb[1], a.nb[2], a.nb[3]]);
        let aligned = offset.is_multiple_of(a.ty.type_size())
            && nb.iter().all(|n| n.is_multiple_of(a.ty.type_size()));
        let fits = matches!((inside, whole), (Some(i), Some(w)) if i <= w);
        if !fits || !aligned || !a.row_contiguous() {
            let why = format!("{ne:?} at {offset} of {:?} {}", a.ne, a.ty);
            return refuse("view", why);
        }
        self.take(1)?;
        let [n0, n1, n2, n3] = ne.map(|n| n as i64);
        let [b1, b2, b3] = nb;
        // SAFETY: the window was checked to lie inside `a`, a tensor of this graph.
        Ok(unsafe {
            let a_raw = a.ptr.as_ptr();
            let raw = sys::ggml_view_4d(self.context(), a_raw, n0, n1, n2, n3, b1, b2, b3, offset);
            self.wrap(raw, a.writable, a.ty)
        })
    }

    /// Dimensions in another order: `ne[to[d]]` of the result is `ne[d]` of `a`.
    pub fn permute(&self, a: Tensor, to: [usize; 4]) -> Op {
        self.owns("permute", &[a])?;
        let mut seen = [false; 4];
        for &d in &to {
            if d >= 4 || std::mem::replace(&mut seen[d], true) {
                return refuse("permute", format!("{to:?} is not an order"));
            }
        }
        self.take(1)?;
        let [t0, t1, t2, t3] = to.map(|d| d as i32);
        // SAFETY: a tensor of this graph and a permutation of its dimensions.
        Ok(unsafe {
            let raw = sys::ggml_permute(self.context(), a.ptr.as_ptr(), t0, t1, t2, t3);
            self.wrap(raw, a.writable, a.ty)
        })
    }

    /// A contiguous copy under sizes `ne`.
    pub fn cont(&self, a: Tensor, ne: [usize; 4]) -> Op {
        self.owns("cont", &[a])?;
        let same = ne.iter().try_fold(1usize, |p, &n| p.checked_mul(n)) == Some(a.elements());
        if !same || a.ty != TensorType::F32 {
            return refuse("cont", format!("{} {:?} to {ne:?}", a.ty, a.ne));
        }
        self.take(1)?;
        let [n0, n1, n2, n3] = ne.map(|n| n as i64);
        // SAFETY: an F32 tensor of this graph with as many elements.
        Ok(unsafe {
            let raw = sys::ggml_cont_4d(self.context(), a.ptr.as_ptr(), n0, n1, n2, n3);
            self.wrap(raw, false, a.ty)
        })
    }

    /// Writes `from` (F32) over `to` (state, any type), converting. Computed in call order.
    pub fn copy(&self, from: Tensor, to: Tensor) -> Result<(), GraphError> {
        self.owns("copy", &[from, to])?;
        let rows = from.ne[0] == to.ne[0] || (from.contiguous() && to.contiguous());
        let fits = to.writable
            && from.ty == TensorType::F32
            && to.ty != TensorType::I32
            && from.elements() == to.elements()
            && rows
            && to.row_contiguous()
            && from.ne[0].is_multiple_of(to.ty.block_size());
        if !fits {
            let why = format!("{:?} {} to {:?} {}", from.ne, from.ty, to.ne, to.ty);
            return refuse("copy", why);
        }
        self.take(1)?;
        // SAFETY: tensors of this graph with as many elements; the target was lent mutably.
        let copy = unsafe {
            let raw = sys::ggml_cpy(self.context(), from.ptr.as_ptr(), to.ptr.as_ptr());
            self.wrap(raw, false, to.ty)
        };
        self.compute_next(copy)
    }

    /// `a [n, rows, m]` (of any type, written in place) with the rows `ids [k, m]` replaced by
    /// `b [n, k, m]` (F32): `a` as it is then, for whoever reads the new rows.
    pub fn set_rows(&self, a: Tensor, b: Tensor, ids: Indices) -> Op {
        let Indices { tensor: ids, below } = ids;
        self.owns("set_rows", &[a, b, ids])?;
        let fits = a.writable
            && a.ne[0] == b.ne[0]
            && a.ne[2..] == b.ne[2..]
            && a.ne[3] == 1
            && b.ne[1] == ids.ne[0]
            && b.ne[2] == ids.ne[1]
            && ids.ne[2..] == [1, 1]
            && below <= a.ne[1]
            && a.ty != TensorType::I32
            && b.ty == TensorType::F32
            && a.contiguous()
            && b.contiguous();
        if !fits {
            let why = format!(
                "{} {:?} with {} {:?} at {:?} below {below}",
                a.ty, a.ne, b.ty, b.ne, ids.ne
            );
            return refuse("set_rows", why);
        }
        self.take(1)?;
        // SAFETY: tensors of this graph with agreeing sizes, and ids that are rows of `a`, which may
        // be written: state that was lent mutably, or a tensor made to be written.
        Ok(unsafe {
            let (raw, b, ids) = (a.ptr.as_ptr(), b.ptr.as_ptr(), ids.ptr.as_ptr());
            let raw = sys::ggml_set_rows(self.context(), raw, b, ids);
            self.wrap(raw, true, a.ty)
        })
    }
}
