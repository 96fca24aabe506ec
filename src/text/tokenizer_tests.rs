use std::time::{Duration, Instant};

use ggml_kernels::gguf::{Array, Metadata, Value};
use proptest::prelude::*;

use super::fixture;
use super::pretokenizer::Pretokenizer;
use super::tokenizer::{Specials, Tokenizer};
use crate::request::Token;

fn ids(row: &serde_json::Value) -> Vec<Token> {
    let ids = row.as_array().expect("ids").iter();
    ids.map(|v| v.as_u64().expect("an id") as Token).collect()
}

#[test]
fn the_golden_texts_get_the_reference_tokens() {
    for name in ["tiny", "small"] {
        let tokenizer = fixture::tokenizer(name);
        for row in fixture::json(name, "golden_tokenizer.json")
            .as_array()
            .expect("rows")
        {
            let text = row["text"].as_str().expect("a text");
            let special = tokenizer.encode(text, Specials::Parse);
            assert_eq!(special, ids(&row["ids_special"]), "{name}: {text:?}");
            let plain = tokenizer.encode(text, Specials::Plain);
            assert_eq!(plain, ids(&row["ids_plain"]), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&special), text.as_bytes());
        }
    }
}

#[test]
fn the_golden_texts_of_ling_get_the_reference_tokens() {
    let tokenizer = Tokenizer::from_metadata(&fixture::ling(true)).expect("a tokenizer");
    for row in fixture::json("ling", "golden_tokenizer.json")
        .as_array()
        .expect("rows")
    {
        let text = row["text"].as_str().expect("a text");
        let special = tokenizer.encode(text, Specials::Parse);
        assert_eq!(special, ids(&row["ids_special"]), "{text:?}");
        let plain = tokenizer.encode(text, Specials::Plain);
        assert_eq!(plain, ids(&row["ids_plain"]), "{text:?}");
    }
}

#[test]
fn what_can_be_composed_is_composed_where_the_vocabulary_wants_it() {
    let ling = Tokenizer::from_metadata(&fixture::ling(true)).expect("a tokenizer");
    let both = |t: &Tokenizer| ["e\u{301}", "\u{e9}"].map(|s| t.encode(s, Specials::Plain));
    let [apart, whole] = both(&ling);
    assert_eq!(apart, whole);
    let [apart, whole] = both(&fixture::tokenizer("tiny"));
    assert_ne!(apart, whole);
    // Between special tokens alone: nothing is composed across one.
    let across = "e<think>\u{301}";
    let decoded = ling.decode(&ling.encode(across, Specials::Parse));
    assert_eq!(decoded, across.as_bytes());
}

#[test]
fn both_end_tokens_of_ling_end_a_turn_and_so_does_any_that_a_file_lists() {
    let ling = Tokenizer::from_metadata(&fixture::ling(true)).expect("a tokenizer");
    assert_eq!(ling.end_tokens(), [305, 308]);
    let mut meta = fixture::ling(true);
    let list = Value::Array(Array::U32(vec![308, 305, 306, 307]));
    set(&mut meta, "eos_token_ids", list);
    let ling = Tokenizer::from_metadata(&meta).expect("a tokenizer");
    assert_eq!(ling.end_tokens(), [305, 306, 307, 308]);
    set(
        &mut meta,
        "eos_token_ids",
        Value::Array(Array::U32(vec![352])),
    );
    let why = Tokenizer::from_metadata(&meta).err().expect("a refusal");
    assert!(why.to_string().contains("eos_token_ids: 352"), "{why}");
}

/// The pattern as Ling's file has it, by an engine that backtracks.
fn ling_pieces(text: &str) -> Vec<String> {
    const PUBLISHED: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
    let pattern = fancy_regex::Regex::new(PUBLISHED).expect("a pattern");
    let pieces = pattern.find_iter(text);
    pieces
        .map(|m| m.expect("a match").as_str().to_owned())
        .collect()
}

proptest! {
    #[test]
    fn ling_cuts_as_its_published_pattern_does(text in "['sdmtLlVvEeRr aéſ1٣½ \t\r\n\u{a0}\u{3000}.,!|<>今🙂\u{301}]{0,24}") {
        let ours = Pretokenizer::named("bailingmoe2").expect("Ling's");
        let ours: Vec<&str> = ours.pieces(&text).collect();
        prop_assert_eq!(ours, ling_pieces(&text));
    }
}

