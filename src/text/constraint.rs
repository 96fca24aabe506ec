//! What a reply may be: JSON, JSON of a schema, calls of declared tools. Compiles a request's wishes
//! to a grammar (by llguidance) and says token by token what may come next. A wish that cannot be
//! compiled is the caller's error; nothing here samples or waits.
//!
//! A [`Constraint`] is `Send`: its next mask can be computed beside the forward pass, since it
//! depends only on the tokens accepted so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::tokenizer::Tokenizer;
use super::tool_calls::Markup;
use crate::request::{Token, TokenMask};

/// Why a schema, a tool or a choice of tools cannot be enforced, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConstraintError(pub String);

/// OpenAI's `tool_choice`, less `none`, which constrains nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// The model may call or not; calls that it begins follow the schemas.
    Auto,
    /// At least one call, of any of the tools.
    Required,
    /// One call of this tool.
    Named(&'a str),
}

/// Compiles constraints for one vocabulary; built once per model.
pub struct Grammars {
    factory: ParserFactory,
    markup: Option<Markup>,
    ends: Arc<[Token]>,
}

/// Blanks between two parts of JSON: one, or a new line with its indentation. A model that is at a
/// loss writes blanks for as long as it may: with runs of 32 allowed, the demo model did.
const BLANKS: &str = r"( |\r?\n[ \t]{0,32})?";

/// Whole numbers up to here are exact as doubles.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// Of all `multipleOf` in a schema, which may come together: 0.6 s were measured for so many, 8 s
/// for ten times as many.
const MOST_REMAINDERS: u64 = 100_000;

impl Grammars {
    /// A vocabulary without any end-of-turn token is refused: nothing could end a constrained reply.
    pub fn new(tokenizer: &Tokenizer) -> Result<Grammars, ConstraintError> {
        let ends: Arc<[Token]> = tokenizer.end_tokens().into();
        let turn_end = tokenizer.special_id("<|im_end|>").or(tokenizer.eos());
        let Some(turn_end) = turn_end.or(ends.first().copied()) else {
            let why = "the model's vocabulary has no end-of-turn token";
            return Err(ConstraintError(why.into()));
        };
        let words: Vec<Vec<u8>> = (0..tokenizer.n_vocab() as Token)
            .map(|t| word(tokenizer, t))
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, turn_end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(error)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars {
            factory,
            markup: Markup::of(tokenizer),
            ends,
        })
    }

    /// Any JSON object.
    pub fn json_object(&self) -> Result<Constraint, ConstraintError> {
        self.json_schema(&json!({"type": "object"}))
    }

    /// JSON that validates against `schema`. Keywords that cannot be enforced are refused by name.
    pub fn json_schema(&self, schema: &Value) -> Result<Constraint, ConstraintError> {
        check_numbers("schema", schema, &mut 1)?;
        self.compile(TopLevelGrammar::from_json_schema(bounded(schema)))
    }

    /// Kimi's markup around calls of `tools` (OpenAI's tool objects) whose arguments validate
    /// against their parameters.
    pub fn tool_calls(
        &self,
        tools: &[Value],
        choice: ToolChoice<'_>,
        parallel: bool,
    ) -> Result<Constraint, ConstraintError> {
        let Some(m) = self.markup else {
            let why = "the model's vocabulary has no tool-call markup";
            return Err(ConstraintError(why.into()));
        };
        let mut functions = BTreeMap::new();
        for (i, tool) in tools.iter().enumerate() {
            let function = &tool["function"];
            let name = function["name"].as_str().unwrap_or_default();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
                return Err(ConstraintError(format!(
                    "tools[{i}].function.name: {name:?}, want 1 to 64 of a-z A-Z 0-9 _ - ."
                )));
            }
            let parameters = match &function["parameters"] {
                Value::Null => json!({"type": "object"}),
                given => given.clone(),
            };
            // Alone first, so that the error names the tool that is at fault.
            self.json_schema(&parameters).map_err(|e| {
                ConstraintError(format!("tools[{i}].function.parameters ({name}): {e}"))
            })?;
            functions.insert(name, parameters);
        }
        if let ToolChoice::Named(wanted) = choice {
            functions.retain(|name, _| *name == wanted);
            if functions.is_empty() {
                let why = format!("tool_choice: {wanted:?} is none of the tools");
                return Err(ConstraintError(why));
            }
        }
        if functions.is_empty() {
            return Err(ConstraintError("tool_choice: there are no tools".into()));
        }
        let one = !parallel || matches!(choice, ToolChoice::Named(_));
        let mut constraint =
            self.compile(TopLevelGrammar::from_lark(grammar(m, &functions, one)))?;
        if choice == ToolChoice::Auto {
            constraint.trigger = Some(m.section_begin);
        }
        Ok(constraint)
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Constraint, ConstraintError> {
        let parser = self.factory.create_parser(grammar).map_err(error)?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(e) => Err(ConstraintError(e)),
            None => Ok(Constraint {
                matcher,
                trigger: None,
                ended: false,
                ends: self.ends.clone(),
            }),
        }
    }
}

