//! Test vocabularies: the metadata that a converter would write for the checkpoints under
//! `tests/fixtures/tokenizer`.

use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine as _;
pub use ggml_kernels::gguf::Metadata;
use ggml_kernels::gguf::{Array, Value};

use super::Tokenizer;

pub(crate) fn path(name: &str, file: &str) -> PathBuf {
    let root = env!("CARGO_MANIFEST_DIR");
    PathBuf::from(root)
        .join("tests/fixtures/tokenizer")
        .join(name)
        .join(file)
}

pub(crate) fn json(name: &str, file: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(path(name, file)).expect(file);
    serde_json::from_str(&text).expect(file)
}

pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_metadata(&metadata(name)).expect(name)
}

/// What `deltad-quantize` writes for Ling's `tokenizer.json` and its companions. With `special`
/// false its markup is user-defined, as in checkpoints that flag it so.
pub(crate) fn ling(special: bool) -> Metadata {
    let hub = json("ling", "tokenizer.json");
    let config = json("ling", "tokenizer_config.json");
    let mut tokens: Vec<(String, i32)> = (0..352).map(|id| (format!("[PAD{id}]"), 5)).collect();
    for (text, id) in hub["model"]["vocab"].as_object().expect("a vocabulary") {
        tokens[id.as_u64().expect("an id") as usize] = (text.clone(), 1);
    }
    for added in hub["added_tokens"].as_array().expect("added tokens") {
        let text = added["content"].as_str().expect("a text").to_owned();
        let control = special || text.starts_with("<|") || text.starts_with('[');
        let kind = if control { 3 } else { 4 };
        tokens[added["id"].as_u64().expect("an id") as usize] = (text, kind);
    }
    let id = |key: &str| {
        let name = config[key].as_str().expect(key);
        let id = tokens.iter().position(|(t, _)| t == name).expect(name);
        Value::U32(id as u32)
    };
    let (bos, eos, pad) = (id("bos_token"), id("eos_token"), id("pad_token"));
    let merges = hub["model"]["merges"].as_array().expect("merges").iter();
    let part = |m: &serde_json::Value, at: usize| m[at].as_str().expect("half a merge").to_owned();
    let merges = merges.map(|m| format!("{} {}", part(m, 0), part(m, 1)));
    let merges = merges.collect();
    let template = std::fs::read_to_string(path("ling", "chat_template.jinja"));
    let (tokens, types) = tokens.into_iter().unzip();
    let map = [
        ("tokenizer.ggml.model", Value::Str("gpt2".into())),
        ("tokenizer.ggml.pre", Value::Str("bailingmoe2".into())),
        ("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens))),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.merges", Value::Array(Array::Str(merges))),
        ("tokenizer.ggml.bos_token_id", bos),
        ("tokenizer.ggml.eos_token_id", eos),
        ("tokenizer.ggml.eot_token_id", pad.clone()),
        ("tokenizer.ggml.padding_token_id", pad),
        (
            "tokenizer.chat_template",
            Value::Str(template.expect("a template")),
        ),
    ];
    Metadata {
        map: map.map(|(k, v)| (k.to_owned(), v)).into(),
    }
}

/// Tokens in order of rank.
pub(crate) fn ranks(name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path(name, "tiktoken.model")).expect("tiktoken.model");
    let base64 = base64::engine::general_purpose::STANDARD;
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            let (bytes, rank) = line.split_once(' ').expect("bytes and rank");
            assert_eq!(rank, i.to_string(), "ranks are in order");
            base64.decode(bytes).expect("base64")
        })
        .collect()
}

/// What llama.cpp's converter writes for a Kimi vocabulary, and so do we.
pub(crate) fn metadata(name: &str) -> Metadata {
    let ranks = ranks(name);
    let config = json(name, "tokenizer_config.json");
    let n_base = ranks.len();
    let n_special = 258;
    let named = |id: usize| config["added_tokens_decoder"][id.to_string()]["content"].as_str();
    let specials = (n_base..n_base + n_special).map(|id| match named(id) {
        Some(name) => name.to_owned(),
        None => format!("<|reserved_token_{id}|>"),
    });
    let tokens: Vec<String> = ranks.iter().map(|b| spell(b)).chain(specials).collect();
    let types = [vec![1; n_base], vec![3; n_special]].concat();
    let id = |key: &str| {
        let name = config[key].as_str().expect(key);
        let id = tokens.iter().position(|t| t == name).expect(name);
        Value::U32(id as u32)
    };
    let (bos, eos) = (id("bos_token"), id("eos_token"));
    let template = config["chat_template"].as_str().expect("a template").into();
    let map = [
        ("tokenizer.ggml.model", Value::Str("gpt2".into())),
        ("tokenizer.ggml.pre", Value::Str("kimi-k2".into())),
        (
            "tokenizer.ggml.tokens",
            Value::Array(Array::Str(tokens.clone())),
        ),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        (
            "tokenizer.ggml.merges",
            Value::Array(Array::Str(merges(&ranks))),
        ),
        ("tokenizer.ggml.bos_token_id", bos),
        ("tokenizer.ggml.eos_token_id", eos),
        ("tokenizer.chat_template", Value::Str(template)),
    ];
    Metadata {
        map: map.map(|(k, v)| (k.to_owned(), v)).into(),
    }
}

/// The same with the tokens of a model that thinks aloud.
pub(crate) fn thinking(name: &str) -> Metadata {
    let mut meta = metadata(name);
    let key = "tokenizer.ggml.tokens";
    let mut tokens = meta.strs(key).expect("tokens").to_vec();
    for (id, spelling) in [(515, "<think>"), (518, "</think>")] {
        assert!(tokens[id].starts_with("<|reserved"), "{}", tokens[id]);
        tokens[id] = spelling.to_owned();
    }
    let tokens = Value::Array(Array::Str(tokens));
    meta.map.insert(key.into(), tokens);
    meta
}

/// GPT-2's byte-to-unicode spelling.
pub(crate) fn spell(bytes: &[u8]) -> String {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others: Vec<u8> = (0..=255).filter(|&b| !printable(b)).collect();
    let spell = |&b: &u8| match others.iter().position(|&o| o == b) {
        Some(i) => char::from_u32(256 + i as u32).expect("a letter"),
        None => char::from(b),
    };
    bytes.iter().map(spell).collect()
}

/// The pair that each token was last merged from, found by merging it with the older tokens.
fn merges(ranks: &[Vec<u8>]) -> Vec<String> {
    let rank: HashMap<&[u8], usize> = ranks.iter().map(Vec::as_slice).zip(0..).collect();
    let mut lines = Vec::new();
    for (own, token) in ranks.iter().enumerate().filter(|(_, t)| t.len() > 1) {
        let mut parts: Vec<Vec<u8>> = token.iter().map(|&b| vec![b]).collect();
        loop {
            let joined = parts.windows(2).map(|w| w.concat());
            let best = joined
                .enumerate()
                .filter_map(|(i, j)| Some((*rank.get(j.as_slice()).filter(|&&r| r < own)?, i)))
                .min();
            let Some((_, i)) = best else { break };
            let right = parts.remove(i + 1);
            parts[i].extend(right);
        }
        let [left, right] = parts.as_slice() else {
            panic!("token {own} was not merged from two");
        };
        lines.push(format!("{} {}", spell(left), spell(right)));
    }
    lines
}
