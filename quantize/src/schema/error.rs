//! Why a model was refused.

use super::KIN;

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SchemaError {
    #[error("`general.architecture` is `{got}`, this program runs {}", known())]
    Architecture { got: String },
    #[error("key `{key}` is missing")]
    MissingKey { key: String },
    #[error("key `{key}`: got {got}, wanted {wanted}")]
    Key {
        key: String,
        got: String,
        wanted: String,
    },
    #[error("tensor `{name}` is missing")]
    MissingTensor { name: String },
    #[error("{name}: shape {got:?}, the model wants {wanted:?}")]
    Shape {
        name: String,
        got: Vec<u64>,
        wanted: Vec<u64>,
    },
    #[error("{name}: type {got}, the model wants {wanted}")]
    Type {
        name: String,
        got: String,
        wanted: &'static str,
    },
}

fn known() -> String {
    KIN.map(|kin| format!("`{}`", kin.architecture()))
        .join(", ")
}