/// The state of one reply under its grammar.
pub struct Constraint {
    matcher: Matcher,
    /// Until this token comes, everything may.
    trigger: Option<Token>,
    ended: bool,
    ends: Arc<[Token]>,
}

impl Constraint {
    /// What may come next; `None` while everything may. Where the reply may end, every end-of-turn
    /// token is in it; where it must, nothing else is.
    pub fn mask(&mut self) -> Result<Option<TokenMask>, ConstraintError> {
        if self.trigger.is_some() {
            return Ok(None);
        }
        if self.is_complete() {
            return Ok(Some(self.ends.iter().copied().collect()));
        }
        let mask = self.matcher.compute_mask().map_err(error)?;
        let mut words = mask.as_slice().to_vec();
        if self.matcher.is_accepting().map_err(error)? {
            for &end in self.ends.iter() {
                words[end as usize / 32] |= 1 << (end % 32);
            }
        }
        Ok(Some(TokenMask::from_words(words)))
    }

    /// Takes the token that was chosen; an error if the mask did not have it.
    pub fn accept(&mut self, token: Token) -> Result<(), ConstraintError> {
        if let Some(trigger) = self.trigger {
            if token != trigger {
                return Ok(());
            }
            self.trigger = None;
        } else if self.ends.contains(&token) {
            let may_end = self.is_complete() || self.matcher.is_accepting().map_err(error)?;
            self.ended = true;
            return match may_end {
                true => Ok(()),
                false => Err(ConstraintError("the reply ended before its grammar".into())),
            };
        } else if self.is_complete() {
            let why = format!("token {token} follows a complete reply");
            return Err(ConstraintError(why));
        }
        self.matcher.consume_token(token).map_err(error)
    }

    /// Nothing but an end-of-turn token can follow: the reply may be ended without another step.
    pub fn is_complete(&self) -> bool {
        self.trigger.is_none() && (self.ended || self.matcher.is_stopped())
    }
}

fn error(e: impl std::fmt::Display) -> ConstraintError {
    ConstraintError(e.to_string())
}

/// llguidance tells special tokens by a leading 0xff. Text that begins so is no UTF-8, hence never
/// part of a grammar: it gets no word, which leaves it out of every mask.
fn word(tokenizer: &Tokenizer, token: Token) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(token);
    match (tokenizer.is_special(token), bytes.first()) {
        (true, _) => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        (false, Some(&TokTrie::SPECIAL_TOKEN_MARKER)) => Vec::new(),
        (false, _) => bytes.to_vec(),
    }
}

