//! The tokens of a file: their bytes, what kind each is, and which spell a byte, end a turn or merge.
//! Reads `tokenizer.ggml.*` and refuses what contradicts itself; cuts no text.

use std::collections::HashMap;

use ggml_kernels::gguf::{Metadata, Value};

use super::bpe::Merges;
use super::tokenizer::{TokenizerError, refuse};
use crate::request::Token;

/// `tokenizer.ggml.token_type`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text, reached by merging.
    Normal,
    /// Markup: never comes from a caller's text, never shown.
    Control,
    /// Text that the vocabulary's author wants kept in one piece.
    UserDefined,
    /// Padding of the vocabulary: comes from nothing and shows nothing.
    Unused,
}

/// Names that mean the end of a turn or of a text wherever they are control tokens. Files name one
/// end-of-text id, models stop at several.
const END_NAMES: &[&str] = &[
    "<|im_end|>",
    "[EOS]",
    "[EOT]",
    "<|role_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
];

/// Of these, what models write in ordinary tokens too, where they mean it: no text holds it by
/// accident.
pub const SPELLED_ENDS: &[&str] = &["<|role_end|>"];

/// In bytes of its spelling. Real ones stay below 300; the table of pairs takes quadratic time in this.
const LONGEST_TOKEN: usize = 1024;

#[derive(Default)]
pub struct Words {
    /// All tokens' bytes, end to end; token `t` is `bytes[ends[t - 1]..ends[t]]`.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<Kind>,
    /// Normal tokens by their bytes.
    by_bytes: HashMap<Box<[u8]>, Token>,
    /// Control and user-defined tokens by their spelling.
    pub specials: HashMap<String, Token>,
}

impl Words {
    pub fn read(meta: &Metadata) -> Result<Words, TokenizerError> {
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
        let mut words = Words::default();
        for (i, spelling) in spellings.iter().enumerate() {
            let ty = types.as_ref().map_or(1, |t| t[i]);
            words
                .push(spelling, ty)
                .map_err(|why| TokenizerError(format!("tokenizer.ggml.tokens[{i}]: {why}")))?;
        }
        Ok(words)
    }

    fn push(&mut self, spelling: &str, ty: u64) -> Result<(), String> {
        let token = self.len() as Token;
        if spelling.len() > LONGEST_TOKEN {
            let got = spelling.len();
            return Err(format!("{got} bytes long, want at most {LONGEST_TOKEN}"));
        }
        let start = self.bytes.len();
        let kind = match ty {
            1 => {
                spell_bytes(spelling, &mut self.bytes)
                    .map_err(|c| format!("{spelling:?} holds {c:?}, which spells no byte"))?;
                Kind::Normal
            }
            6 => {
                let byte = parse_byte(spelling)
                    .ok_or_else(|| format!("{spelling:?} is typed a byte, want <0xHH>"))?;
                self.bytes.push(byte);
                Kind::Normal
            }
            other => {
                self.bytes.extend_from_slice(spelling.as_bytes());
                match other {
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    _ => Kind::Unused,
                }
            }
        };
        match kind {
            Kind::Normal => {
                let bytes = self.bytes[start..].into();
                self.by_bytes.entry(bytes).or_insert(token);
            }
            // One character cannot be told apart from text that happens to hold it.
            Kind::Control | Kind::UserDefined if spelling.chars().nth(1).is_some() => {
                self.specials.entry(spelling.to_owned()).or_insert(token);
            }
            _ => {}
        }
        self.ends.push(self.bytes.len());
        self.kinds.push(kind);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Empty for a token outside the vocabulary.
    pub fn bytes(&self, token: Token) -> &[u8] {
        match self.ends.get(token as usize) {
            Some(&end) => &self.bytes[self.start(token)..end],
            None => &[],
        }
    }

    pub fn kind(&self, token: Token) -> Kind {
        *self.kinds.get(token as usize).unwrap_or(&Kind::Unused)
    }

    /// The normal token of exactly these bytes.
    pub fn id_of(&self, bytes: &[u8]) -> Option<Token> {
        self.by_bytes.get(bytes).copied()
    }

    fn start(&self, token: Token) -> usize {
        (token as usize).checked_sub(1).map_or(0, |i| self.ends[i])
    }

    /// A vocabulary that lacks a byte cannot spell every text.
    pub fn byte_tokens(&self) -> Result<[Token; 256], TokenizerError> {
        let mut tokens = [0; 256];
        for byte in 0..=255u8 {
            let Some(token) = self.id_of(&[byte]) else {
                return refuse(format!("no token for byte 0x{byte:02x}"));
            };
            tokens[usize::from(byte)] = token;
        }
        Ok(tokens)
    }

    /// `tokenizer.ggml.{key}`, inside the vocabulary.
    pub fn id(&self, meta: &Metadata, key: &str) -> Result<Option<Token>, TokenizerError> {
        let n = self.len();
        match meta.u64(&format!("tokenizer.ggml.{key}")) {
            Some(id) if id >= n as u64 => refuse(format!(
                "tokenizer.ggml.{key}: {id}, but there are {n} tokens"
            )),
            id => Ok(id.map(|id| id as Token)),
        }
    }

    /// `tokenizer.ggml.eos_token_ids`, which files of models with many ends have.
    pub fn listed_ends(&self, meta: &Metadata) -> Result<Vec<Token>, TokenizerError> {
        let ids = meta
            .u64s("tokenizer.ggml.eos_token_ids")
            .unwrap_or_default();
        let n = self.len() as u64;
        match ids.iter().find(|&&id| id >= n) {
            Some(id) => refuse(format!(
                "tokenizer.ggml.eos_token_ids: {id}, but there are {n} tokens"
            )),
            None => Ok(ids.iter().map(|&id| id as Token).collect()),
        }
    }

    fn is_control(&self, token: Token) -> bool {
        self.kind(token) == Kind::Control
    }

    /// What a file names by id, and every control token whose name says so; ascending.
    pub fn end_tokens(&self, named_by_id: impl Iterator<Item = Token>) -> Vec<Token> {
        let by_name = END_NAMES.iter().filter_map(|&name| self.specials.get(name));
        let by_name = by_name.copied().filter(|&t| self.is_control(t));
        let mut ends: Vec<Token> = named_by_id.chain(by_name).collect();
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// Files of tiktoken vocabularies (Kimi's) carry both token order and a list of merges: where the
    /// list agrees with the order, tiktoken's own rule is used, since it is the reference; else the
    /// list is.
    pub fn merges(&self, meta: &Metadata, pre: &str) -> Result<Merges, TokenizerError> {
        let list = self.listed_merges(meta)?;
        let ranked = pre == "kimi-k2"
            && list.windows(2).all(|w| w[0].2 < w[1].2)
            && list.iter().all(|&(left, right, product)| {
                let older = |t: Token| t < product || self.bytes(t).len() == 1;
                older(left) && older(right)
            });
        if !ranked {
            return Ok(Merges::by_list(list.into_iter()));
        }
        let normal = (0..self.len() as Token).filter(|&t| self.kind(t) == Kind::Normal);
        let normal = normal.map(|t| (t, self.bytes(t)));
        Ok(Merges::by_rank(normal, |bytes| self.id_of(bytes)))
    }

    /// `tokenizer.ggml.merges` as (left, right, product).
    fn listed_merges(&self, meta: &Metadata) -> Result<Vec<(Token, Token, Token)>, TokenizerError> {
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
            let (left, right) = bytes.split_at(cut);
            Some((self.id_of(left)?, self.id_of(right)?, self.id_of(&bytes)?))
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
