//! Text to tokens and back, from a GGUF file's metadata alone. Refuses a vocabulary that cannot spell
//! every text; never decides what is a prompt and what is content: the caller says where special
//! tokens may be recognised. What the tokens are is `vocabulary`'s.

use ggml_kernels::gguf::Metadata;
use regex::Regex;

use super::bpe::Merges;
use super::pretokenizer::Pretokenizer;
use super::vocabulary::{Kind, SPELLED_ENDS, Words};
use crate::request::Token;

/// Whether the spelling of a special token in a text is that token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Specials {
    /// It is: for text that the daemon or its model's template wrote.
    Parse,
    /// It is ordinary text: for everything that a caller wrote.
    Plain,
}

#[derive(Debug, thiserror::Error)]
#[error("tokenizer: {0}")]
pub struct TokenizerError(pub(super) String);

pub(super) fn refuse<T>(why: String) -> Result<T, TokenizerError> {
    Err(TokenizerError(why))
}

pub struct Tokenizer {
    words: Words,
    byte_tokens: [Token; 256],
    merges: Merges,
    pretokenizer: Pretokenizer,
    /// Finds any control or user-defined token, the longest first; `None` where there are none.
    any_special: Option<Regex>,
    end_tokens: Vec<Token>,
    bos: Option<Token>,
    eos: Option<Token>,
    add_bos: bool,
}

impl Tokenizer {
    pub fn from_metadata(meta: &Metadata) -> Result<Tokenizer, TokenizerError> {
        match meta.str("tokenizer.ggml.model") {
            Some("gpt2") => {}
            Some(other) => {
                return refuse(format!("tokenizer.ggml.model: {other:?}, want \"gpt2\""));
            }
            None => return refuse("tokenizer.ggml.model: missing, want \"gpt2\"".into()),
        }
        let pre = meta.str("tokenizer.ggml.pre").unwrap_or("(missing)");
        let Some(pretokenizer) = Pretokenizer::named(pre) else {
            let known = Pretokenizer::KNOWN;
            return refuse(format!("tokenizer.ggml.pre: {pre:?}, want one of {known}"));
        };
        let words = Words::read(meta)?;
        let byte_tokens = words.byte_tokens()?;
        let merges = words.merges(meta, pre)?;
        let id = |key| words.id(meta, key);
        let eos = id("eos_token_id")?;
        let ends_by_id = [eos, id("eot_token_id")?, id("eom_token_id")?];
        let ends_by_id = ends_by_id.into_iter().flatten();
        let end_tokens = words.end_tokens(ends_by_id.chain(words.listed_ends(meta)?));
        Ok(Tokenizer {
            bos: id("bos_token_id")?,
            eos,
            add_bos: meta.bool("tokenizer.ggml.add_bos_token").unwrap_or(false),
            any_special: any_of(words.specials.keys().map(String::as_str))?,
            end_tokens,
            merges,
            pretokenizer,
            byte_tokens,
            words,
        })
    }

    /// The tokens of `text`. No beginning-of-text token is added.
    pub fn encode(&self, text: &str, specials: Specials) -> Vec<Token> {
        let mut out = Vec::with_capacity(text.len() / 3);
        match specials {
            Specials::Plain => self.encode_plain(text, &mut out),
            Specials::Parse => self.encode_parsed(text, &mut out, |gap, out| {
                self.encode_plain(gap, out);
            }),
        }
        out
    }

    /// Special tokens found in `text` are pushed; what lies between goes to `plain`, in order.
    pub(super) fn encode_parsed(
        &self,
        text: &str,
        out: &mut Vec<Token>,
        mut plain: impl FnMut(&str, &mut Vec<Token>),
    ) {
        let mut at = 0;
        for m in self.any_special.iter().flat_map(|r| r.find_iter(text)) {
            plain(&text[at..m.start()], out);
            out.extend(self.special_id(m.as_str()));
            at = m.end();
        }
        plain(&text[at..], out);
    }

