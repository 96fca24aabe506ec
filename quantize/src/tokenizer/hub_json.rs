//! `tokenizer.json` of the hub's tokenizers library: a byte-level BPE vocabulary with its merges.

use super::{CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary};
use crate::error::Error;
use serde_json::Value as Json;
use std::path::Path;

pub fn read(path: &Path, size: usize) -> Result<Vocabulary, Error> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let json: Json =
        serde_json::from_slice(&text).map_err(|e| Error::input(path, format!("not JSON: {e}")))?;
    parse(&json, size).map_err(|what| Error::input(path, what))
}

fn parse(json: &Json, size: usize) -> Result<Vocabulary, String> {
    let model = &json["model"];
    if model["type"] != "BPE" {
        return Err(format!("`model.type` is {}, wanted \"BPE\"", model["type"]));
    }
    // The file names no pre-tokenizer; Kimi's is the one that sets Han characters apart.
    if !json["pre_tokenizer"].to_string().contains(r"\\p{Han}") {
        return Err("the pre-tokenizer is not Kimi's (its pattern has no \\p{Han})".into());
    }
    let vocab = model["vocab"]
        .as_object()
        .ok_or("`model.vocab` is missing")?;
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; size];
    let mut place = |id: Option<u64>, text: &str, kind: i32| {
        let id = id.and_then(|id| usize::try_from(id).ok());
        let slot = id.and_then(|id| tokens.get_mut(id));
        let slot =
            slot.ok_or_else(|| format!("token {text:?} has no id below vocab_size {size}"))?;
        match slot {
            Some((other, _)) if other != text => {
                Err(format!("tokens {other:?} and {text:?} have one id"))
            }
            slot => {
                *slot = Some((text.to_owned(), kind));
                Ok(())
            }
        }
    };
    for (text, id) in vocab {
        place(id.as_u64(), text, NORMAL)?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let special = added["special"].as_bool().unwrap_or(false);
        let kind = if special { CONTROL } else { USER_DEFINED };
        let content = added["content"]
            .as_str()
            .ok_or("an added token has no content")?;
        place(added["id"].as_u64(), content, kind)?;
    }
    let tokens = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| match token {
            Some(token) => token,
            None => (format!("[PAD{id}]"), UNUSED),
        });
    let merges = model["merges"]
        .as_array()
        .ok_or("`model.merges` is missing")?;
    // "a b" in older files, ["a", "b"] in newer ones.
    let merge = |merge: &Json| match merge {
        Json::String(pair) => Some(pair.clone()),
        pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
    };
    let merges: Option<Vec<_>> = merges.iter().map(merge).collect();
    Ok(Vocabulary {
        tokens: tokens.collect(),
        merges: merges.ok_or("`model.merges` holds something that is no pair")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Json {
        json!({
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
            "pre_tokenizer": {"pattern": {"Regex": r"[\p{Han}]+|..."}},
            "added_tokens": [
                {"id": 3, "content": "<|im_end|>", "special": true},
                {"id": 4, "content": "<think>", "special": false},
            ],
        })
    }

    #[test]
    fn tokens_merges_and_types_are_taken_over() {
        let vocabulary = parse(&sample(), 6).unwrap();
        let kinds: Vec<i32> = vocabulary.tokens.iter().map(|t| t.1).collect();
        assert_eq!(
            kinds,
            [NORMAL, NORMAL, NORMAL, CONTROL, USER_DEFINED, UNUSED]
        );
        assert_eq!(vocabulary.tokens[5].0, "[PAD5]");
        assert_eq!(vocabulary.merges, ["a b"]);
        let mut old = sample();
        old["model"]["merges"] = json!(["a b"]);
        assert_eq!(parse(&old, 6).unwrap().merges, ["a b"]);
    }

    #[test]
    fn another_tokenizer_is_refused() {
        let refused = |edit: fn(&mut Json)| {
            let mut json = sample();
            edit(&mut json);
            parse(&json, 5).err().unwrap()
        };
        assert!(refused(|j| j["model"]["type"] = "Unigram".into()).contains("wanted \"BPE\""));
        assert!(refused(|j| j["pre_tokenizer"] = json!(null)).contains("not Kimi's"));
        assert!(refused(|j| j["model"]["vocab"]["c"] = 2.into()).contains("one id"));
        assert!(refused(|j| j["model"]["vocab"]["c"] = 5.into()).contains("vocab_size 5"));
        assert!(refused(|j| j["model"]["merges"] = json!([1])).contains("no pair"));
    }
}
