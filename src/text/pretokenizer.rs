//! Cuts text into the pieces inside which tokens may merge. Owns the patterns and the normalization
//! before them, one row for each value of `tokenizer.ggml.pre`; linear in the text whatever it holds.
//!
//! The published patterns end in `\s+(?!\S)|\s+`. That look-ahead needs a backtracking engine, whose
//! limits a megabyte of spaces would hit. Here the pattern ends in `\s+`, and the last space of a
//! run that something follows is given back: the same pieces from a linear engine.

use std::borrow::Cow;

use regex::Regex;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

pub(super) struct Pretokenizer {
    pattern: Regex,
    /// The pattern has `\s*[\r\n]+` before `\s+`: blank pieces that end in a line break are whole.
    line_breaks_apart: bool,
    /// A piece that is itself a token is that token, whatever its merges say.
    pub(super) whole_pieces: bool,
    /// Text is normalized to NFC first. GGUF has no key for this; the name implies it.
    composes: bool,
}

// Kimi's own, from its tokenizer's source, less the look-ahead.
const KIMI: &str = concat!(
    r"[\p{Han}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+",
);
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
// Ling's own, less the look-ahead. Its quantifiers are possessive in the file (`?+`, `++`): what
// they hold can begin nothing that follows, so giving it back would match nothing either.
const BAILING: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

impl Pretokenizer {
    /// The values of `tokenizer.ggml.pre` that [`Pretokenizer::named`] knows.
    pub(super) const KNOWN: &str = "kimi-k2, bailingmoe2, llama-bpe, qwen2, gpt-2";

    pub(super) fn named(pre: &str) -> Option<Pretokenizer> {
        let (pattern, line_breaks_apart, whole_pieces) = match pre {
            "kimi-k2" => (KIMI, true, true),
            "bailingmoe2" | "bailingmoe" | "llada-moe" => (BAILING, true, false),
            "llama-bpe" | "llama3" | "llama-v3" => (LLAMA3, true, true),
            "qwen2" => (QWEN2, true, false),
            "gpt-2" => (GPT2, false, false),
            _ => return None,
        };
        Some(Pretokenizer {
            pattern: Regex::new(pattern).expect("a constant pattern, compiled by every test"),
            line_breaks_apart,
            whole_pieces,
            composes: pattern == BAILING,
        })
    }

    /// What is cut instead of `text`.
    pub(super) fn normalized<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !self.composes || is_nfc_quick(text.chars()) == IsNormalized::Yes {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.nfc().collect())
    }

    /// The pieces of `text`, in order; together they are `text`.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut at = 0;
        std::iter::from_fn(move || {
            if at == text.len() {
                return None;
            }
            let (start, end) = match self.pattern.find_at(text, at) {
                Some(m) if m.start() == at => (at, self.give_back(text, at, m.end())),
                // No pattern leaves gaps, but none of them promises so: a gap is a piece.
                Some(m) => (at, m.start()),
                None => (at, text.len()),
            };
            at = end;
            Some(&text[start..end])
        })
    }

    /// What `\s+(?!\S)` would do to a blank match that something follows: leave it the last space.
    fn give_back(&self, text: &str, start: usize, end: usize) -> usize {
        let piece = &text[start..end];
        if end == text.len() || !piece.chars().all(char::is_whitespace) {
            return end;
        }
        if self.line_breaks_apart && piece.ends_with(['\r', '\n']) {
            return end;
        }
        match piece.char_indices().next_back() {
            Some((last, _)) if last > 0 => start + last,
            _ => end,
        }
    }
}
