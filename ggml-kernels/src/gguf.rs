//! The GGUF container (versions 2 and 3, little-endian): a bounded reader over a map, and a
//! streaming writer.
//!
//! Owns the bytes on disk and nothing of what they mean: which keys and tensors a model needs is
//! the schema's business. Layout, from the format's specification: magic `GGUF`, u32 version,
//! u64 tensor count, u64 key count, keys, tensor entries, padding to `general.alignment`, data.

mod metadata;
mod read;
mod write;

pub use metadata::{Array, Metadata, Value};
pub use read::{GgufError, GgufFile, TensorInfo};
pub use write::{GgufWriter, Layout, LayoutError, PlannedTensor};

const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// ggml holds tensor names in 64 bytes, the closing zero included.
const MAX_NAME: usize = 63;

/// Numbers of the value types in a file.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STR: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}
