//! A tensor's handle: where it is, what it holds. Owns nothing; graphs and storages check that a
//! handle is theirs before they follow it.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use ggml_sys as sys;

use crate::quant::TensorType;

/// A handle of one graph (or storage). Sizes are ggml's: `ne[0]` is the contiguous dimension,
/// `nb` are strides in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tensor {
    pub(crate) ptr: NonNull<sys::ggml_tensor>,
    /// The graph or storage that keeps `ptr` alive.
    pub(crate) owner: u64,
    /// May be the target of a copy: state, never weights.
    pub(crate) writable: bool,
    /// No value is not a number, so that rows can be sorted.
    pub(crate) ordered: bool,
    pub(crate) ty: TensorType,
    pub(crate) ne: [usize; 4],
    pub(crate) nb: [usize; 4],
}

impl Tensor {
    pub fn ne(&self) -> [usize; 4] {
        self.ne
    }
    pub fn ty(&self) -> TensorType {
        self.ty
    }
    pub fn elements(&self) -> usize {
        self.ne.iter().product()
    }
    /// Bytes from one row to the next.
    pub fn row_bytes(&self) -> usize {
        self.nb[1]
    }
    pub(crate) fn rows(&self) -> usize {
        self.ne[1..].iter().product()
    }
    /// Rows are contiguous inside (rows may be apart).
    pub(crate) fn row_contiguous(&self) -> bool {
        self.nb[0] == self.ty.type_size()
    }
    pub(crate) fn contiguous(&self) -> bool {
        let mut want = self.ty.type_size();
        for at in 0..4 {
            if self.ne[at] != 1 && self.nb[at] != want {
                return false;
            }
            want = if at == 0 {
                want * (self.ne[0] / self.ty.block_size())
            } else {
                want * self.ne[at]
            };
        }
        true
    }

    /// # Safety
    /// `ptr` is a live tensor that `owner` keeps alive, of a type that [`TensorType`] knows.
    pub(crate) unsafe fn from_raw(
        ptr: NonNull<sys::ggml_tensor>,
        owner: u64,
        writable: bool,
        ty: TensorType,
    ) -> Self {
        // SAFETY: the caller says that `ptr` is live.
        let raw = unsafe { ptr.as_ref() };
        Self {
            ptr,
            owner,
            writable,
            ordered: false,
            ty,
            ne: raw.ne.map(|n| n as usize),
            nb: raw.nb,
        }
    }
}

/// Numbers of rows, every one known to be below a bound: checked when they came in, or the outcome of
/// an operator that cannot give others. Nothing else makes one, for ggml follows whatever it is given
/// (its check is a C `assert`, which release builds lack) or aborts.
///
/// ```compile_fail,E0451
/// # use ggml_kernels::tensor::{Indices, Tensor};
/// fn f(tensor: Tensor) -> Indices {
///     Indices { tensor, below: 1000 }
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Indices {
    /// I32, of non-negative numbers.
    pub(crate) tensor: Tensor,
    pub(crate) below: usize,
}

impl Indices {
    pub fn ne(&self) -> [usize; 4] {
        self.tensor.ne
    }
    /// Every number is below this.
    pub fn below(&self) -> usize {
        self.below
    }
}

/// A number that no other graph or storage of this process has.
pub(crate) fn next_owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
