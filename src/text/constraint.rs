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

use super::markup::Markup;
use super::tokenizer::Tokenizer;
use crate::request::{Token, TokenMask, ToolChoice};

/// Why a schema, a tool or a choice of tools cannot be enforced, in words for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConstraintError(pub String);

/// Compiles constraints for one vocabulary; built once per model.
pub struct Grammars {
    factory: ParserFactory,
    markup: Option<Arc<dyn Markup>>,
    ends: Arc<[Token]>,
    /// Everything but the ends.
    others: Arc<TokenMask>,
    thinking_end: Option<Token>,
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
    /// For replies whose calls have that markup. A vocabulary without any end-of-turn token is
    /// refused: nothing could end a constrained reply.
    pub fn new(
        tokenizer: &Tokenizer,
        markup: Option<Arc<dyn Markup>>,
    ) -> Result<Grammars, ConstraintError> {
        let ends: Arc<[Token]> = tokenizer.end_tokens().into();
        let turn_end = tokenizer.special_id("<|im_end|>").or(tokenizer.eos());
        let Some(turn_end) = turn_end.or(ends.first().copied()) else {
            let why = "the model's vocabulary has no end-of-turn token";
            return Err(ConstraintError(why.into()));
        };
        let marks = markup.as_ref().map_or(Vec::new(), |m| m.tokens());
        let all = 0..tokenizer.n_vocab() as Token;
        let others = all.clone().filter(|t| !ends.contains(t)).collect();
        let word = |t| word(tokenizer, t, tokenizer.is_special(t) || marks.contains(&t));
        let words: Vec<Vec<u8>> = all.map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, turn_end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(error)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars {
            factory,
            markup,
            ends,
            others: Arc::new(others),
            thinking_end: tokenizer.special_id("</think>"),
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

    /// The model's markup around calls of `tools` (OpenAI's tool objects) whose arguments validate
    /// against their parameters: none has to come unless the choice is for one, and that none may is
    /// not said here.
    pub fn tool_calls(
        &self,
        tools: &[Value],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Result<Constraint, ConstraintError> {
        let Some(markup) = &self.markup else {
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
            functions.retain(|name, _| name == wanted);
            if functions.is_empty() {
                let why = format!("tool_choice: {wanted:?} is none of the tools");
                return Err(ConstraintError(why));
            }
        }
        if functions.is_empty() {
            return Err(ConstraintError("tool_choice: there are no tools".into()));
        }
        let one = !parallel || matches!(choice, ToolChoice::Named(_));
        let lark = markup.grammar(&functions, one).map_err(ConstraintError)?;
        let mut constraint = self.compile(TopLevelGrammar::from_lark(lark))?;
        constraint.opening = Some(markup.opening());
        if matches!(choice, ToolChoice::Auto | ToolChoice::None) {
            constraint.lead = Lead::Free;
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
                opening: None,
                lead: Lead::Over,
                ended: false,
                ends: self.ends.clone(),
                others: self.others.clone(),
                thinking_end: self.thinking_end,
            }),
        }
    }
}

/// The state of one reply under its grammar.
pub struct Constraint {
    matcher: Matcher,
    /// Of a grammar of calls: the token that it begins with.
    opening: Option<Token>,
    lead: Lead,
    ended: bool,
    ends: Arc<[Token]>,
    others: Arc<TokenMask>,
    thinking_end: Option<Token>,
}

/// What comes before the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    /// Nothing more.
    Over,
    /// Anything, the reply's end too, until the grammar's opening.
    Free,
    /// Thought: anything but the reply's end, for so many tokens yet. It ends at that token, or at
    /// the opening of a call.
    Thinking { end: Token, left: usize },
}

impl Constraint {
    /// The same wish for another reply: nothing is compiled again, nothing moves the other.
    pub fn another(&self) -> Constraint {
        Constraint {
            // A plain clone would share the parser's state.
            matcher: self.matcher.deep_clone(),
            opening: self.opening,
            lead: self.lead,
            ended: self.ended,
            ends: self.ends.clone(),
            others: self.others.clone(),
            thinking_end: self.thinking_end,
        }
    }

    /// For a reply that begins inside a thought, which no grammar holds. It has at most so many
    /// tokens: one without end would keep the answer from coming.
    pub fn after_thinking(mut self, at_most: usize) -> Result<Constraint, ConstraintError> {
        match (self.lead, self.thinking_end) {
            (Lead::Over, Some(end)) => self.lead = Lead::Thinking { end, left: at_most },
            (Lead::Over, None) => {
                let why = "this model has no token that ends its thinking; ask with thinking off";
                return Err(ConstraintError(why.into()));
            }
            _ => {}
        }
        Ok(self)
    }

    /// What may come next; `None` while everything may. Where the reply may end, every end-of-turn
    /// token is in it; where it must, nothing else is.
    pub fn mask(&mut self) -> Result<Option<TokenMask>, ConstraintError> {
        match self.lead {
            Lead::Free => return Ok(None),
            Lead::Thinking { end, left: 0 } => return Ok(Some(TokenMask::from_iter([end]))),
            Lead::Thinking { .. } => return Ok(Some(TokenMask::clone(&self.others))),
            Lead::Over => {}
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
        let opens = Some(token) == self.opening;
        match &mut self.lead {
            Lead::Free if !opens => return Ok(()),
            Lead::Thinking { end, .. } if token == *end => {
                self.lead = Lead::Over;
                return Ok(());
            }
            Lead::Thinking { left, .. } if !opens && !self.ends.contains(&token) => {
                *left = left.saturating_sub(1);
                return Ok(());
            }
            Lead::Free | Lead::Thinking { .. } if opens => self.lead = Lead::Over,
            _ => {}
        }
        if self.ends.contains(&token) {
            let may_end = self.is_complete() || self.matcher.is_accepting().map_err(error)?;
            self.ended = true;
            return if may_end {
                Ok(())
            } else {
                Err(ConstraintError("the reply ended before its grammar".into()))
            };
        } else if self.is_complete() {
            let why = format!("token {token} follows a complete reply");
            return Err(ConstraintError(why));
        }
        self.matcher.consume_token(token).map_err(error)
    }

    /// Nothing but an end-of-turn token can follow: the reply may be ended without another step.
    pub fn is_complete(&self) -> bool {
        self.lead == Lead::Over && (self.ended || self.matcher.is_stopped())
    }
}

fn error(e: impl std::fmt::Display) -> ConstraintError {
    ConstraintError(e.to_string())
}

/// llguidance tells special tokens by a leading 0xff. Text that begins so is no UTF-8, hence never
/// part of a grammar: it gets no word, which leaves it out of every mask.
fn word(tokenizer: &Tokenizer, token: Token, is_special: bool) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(token);
    match (is_special, bytes.first()) {
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
pub(super) fn bounded(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(map) = schema.as_object_mut() {
        let options = json!({"whitespace_pattern": BLANKS});
        map.entry("x-guidance").or_insert(options);
    }
    schema
}
