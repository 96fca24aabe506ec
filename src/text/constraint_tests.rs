//! Whatever a model likes to say, under a grammar it says what was asked for.

use super::constraint::{Constraint, ConstraintError, Grammars};
use super::fixture;
use super::markup;
use super::tokenizer::{Specials, Tokenizer};
use super::tool_calls::{Calls, Expect, ReplyReader, WholeReply};
use crate::request::ToolChoice;
use crate::request::{Sampling, Stop, Token};
use crate::sampler::Sampler;
use serde_json::{Value, json};
use std::sync::LazyLock;

static SMALL: LazyLock<(Tokenizer, Grammars)> = LazyLock::new(|| {
    let tokenizer = fixture::tokenizer("small");
    let kimi = markup::of(&tokenizer, "");
    let grammars = Grammars::new(&tokenizer, kimi).expect("grammars");
    (tokenizer, grammars)
});

/// What a model of random taste writes under the constraint, up to its end of turn.
fn babble(mut constraint: Constraint, seed: u64, lead: &str) -> Vec<Token> {
    let (tokenizer, _) = &*SMALL;
    let mut sampler = Sampler::new(&Sampling::default(), seed, &[]);
    let logits: Vec<f32> = vec![0.0; tokenizer.n_vocab()];
    let mut tokens = tokenizer.encode(lead, Specials::Parse);
    for &token in &tokens {
        constraint.accept(token).expect("the lead");
    }
    for _ in 0..2000 {
        let mask = constraint.mask().expect("a mask");
        let token = sampler.sample(&logits, mask.as_ref()).expect("a token");
        constraint.accept(token).expect("a token of the mask");
        if tokenizer.is_end(token) {
            return tokens;
        }
        tokens.push(token);
    }
    panic!(
        "no end: {:?}",
        String::from_utf8_lossy(&tokenizer.decode(&tokens))
    );
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 8},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"enum": ["C", "F"]},
        },
        "required": ["city", "days", "unit"],
        "additionalProperties": false,
    })
}

fn check(arguments: &str) {
    let value: Value = serde_json::from_str(arguments).expect(arguments);
    let map = value.as_object().expect(arguments);
    assert_eq!(map.len(), 3, "{arguments}");
    let city = map["city"].as_str().expect(arguments);
    assert!(city.chars().count() <= 8, "{arguments}");
    let days = map["days"].as_u64().expect(arguments);
    assert!((1..=14).contains(&days), "{arguments}");
    assert!(["C", "F"].contains(&map["unit"].as_str().expect(arguments)));
}

#[test]
fn whatever_the_model_likes_the_reply_validates() {
    let (tokenizer, grammars) = &*SMALL;
    for seed in 0..40 {
        let constraint = grammars.json_schema(&schema()).expect("a schema");
        let reply = tokenizer.decode(&babble(constraint, seed, ""));
        check(std::str::from_utf8(&reply).expect("UTF-8"));
    }
}

#[test]
fn another_reply_under_the_same_grammar_goes_its_own_way() {
    let (tokenizer, grammars) = &*SMALL;
    let first = grammars.json_schema(&schema()).expect("a schema");
    let mut begun = first.another();
    let opening = tokenizer.encode("{", Specials::Plain);
    let fresh = begun.mask().expect("a mask");
    begun.accept(opening[0]).expect("an object begins so");
    assert_ne!(begun.mask().expect("a mask"), fresh);
    // Made of one that has begun, it goes on there; made of the first, it begins.
    assert_eq!(begun.another().mask(), begun.mask());
    assert_eq!(first.another().mask().expect("a mask"), fresh);
    for seed in 0..4 {
        let reply = tokenizer.decode(&babble(first.another(), seed, ""));
        check(std::str::from_utf8(&reply).expect("UTF-8"));
    }
}