/// What llguidance is not to see: it counts in doubles, recurses without end where a whole number
/// leaves 64 bits, and takes time for each remainder of a `multipleOf`.
fn check_numbers(at: &str, schema: &Value, remainders: &mut u64) -> Result<(), ConstraintError> {
    let wrong = |want: &str| Err(ConstraintError(format!("{at}: got {schema}, want {want}")));
    match schema {
        Value::Object(map) => {
            let mut each = map.iter();
            each.try_for_each(|(name, value)| check_numbers(name, value, remainders))
        }
        Value::Array(items) => {
            let mut each = items.iter();
            each.try_for_each(|value| check_numbers(at, value, remainders))
        }
        Value::Number(number) => {
            let size = number.as_f64().unwrap_or(f64::INFINITY);
            if size.abs() > MOST_EXACT {
                return wrong("at most 2^53 on either side of 0, where numbers are exact");
            }
            if at == "multipleOf" {
                // `0.25` has as many as `25`.
                let digits = number.to_string().replace('.', "");
                let n = digits.parse::<u64>().unwrap_or(0);
                *remainders = remainders.saturating_mul(n);
                if n == 0 || *remainders > MOST_REMAINDERS {
                    return wrong("more than 0, and a product of all of them up to 100000");
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The schema with our bound on blanks, unless it brings options of its own.
fn bounded(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        let options = json!({"whitespace_pattern": BLANKS});
        map.entry("x-guidance").or_insert(options);
    }
    schema
}

fn grammar(m: Markup, functions: &BTreeMap<&str, Value>, one: bool) -> String {
    let calls = if one { "call" } else { "call+" };
    let mut lark = format!(
        "start: <[{}]> {calls} <[{}]>\n",
        m.section_begin, m.section_end
    );
    let names: Vec<String> = (0..functions.len()).map(|i| format!("call_{i}")).collect();
    lark += &format!("call: {}\n", names.join(" | "));
    for (i, (name, parameters)) in functions.iter().enumerate() {
        lark += &format!(
            "call_{i}: <[{}]> \"functions.{name}:\" INDEX <[{}]> args_{i} <[{}]>\nargs_{i}: %json {}\n",
            m.call_begin,
            m.argument_begin,
            m.call_end,
            bounded(parameters),
        );
    }
    lark + "INDEX: /0|[1-9][0-9]?/\n"
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::tokenizer::Specials;
    use super::super::tool_calls::{Expect, ReplyReader, WholeReply};
    use super::*;
    use crate::request::Sampling;
    use crate::sampler::Sampler;
    use std::sync::LazyLock;

    static SMALL: LazyLock<(Tokenizer, Grammars)> = LazyLock::new(|| {
        let tokenizer = fixture::tokenizer("small");
        let grammars = Grammars::new(&tokenizer).expect("grammars");
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
        let expect = Expect {
            tool_calls: true,
            thinking: false,
        };
        let mut reader = ReplyReader::new(tokenizer, &[], expect);
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
                .tool_calls(&tools(), ToolChoice::Required, true)
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
            let choice = ToolChoice::Named("get_weather");
            let constraint = grammars.tool_calls(&tools(), choice, true).expect("tools");
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
                .tool_calls(&tools(), ToolChoice::Auto, true)
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
        let bad = json!({"function": {"name": "f", "parameters": {"type": "array", "uniqueItems": true}}});
        let why = refusal(grammars.tool_calls(&[bad], ToolChoice::Auto, true));
        assert!(
            why.starts_with("tools[0].function.parameters (f): "),
            "{why}"
        );
        let bad = json!({"function": {"name": "f\" x"}});
        let why = refusal(grammars.tool_calls(&[bad], ToolChoice::Auto, true));
        assert!(why.starts_with("tools[0].function.name"), "{why}");
        let why = refusal(grammars.tool_calls(&tools(), ToolChoice::Named("zzz"), true));
        assert!(why.contains("\"zzz\" is none of the tools"), "{why}");
        assert!(refusal(grammars.tool_calls(&[], ToolChoice::Required, true)).contains("no tools"));
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
}