#[test]
fn megabytes_of_one_character_take_linear_time() {
    let tokenizer = fixture::tokenizer("small");
    for unit in [
        "a",
        "A",
        " ",
        "\n",
        " \n",
        "今",
        "é",
        "1",
        "'",
        "<",
        "<|im_end|>",
        "\u{301}",
    ] {
        for tail in ["", "x", "\n", "今"] {
            let text = unit.repeat((1 << 20) / unit.len()) + tail;
            let start = Instant::now();
            let tokens = tokenizer.encode(&text, Specials::Parse);
            let took = start.elapsed();
            assert!(
                took < Duration::from_secs(10),
                "{unit:?} {tail:?}: {took:?}"
            );
            assert_eq!(tokenizer.decode(&tokens), text.as_bytes());
        }
    }
}

#[test]
fn every_end_of_turn_ends() {
    let tokenizer = fixture::tokenizer("tiny");
    for name in ["<|im_end|>", "[EOS]", "[EOT]"] {
        let token = tokenizer.special_id(name).expect(name);
        assert!(tokenizer.is_end(token), "{name}");
        assert!(tokenizer.is_special(token), "{name}");
    }
    assert!(!tokenizer.is_end(tokenizer.special_id("<|im_user|>").expect("im_user")));
    assert!(!tokenizer.is_end(0));
}

#[test]
fn reserved_tokens_are_spelled_by_number() {
    let tokenizer = fixture::tokenizer("tiny");
    let token = tokenizer.special_id("<|reserved_token_515|>");
    assert_eq!(token, Some(515));
    assert_eq!(tokenizer.token_bytes(515), b"<|reserved_token_515|>");
}

#[test]
fn a_token_outside_the_vocabulary_is_empty_and_special() {
    let tokenizer = fixture::tokenizer("tiny");
    let outside = tokenizer.n_vocab() as Token;
    assert_eq!(tokenizer.token_bytes(outside), b"");
    assert!(tokenizer.is_special(outside));
}

fn set(meta: &mut Metadata, key: &str, value: Value) {
    meta.map.insert(format!("tokenizer.ggml.{key}"), value);
}

fn refusal(change: impl FnOnce(&mut Metadata)) -> String {
    let mut meta = fixture::metadata("tiny");
    change(&mut meta);
    match Tokenizer::from_metadata(&meta) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("a broken vocabulary was accepted"),
    }
}

#[test]
fn a_foreign_or_broken_vocabulary_is_refused_by_name() {
    let strings = |v: &[&str]| Value::Array(Array::Str(v.iter().map(|s| s.to_string()).collect()));
    let why = refusal(|m| set(m, "model", Value::Str("llama".into())));
    assert!(why.contains("tokenizer.ggml.model: \"llama\""), "{why}");
    let why = refusal(|m| set(m, "pre", Value::Str("deepseek-v3".into())));
    assert!(
        why.contains("\"deepseek-v3\", want one of kimi-k2"),
        "{why}"
    );
    let why = refusal(|m| set(m, "tokens", strings(&["a", "b"])));
    assert!(why.contains("768 types for 2 tokens"), "{why}");
    let why = refusal(|m| {
        m.map.remove("tokenizer.ggml.token_type");
        set(m, "tokens", strings(&["a b"]));
    });
    assert!(why.contains("tokens[0]: \"a b\" holds ' '"), "{why}");
    let why = refusal(|m| {
        m.map.remove("tokenizer.ggml.token_type");
        set(m, "tokens", strings(&["a"]));
    });
    assert!(why.contains("no token for byte 0x00"), "{why}");
    let why = refusal(|m| {
        m.map.remove("tokenizer.ggml.token_type");
        set(m, "tokens", strings(&[&"a".repeat(5000)]));
    });
    assert!(why.contains("tokens[0]: 5000 bytes long"), "{why}");
    let why = refusal(|m| set(m, "merges", strings(&["a b", "nothing"])));
    assert!(why.contains("tokenizer.ggml.merges[0]"), "{why}");
    let why = refusal(|m| set(m, "eos_token_id", Value::U32(5000)));
    assert!(why.contains("eos_token_id: 5000"), "{why}");
    let why = refusal(|m| {
        m.map.remove("tokenizer.ggml.tokens");
    });
    assert!(why.contains("tokenizer.ggml.tokens: missing"), "{why}");
}

