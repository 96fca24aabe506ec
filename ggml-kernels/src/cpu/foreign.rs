//! Types without a kernel of ours: ggml's row functions for the processor, which it publishes. They
//! know no tier; their bits are those of the instructions that ggml was built for.

use std::sync::Once;

use ggml_sys as sys;

use super::crew::Crew;
use crate::quant::TensorType;

/// Rows in the form that ggml's dot product for a type of weights takes.
#[derive(Debug)]
pub(crate) struct ForeignRows {
    form: sys::ggml_type,
    row_bytes: usize,
    /// Words of eight bytes: ggml's blocks hold words of up to four.
    data: Vec<u64>,
}

fn traits(id: sys::ggml_type) -> &'static sys::ggml_type_traits_cpu {
    static ONCE: Once = Once::new();
    // SAFETY: fills ggml's tables of the processor; may be called any number of times.
    ONCE.call_once(|| unsafe { sys::ggml_cpu_init() });
    // SAFETY: the id is one of ggml's; the table lives for the process.
    unsafe { &*sys::ggml_get_type_traits_cpu(id) }
}

/// Quantizes rows of `cols` values, whole blocks of `ty`, as ggml does before it multiplies them.
pub(crate) fn rows(crew: Crew<'_>, ty: TensorType, x: &[f32], cols: usize) -> ForeignRows {
    assert!(cols.is_multiple_of(ty.block_size()));
    let form = traits(ty.id() as _).vec_dot_type;
    let from_float = traits(form).from_float;
    let from_float = from_float.expect("ggml quantizes what its dot products take");
    // SAFETY: one of ggml's types.
    let row_bytes = unsafe { sys::ggml_row_size(form, cols as i64) };
    let words = row_bytes.div_ceil(8);
    let rows = x.len().checked_div(cols).unwrap_or(0);
    let mut data = vec![0u64; rows * words];
    crew.pool.run_chunks(&mut data, words, &|row, out, _| {
        let x = &x[row * cols..(row + 1) * cols];
        // SAFETY: `cols` values, whole blocks, and the bytes that ggml says they take.
        unsafe { from_float(x.as_ptr(), out.as_mut_ptr().cast(), cols as i64) };
    });
    ForeignRows {
        form,
        row_bytes: words * 8,
        data,
    }
}

impl ForeignRows {
    pub(crate) fn are_for(&self, ty: TensorType) -> bool {
        traits(ty.id() as _).vec_dot_type == self.form
    }

    pub(crate) fn row(&self, at: usize) -> &[u8] {
        let words = self.row_bytes / 8;
        let row = &self.data[at * words..(at + 1) * words];
        // SAFETY: words are bytes.
        unsafe { std::slice::from_raw_parts(row.as_ptr().cast(), self.row_bytes) }
    }
}

/// A row of `cols` weights times a row of activations from [`ForeignRows`] of the same type and
/// length.
pub(crate) fn dot(ty: TensorType, cols: usize, weights: &[u8], activations: &[u8]) -> f32 {
    let traits = traits(ty.id() as _);
    let vec_dot = traits
        .vec_dot
        .expect("ggml multiplies every type of weights");
    // SAFETY: one of ggml's types.
    let wanted = unsafe { sys::ggml_row_size(traits.vec_dot_type, cols as i64) };
    assert!(ty.row_bytes(cols) == Some(weights.len()) && activations.len() >= wanted);
    let mut out = 0.0;
    // SAFETY: both rows hold `cols` values (above); the weights are aligned for their blocks
    // (`Matrix::new`), the activations are words.
    unsafe {
        vec_dot(
            cols as _,
            &mut out,
            0,
            weights.as_ptr().cast(),
            0,
            activations.as_ptr().cast(),
            0,
            1,
        );
    }
    out
}
