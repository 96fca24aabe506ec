//! Norms, the router, and KDA, on the card. Every function checks lengths, alignment and sizes, and
//! launches; all kernels may overlap with what ran before them, and wait for it where they read it.
//!
//! Addresses inside [`Acts`], [`Matrix`] and lanes are the caller's word: they point at memory of the
//! card, which Rust only ever copies, so a wrong one spoils numbers or ends the device's context.
//!
//! Refused: KDA heads other than 32, 64 or 128 wide, more than 4 taps, more than 512 experts, 16
//! used or 32 groups, small passes of more than 16 rows.
//!
//! | file | job |
//! |---|---|
//! | `norm` | norms of rows; rows in 8 bits and in f16 |
//! | `route` | the router and its choice |
//! | `kda` | a layer's weights and sizes |
//! | `kda_small` | KDA of up to 16 sequences, one token each |
//! | `kda_wide` | KDA of many tokens |

mod kda;
mod kda_small;
mod kda_wide;
mod norm;
mod route;

pub use kda::{KdaLayer, KdaRows, Second};
pub use kda_small::{KdaGate, KdaStep, kda_gate, kda_step};
pub use kda_wide::{KdaFinish, KdaWide, chunks_len, kda_finish, kda_prepare, kda_scan};
pub use norm::{To, norm_rows, quantize_rows};
pub use route::{Chosen, Routed, Router, route_small, route_wide};

use super::check::{aligned, count, hold, same};
use super::driver::{CudaError, Part};

/// Rows of a small pass.
pub const MOST_ROWS: usize = 16;

/// Rows of f32, one `stride` after the other.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'b> {
    pub values: Part<'b, f32>,
    pub stride: usize,
}

impl Strided<'_> {
    /// Room for `rows` of `width`, which are read four values at a time where `by_fours`.
    fn check(
        &self,
        place: &'static str,
        what: &'static str,
        (rows, width): (usize, usize),
        by_fours: bool,
    ) -> Result<(), CudaError> {
        let wanted = rows.saturating_sub(1) * self.stride + width;
        if rows > 0 && (self.stride < width || self.values.len() < wanted) {
            let got = format!("{} values by {}", self.values.len(), self.stride);
            let wanted = format!("{rows} rows of {width}");
            return Err(CudaError::refused(place, what, got, wanted));
        }
        if by_fours && !(self.values.address().is_multiple_of(16) && self.stride.is_multiple_of(4))
        {
            let got = format!("at {:#x} by {}", self.values.address(), self.stride);
            return Err(CudaError::refused(place, what, got, "aligned to 16 bytes"));
        }
        Ok(())
    }
}
