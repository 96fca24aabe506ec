//! Text to tokens and back, from a GGUF file's metadata alone. Owns the vocabulary and refuses one
//! that cannot spell every text; never decides what is a prompt and what is content: the caller
//! says where special tokens may be recognised.

use std::collections::HashMap;

use ggml_kernels::gguf::{Metadata, Value};
use regex::Regex;

use super::bpe::Merges;
use super::pretokenizer::Pretokenizer;
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
pub struct TokenizerError(String);

fn refuse<T>(why: String) -> Result<T, TokenizerError> {
    Err(TokenizerError(why))
}

/// `tokenizer.ggml.token_type`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Text, reached by merging.
    Normal,
    /// Markup: never comes from a caller's text, never shown.
    Control,
    /// Text that the vocabulary's author wants kept in one piece.
    UserDefined,
    /// Padding of the vocabulary: comes from nothing and shows nothing.
    Unused,
}

pub struct Tokenizer {
    /// All tokens' bytes, end to end; token `t` is `bytes[ends[t - 1]..ends[t]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<Kind>,
    /// Normal tokens by their bytes.
    by_bytes: HashMap<Box<[u8]>, Token>,
    byte_tokens: [Token; 256],
    merges: Merges,
    pretokenizer: Pretokenizer,
    /// Control and user-defined tokens by their spelling.
    specials: HashMap<String, Token>,
    /// Finds any of them, the longest first; `None` where there are none.
    any_special: Option<Regex>,
    /// Finds any control token; what a caller's text is searched for.
    any_control: Option<Regex>,
    /// Bytes that begin a control token's spelling.
    control_beginnings: [bool; 256],
    longest_control: usize,
    end_tokens: Vec<Token>,
    bos: Option<Token>,
    eos: Option<Token>,
    add_bos: bool,
}

/// Names that mean the end of a turn or of a text wherever they are control tokens. Files name one
/// end-of-text id, models stop at several.
const END_NAMES: &[&str] = &[
    "<|im_end|>",
    "[EOS]",
    "[EOT]",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
];

/// In bytes of its spelling. Real ones stay below 300; the table of pairs takes quadratic time in this.
const LONGEST_TOKEN: usize = 1024;

impl Tokenizer {
    /// Reads `tokenizer.ggml.*`. Files of tiktoken vocabularies (Kimi's) carry both token order and
    /// a list of merges: where the list agrees with the order, tiktoken's own rule is used, since
    /// it is the reference; else the list is.
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
        let Some(spellings) = meta.strs("tokenizer.ggml.tokens") else {
            return refuse("tokenizer.ggml.tokens: missing, want an array of strings".into());
        };
        let n = spellings.len();
        if n == 0 || n >= i32::MAX as usize {
            return refuse(format!("tokenizer.ggml.tokens: {n} tokens"));
        }
        let types = meta.u64s("tokenizer.ggml.token_type");
        if let Some(types) = types.as_ref().filter(|t| t.len() != n) {
            let got = types.len();
            return refuse(format!(
                "tokenizer.ggml.token_type: {got} types for {n} tokens"
            ));
        }

        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(n);
        let mut kinds = Vec::with_capacity(n);
        let mut by_bytes = HashMap::with_capacity(n);
        let mut specials = HashMap::new();
        for (i, spelling) in spellings.iter().enumerate() {
            let token = i as Token;
            if spelling.len() > LONGEST_TOKEN {
                let got = spelling.len();
                return refuse(format!(
                    "tokenizer.ggml.tokens[{i}]: {got} bytes long, want at most {LONGEST_TOKEN}"
                ));
            }
            let start = bytes.len();
            let kind = match types.as_ref().map_or(1, |t| t[i]) {
                1 => {
                    spell_bytes(spelling, &mut bytes).map_err(|c| {
                        TokenizerError(format!(
                            "tokenizer.ggml.tokens[{i}]: {spelling:?} holds {c:?}, which spells no byte"
                        ))
                    })?;
                    Kind::Normal
                }
                6 => {
                    let Some(byte) = parse_byte(spelling) else {
                        return refuse(format!(
                            "tokenizer.ggml.tokens[{i}]: {spelling:?} is typed a byte, want <0xHH>"
                        ));
                    };
                    bytes.push(byte);
                    Kind::Normal
                }
                other => {
                    bytes.extend_from_slice(spelling.as_bytes());
                    match other {
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        _ => Kind::Unused,
                    }
                }
            };
            match kind {
                Kind::Normal => {
                    by_bytes.entry(bytes[start..].into()).or_insert(token);
                }
                // One character cannot be told apart from text that happens to hold it.
                Kind::Control | Kind::UserDefined if spelling.chars().nth(1).is_some() => {
                    specials.entry(spelling.clone()).or_insert(token);
                }
                _ => {}
            }
            ends.push(bytes.len());
            kinds.push(kind);
        }

