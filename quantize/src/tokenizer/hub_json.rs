//! `tokenizer.json` of the hub's tokenizers library: a byte-level BPE vocabulary with its merges.
//! Refuses by name what would tokenize otherwise than a reader of the GGUF does.

use super::{CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary, pre};
use crate::error::Error;
use serde_json::{Value as Json, json};
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
    let pre = pre::name(json)?;
    for (field, plain) in [
        ("byte_fallback", json!(false)),
        ("continuing_subword_prefix", json!("")),
        ("end_of_word_suffix", json!("")),
        ("dropout", json!(0.0)),
    ] {
        let value = &model[field];
        if !value.is_null() && *value != plain {
            return Err(format!(
                "`model.{field}` is {value}, wanted {plain} or null"
            ));
        }
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
        for rule in ["single_word", "lstrip", "rstrip"] {
            if added[rule] == true {
                return Err(format!("added token {content:?} has {rule}, wanted none"));
            }
        }
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
        pre,
        tokens: tokens.collect(),
        merges: merges.ok_or("`model.merges` holds something that is no pair")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_file_of_lings_layout_is_read_alone() {
        let path = "../tests/fixtures/tokenizer/ling/tokenizer.json";
        let vocabulary = read(Path::new(path), 352).unwrap();
        assert_eq!(vocabulary.pre, pre::BAILING);
        assert_eq!(
            (vocabulary.tokens.len(), vocabulary.merges.len()),
            (352, 48)
        );
        let of = |id: usize| (vocabulary.tokens[id].0.as_str(), vocabulary.tokens[id].1);
        assert_eq!(of(308), ("<|role_end|>", CONTROL));
        assert_eq!(of(321), ("[PAD321]", UNUSED));
        assert!(
            read(Path::new(path), 320).is_err(),
            "a token is past the end"
        );
    }

    #[test]
    fn another_tokenizer_is_refused() {
        let refused = |edit: fn(&mut Json)| {
            let mut json = sample();
            edit(&mut json);
            parse(&json, 5).err().unwrap()
        };
        assert!(refused(|j| j["model"]["type"] = "Unigram".into()).contains("wanted \"BPE\""));
        assert!(refused(|j| j["pre_tokenizer"] = json!(null)).contains("the pre-tokenizer"));
        assert!(refused(|j| j["normalizer"]["type"] = "NFC".into()).contains("normalizer is NFC"));
        assert!(refused(|j| j["model"]["byte_fallback"] = true.into()).contains("byte_fallback"));
        assert!(refused(|j| j["model"]["dropout"] = 0.1.into()).contains("dropout"));
        assert!(refused(|j| j["added_tokens"][0]["lstrip"] = true.into()).contains("lstrip"));
        assert!(refused(|j| j["model"]["vocab"]["c"] = 2.into()).contains("one id"));
        assert!(refused(|j| j["model"]["vocab"]["c"] = 5.into()).contains("vocab_size 5"));
        assert!(refused(|j| j["model"]["merges"] = json!([1])).contains("no pair"));
    }
}
