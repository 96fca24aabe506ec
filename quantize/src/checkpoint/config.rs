//! `config.json`: which kin of models a checkpoint is, and what all of them say in the same words.

use crate::error::Error;
use crate::schema::{Fields, Hparams, KIN, Kin};
use serde_json::{Map, Value};
use std::path::Path;

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub hparams: Hparams,
    /// `lm_head` is `embed_tokens`.
    pub tied: bool,
    pub bos: Option<u64>,
    /// One id or several.
    pub eos: Vec<u64>,
    pub pad: Option<u64>,
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::input(path, format!("not JSON: {e}")))?;
        let Value::Object(map) = value else {
            return Err(Error::input(path, "not a JSON object"));
        };
        Self::from_json(&map).map_err(|what| Error::input(path, what))
    }

    /// The layer that a tensor is of, if it is none of the stated ones: those behind guess several
    /// tokens ahead and are not converted.
    pub fn beyond(&self, tensor: &str) -> Option<usize> {
        let layer = tensor.strip_prefix("model.layers.")?;
        let layer: usize = layer.split('.').next()?.parse().ok()?;
        (layer >= self.hparams.layers.len()).then_some(layer)
    }

    fn from_json(map: &Map<String, Value>) -> Result<Self, String> {
        let fields = Fields::new(map);
        let hparams = kin_of(&fields)?.config(&fields)?;
        let eos = match map.get("eos_token_id") {
            None => Vec::new(),
            Some(ids) => token_ids("eos_token_id", ids)?,
        };
        let id = |name: &str| fields.optional(name).map(|id| id.map(|id| id as u64));
        Ok(Self {
            hparams,
            tied: map.get("tie_word_embeddings") == Some(&Value::Bool(true)),
            bos: id("bos_token_id")?,
            eos,
            pad: id("pad_token_id")?,
        })
    }
}

/// By the first of `architectures`; where none is stated, a `model_type` that only one kin has.
fn kin_of(fields: &Fields<'_>) -> Result<&'static dyn Kin, String> {
    let class = match fields.get("architectures") {
        Value::Array(classes) => classes.first().unwrap_or(&Value::Null),
        _ => &Value::Null,
    };
    let model_type = fields.get("model_type");
    let found = KIN.into_iter().find(|kin| match class {
        Value::Null => kin.on_the_hub().1.is_some_and(|alone| model_type == alone),
        class => class == kin.on_the_hub().0,
    });
    found.ok_or_else(|| {
        let wanted = KIN.map(|kin| format!("{:?}", kin.on_the_hub().0));
        format!(
            "unknown architecture: `architectures` begins with {class}, `model_type` is \
             {model_type}; wanted {}",
            wanted.join(" or ")
        )
    })
}

/// One id, a list of them, or null.
pub(crate) fn token_ids(name: &str, value: &Value) -> Result<Vec<u64>, String> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list.iter().map(Value::as_u64).collect(),
        one => one.as_u64().map(|id| vec![id]),
    };
    list.ok_or_else(|| format!("`{name}` is {value}, wanted token ids"))
}
