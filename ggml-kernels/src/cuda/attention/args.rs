//! What the kernels take: twins of the structs of `cuda/mla_*.cuh`, by their names there.

use crate::cuda::driver::Plain;
use crate::cuda::weights::{Acts, Matrix};

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Shares {
    pub rows: u32,
    pub columns: u32,
    pub least: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct RowArgs {
    pub q: u64,
    pub kv: u64,
    pub norm: u64,
    pub speeds: u64,
    pub lanes: u64,
    pub absorbed: u64,
    pub k_b: Matrix,
    pub batch: u32,
    pub heads: u32,
    pub nope: u32,
    pub rope: u32,
    pub rank: u32,
    pub layer: u32,
    pub q_stride: u32,
    pub kv_stride: u32,
    pub eps: f32,
    pub scale: f32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct AttendArgs {
    pub q: u64,
    pub lanes: u64,
    pub sums: u64,
    pub heads_of: u64,
    pub batch: u32,
    pub heads: u32,
    pub rank: u32,
    pub rope: u32,
    pub layer: u32,
    pub shares: Shares,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct FinishArgs {
    pub sums: u64,
    pub heads_of: u64,
    pub lanes: u64,
    pub gate: u64,
    pub parts: u64,
    pub done: u64,
    pub out: Acts,
    pub v_b: Matrix,
    pub batch: u32,
    pub heads: u32,
    pub rank: u32,
    pub v: u32,
    pub gate_stride: u32,
    pub shares: Shares,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct RowsArgs {
    pub kv: u64,
    pub q: u64,
    pub norm: u64,
    pub speeds: u64,
    pub lanes: u64,
    pub queries: u64,
    pub lane_count: u32,
    pub rows: u32,
    pub heads: u32,
    pub nope: u32,
    pub rope: u32,
    pub rank: u32,
    pub layer: u32,
    pub q_stride: u32,
    pub kv_stride: u32,
    pub eps: f32,
    pub scale: f32,
    pub pad: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct GatherArgs {
    pub lanes: u64,
    pub starts: u64,
    pub out: u64,
    pub rotated: u64,
    pub rank: u32,
    pub rope: u32,
    pub layer: u32,
    pub pad: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct ExpandersArgs {
    pub from: Matrix,
    pub to: u64,
    pub matrices: u32,
    pub turn: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct FlashArgs {
    pub q: u64,
    pub k: u64,
    pub rotated: u64,
    pub v: u64,
    pub lanes: u64,
    pub starts: u64,
    pub gate: u64,
    pub out: u64,
    pub out32: u64,
    pub sums: u64,
    pub heads_of: u64,
    pub rows: u32,
    pub heads: u32,
    pub first: u32,
    pub group: u32,
    pub nope: u32,
    pub rope: u32,
    pub v_width: u32,
    pub splits: u32,
    pub gate_stride: u32,
    pub pad: u32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct MergeArgs {
    pub sums: u64,
    pub heads_of: u64,
    pub gate: u64,
    pub out: u64,
    pub out32: u64,
    pub rows: u32,
    pub heads: u32,
    pub v: u32,
    pub splits: u32,
    pub gate_stride: u32,
    pub pad: u32,
}

macro_rules! plain {
    ($($ty:ty: $bytes:expr),*) => {
        $(
            // SAFETY: numbers without gaps, as the size shows; any bits are numbers.
            unsafe impl Plain for $ty {}
            const _: () = assert!(size_of::<$ty>() == $bytes);
        )*
    };
}
plain!(
    RowArgs: 6 * 8 + 24 + 10 * 4,
    AttendArgs: 4 * 8 + 8 * 4,
    FinishArgs: 6 * 8 + 40 + 24 + 8 * 4,
    RowsArgs: 6 * 8 + 12 * 4,
    GatherArgs: 4 * 8 + 4 * 4,
    ExpandersArgs: 24 + 8 + 2 * 4,
    FlashArgs: 11 * 8 + 10 * 4,
    MergeArgs: 5 * 8 + 6 * 4
);