/// A file whose merges are not in the order of its ids: the merges decide.
#[test]
fn merges_that_disagree_with_token_order_are_honoured() {
    let mut tokens: Vec<String> = (0..=255).map(|b| fixture::spell(&[b])).collect();
    tokens.extend(["bc", "ab", "abc"].map(String::from));
    let mut meta = Metadata::default();
    set(&mut meta, "model", Value::Str("gpt2".into()));
    set(&mut meta, "pre", Value::Str("kimi-k2".into()));
    set(&mut meta, "tokens", Value::Array(Array::Str(tokens)));
    let list = |lines: [&str; 2]| Value::Array(Array::Str(lines.map(String::from).to_vec()));

    set(&mut meta, "merges", list(["a b", "b c"]));
    let by_list = Tokenizer::from_metadata(&meta).expect("merges out of order");
    assert_eq!(by_list.encode("xabc", Specials::Plain), [120, 257, 99]);

    set(&mut meta, "merges", list(["b c", "a b"]));
    let by_rank = Tokenizer::from_metadata(&meta).expect("merges in order");
    assert_eq!(by_rank.encode("xabc", Specials::Plain), [120, 258]);
}

/// tiktoken's own implementation, as the slow twin.
fn tiktoken(name: &str) -> tiktoken_rs::CoreBPE {
    let ranks = fixture::ranks(name).into_iter().zip(0..).collect();
    const PATTERN: &str = concat!(
        r"[\p{Han}]+",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    );
    tiktoken_rs::CoreBPE::new(ranks, Default::default(), PATTERN).expect("a pattern")
}

fn text_like() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        5 => "[a-zA-Z]{1,9}",
        4 => "[ \t\n\r\u{a0}\u{3000}]{1,6}",
        1 => "[0-9½Ⅷ]{1,7}",
        1 => "'(s|T|re|VE|m|ll|d|x)",
        1 => "[今天天气很好々〇]{1,5}",
        1 => "[éßØñПрив\u{301}ǅʰこم🙂👩\u{200d}]{1,5}",
        1 => "[!-/:-@<>|]{1,4}",
        1 => prop::sample::select(vec!["<|im_end|>", "[EOS]", "the", " daemon", "<|im_", "int main"]).prop_map(String::from),
        1 => any::<String>(),
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_gets_tiktokens_tokens(text in text_like()) {
        static TWINS: std::sync::LazyLock<(Tokenizer, tiktoken_rs::CoreBPE)> =
            std::sync::LazyLock::new(|| (fixture::tokenizer("small"), tiktoken("small")));
        let (ours, theirs) = &*TWINS;
        let tokens = ours.encode(&text, Specials::Plain);
        prop_assert_eq!(&tokens, &theirs.encode_ordinary(&text));
        prop_assert!(tokens.iter().all(|&t| !ours.is_special(t)));
        prop_assert_eq!(ours.decode(&tokens), text.as_bytes());
        prop_assert_eq!(ours.decode(&ours.encode(&text, Specials::Parse)), text.as_bytes());
    }
}

/// One part of the metadata replaced by anything of its type: refused or usable, never a panic.
fn mutation() -> impl Strategy<Value = (String, Value)> {
    let keys = [
        "tokens",
        "token_type",
        "merges",
        "eos_token_id",
        "bos_token_id",
        "pre",
        "model",
    ];
    let strings =
        prop::collection::vec("[a-cĠĊ< >|]{0,4}", 0..300).prop_map(|v| Value::Array(Array::Str(v)));
    let types = prop::collection::vec(-1i32..8, 760..770).prop_map(|v| Value::Array(Array::I32(v)));
    let other = prop_oneof![
        any::<i64>().prop_map(Value::I64),
        any::<String>().prop_map(Value::Str),
        Just(Value::Str("gpt-2".into())),
        Just(Value::Str("qwen2".into())),
    ];
    (
        prop::sample::select(keys.to_vec()),
        prop_oneof![strings, types, other],
    )
        .prop_map(|(k, v)| (k.to_owned(), v))
}

proptest! {
    #[test]
    fn no_metadata_panics(changes in prop::collection::vec(mutation(), 1..4), text in text_like()) {
        static TINY: std::sync::LazyLock<Metadata> = std::sync::LazyLock::new(|| fixture::metadata("tiny"));
        let mut meta = TINY.clone();
        for (key, value) in changes {
            set(&mut meta, &key, value);
        }
        if let Ok(tokenizer) = Tokenizer::from_metadata(&meta) {
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text, Specials::Plain)), text.as_bytes());
        }
    }
}