    /// Where the last token that ends a turn is spelled.
    pub(super) fn last_end(&self, text: &str) -> Option<std::ops::Range<usize>> {
        let special = self.any_special.iter().flat_map(|r| r.find_iter(text));
        let ends = special.filter(|m| {
            let token = self.special_id(m.as_str());
            token.is_some_and(|t| self.is_end(t))
        });
        ends.last().map(|m| m.range())
    }

    pub(super) fn encode_plain(&self, text: &str, out: &mut Vec<Token>) {
        let text = self.pretokenizer.normalized(text);
        for piece in self.pretokenizer.pieces(&text) {
            let whole = self.pretokenizer.whole_pieces;
            match self.words.id_of(piece.as_bytes()).filter(|_| whole) {
                Some(token) => out.push(token),
                None => {
                    let bytes = piece.bytes().map(|b| self.byte_tokens[usize::from(b)]);
                    self.merges.merge(bytes, out);
                }
            }
        }
    }

    /// The bytes that a token adds to a text; a special token's are its spelling. Empty for a token
    /// outside the vocabulary.
    pub fn token_bytes(&self, token: Token) -> &[u8] {
        self.words.bytes(token)
    }

    /// Bytes, not text: tokens may cut a character.
    pub fn decode(&self, tokens: &[Token]) -> Vec<u8> {
        tokens
            .iter()
            .flat_map(|&t| self.token_bytes(t))
            .copied()
            .collect()
    }

    /// Whether a token is markup or padding, not text. User-defined tokens are text.
    pub fn is_special(&self, token: Token) -> bool {
        matches!(self.words.kind(token), Kind::Control | Kind::Unused)
    }

    /// Whether generation stops here: the file's eos, eot and eom, and every control token whose
    /// name says so.
    pub fn is_end(&self, token: Token) -> bool {
        self.end_tokens.contains(&token)
    }

    /// All tokens of [`Tokenizer::is_end`], ascending.
    pub fn end_tokens(&self) -> &[Token] {
        &self.end_tokens
    }

    /// Texts that end a turn although no token does: spellings of end tokens that this model is known
    /// to spell out.
    pub(super) fn spelled_ends(&self) -> impl Iterator<Item = String> {
        let is_end = |name: &&&str| self.special_id(name).is_some_and(|t| self.is_end(t));
        let ends = SPELLED_ENDS.iter().filter(is_end);
        ends.map(|name| (*name).to_owned())
    }

    pub fn bos(&self) -> Option<Token> {
        self.bos
    }

    pub fn eos(&self) -> Option<Token> {
        self.eos
    }

    /// Whether the model expects [`Tokenizer::bos`] before a raw text.
    pub fn add_bos(&self) -> bool {
        self.add_bos
    }

    pub fn n_vocab(&self) -> usize {
        self.words.len()
    }

    /// The control or user-defined token of this spelling.
    pub fn special_id(&self, spelling: &str) -> Option<Token> {
        self.words.specials.get(spelling).copied()
    }

    /// Spellings that a caller's words must not bring into a prompt of that template: every control
    /// token, and what the template writes in angle brackets and the file calls user-defined.
    pub(super) fn markup_in(&self, template: &str) -> Vec<String> {
        let bracketed = |name: &str| name.starts_with('<') && name.ends_with('>');
        let all = self.words.specials.iter();
        let markup = all.filter(|&(name, &token)| {
            self.is_special(token) || bracketed(name) && template.contains(name.as_str())
        });
        markup.map(|(name, _)| name.clone()).collect()
    }
}

/// A pattern for any of these spellings, the longest where several fit.
pub(super) fn any_of<'a>(
    names: impl Iterator<Item = &'a str>,
) -> Result<Option<Regex>, TokenizerError> {
    let mut names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Ok(None);
    }
    names.sort_unstable_by_key(|name| (std::cmp::Reverse(name.len()), *name));
    let escaped: Vec<String> = names.iter().map(|name| regex::escape(name)).collect();
    match Regex::new(&escaped.join("|")) {
        Ok(pattern) => Ok(Some(pattern)),
        Err(e) => refuse(format!("{} special tokens: {e}", names.len())),
    }
}
