//! What can go wrong between us and a card.

use std::ffi::CStr;
use std::path::PathBuf;

use cudarc::driver::sys::{self, CUresult};

#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error("no NVIDIA driver on this machine: libcuda.so.1 does not open")]
    NoDriver,
    #[error("the NVIDIA driver is too old: it knows CUDA {}.{}, wanted 12.0 or newer", .got / 1000, .got % 1000 / 10)]
    OldDriver { got: i32 },
    #[error("the NVIDIA driver lacks the function {0}")]
    NoFunction(&'static str),
    #[error("no NVIDIA card number {index}: the driver has {count}")]
    NoDevice { index: usize, count: usize },
    #[error("no file of kernels: looked for {}", list(.looked))]
    NoFile { looked: Vec<PathBuf> },
    #[error("{}: {why}", path.display())]
    File {
        path: PathBuf,
        #[source]
        why: std::io::Error,
    },
    #[error("{}: kernels of another build, {got}, wanted {wanted}", path.display())]
    OtherKernels {
        path: PathBuf,
        got: String,
        wanted: &'static str,
    },
    #[error("the file of kernels has no kernel {0}")]
    NoKernel(&'static str),
    #[error("not enough memory on the card for {bytes} bytes: {free} of {total} are free")]
    OutOfMemory { bytes: u64, free: u64, total: u64 },
    #[error("{what} failed: {code}")]
    Driver { what: String, code: Code },
    /// Arguments that a kernel or a copy cannot take; nothing was done.
    #[error("{place}: {what} is {got}, wanted {wanted}")]
    Refused {
        place: &'static str,
        what: &'static str,
        got: Box<str>,
        wanted: Box<str>,
    },
}

impl CudaError {
    /// Arguments that `place` cannot take.
    pub fn refused(
        place: &'static str,
        what: &'static str,
        got: impl ToString,
        wanted: impl ToString,
    ) -> CudaError {
        CudaError::Refused {
            place,
            what,
            got: got.to_string().into(),
            wanted: wanted.to_string().into(),
        }
    }

    /// There is no card, or nothing that could be run on it.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            CudaError::NoDriver | CudaError::NoDevice { .. } | CudaError::NoFile { .. }
        )
    }

    /// Nothing can be done on this card any more by this process.
    pub fn is_card_lost(&self) -> bool {
        match self {
            CudaError::Driver { code, .. } => code.is_sticky(),
            _ => false,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    paths.join(", ")
}

/// What the driver said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub(super) CUresult);

impl Code {
    /// Once said, every later call says so too.
    fn is_sticky(self) -> bool {
        use CUresult::*;
        matches!(
            self.0,
            CUDA_ERROR_ILLEGAL_ADDRESS
                | CUDA_ERROR_LAUNCH_FAILED
                | CUDA_ERROR_LAUNCH_TIMEOUT
                | CUDA_ERROR_ASSERT
                | CUDA_ERROR_HARDWARE_STACK_ERROR
                | CUDA_ERROR_ILLEGAL_INSTRUCTION
                | CUDA_ERROR_MISALIGNED_ADDRESS
                | CUDA_ERROR_INVALID_ADDRESS_SPACE
                | CUDA_ERROR_INVALID_PC
                | CUDA_ERROR_ECC_UNCORRECTABLE
                | CUDA_ERROR_NVLINK_UNCORRECTABLE
                | CUDA_ERROR_CONTEXT_IS_DESTROYED
                | CUDA_ERROR_EXTERNAL_DEVICE
                | CUDA_ERROR_DEVICE_UNAVAILABLE
        )
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |of: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult| {
            let mut text = std::ptr::null();
            // SAFETY: `text` may be written, and a code is an error of an opened driver (`device`
            // checked that it has both functions).
            let said = unsafe { of(self.0, &mut text) };
            if said != CUresult::CUDA_SUCCESS || text.is_null() {
                return None;
            }
            // SAFETY: the driver returned a static text that ends with a zero.
            Some(unsafe { CStr::from_ptr(text) }.to_string_lossy())
        };
        match (text(sys::cuGetErrorName), text(sys::cuGetErrorString)) {
            (Some(name), Some(text)) => write!(f, "{name} ({text})"),
            (Some(name), None) => write!(f, "{name}"),
            _ => write!(f, "error {}", self.0 as u32),
        }
    }
}

/// What the driver answered, as a result. `what`: what was asked, said only where it failed.
pub(super) fn check(answer: CUresult, what: impl FnOnce() -> String) -> Result<(), CudaError> {
    if answer == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    Err(CudaError::Driver {
        what: what(),
        code: Code(answer),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_and_where_and_got_and_wanted() {
        let refused = CudaError::refused("products", "input columns", 31, 32);
        assert_eq!(
            refused.to_string(),
            "products: input columns is 31, wanted 32"
        );
        let old = CudaError::OldDriver { got: 11040 };
        let told = "the NVIDIA driver is too old: it knows CUDA 11.4, wanted 12.0 or newer";
        assert_eq!(old.to_string(), told);
    }
}
