//! The tokenizer of a random model, laid out as Kimi's: every byte, then words that merges build,
//! then 256 control tokens of which most are reserved. The words are letters without meaning, in a
//! fixed order; there are as many as the vocabulary has room for, so that masks, tables and merges
//! are as large as a real model's.

use crate::tokenizer::spell;
use ggml_kernels::gguf::{Array, Metadata};

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// Ids after the words, as in Kimi's vocabulary.
const CONTROLS: usize = 256;

/// By what they mean to whoever reads the file: beginning, end of text, end of turn.
const BEGIN: usize = 0;
const END: usize = 1;
const TURN_END: usize = 2;
const NAMES: &[&str] = &[
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
];

/// Sets `tokenizer.*` for a vocabulary of `size` tokens, at least 512.
pub fn write(size: usize, metadata: &mut Metadata) {
    let (words, merges) = words(size.saturating_sub(256 + CONTROLS));
    let bytes = (0..=255u8).map(|b| spell(&[b]));
    let mut tokens: Vec<String> = bytes.chain(words).collect();
    let mut types = vec![NORMAL; tokens.len()];
    let first = tokens.len();
    for at in 0..CONTROLS {
        let reserved = || format!("<|reserved_token_{}|>", first + at);
        tokens.push(NAMES.get(at).map_or_else(reserved, |n| (*n).to_owned()));
        types.push(CONTROL);
    }
    // Words are finite; no known shape has a vocabulary that is larger.
    for id in tokens.len()..size {
        tokens.push(format!("[PAD{id}]"));
        types.push(UNUSED);
    }
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", "kimi-k2");
    metadata.set("tokenizer.ggml.tokens", Array::Str(tokens));
    metadata.set("tokenizer.ggml.token_type", Array::I32(types));
    metadata.set("tokenizer.ggml.merges", Array::Str(merges));
    let id = |at: usize| (first + at) as u32;
    metadata.set("tokenizer.ggml.bos_token_id", id(BEGIN));
    metadata.set("tokenizer.ggml.eos_token_id", id(END));
    metadata.set("tokenizer.ggml.eot_token_id", id(TURN_END));
    metadata.set("tokenizer.ggml.add_bos_token", false);
    metadata.set("tokenizer.chat_template", include_str!("chat.jinja"));
}

/// At most `n` words of two letters, then of four, each with the merge of its halves; in order of
/// rank, so that the list says what the order says. Readers want at least one merge: a vocabulary
/// with no room for a word has none, and is for tests of the container alone.
fn words(n: usize) -> (Vec<String>, Vec<String>) {
    // A word may begin with a blank, as most of a real vocabulary do.
    let starts = (b'a'..=b'z').chain([b' ']);
    let pairs = starts.flat_map(|a| (b'a'..=b'z').map(move |b| [a, b]));
    let pairs: Vec<String> = pairs.map(|pair| spell(&pair)).collect();
    let halves = |word: &str| {
        let cut = word.char_indices().nth(1).map_or(0, |(at, _)| at);
        format!("{} {}", &word[..cut], &word[cut..])
    };
    let short = pairs.iter().map(|word| (word.clone(), halves(word)));
    let inner = |word: &&String| word.starts_with(|c: char| c.is_ascii_lowercase());
    let long = pairs.iter().flat_map(|left| {
        let rights = pairs.iter().filter(inner);
        rights.map(move |right| (format!("{left}{right}"), format!("{left} {right}")))
    });
    short.chain(long).take(n).unzip()
}