#[test]
fn a_json_object_is_an_object() {
    let (tokenizer, grammars) = &*SMALL;
    let object = || grammars.json_object().expect("a grammar");
    let mask = object().mask().expect("a mask").expect("constrained");
    let first: Vec<u8> = mask
        .tokens()
        .filter_map(|t| tokenizer.token_bytes(t).first().copied())
        .collect();
    assert!(first.contains(&b'{'));
    assert!(first.iter().all(|b| b"{ \n\r\t".contains(b)), "{first:?}");
    let mut constraint = object();
    for token in tokenizer.encode(r#"{"a": [1, "é🙂", null]}"#, Specials::Plain) {
        assert!(
            constraint
                .mask()
                .expect("a mask")
                .expect("constrained")
                .allows(token)
        );
        constraint.accept(token).expect("JSON");
    }
    let end = tokenizer.special_id("[EOT]").expect("[EOT]");
    assert!(
        constraint
            .mask()
            .expect("a mask")
            .expect("constrained")
            .allows(end)
    );
    constraint.accept(end).expect("an end");
    assert!(constraint.is_complete());
}

fn tools() -> [Value; 2] {
    let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let none = json!({"type": "object", "properties": {}, "additionalProperties": false});
    [tool("get_weather", schema()), tool("get_time", none)]
}

fn read(tokens: &[Token]) -> (WholeReply, bool) {
    let (tokenizer, _) = &*SMALL;
    let markup = markup::of(tokenizer, "").expect("Kimi's");
    let tools = tools().into();
    let expect = Expect {
        calls: Some(Calls {
            markup,
            tools,
            salt: 0,
        }),
        thinking: false,
    };
    let mut reader = ReplyReader::new(tokenizer, &Stop::default(), expect);
    let mut whole = WholeReply::default();
    for &token in tokens {
        reader
            .push(tokenizer, token)
            .into_iter()
            .for_each(|d| whole.add(d));
    }
    reader.finish().into_iter().for_each(|d| whole.add(d));
    (whole, reader.calls_tools())
}

#[test]
fn a_required_call_is_a_call_that_validates() {
    let (_, grammars) = &*SMALL;
    let mut n_calls = 0;
    for seed in 0..40 {
        let constraint = grammars
            .tool_calls(&tools(), &ToolChoice::Required, true)
            .expect("tools");
        let (reply, calls) = read(&babble(constraint, seed, ""));
        assert!(calls && reply.content.is_empty(), "{reply:?}");
        for call in &reply.tool_calls {
            match call.name.as_str() {
                "get_weather" => check(&call.arguments),
                "get_time" => assert_eq!(
                    serde_json::from_str::<Value>(&call.arguments).expect("JSON"),
                    json!({})
                ),
                other => panic!("{other}"),
            }
        }
        n_calls += reply.tool_calls.len();
    }
    assert!(
        n_calls > 45,
        "parallel calls happen: {n_calls} in 40 replies"
    );
}

#[test]
fn a_named_call_is_one_call_of_that_tool() {
    let (_, grammars) = &*SMALL;
    for seed in 0..10 {
        let choice = ToolChoice::Named("get_weather".into());
        let constraint = grammars.tool_calls(&tools(), &choice, true).expect("tools");
        let (reply, _) = read(&babble(constraint, seed, ""));
        assert_eq!(reply.tool_calls.len(), 1);
        assert_eq!(reply.tool_calls[0].name, "get_weather");
        check(&reply.tool_calls[0].arguments);
    }
}

