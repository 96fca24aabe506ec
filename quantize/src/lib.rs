//! From a Hugging Face checkpoint (or a GGUF) to a quantized, mmap-able GGUF.
//!
//! [`schema`] is THE model contract: hub names, GGUF keys, tensor names and shapes. The engine binds
//! by it, the converter writes by it.
#![forbid(unsafe_code)]

pub mod schema;
