//! Ling's replies, read and enforced: its markup flagged as control tokens, as text, and without
//! tokens for the tags inside a call.

use std::sync::{Arc, LazyLock};

use ggml_kernels::gguf::{Array, Metadata, Value as Field};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::constraint::{Constraint, Grammars};
use super::fixture;
use super::markup::{self, Markup};
use super::tokenizer::{Specials, Tokenizer};
use super::tool_calls::*;
use crate::request::ToolChoice;
use crate::request::{Sampling, Stop, Token};
use crate::sampler::Sampler;

struct Model {
    tokenizer: Tokenizer,
    markup: Arc<dyn Markup>,
    grammars: Grammars,
}

fn model(meta: &Metadata) -> Model {
    let tokenizer = Tokenizer::from_metadata(meta).expect("a tokenizer");
    let template = meta.str("tokenizer.chat_template").expect("a template");
    let markup = markup::of(&tokenizer, template).expect("Ling's");
    Model {
        grammars: Grammars::new(&tokenizer, Some(markup.clone())).expect("grammars"),
        tokenizer,
        markup,
    }
}

/// The tags inside a call have no tokens of their own.
fn spelled() -> Metadata {
    let mut meta = fixture::ling(true);
    let key = "tokenizer.ggml.tokens";
    let mut tokens = meta.strs(key).expect("tokens").to_vec();
    for (id, token) in tokens.iter_mut().enumerate() {
        if token.contains("arg_") {
            *token = format!("<|reserved_{id}|>");
        }
    }
    meta.map
        .insert(key.into(), Field::Array(Array::Str(tokens)));
    meta
}

static MODELS: LazyLock<[Model; 3]> = LazyLock::new(|| {
    [fixture::ling(true), fixture::ling(false), spelled()].map(|meta| model(&meta))
});

fn tools() -> Vec<Value> {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let weather = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 8},
            "days": {"$ref": "#/$defs/days"},
            "unit": {"enum": ["C", "F"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
            "note": {"anyOf": [{"type": "string", "pattern": "^[a-z]{1,4}$"}, {"type": "null"}]},
        },
        "required": ["city", "days", "unit"],
        "additionalProperties": false,
        "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 14}},
    });
    let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
    vec![tool("get_weather", weather), tool("get_time", none)]
}

impl Model {
    fn expect(&self, thinking: bool) -> Expect {
        let (markup, tools) = (self.markup.clone(), tools().into());
        Expect {
            calls: Some(Calls {
                markup,
                tools,
                salt: 7,
            }),
            thinking,
        }
    }

    fn read_tokens(
        &self,
        tokens: &[Token],
        thinking: bool,
    ) -> (WholeReply, ReplyReader, Vec<Delta>) {
        let stop = Stop::default();
        let mut reader = ReplyReader::new(&self.tokenizer, &stop, self.expect(thinking));
        let tokens = tokens.iter();
        let mut deltas: Vec<Delta> = tokens
            .flat_map(|&t| reader.push(&self.tokenizer, t))
            .collect();
        deltas.extend(reader.finish());
        let mut whole = WholeReply::default();
        deltas.iter().cloned().for_each(|d| whole.add(d));
        (whole, reader, deltas)
    }

    fn read(&self, text: &str, thinking: bool) -> (WholeReply, ReplyReader, Vec<Delta>) {
        let tokens = self.tokenizer.encode(text, Specials::Parse);
        self.read_tokens(&tokens, thinking)
    }

    /// What a model of random taste writes under the constraint, up to its end of turn.
    fn babble(&self, mut constraint: Constraint, seed: u64, lead: &str) -> Vec<Token> {
        let mut sampler = Sampler::new(&Sampling::default(), seed, &[]);
        let logits: Vec<f32> = vec![0.0; self.tokenizer.n_vocab()];
        let mut tokens = self.tokenizer.encode(lead, Specials::Parse);
        for &token in &tokens {
            constraint.accept(token).expect("the lead");
        }
        while !constraint.is_complete() {
            let so_far = String::from_utf8_lossy(&self.tokenizer.decode(&tokens)).into_owned();
            assert!(tokens.len() < 9000, "no end: {so_far}");
            let mask = constraint.mask().expect("a mask");
            let token = sampler.sample(&logits, mask.as_ref()).expect("a token");
            constraint.accept(token).expect("a token of the mask");
            if !self.tokenizer.is_end(token) {
                tokens.push(token);
            }
        }
        tokens
    }
}

