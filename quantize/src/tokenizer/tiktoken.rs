//! `tiktoken.model`: one line per token, its bytes in base64 and its rank. Ids above are special:
//! named by `added_tokens_decoder`, or reserved.

use super::bytes::spell;
use super::{Added, CONTROL, UNUSED, USER_DEFINED, Vocabulary, pre};
use crate::error::Error;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Ids that Kimi's tokenizer class sets aside after the ranks.
const RESERVED: usize = 256 + 2;

pub fn read(path: &Path, added: &BTreeMap<usize, Added>, size: usize) -> Result<Vocabulary, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
    let refuse = |what: String| Error::input(path, what);
    let mut ranks: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut by_rank: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    for (at, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
    {
        let parsed = line.split_once(' ').and_then(|(token, rank)| {
            let token = BASE64_STANDARD.decode(token).ok()?;
            Some((token, rank.parse().ok()?))
        });
        let wanted = || refuse(format!("line {}: wanted base64 and a rank", at + 1));
        let (token, rank): (Vec<u8>, usize) = parsed.ok_or_else(wanted)?;
        if ranks.insert(token.clone(), rank).is_some() || by_rank.insert(rank, token).is_some() {
            return Err(refuse(format!(
                "line {}: token or rank appears twice",
                at + 1
            )));
        }
    }
    let n = by_rank.len();
    if n > size {
        let what = format!("holds {n} tokens, config.json says vocab_size {size}");
        return Err(refuse(what));
    }
    if by_rank.keys().next_back() != n.checked_sub(1).as_ref() {
        return Err(refuse(format!(
            "the ranks of {n} tokens are not 0 to {n} - 1"
        )));
    }
    let mut tokens = Vec::with_capacity(size);
    let mut merges = Vec::new();
    for (&rank, token) in &by_rank {
        tokens.push((spell(token), super::NORMAL));
        if let Some((left, right)) = last_merge(&ranks, token, rank) {
            merges.push(format!("{} {}", spell(left), spell(right)));
        }
    }
    tokens.extend((n..size).map(|id| match added.get(&id) {
        Some(Added { content, special }) => (
            content.clone(),
            if *special { CONTROL } else { USER_DEFINED },
        ),
        None if id < n + RESERVED => (format!("<|reserved_token_{id}|>"), CONTROL),
        None => (format!("[PAD{id}]"), UNUSED),
    }));
    Ok(Vocabulary {
        pre: pre::KIMI,
        tokens,
        merges,
    })
}

/// The two parts that are joined last when a token is built by joining the pair of lowest rank
/// again and again, with only the ranks below its own. `None` for single bytes.
fn last_merge<'a>(
    ranks: &HashMap<Vec<u8>, usize>,
    token: &'a [u8],
    rank: usize,
) -> Option<(&'a [u8], &'a [u8])> {
    // Ends of the parts.
    let mut ends: Vec<usize> = (1..=token.len()).collect();
    while ends.len() > 2 {
        let start = |at: usize| if at == 0 { 0 } else { ends[at - 1] };
        let pairs = (0..ends.len() - 1).filter_map(|at| {
            let joined = ranks.get(&token[start(at)..ends[at + 1]])?;
            Some((*joined, at))
        });
        let (_, at) = pairs.min().filter(|(joined, _)| *joined < rank)?;
        ends.remove(at);
    }
    match ends[..] {
        [split, end] => Some((&token[..split], &token[split..end])),
        _ => None,
    }
}