        let mut byte_tokens = [0; 256];
        for byte in 0..=255u8 {
            match by_bytes.get([byte].as_slice()) {
                Some(&token) => byte_tokens[usize::from(byte)] = token,
                None => return refuse(format!("no token for byte 0x{byte:02x}")),
            }
        }

        let id_of = |b: &[u8]| by_bytes.get(b).copied();
        let list = listed_merges(meta, id_of)?;
        let ranked = pre == "kimi-k2"
            && list.windows(2).all(|w| w[0].2 < w[1].2)
            && list.iter().all(|&(left, right, product)| {
                let older = |t: Token| t < product || ends[t as usize] - start_of(&ends, t) == 1;
                older(left) && older(right)
            });
        let merges = if ranked {
            let normal = (0..n as Token).filter(|&t| kinds[t as usize] == Kind::Normal);
            Merges::by_rank(
                normal.map(|t| (t, &bytes[start_of(&ends, t)..ends[t as usize]])),
                id_of,
            )
        } else {
            Merges::by_list(list.into_iter())
        };

        let id = |key: &str| match meta.u64(&format!("tokenizer.ggml.{key}")) {
            Some(id) if id >= n as u64 => refuse(format!(
                "tokenizer.ggml.{key}: {id}, but there are {n} tokens"
            )),
            id => Ok(id.map(|id| id as Token)),
        };
        let eos = id("eos_token_id")?;
        let mut end_tokens = Vec::new();
        end_tokens.extend(eos);
        end_tokens.extend(id("eot_token_id")?);
        end_tokens.extend(id("eom_token_id")?);
        let control = |&t: &Token| kinds[t as usize] == Kind::Control;
        let named = END_NAMES.iter().filter_map(|&name| specials.get(name));
        end_tokens.extend(named.copied().filter(control));
        end_tokens.sort_unstable();
        end_tokens.dedup();

        let any_special = any_of(specials.keys().map(String::as_str))?;
        let controls: Vec<&str> = specials
            .iter()
            .filter_map(|(name, t)| control(t).then_some(name.as_str()))
            .collect();
        let any_control = any_of(controls.iter().copied())?;
        let mut control_beginnings = [false; 256];
        for name in &controls {
            control_beginnings[usize::from(name.as_bytes()[0])] = true;
        }
        let longest_control = controls.iter().map(|name| name.len()).max().unwrap_or(0);
        Ok(Tokenizer {
            bos: id("bos_token_id")?,
            eos,
            add_bos: meta.bool("tokenizer.ggml.add_bos_token").unwrap_or(false),
            any_special,
            any_control,
            control_beginnings,
            longest_control,
            end_tokens,
            specials,
            merges,
            pretokenizer,
            byte_tokens,
            by_bytes,
            kinds,
            ends,
            bytes,
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
            out.push(self.specials[m.as_str()]);
            at = m.end();
        }
        plain(&text[at..], out);
    }

