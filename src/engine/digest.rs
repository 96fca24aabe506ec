//! What tells one model from another, as far as tokens and states are concerned.
//!
//! Hashing every weight of a large file takes minutes, so the model's digest is of the metadata apart
//! from what it is called, of every tensor's name, type and shape, and of its first and last page. Two files that agree in all of
//! that and differ elsewhere are taken for one. What is the tokenizer's or the template's is digested
//! apart, so that it can be said which of the three is another.

use blake3::Hasher;
use ggml_kernels::gguf::{Array, GgufFile, Value};

use super::Model;

const PAGE: usize = 4096;

/// blake3 digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    pub model: [u8; 32],
    pub tokenizer: [u8; 32],
    pub template: [u8; 32],
}

const TOKENIZER: &str = "tokenizer.";
const TEMPLATE: &str = "tokenizer.chat_template";

impl Model {
    /// Touches a page or two of every tensor.
    pub fn digests(&self) -> Digests {
        let file: &GgufFile = &self.file;
        let of = |wanted: fn(&str) -> bool| {
            let mut hasher = Hasher::new();
            for (key, value) in file.metadata().map.iter().filter(|(key, _)| wanted(key)) {
                text(&mut hasher, key);
                add(&mut hasher, value);
            }
            hasher
        };
        let mut model = of(|key| !key.starts_with(TOKENIZER) && !key.starts_with("general."));
        for tensor in file.tensors() {
            let data = file.data(tensor);
            text(&mut model, &tensor.name);
            text(&mut model, &format!("{:?} {:?}", tensor.ty, tensor.ne));
            model.update(&data[..data.len().min(PAGE)]);
            model.update(&data[data.len().saturating_sub(PAGE)..]);
        }
        let tokenizer = of(|key| key.starts_with(TOKENIZER) && key != TEMPLATE);
        Digests {
            model: *model.finalize().as_bytes(),
            tokenizer: *tokenizer.finalize().as_bytes(),
            template: *of(|key| key == TEMPLATE).finalize().as_bytes(),
        }
    }
}

/// A text that no other text begins with.
fn text(hasher: &mut Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn add(hasher: &mut Hasher, value: &Value) {
    match value {
        Value::Str(one) => text(hasher, one),
        Value::Array(Array::Str(all)) => all.iter().for_each(|one| text(hasher, one)),
        // How floats are printed may change; their bits do not.
        Value::Array(Array::F32(all)) => {
            let bits: Vec<u32> = all.iter().map(|x| x.to_bits()).collect();
            text(hasher, &format!("{bits:?}"));
        }
        Value::F32(one) => text(hasher, &one.to_bits().to_string()),
        other => text(hasher, &format!("{other:?}")),
    }
}
