//! What a pass shows to who watches it: tensors as they are computed.

use std::ffi::{CStr, c_void};

use ggml_sys as sys;

/// Watches tensors as they are computed; see [`Graph::compute_observed`](super::Graph::compute_observed).
pub trait Observer {
    /// Whether `node` is of interest. Asked before it is computed.
    fn wants(&mut self, node: &Node<'_>) -> bool;
    /// `node`, computed.
    fn observe(&mut self, node: &Node<'_>);
}

/// A computed tensor, as an [`Observer`] sees it.
pub struct Node<'n> {
    raw: &'n sys::ggml_tensor,
}

impl Node<'_> {
    /// The name given by [`Graph::name`](super::Graph::name), or ggml's own.
    pub fn name(&self) -> &str {
        text(&self.raw.name)
    }
    /// ggml's name of the operator: `MUL_MAT`, `MUL_MAT_ID`, ...
    pub fn op(&self) -> &str {
        // SAFETY: a static string for every operator.
        let name = unsafe { CStr::from_ptr(sys::ggml_op_name(self.raw.op)) };
        name.to_str().unwrap_or("")
    }
    /// The name of source `at`, if there is one.
    pub fn source_name(&self, at: usize) -> Option<&str> {
        // SAFETY: sources of a graph's node live as long as the graph.
        let raw = unsafe { self.raw.src.get(at)?.as_ref() }?;
        Some(text(&raw.name))
    }
    pub fn ne(&self) -> [usize; 4] {
        self.raw.ne.map(|n| n as usize)
    }
    /// The sizes of source `at`.
    pub fn source_ne(&self, at: usize) -> Option<[usize; 4]> {
        // SAFETY: as above.
        let raw = unsafe { self.raw.src.get(at)?.as_ref() }?;
        Some(raw.ne.map(|n| n as usize))
    }
    /// The tensor's values, if it is contiguous F32.
    pub fn values(&self) -> Option<Vec<f32>> {
        read_contiguous(self.raw, sys::GGML_TYPE_F32)
    }
    /// The values of source `at`, if it is contiguous F32.
    pub fn source_values(&self, at: usize) -> Option<Vec<f32>> {
        // SAFETY: as above.
        read_contiguous(
            unsafe { self.raw.src.get(at)?.as_ref() }?,
            sys::GGML_TYPE_F32,
        )
    }
    /// Shows each row of source `at` with its place `[i1, i2, i3]`, whatever the strides between
    /// rows. False, and nothing shown, if it is not F32 or the values of a row are apart.
    pub fn each_source_row(&self, at: usize, show: &mut dyn FnMut([usize; 3], &[f32])) -> bool {
        // SAFETY: as above.
        let source = self.raw.src.get(at).and_then(|raw| unsafe { raw.as_ref() });
        let Some(raw) = source.filter(|raw| raw.type_ == sys::GGML_TYPE_F32 && raw.nb[0] == 4)
        else {
            return false;
        };
        if raw.data.is_null() {
            return false;
        }
        // SAFETY: `raw` is a live tensor.
        let bytes = unsafe { sys::ggml_nbytes(raw) };
        let mut all = vec![0f32; bytes / 4];
        // SAFETY: a computed tensor that spans `bytes` bytes, and as many in `all`.
        unsafe { sys::ggml_backend_tensor_get(raw, all.as_mut_ptr().cast(), 0, bytes) };
        let [width, n1, n2, n3] = raw.ne.map(|n| n as usize);
        let [_, s1, s2, s3] = raw.nb.map(|n| n / 4);
        for i3 in 0..n3 {
            for i2 in 0..n2 {
                for i1 in 0..n1 {
                    let start = i1 * s1 + i2 * s2 + i3 * s3;
                    show([i1, i2, i3], &all[start..start + width]);
                }
            }
        }
        true
    }
    /// The rows of source `at`, if it holds indices: `[ne1][ne0]`, whatever its stride.
    pub fn source_indices(&self, at: usize) -> Option<Vec<Vec<i32>>> {
        // SAFETY: as above.
        let raw = unsafe { self.raw.src.get(at)?.as_ref() }?;
        if raw.type_ != sys::GGML_TYPE_I32 || raw.nb[0] != 4 || raw.data.is_null() {
            return None;
        }
        let row = |at: i64| {
            let mut out = vec![0i32; raw.ne[0] as usize];
            // SAFETY: a computed tensor; the row lies inside it.
            unsafe {
                let offset = at as usize * raw.nb[1];
                let bytes = out.len() * 4;
                sys::ggml_backend_tensor_get(raw, out.as_mut_ptr().cast(), offset, bytes);
            }
            out
        };
        Some((0..raw.ne[1]).map(row).collect())
    }
}

fn text(name: &[std::ffi::c_char]) -> &str {
    // SAFETY: ggml keeps names terminated inside their 64 bytes.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_str().unwrap_or("")
}

pub(super) fn read_contiguous<T: Default + Clone>(
    raw: &sys::ggml_tensor,
    ty: sys::ggml_type,
) -> Option<Vec<T>> {
    // SAFETY: `raw` is a live tensor.
    let (plain, bytes) = unsafe { (sys::ggml_is_contiguous(raw), sys::ggml_nbytes(raw)) };
    if raw.type_ != ty || !plain || raw.data.is_null() {
        return None;
    }
    let mut out = vec![T::default(); bytes / size_of::<T>()];
    // SAFETY: a computed tensor of `bytes` bytes, and as many in `out`.
    unsafe { sys::ggml_backend_tensor_get(raw, out.as_mut_ptr().cast(), 0, bytes) };
    Some(out)
}

pub(super) unsafe extern "C" fn on_node(
    raw: *mut sys::ggml_tensor,
    ask: bool,
    data: *mut c_void,
) -> bool {
    // SAFETY: `compute_observed` passed a pointer to its observer, alive during the computation;
    // ggml passes a live tensor.
    let (observer, node) = unsafe { (&mut *data.cast::<&mut dyn Observer>(), Node { raw: &*raw }) };
    if ask {
        return observer.wants(&node);
    }
    observer.observe(&node);
    true
}
