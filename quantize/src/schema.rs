//! THE model contract: the keys, tensor names and shapes of the files that this program reads and
//! writes, and how checkpoints of the hub say the same. The engine binds by it, the converter
//! writes by it.
//!
//! [`Hparams`] say as data in what models differ; an implementor of [`Kin`] says how one
//! architecture's files and checkpoints spell that. Whatever follows from the data (tensors,
//! shapes, recipes, the engine's layers) is written once.
//!
//! Refuses sizes that are absent, absurd or contradict each other, so that whoever holds
//! [`Hparams`] may multiply them without care, and files whose tensors are not what the sizes say.

mod bailing_moe_v3;
mod error;
mod fields;
mod hparams;
mod keys;
mod kimi_linear;
mod tensors;

use ggml_kernels::gguf::Value;

pub use bailing_moe_v3::BailingMoeV3;
pub use error::SchemaError;
pub use fields::Fields;
pub use ggml_kernels::cpu::kda::GateLaw;
pub use hparams::{Clamps, Ffn, Hparams, Kda, LayerKind, Mixer, Mla, Moe};
pub use keys::Keys;
pub use kimi_linear::KimiLinear;
pub use tensors::{Role, TensorSpec, check, layer_of, name, tensors};

/// One architecture: how its files and its checkpoints spell what [`Hparams`] hold.
pub trait Kin: std::fmt::Debug + Send + Sync {
    /// `general.architecture`, which its keys begin with.
    fn architecture(&self) -> &'static str;

    /// What `architectures` of the hub's `config.json` begins with, and the `model_type` that tells
    /// it from all others, if one does.
    fn on_the_hub(&self) -> (&'static str, Option<&'static str>);

    /// Sizes from a file's keys.
    fn read(&self, keys: &Keys<'_>) -> Result<Hparams, SchemaError>;

    /// Keys that its readers want beside those of every kin.
    fn own_keys(&self, h: &Hparams) -> Vec<(&'static str, Value)>;

    /// Sizes from the hub's `config.json`. Refuses, by the field's name, whatever is missing,
    /// contradictory, or says that the model computes something else.
    fn config(&self, fields: &Fields<'_>) -> Result<Hparams, String>;

    /// The hub's name of a tensor, after `model.layers.N.` for those that a layer has; `{}` is an
    /// expert's number.
    fn hub_name(&self, role: Role) -> &'static str;
}

/// Every architecture that this program reads and writes.
pub const KIN: [&dyn Kin; 2] = [&KimiLinear, &BailingMoeV3];

impl PartialEq for dyn Kin {
    fn eq(&self, other: &Self) -> bool {
        self.architecture() == other.architecture()
    }
}

#[cfg(test)]
mod tests;
