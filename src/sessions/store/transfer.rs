//! A session as one safetensors file, for other machines and other programs. `docs/sessions.md` says
//! what is in it. What comes in is a stranger's: every length is bounded before it costs anything,
//! every byte is digested, and whatever does not add up is refused by name.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Loaded, State};
use super::entry::Turn;
use super::error::{Piece, Refusal, StoreError, doing};
use super::identity::{Digest, Identity};
use super::known::Known;
use super::record;
use crate::request::Token;

const FORMAT: u16 = 1;
/// Longest head that is read: its turns are text.
const HEAD_MOST: u64 = 256 << 20;
/// No block or part of a state is longer.
const PIECE_MOST: usize = 1 << 30;

/// A session outside of any store.
#[derive(Debug)]
pub struct Carried {
    pub name: Option<String>,
    pub identity: Identity,
    pub turns: Vec<Turn>,
    pub state: Option<Loaded>,
}

/// The head, as safetensors has it.
#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(rename = "__metadata__")]
    about: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Serialize, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

#[derive(Serialize, Deserialize)]
struct Said {
    response: String,
    messages: String,
    kept: usize,
    tokens: Vec<Token>,
    options: String,
    at: u64,
}

/// Digests of the turns' text and of each tensor.
type Digests = BTreeMap<String, Digest>;

fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

fn digest_of_all(pieces: &[Bytes]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists are JSON")
}

/// Writes it; returns the bytes.
pub fn write(carried: &Carried, out: &mut dyn Write) -> Result<u64, StoreError> {
    let io = doing("writing an exported session");
    let said = |t: &Turn| Said {
        response: t.response.clone(),
        messages: t.messages.clone(),
        kept: t.kept,
        tokens: t.tokens.clone(),
        options: t.options.clone(),
        at: t.at,
    };
    let turns = json(&carried.turns.iter().map(said).collect::<Vec<_>>());
    let mut digests = Digests::from([("turns".to_owned(), digest(turns.as_bytes()))]);
    let (mut tensors, mut data, mut end) = (BTreeMap::new(), Vec::new(), 0);
    let mut add = |name: &str, dtype: &str, shape: Vec<usize>, pieces: &[Bytes]| {
        let begin = end;
        end += pieces.iter().map(Bytes::len).sum::<usize>();
        digests.insert(name.to_owned(), digest_of_all(pieces));
        data.extend_from_slice(pieces);
        let tensor = Tensor {
            dtype: dtype.into(),
            shape,
            data_offsets: [begin, end],
        };
        tensors.insert(name.to_owned(), tensor);
    };
    let mut about = BTreeMap::from([
        ("format".to_owned(), format!("deltad-session-{FORMAT}")),
        ("identity".to_owned(), json(&carried.identity)),
        ("turns".to_owned(), turns),
    ]);
    about.extend(carried.name.iter().map(|n| ("name".to_owned(), n.clone())));
    if let Some(state) = &carried.state {
        about.insert("state_tokens".to_owned(), state.tokens.to_string());
        let block = state.blocks.first().map_or(0, Bytes::len);
        add(
            "blocks",
            "U8",
            vec![state.blocks.len(), block],
            &state.blocks,
        );
        for (name, part) in [("slot", &state.slot), ("next", &state.next)] {
            let part = std::slice::from_ref(part);
            add(name, "F32", vec![part[0].len() / 4], part);
        }
        let tail = std::slice::from_ref(&state.tail);
        add("tail", "U8", vec![tail[0].len()], tail);
    }
    about.insert("blake3".to_owned(), json(&digests));
    let mut head = json(&Head { about, tensors }).into_bytes();
    head.resize(head.len().next_multiple_of(8), b' ');
    out.write_all(&(head.len() as u64).to_le_bytes())
        .map_err(&io)?;
    out.write_all(&head).map_err(&io)?;
    for piece in &data {
        out.write_all(piece).map_err(&io)?;
    }
    out.flush().map_err(&io)?;
    Ok(8 + head.len() as u64 + end as u64)
}

fn foreign(why: &str) -> Refusal {
    let what = format!("what was given ({why})");
    Refusal::Foreign { what }
}

fn damaged(name: &str) -> Refusal {
    let piece = Piece::File(name.to_owned());
    Refusal::Damaged { piece, at: 0 }
}

