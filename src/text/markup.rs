//! How a family of models writes calls of tools: one contract, an implementor for each family, chosen
//! once from a model's vocabulary and template. Whoever reads a reply or enforces a call asks the
//! contract and knows no family.

mod kimi;
mod ling;
mod schemas;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::tokenizer::Tokenizer;
use crate::request::Token;

/// A family's markup around calls.
pub trait Markup: Send + Sync {
    /// The token with which the first call of a reply begins.
    fn opening(&self) -> Token;

    /// Tokens that are markup even where the vocabulary calls them text.
    fn tokens(&self) -> Vec<Token>;

    /// Rules of a grammar, in llguidance's Lark, whose `start` is calls of these functions (name to
    /// schema of its parameters), or one call. What cannot be enforced is an error that begins with
    /// the function's name.
    fn grammar(&self, functions: &BTreeMap<&str, Value>, one: bool) -> Result<String, String>;

    /// Reads the calls of one reply. `tools` are OpenAI's tool objects, which say what type a value
    /// has where the markup does not; `salt` is for ids, where the markup has none.
    fn reader(&self, tools: Arc<[Value]>, salt: u64) -> Box<dyn CallReader>;
}

/// Reads calls, token by token. Never fails: what is no call is text.
pub trait CallReader: Send {
    /// What a token says of calls; `None` where it is not theirs.
    fn push(&mut self, tokenizer: &Tokenizer, token: Token) -> Option<Vec<CallStep>>;

    /// No more tokens will come.
    fn finish(&mut self) -> Vec<CallStep>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallStep {
    Begun {
        id: String,
        name: String,
    },
    /// More of the JSON of the call begun last.
    Arguments(String),
    /// The call begun last has come to its end.
    Whole,
    /// It began like a call and is text.
    Text(Vec<u8>),
}

/// The markup of a model with this vocabulary and template, where it has one that is known.
pub fn of(tokenizer: &Tokenizer, template: &str) -> Option<Arc<dyn Markup>> {
    if let Some(kimi) = kimi::Kimi::of(tokenizer) {
        return Some(Arc::new(kimi));
    }
    let ling = ling::Ling::of(tokenizer, template)?;
    Some(Arc::new(ling))
}

/// Steps that say nothing are not said.
fn arguments(text: String, out: &mut Vec<CallStep>) {
    if !text.is_empty() {
        out.push(CallStep::Arguments(text));
    }
}
