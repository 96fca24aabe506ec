//! How a `tokenizer.json` cuts text before merging: its normalizer and pre-tokenizer by the name that
//! GGUF has for them. A table of two; whatever differs from both is refused by name, since a file
//! that says less than this would be read with other cuts.

use serde_json::Value as Json;

pub const KIMI: &str = "kimi-k2";
pub const BAILING: &str = "bailingmoe2";

/// Ling's pattern as its files have it. The reader of a GGUF knows it, and its normalization to
/// NFC, by [`BAILING`] alone.
const BAILING_SPLIT: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

/// `tokenizer.ggml.pre` of a file; what it holds and what was wanted where that is none.
pub fn name(json: &Json) -> Result<&'static str, String> {
    let normalizer = match &json["normalizer"] {
        Json::Null => "none",
        other => other["type"].as_str().unwrap_or("unnamed"),
    };
    let pre = &json["pre_tokenizer"];
    // Kimi's pattern is spelled in several ways; alone of all it sets Han characters apart.
    let is_kimi = pre.to_string().contains(r"\\p{Han}");
    let (name, wanted) = if is_kimi {
        (KIMI, "none")
    } else {
        bailing(pre)?;
        (BAILING, "NFC")
    };
    if normalizer != wanted {
        return Err(format!(
            "the normalizer is {normalizer}, wanted {wanted} with this pre-tokenizer ({name})"
        ));
    }
    if name == BAILING && json["model"]["ignore_merges"] == true {
        return Err("`model.ignore_merges` is true, which Ling's vocabularies are not".into());
    }
    Ok(name)
}

/// Nothing but a split by Ling's pattern into pieces that are then spelled as bytes.
fn bailing(pre: &Json) -> Result<(), String> {
    let steps = match pre["type"].as_str() {
        Some("Sequence") => pre["pretokenizers"].as_array().map_or(&[][..], |s| s),
        _ => std::slice::from_ref(pre),
    };
    let known = "Kimi's with \\p{Han}, or Ling's split with bytes after it";
    let [split, bytes] = steps else {
        let n = steps.len();
        return Err(format!(
            "the pre-tokenizer has {n} steps, wanted {known}: {pre}"
        ));
    };
    let off = |value: &Json| matches!(value, Json::Null | Json::Bool(false));
    if split["type"] != "Split" || split["behavior"] != "Isolated" || !off(&split["invert"]) {
        return Err(format!(
            "the pre-tokenizer begins with {split}, wanted {known}"
        ));
    }
    match split["pattern"]["Regex"].as_str() {
        Some(BAILING_SPLIT) => {}
        _ => {
            let pattern = &split["pattern"];
            return Err(format!(
                "the pre-tokenizer splits by {pattern}, wanted {known}"
            ));
        }
    }
    // `use_regex` is true where it is left out.
    let plain = bytes["add_prefix_space"] == false && bytes["use_regex"] == false;
    if bytes["type"] != "ByteLevel" || !plain {
        return Err(format!(
            "the pre-tokenizer ends with {bytes}, wanted {known}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ling() -> Json {
        json!({
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": BAILING_SPLIT}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            ]},
            "model": {"ignore_merges": false},
        })
    }

    #[test]
    fn the_two_that_are_implemented_are_named() {
        assert_eq!(name(&ling()), Ok(BAILING));
        let kimi = json!({"pre_tokenizer": {"pattern": {"Regex": r"[\p{Han}]+|..."}}});
        assert_eq!(name(&kimi), Ok(KIMI));
    }

    #[test]
    fn every_difference_is_refused_with_what_it_is() {
        let refused = |at: &str, value: Json| {
            let mut json = ling();
            *json.pointer_mut(at).expect(at) = value;
            name(&json).expect_err(at)
        };
        let split = "/pre_tokenizer/pretokenizers/0";
        let why = refused(&format!("{split}/pattern/Regex"), r"\w+".into());
        assert!(why.contains(r"splits by {"), "{why}");
        assert!(why.contains(r"\\w+"), "{why}");
        let why = refused(&format!("{split}/behavior"), "Removed".into());
        assert!(why.contains("Removed"), "{why}");
        let bytes = "/pre_tokenizer/pretokenizers/1";
        let why = refused(&format!("{bytes}/use_regex"), true.into());
        assert!(why.contains("ends with"), "{why}");
        let why = refused("/pre_tokenizer/pretokenizers", json!([]));
        assert!(why.contains("0 steps"), "{why}");
        let why = refused("/normalizer/type", "NFKC".into());
        assert!(why.contains("the normalizer is NFKC, wanted NFC"), "{why}");
        let why = refused("/normalizer", Json::Null);
        assert!(why.contains("the normalizer is none"), "{why}");
        let why = refused("/model/ignore_merges", true.into());
        assert!(why.contains("ignore_merges"), "{why}");
        let why = name(&json!({"pre_tokenizer": null})).expect_err("nothing");
        assert!(why.contains("1 steps"), "{why}");
    }
}