    pub(super) fn encode_plain(&self, text: &str, out: &mut Vec<Token>) {
        for piece in self.pretokenizer.pieces(text) {
            let whole = self.pretokenizer.whole_pieces;
            match self.by_bytes.get(piece.as_bytes()).filter(|_| whole) {
                Some(&token) => out.push(token),
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
        match self.ends.get(token as usize) {
            Some(&end) => &self.bytes[start_of(&self.ends, token)..end],
            None => &[],
        }
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
        let kind = self.kinds.get(token as usize).unwrap_or(&Kind::Unused);
        matches!(kind, Kind::Control | Kind::Unused)
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
        self.ends.len()
    }

    /// The control or user-defined token of this spelling.
    pub fn special_id(&self, spelling: &str) -> Option<Token> {
        self.specials.get(spelling).copied()
    }

    /// Where in `text` a control token's spelling begins, at or after `from`.
    pub(super) fn find_control(&self, text: &str, from: usize) -> Option<usize> {
        let found = self.any_control.as_ref()?.find_at(text, from)?;
        Some(found.start())
    }

    /// Where at the end of `text` a control token's spelling begins that the text leaves
    /// unfinished, ascending.
    pub(super) fn unfinished_controls(&self, text: &str) -> Vec<usize> {
        let from = text.len().saturating_sub(self.longest_control);
        let begins = |&at: &usize| {
            let rest = &text.as_bytes()[at..];
            let control = |t: Token| self.kinds[t as usize] == Kind::Control;
            let longer = |name: &str| name.len() > rest.len() && name.as_bytes().starts_with(rest);
            text.is_char_boundary(at)
                && self.control_beginnings[usize::from(rest[0])]
                && self
                    .specials
                    .iter()
                    .any(|(name, &t)| control(t) && longer(name))
        };
        (from..text.len()).filter(begins).collect()
    }
}

fn start_of(ends: &[usize], token: Token) -> usize {
    (token as usize).checked_sub(1).map_or(0, |i| ends[i])
}

/// `tokenizer.ggml.merges` as (left, right, product).
fn listed_merges(
    meta: &Metadata,
    id_of: impl Fn(&[u8]) -> Option<Token>,
) -> Result<Vec<(Token, Token, Token)>, TokenizerError> {
    let lines = match meta.get("tokenizer.ggml.merges") {
        None => return Ok(Vec::new()),
        Some(Value::Array(_)) => meta.strs("tokenizer.ggml.merges"),
        Some(_) => None,
    };
    let Some(lines) = lines else {
        return refuse("tokenizer.ggml.merges: want an array of strings".into());
    };
    let parse = |line: &String| {
        let (left, right) = line.split_once(' ')?;
        let mut bytes = Vec::new();
        spell_bytes(left, &mut bytes).ok()?;
        let cut = bytes.len();
        spell_bytes(right, &mut bytes).ok()?;
        Some((id_of(&bytes[..cut])?, id_of(&bytes[cut..])?, id_of(&bytes)?))
    };
    let merges = lines.iter().enumerate().map(|(i, line)| {
        parse(line).ok_or_else(|| {
            TokenizerError(format!(
                "tokenizer.ggml.merges[{i}]: {line:?}, want two tokens that join to a third"
            ))
        })
    });
    merges.collect()
}

/// A pattern for any of these spellings, the longest where several fit.
fn any_of<'a>(names: impl Iterator<Item = &'a str>) -> Result<Option<Regex>, TokenizerError> {
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

/// Appends the bytes that GPT-2's byte-to-unicode spelling stands for; the first character that
/// stands for none is the error.
fn spell_bytes(spelling: &str, out: &mut Vec<u8>) -> Result<(), char> {
    for c in spelling.chars() {
        out.push(byte_of(c).ok_or(c)?);
    }
    Ok(())
}

/// GPT-2 spells the printable Latin-1 bytes as themselves and numbers the other 68 from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// `<0x41>`
fn parse_byte(spelling: &str) -> Option<u8> {
    let hex = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok())?
}