fn called(reply: &WholeReply) -> Vec<(&str, Value)> {
    let calls = reply.tool_calls.iter();
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    calls
        .map(|c| (c.name.as_str(), parsed(&c.arguments)))
        .collect()
}

const TWO: &str = concat!(
    "Let me look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Zü \"🙂\"\n5</arg_value>",
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value><arg_key>tags</arg_key><arg_value>\n[\"a\", \"b\"]\n</arg_value>\n",
    "<arg_key> note </arg_key>\n\n<arg_value>null</arg_value><arg_key>more</arg_key>\n<arg_value>true</arg_value>\n</tool_call>\n",
    "<tool_call>get_time\n\n</tool_call><|role_end|>",
);

#[test]
fn calls_of_several_arguments_are_read_and_typed_by_the_tools() {
    for model in &*MODELS {
        let (whole, reader, deltas) = model.read(TWO, false);
        assert_eq!(whole.content, "Let me look.");
        let weather = json!({"city": "Zü \"🙂\"\n5", "days": 3, "tags": ["a", "b"], "note": null, "more": true});
        assert_eq!(
            called(&whole),
            [("get_weather", weather), ("get_time", json!({}))]
        );
        assert!(reader.calls_tools());
        assert_ne!(whole.tool_calls[0].id, whole.tool_calls[1].id);
        let of_first = |d: &&Delta| matches!(d, Delta::Arguments { index: 0, .. });
        assert!(
            deltas.iter().filter(of_first).count() > 8,
            "streamed: {deltas:?}"
        );
    }
}

#[test]
fn a_call_ends_a_thought_that_was_not_ended() {
    for model in &*MODELS {
        let (whole, reader, _) = model.read("hm <tool_call>get_time\n</tool_call>", true);
        assert_eq!((&*whole.reasoning, &*whole.content), ("hm ", ""));
        assert_eq!(called(&whole), [("get_time", json!({}))]);
        assert!(reader.calls_tools());
        let (whole, ..) = model.read("hm</think>\n<tool_call>get_time</tool_call>", true);
        assert_eq!((&*whole.reasoning, &*whole.content), ("hm", ""));
        assert_eq!(called(&whole), [("get_time", json!({}))]);
        let (whole, ..) = model.read("hm</tool_call>hm</think>yes\n", true);
        assert!(whole.reasoning.starts_with("hm") && whole.reasoning.ends_with("hm"));
        assert_eq!(whole.content, "yes\n", "an end of no call ends no thought");
        let (whole, ..) = model.read("hm</think>yes\n", true);
        assert_eq!((&*whole.reasoning, &*whole.content), ("hm", "yes\n"));
    }
}

#[test]
fn an_end_that_is_spelled_out_is_an_end_in_thought_and_in_content() {
    for model in &*MODELS {
        let spelled = |text: &str| model.tokenizer.encode(text, Specials::Plain);
        let tokens = spelled("yes<|role_end|>more");
        let (whole, reader, _) = model.read_tokens(&tokens, false);
        assert_eq!(whole.content, "yes");
        assert_eq!(reader.stopped(), Some(Stopped::Spelled));
        let (whole, reader, _) = model.read_tokens(&spelled("hm<|role_end|>"), true);
        assert_eq!(
            (&*whole.reasoning, reader.stopped()),
            ("hm", Some(Stopped::Spelled))
        );
        let (whole, reader, _) = model.read_tokens(&spelled("a <|role_en"), false);
        assert_eq!((&*whole.content, reader.stopped()), ("a <|role_en", None));
        let stop = Stop {
            ignore_eos: true,
            ..Stop::default()
        };
        let mut reader = ReplyReader::new(&model.tokenizer, &stop, Expect::default());
        for &token in &tokens {
            reader.push(&model.tokenizer, token);
        }
        assert_eq!(reader.stopped(), None, "past every end");
    }
}

#[test]
fn what_is_no_call_is_text_and_a_call_cut_short_is_none() {
    for model in &*MODELS {
        let json = r#"<tool_call>{"name": "get_time"}"#;
        let (whole, reader, _) = model.read(&format!("{json}\n</tool_call>"), false);
        assert!(whole.tool_calls.is_empty() && !reader.calls_tools());
        assert!(
            whole.content.starts_with(r#"{"name": "get_time"}"#),
            "{whole:?}"
        );
        let cut = "<tool_call>get_weather\n<arg_key>city</arg_key><arg_value>Os";
        let (whole, reader, _) = model.read(cut, false);
        assert_eq!(whole.tool_calls[0].arguments, r#"{"city": "Os"#);
        assert!(!reader.calls_tools());
        // The last tag may be missing where the call's own end came.
        let (whole, reader, _) = model.read(&format!("{cut}lo</tool_call>"), false);
        assert_eq!(called(&whole), [("get_weather", json!({"city": "Oslo"}))]);
        assert!(reader.calls_tools());
        let plain = model
            .tokenizer
            .encode("<tool_call>get_time\n</tool_call>", Specials::Plain);
        let (whole, ..) = model.read_tokens(&plain, false);
        assert!(whole.tool_calls.is_empty(), "text that spells it is text");
    }
}

#[test]
fn other_markup_inside_a_call_is_no_part_of_it() {
    let model = &MODELS[0];
    let text = "<tool_call>get_weather\n<arg_key>city</arg_key>junk<arg_value>Os<role><think>lo</arg_value>junk</tool_call>";
    let (whole, ..) = model.read(text, false);
    assert_eq!(called(&whole), [("get_weather", json!({"city": "Oslo"}))]);
}

#[test]
fn another_familys_template_has_other_calls() {
    let tokenizer = &MODELS[0].tokenizer;
    assert!(markup::of(tokenizer, "<tool_call>{{ call | tojson }}</tool_call>").is_none());
}

proptest! {
    /// The same reply cut into other tokens is the same reply.
    #[test]
    fn how_a_call_is_cut_into_tokens_changes_nothing(at in 0usize..3, value in "[a<>/_=v\"\\\\ é]{0,12}") {
        let model = &MODELS[at];
        let text = format!("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>");
        let merged = model.tokenizer.encode(&text, Specials::Parse);
        // Its words are of up to 8 bytes, the first 256 tokens of one each.
        let byte = |b: &u8| (0..256).find(|&t| model.tokenizer.token_bytes(t) == [*b]).expect("a byte");
        let bytes = |t: Token| model.tokenizer.token_bytes(t).iter().map(byte).collect::<Vec<Token>>();
        let split = merged.iter().flat_map(|&t| if t >= 304 { vec![t] } else { bytes(t) });
        let split: Vec<Token> = split.collect();
        let (a, ..) = model.read_tokens(&merged, false);
        let (b, ..) = model.read_tokens(&split, false);
        prop_assert_eq!(called(&a)[0].1.clone(), json!({"city": value}));
        prop_assert_eq!(a, b);
    }
}

fn check(arguments: &Value) {
    let map = arguments.as_object().expect("an object");
    let city = map["city"].as_str().expect("a city");
    assert!(city.chars().count() <= 8, "{arguments}");
    let days = map["days"].as_u64().expect("days");
    assert!((1..=14).contains(&days), "{arguments}");
    assert!(["C", "F"].contains(&map["unit"].as_str().expect("a unit")));
    if let Some(note) = map.get("note").and_then(Value::as_str) {
        let is_word = (1..=4).contains(&note.len()) && note.bytes().all(|b| b.is_ascii_lowercase());
        assert!(is_word, "{arguments}");
    }
    for tag in map
        .get("tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        assert!(
            tag.as_str().expect("a tag").chars().count() <= 3,
            "{arguments}"
        );
    }
    let known = ["city", "days", "unit", "tags", "note"];
    assert!(
        map.keys().all(|k| known.contains(&k.as_str())),
        "{arguments}"
    );
}

#[test]
fn whatever_the_model_likes_a_call_that_must_come_is_one_that_validates() {
    for model in &*MODELS {
        let (mut n_calls, mut n_weather) = (0, 0);
        for seed in 0..12 {
            let constraint = model
                .grammars
                .tool_calls(&tools(), &ToolChoice::Required, true);
            let tokens = model.babble(constraint.expect("tools"), seed, "");
            let (reply, reader, _) = model.read_tokens(&tokens, false);
            assert!(
                reader.calls_tools() && reply.content.is_empty(),
                "{reply:?}"
            );
            for (name, arguments) in called(&reply) {
                n_calls += 1;
                match name {
                    "get_weather" => check(&arguments),
                    "get_time" => assert_eq!(arguments, json!({})),
                    other => panic!("{other}"),
                }
                n_weather += usize::from(name == "get_weather");
            }
        }
        assert!(
            n_calls > 12 && n_weather > 0,
            "{n_weather} of {n_calls} calls"
        );
        let named = ToolChoice::Named("get_weather".into());
        for seed in 0..4 {
            let constraint = model
                .grammars
                .tool_calls(&tools(), &named, true)
                .expect("tools");
            let (reply, ..) = model.read_tokens(&model.babble(constraint, seed, ""), false);
            assert_eq!(reply.tool_calls.len(), 1, "{reply:?}");
            check(&called(&reply)[0].1);
        }
    }
}

#[test]
fn a_call_that_the_model_begins_by_itself_validates() {
    for model in &*MODELS {
        for seed in 0..4 {
            let constraint = model.grammars.tool_calls(&tools(), &ToolChoice::Auto, true);
            let tokens = model.babble(constraint.expect("tools"), seed, "Well.\n<tool_call>");
            let (reply, reader, _) = model.read_tokens(&tokens, false);
            assert!(reader.calls_tools(), "{reply:?}");
            assert_eq!(reply.content, "Well.");
        }
    }
}

#[test]
fn a_thought_goes_before_an_answer_that_keeps_to_a_grammar_and_has_an_end() {
    for model in &*MODELS {
        for seed in 0..4 {
            let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}},
                "required": ["n"], "additionalProperties": false});
            let constraint = model.grammars.json_schema(&schema).expect("a schema");
            let constraint = constraint.after_thinking(20).expect("a thought");
            let tokens = model.babble(constraint, seed, "");
            let end = model.tokenizer.special_id("</think>").expect("its end");
            let at = tokens.iter().position(|&t| t == end).expect("it ends");
            assert!(at <= 20);
            let (reply, ..) = model.read_tokens(&tokens[at + 1..], false);
            let said: Value = serde_json::from_str(&reply.content).expect("JSON");
            assert!(said["n"].as_u64().is_some_and(|n| n <= 9));

            let calls = model
                .grammars
                .tool_calls(&tools(), &ToolChoice::Required, false);
            let calls = calls.expect("tools").after_thinking(10).expect("a thought");
            let tokens = model.babble(calls, seed, "");
            let (reply, reader, _) = model.read_tokens(&tokens, true);
            assert!(
                reader.calls_tools() && reply.tool_calls.len() == 1,
                "{reply:?}"
            );
        }
    }
}