#[test]
fn a_call_that_the_model_chose_to_begin_validates() {
    let (tokenizer, grammars) = &*SMALL;
    let auto = || {
        grammars
            .tool_calls(&tools(), &ToolChoice::Auto, true)
            .expect("tools")
    };
    let mut free = auto();
    for token in tokenizer.encode("any text <|im_end|>", Specials::Parse) {
        assert_eq!(free.mask(), Ok(None));
        free.accept(token).expect("free text");
    }
    for seed in 0..10 {
        let (reply, calls) = read(&babble(auto(), seed, "Well. <|tool_calls_section_begin|>"));
        assert!(calls, "{reply:?}");
        assert_eq!(reply.content, "Well. ");
    }
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let (_, grammars) = &*SMALL;
    let refusal = |r: Result<Constraint, ConstraintError>| r.err().expect("a refusal").0;
    let why = refusal(grammars.json_schema(&json!({"type": "array", "uniqueItems": true})));
    assert!(why.contains("uniqueItems"), "{why}");
    let why = refusal(grammars.json_schema(&json!({"type": "nonsense"})));
    assert!(why.contains("nonsense"), "{why}");
    let why = refusal(grammars.json_schema(&json!({"$ref": "#/nowhere"})));
    assert!(!why.is_empty());
    let bad =
        json!({"function": {"name": "f", "parameters": {"type": "array", "uniqueItems": true}}});
    let why = refusal(grammars.tool_calls(&[bad], &ToolChoice::Auto, true));
    assert!(
        why.starts_with("tools[0].function.parameters (f): "),
        "{why}"
    );
    let bad = json!({"function": {"name": "f\" x"}});
    let why = refusal(grammars.tool_calls(&[bad], &ToolChoice::Auto, true));
    assert!(why.starts_with("tools[0].function.name"), "{why}");
    let why = refusal(grammars.tool_calls(&tools(), &ToolChoice::Named("zzz".into()), true));
    assert!(why.contains("\"zzz\" is none of the tools"), "{why}");
    assert!(refusal(grammars.tool_calls(&[], &ToolChoice::Required, true)).contains("no tools"));
}

/// Found by fuzzing: one such request overflowed the stack, and so ended the daemon.
#[test]
fn a_number_past_what_is_counted_is_refused_and_no_endless_recursion() {
    let (_, grammars) = &*SMALL;
    for n in [
        json!(i64::MIN),
        json!(i64::MIN + 2),
        json!(-1e19),
        json!(u64::MAX),
        json!(1e300),
    ] {
        for name in [
            "minimum",
            "maximum",
            "exclusiveMinimum",
            "exclusiveMaximum",
            "const",
        ] {
            let schema = json!({"type": "array", "items": {"type": "integer", name: n}});
            let why = grammars.json_schema(&schema).err().expect("a refusal").0;
            assert!(why.starts_with(name), "{why}");
        }
        let why = grammars.json_schema(&json!({"enum": [1, n]}));
        assert!(why.err().is_some_and(|e| e.0.starts_with("enum: got ")));
    }
    let end = 1_i64 << 53;
    let widest = json!({"type": "integer", "minimum": -end, "maximum": end});
    grammars.json_schema(&widest).expect("all that is exact");
}

/// Found by fuzzing: it ran for minutes.
#[test]
fn a_multiple_of_too_many_remainders_is_refused() {
    let (_, grammars) = &*SMALL;
    let of = |n: Value| json!({"type": "number", "multipleOf": n});
    for good in [json!(0.01), json!(0.25), json!(5), json!(1000)] {
        grammars.json_schema(&of(good)).expect("few remainders");
    }
    for bad in [
        json!(0),
        json!(-3),
        json!(67_108_863),
        json!(0.1234567),
        json!(1e-9),
    ] {
        let why = grammars.json_schema(&of(bad)).err().expect("a refusal").0;
        assert!(why.starts_with("multipleOf: got "), "{why}");
    }
    let both = json!({"allOf": [of(json!(9973)), of(json!(9967))]});
    assert!(grammars.json_schema(&both).is_err());
}

#[test]
fn a_token_outside_the_mask_is_an_error_and_no_panic() {
    let (tokenizer, grammars) = &*SMALL;
    let mut constraint = grammars.json_object().expect("a grammar");
    assert!(constraint.accept(u32::from(b'x')).is_err());
    assert!(constraint.mask().is_ok_and(|m| m.is_some()) || constraint.mask().is_err());
    let mut constraint = grammars.json_object().expect("a grammar");
    let end = tokenizer.special_id("<|im_end|>").expect("an end");
    assert!(constraint.accept(end).is_err());
    let mut constraint = grammars.json_object().expect("a grammar");
    assert!(constraint.accept(u32::MAX).is_err());
}

#[test]
fn a_constraint_may_move_between_threads() {
    fn send<T: Send>() {}
    send::<Constraint>();
    fn sync<T: Send + Sync>() {}
    sync::<Grammars>();
}