/// Reads one, of `most` bytes at most.
pub fn read(from: &mut dyn Read, most: u64) -> Result<Carried, StoreError> {
    let mut from = from.take(most);
    let mut length = [0; 8];
    exact(&mut from, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > HEAD_MOST.min(most) {
        return Err(foreign("its head is too long").into());
    }
    let mut head = Vec::new();
    let read = from.by_ref().take(length).read_to_end(&mut head);
    read.map_err(doing("reading an exported session"))?;
    if head.len() as u64 != length {
        return Err(foreign("it ends in its head").into());
    }
    let head: Head = serde_json::from_slice(&head).map_err(|e| foreign(&e.to_string()))?;
    let about = |name: &str| {
        let text = head.about.get(name).map(String::as_str);
        text.ok_or_else(|| foreign(&format!("it has no {name}")))
    };
    let format = about("format")?.strip_prefix("deltad-session-");
    let format: u16 = format
        .and_then(|f| f.parse().ok())
        .ok_or_else(|| foreign("its format is another program's"))?;
    if format > FORMAT {
        let (got, known) = (format, FORMAT);
        return Err(Refusal::Newer { got, known }.into());
    }
    fn of<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
        serde_json::from_str(text).map_err(|e| foreign(&e.to_string()))
    }
    let (identity, digests) = (of(about("identity")?)?, of::<Digests>(about("blake3")?)?);
    let text = about("turns")?;
    if digests.get("turns") != Some(&digest(text.as_bytes())) {
        return Err(damaged("turns").into());
    }
    let turns = checked(of(text)?)?;
    let tokens = super::known::tokens_of(&turns).len();
    let state = match head.about.get("state_tokens") {
        None if head.tensors.is_empty() => None,
        None => return Err(foreign("its tensors belong to no state").into()),
        Some(seen) => {
            let seen = seen.parse().ok().filter(|seen| *seen <= tokens);
            let seen = seen.ok_or_else(|| foreign("its state is ahead of its turns"))?;
            Some(state(&mut from, seen, &head.tensors, &digests)?)
        }
    };
    Ok(Carried {
        name: head.about.get("name").cloned(),
        identity,
        turns,
        state,
    })
}

fn exact(from: &mut dyn Read, into: &mut [u8]) -> Result<(), StoreError> {
    match from.read_exact(into) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(foreign("it is too short").into())
        }
        read => read.map_err(doing("reading an exported session")),
    }
}

fn checked(said: Vec<Said>) -> Result<Vec<Turn>, Refusal> {
    let (mut known, mut turns) = (Known::default(), Vec::new());
    for said in said {
        let turn = Turn {
            response: said.response,
            messages: said.messages,
            kept: said.kept,
            tokens: said.tokens,
            options: said.options,
            at: said.at,
        };
        let fits = known.turn(&turn).is_ok() && turn.to_bytes().len() <= record::MOST;
        if !fits {
            return Err(foreign(&format!("turn {} does not add up", turns.len())));
        }
        turns.push(turn);
    }
    Ok(turns)
}

/// The tensors lie one behind the other in the order of their names' offsets, without gaps.
fn state(
    from: &mut dyn Read,
    tokens: usize,
    tensors: &BTreeMap<String, Tensor>,
    digests: &Digests,
) -> Result<Loaded, StoreError> {
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, t)| t.data_offsets);
    let mut parts: BTreeMap<&str, Vec<Bytes>> = BTreeMap::new();
    let mut at = 0;
    for (name, tensor) in order {
        let wrong = |why: &str| foreign(&format!("tensor {name:?} {why}"));
        let [begin, end] = tensor.data_offsets;
        let size = match (&tensor.dtype[..], &tensor.shape[..]) {
            ("U8", [pieces, bytes]) => pieces.checked_mul(*bytes),
            ("U8", [bytes]) => Some(*bytes),
            ("F32", [floats]) => floats.checked_mul(4),
            _ => None,
        };
        if begin != at || end < begin || size != Some(end - begin) {
            return Err(wrong("does not lie where its size says").into());
        }
        let (count, bytes) = match tensor.shape[..] {
            [count, bytes] => (count, bytes),
            _ => (1, end - begin),
        };
        if bytes > PIECE_MOST || (bytes == 0 && count > 1) {
            return Err(wrong("has pieces of a size that no state has").into());
        }
        let (mut pieces, mut hasher) = (Vec::new(), blake3::Hasher::new());
        for _ in 0..count {
            let mut piece = Vec::new();
            let read = from.take(bytes as u64).read_to_end(&mut piece);
            read.map_err(doing("reading an exported session"))?;
            if piece.len() != bytes {
                return Err(wrong("is cut off").into());
            }
            hasher.update(&piece);
            pieces.push(Bytes::from(piece));
        }
        let got = Digest(*hasher.finalize().as_bytes());
        if digests.get(name) != Some(&got) {
            return Err(damaged(name).into());
        }
        parts.insert(name, pieces);
        at = end;
    }
    let blocks = parts.remove("blocks");
    let mut one = |name: &str| {
        let mut pieces = parts.remove(name).filter(|p| p.len() == 1);
        let piece = pieces.as_mut().and_then(Vec::pop);
        piece.ok_or_else(|| foreign(&format!("it has no tensor {name:?} of one piece")))
    };
    let (slot, tail, next) = (one("slot")?, one("tail")?, one("next")?);
    if let Some(name) = parts.keys().next() {
        return Err(foreign(&format!("tensor {name:?} is not known")).into());
    }
    Ok(Loaded {
        tokens,
        blocks: blocks.ok_or_else(|| foreign("it has no tensor \"blocks\""))?,
        slot,
        tail,
        next,
    })
}

impl State for Loaded {
    fn blocks(&self) -> usize {
        self.blocks.len()
    }
    fn block_bytes(&self) -> usize {
        self.blocks.first().map_or(0, Bytes::len)
    }
    fn block(&self, at: usize) -> Bytes {
        self.blocks[at].clone()
    }
    fn slot(&self) -> Bytes {
        self.slot.clone()
    }
    fn tail(&self) -> Bytes {
        self.tail.clone()
    }
    fn next(&self) -> Bytes {
        self.next.clone()
    }
}