#[test]
fn what_cannot_be_said_in_this_form_is_refused_by_name() {
    let refused = |parameters: Value| {
        let tool = json!({"function": {"name": "f", "parameters": parameters}});
        let made = MODELS[0]
            .grammars
            .tool_calls(&[tool], &ToolChoice::Auto, true);
        made.err().expect("a refusal").0
    };
    let why = refused(json!({"type": "object", "minProperties": 1}));
    assert!(why.contains("minProperties"), "{why}");
    let property = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    let why = refused(property(json!({"type": "string", "pattern": "^a|b$"})));
    assert!(why.contains("f: properties.a: pattern"), "{why}");
    let why = refused(property(json!({"type": "string", "format": "colour"})));
    assert!(why.contains("colour"), "{why}");
    let why = refused(json!({"type": "object", "properties": {"a<": {}}}));
    assert!(why.contains("a<"), "{why}");
}

#[test]
fn tools_as_programs_declare_them_are_taken() {
    let property =
        |schema: Value| json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
    for (i, parameters) in [
        property(json!({"type": "string", "format": "uri", "minLength": 1, "description": "x"})),
        property(json!({"type": "string", "format": "date"})),
        property(json!({"type": ["string", "null"], "default": null})),
        property(json!({"type": ["integer", "string"]})),
        property(json!({"type": "object", "additionalProperties": {"type": "string"}})),
        property(
            json!({"anyOf": [{"type": "array", "items": {"type": "number"}}, {"type": "null"}]}),
        ),
        property(json!({"allOf": [{"$ref": "#/$defs/s"}], "title": "A"})),
        property(json!({"enum": ["", "a\"b", 1, null, [1]]})),
        property(json!({"const": "only"})),
        property(json!({})),
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "required": ["b"]}),
        json!({}),
        Value::Null,
    ]
    .into_iter()
    .enumerate()
    {
        let mut parameters = parameters;
        if i == 6 {
            parameters["$defs"] = json!({"s": {"type": "string", "maxLength": 4}});
        }
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
        for model in &*MODELS {
            let tools = std::slice::from_ref(&tool);
            let made = model
                .grammars
                .tool_calls(tools, &ToolChoice::Required, false);
            let made = made.unwrap_or_else(|e| panic!("{tool}: {e}"));
            if model.tokenizer.special_id("</arg_value>").is_none() {
                // By chance alone nobody spells the end of a text.
                continue;
            }
            let tokens = model.babble(made, 3, "");
            let (reply, reader, _) = model.read_tokens(&tokens, false);
            assert!(reader.calls_tools(), "{tool}: {reply:?}");
            called(&reply);
        }
    }
}
