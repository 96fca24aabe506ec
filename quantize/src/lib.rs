//! From a Hugging Face checkpoint (or a GGUF) to a quantized, mmap-able GGUF.
//!
//! [`schema`] is THE model contract: hub names, GGUF keys, tensor names and shapes. The engine binds
//! by it, the converter writes by it.
//!
//! ```text
//!  directory -> checkpoint --\
//!               tokenizer ----> source -> convert -> output (GGUF)
//!  GGUF ---------------------/      recipe --^ ^-- imatrix
//! ```
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod convert;
pub mod error;
pub mod imatrix;
pub mod output;
pub mod recipe;
pub mod schema;
pub mod source;
pub mod synth;
pub mod tokenizer;
pub mod verify;
