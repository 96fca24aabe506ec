//! Tokens, chat templates and whole characters: everything between a caller's text and the model's
//! numbers. Knows no request, no clock beyond a template's `strftime_now`, and no engine.

mod bpe;
pub mod constraint;
mod guard;
mod habits;
pub mod markup;
mod pretokenizer;
mod python;
pub mod template;
pub mod tokenizer;
pub mod tool_calls;
pub mod utf8_stream;
mod vocabulary;

pub use constraint::{Constraint, ConstraintError, Grammars};
pub use markup::Markup;
pub use template::{ChatTemplate, PromptText, TemplateError, encode_behind, encode_chat};
pub use tokenizer::{Specials, Tokenizer, TokenizerError};
pub use tool_calls::{Calls, Delta, Expect, ReplyReader, Stopped, WholeReply};
pub use utf8_stream::{Piece, TextStream};

#[cfg(test)]
mod constraint_tests;
#[cfg(test)]
mod endless_tests;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod ling_tests;
#[cfg(test)]
mod template_tests;
#[cfg(test)]
mod tokenizer_tests;
#[cfg(test)]
mod tool_calls_tests;
