//! The tile unit itself. rustc has no stable intrinsics for it, so its instructions are written out.

use std::arch::asm;

use super::{Sums, TOKENS, Unit, Weights};

/// Tiles of 16 rows of 64 bytes, configured on this thread as long as it lives.
pub(super) struct Tiles {
    /// The configuration is this thread's.
    stay: std::marker::PhantomData<*const ()>,
}

/// `ldtilecfg`'s operand.
#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    /// Bytes to a row of each tile; eight tiles.
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// # Safety
    /// The processor has AMX with int8, and this process may use tiles.
    pub(super) unsafe fn configure() -> Tiles {
        let mut shape = Shape {
            palette: 1,
            start: 0,
            reserved: [0; 14],
            bytes: [0; 16],
            rows: [0; 16],
        };
        shape.bytes[..8].fill(64);
        shape.rows[..8].fill(16);
        // SAFETY: the caller's promise; 64 bytes of a valid configuration are read.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &shape, options(nostack, readonly, preserves_flags));
        }
        Tiles {
            stay: std::marker::PhantomData,
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `configure` was promised the instructions.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// Four tiles of sums, and 64 values of each token times those of each row of weights.
macro_rules! step {
    ($values:literal, $weights:literal) => {
        concat!(
            "tileloadd tmm4, [{values} + {stride} + ",
            $values,
            "]\n",
            "tileloadd tmm5, [{weights} + {line} + ",
            $weights,
            "]\n",
            "tileloadd tmm6, [{weights} + {line} + 4096 + ",
            $weights,
            "]\n",
            "tdpbsud tmm0, tmm4, tmm5\n",
            "tileloadd tmm7, [{weights} + {line} + 8192 + ",
            $weights,
            "]\n",
            "tdpbsud tmm1, tmm4, tmm6\n",
            "tileloadd tmm5, [{weights} + {line} + 12288 + ",
            $weights,
            "]\n",
            "tdpbssd tmm2, tmm4, tmm7\n",
            "tdpbssd tmm3, tmm4, tmm5\n",
        )
    };
}

impl Unit for Tiles {
    #[inline(always)]
    fn multiply(&self, values: &[i8], stride: usize, weights: &Weights, sums: &mut Sums) {
        assert!(values.len() >= (TOKENS - 1) * stride + 256);
        // SAFETY: `self` is the proof of the instructions and of the tiles' shape. Read are 16 rows
        // of 256 bytes of values, `stride` apart (above), and the first 16 KiB of `weights`, its
        // low and its high bytes (`repr(C)`); written are 4 KiB, all of `sums`.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                step!("0", "0"),
                step!("64", "1024"),
                step!("128", "2048"),
                step!("192", "3072"),
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 1024], tmm1",
                "tilestored [{sums} + {line} + 2048], tmm2",
                "tilestored [{sums} + {line} + 3072], tmm3",
                values = in(reg) values.as_ptr(),
                stride = in(reg) stride,
                weights = in(reg) weights,
                line = in(reg) 64_usize,
                sums = in(reg) sums,
                out("tmm0") _,
                out("tmm1") _,
                out("tmm2") _,
                out("tmm3") _,
                out("tmm4") _,
                out("tmm5") _,
                out("tmm6") _,
                out("tmm7") _,
                options(nostack, preserves_flags),
            );
        }
    }
}
