//! A safe wrapper over ggml, the KDA, MLA and MoE operators, and the GGUF container.
//!
//! The only crate of the workspace with `unsafe`: every block is short, stands after the checks
//! that it relies on, and says why it is sound. ggml checks its arguments by aborting the process,
//! so shapes and types are checked in Rust before ggml sees them.

pub mod backend;
pub mod cpu;
pub mod cuda;
pub mod gguf;
pub mod graph;
pub mod heap;
pub mod map;
pub mod ops;
pub mod quant;
pub mod reference;
pub mod rival;
pub mod storage;
pub mod tensor;
