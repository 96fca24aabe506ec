//! A checkpoint's tokenizer as GGUF metadata: `tiktoken.model` with `tokenizer_config.json`, or
//! `tokenizer.json`; end-of-turn ids from `generation_config.json`; the chat template.
//!
//! Token spelling, merges and types are those that the ecosystem's converter derives, so that
//! other readers split text the same way. Refuses vocabularies with holes or repetitions.

mod bytes;
mod hub_json;
mod pre;
mod tiktoken;

pub(crate) use bytes::spell;

use crate::checkpoint::{Checkpoint, Config};
use crate::error::Error;
use ggml_kernels::gguf::{Array, Metadata, Value};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::Path;

/// `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Tokens by id and the merges that build the ordinary ones.
struct Vocabulary {
    /// `tokenizer.ggml.pre`: how text is cut before merging.
    pre: &'static str,
    /// (spelling, type), dense.
    tokens: Vec<(String, i32)>,
    /// Pairs in order of rank, each half in byte-to-unicode spelling.
    merges: Vec<String>,
}

/// A token that text may name.
struct Added {
    content: String,
    special: bool,
}

/// Adds the tokenizer's keys to a file's metadata. Returns notes for the user.
pub fn convert(from: &Checkpoint, metadata: &mut Metadata) -> Result<Vec<String>, Error> {
    let dir = &from.dir;
    let config = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
    let size = from.config.hparams.vocab;
    let tiktoken = dir.join("tiktoken.model");
    let json = dir.join("tokenizer.json");
    let vocabulary = if tiktoken.is_file() {
        let path = dir.join("tokenizer_config.json");
        let added = added_tokens(&config).map_err(|e| Error::input(&path, e))?;
        tiktoken::read(&tiktoken, &added, size)?
    } else if json.is_file() {
        hub_json::read(&json, size)?
    } else {
        let what = "no tokenizer: neither tiktoken.model nor tokenizer.json is there";
        return Err(Error::input(dir, what));
    };
    let mut notes = Vec::new();
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", vocabulary.pre);
    ids(from, &config, &vocabulary, metadata, &mut notes)?;
    let (tokens, types) = vocabulary.tokens.into_iter().unzip();
    metadata.set("tokenizer.ggml.tokens", Array::Str(tokens));
    metadata.set("tokenizer.ggml.token_type", Array::I32(types));
    metadata.set("tokenizer.ggml.merges", Array::Str(vocabulary.merges));
    let adds_bos = config.get("add_bos_token") == Some(&Json::Bool(true));
    metadata.set("tokenizer.ggml.add_bos_token", adds_bos);
    match chat_template(dir, &config)? {
        Some(template) => metadata.set("tokenizer.chat_template", template),
        None => notes.push("no chat template in the checkpoint".into()),
    }
    Ok(notes)
}

/// Beginning, end, padding and unknown ids.
fn ids(
    from: &Checkpoint,
    config: &Map<String, Json>,
    vocabulary: &Vocabulary,
    metadata: &mut Metadata,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let by_name = |field: &str| {
        // Older files write an object with the text under `content`.
        let name = match config.get(field)? {
            Json::String(name) => name,
            other => other.get("content")?.as_str()?,
        };
        let at = vocabulary.tokens.iter().position(|(t, _)| t == name)?;
        Some(at as u64)
    };
    let Config { bos, eos, pad, .. } = &from.config;
    let path = from.dir.join("generation_config.json");
    let generation = read_json(&path)?.unwrap_or_default();
    let generated = |field: &str| match generation.get(field) {
        None => Ok(Vec::new()),
        Some(ids) => {
            crate::checkpoint::token_ids(field, ids).map_err(|what| Error::input(&path, what))
        }
    };
    let one = |field: &str| generated(field).map(|ids| ids.first().copied());
    let mut ends: Vec<u64> = Vec::new();
    for id in by_name("eos_token")
        .into_iter()
        .chain(generated("eos_token_id")?)
        .chain(eos.clone())
    {
        if !ends.contains(&id) {
            ends.push(id);
        }
    }
    let size = vocabulary.tokens.len() as u64;
    let bos = by_name("bos_token").or(*bos).or(one("bos_token_id")?);
    let pad = by_name("pad_token").or(*pad).or(one("pad_token_id")?);
    // The container has three keys that end a generation.
    let named = [
        ("bos_token_id", bos),
        ("padding_token_id", pad),
        ("unknown_token_id", by_name("unk_token")),
        ("eos_token_id", ends.first().copied()),
        ("eot_token_id", ends.get(1).copied()),
        ("eom_token_id", ends.get(2).copied()),
    ];
    let further = ends.iter().map(|&id| ("eos_token_id", Some(id)));
    for (key, id) in named.iter().copied().chain(further) {
        if let Some(id) = id.filter(|&id| id >= size) {
            let what = format!("{key} is {id}, there are {size} tokens");
            return Err(Error::input(&from.dir, what));
        }
    }
    for (key, id) in named {
        if let Some(id) = id {
            metadata.set(&format!("tokenizer.ggml.{key}"), Value::U32(id as u32));
        }
    }
    if ends.len() > 3 {
        // Beside them a list that some readers know, deltad among them.
        let all = ends.iter().map(|&id| id as u32).collect();
        metadata.set("tokenizer.ggml.eos_token_ids", Array::U32(all));
    }
    if ends.is_empty() {
        notes.push("no end-of-text id in the checkpoint: only length ends a generation".into());
    }
    Ok(())
}

/// `chat_template.jinja`, or the one in the tokenizer's configuration (of several, `default`).
fn chat_template(dir: &Path, config: &Map<String, Json>) -> Result<Option<String>, Error> {
    let path = dir.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(text) => return Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io(&path, e)),
    }
    Ok(match config.get("chat_template") {
        Some(Json::String(text)) => Some(text.clone()),
        Some(Json::Array(several)) => several
            .iter()
            .find(|t| t["name"] == "default")
            .and_then(|t| t["template"].as_str())
            .map(str::to_owned),
        _ => None,
    })
}

fn added_tokens(config: &Map<String, Json>) -> Result<BTreeMap<usize, Added>, String> {
    let Some(added) = config.get("added_tokens_decoder") else {
        return Ok(BTreeMap::new());
    };
    let object = added.as_object();
    let object = object.ok_or("`added_tokens_decoder` is no object of token ids")?;
    let one = |(id, token): (&String, &Json)| {
        let content = token["content"].as_str()?.to_owned();
        let special = token["special"].as_bool().unwrap_or(true);
        Some((id.parse().ok()?, Added { content, special }))
    };
    let all: Option<BTreeMap<_, _>> = object.iter().map(one).collect();
    all.ok_or_else(|| "`added_tokens_decoder` holds an entry without id or content".into())
}

/// An object, or `None` where there is no file.
fn read_json(path: &Path) -> Result<Option<Map<String, Json>>, Error> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| Error::input(path, format!("not a JSON object: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}
