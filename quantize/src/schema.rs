//! THE model contract: the keys, tensor names and shapes of a `kimi-linear` file. The engine
//! binds by it, the converter writes by it.
//!
//! Refuses sizes that are absent, absurd or contradict each other, so that whoever holds
//! [`Hparams`] may multiply them without care, and files whose tensors are not what the sizes say.

mod hparams;
mod tensors;

pub use hparams::{Ffn, Hparams, Kda, LayerKind, Mixer, Mla, Moe, SchemaError};
pub use tensors::{Role, TensorSpec, check, name, tensors};

/// `general.architecture` of the files that this program reads and writes.
pub const ARCHITECTURE: &str = "kimi-linear";

#[cfg(test)]
mod tests;
