//! Tokens, chat templates and whole characters: everything between a caller's text and the model's
//! numbers. Knows no request, no clock beyond a template's `strftime_now`, and no engine.

mod bpe;
mod pretokenizer;
pub mod tokenizer;
pub mod utf8_stream;

pub use tokenizer::{Specials, Tokenizer, TokenizerError};
pub use utf8_stream::{Piece, TextStream};

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tokenizer_tests;
