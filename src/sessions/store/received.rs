//! An exported session as a stranger sends it: every length is bounded before it costs anything,
//! every byte is digested, and whatever does not add up is refused by name. No more of its state than
//! one piece is ever in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};

use bytes::Bytes;
use serde::Deserialize;

use super::checkpoint::State;
use super::entry::Turn;
use super::error::{Piece, Refusal, StoreError, doing};
use super::identity::{Digest, Identity};
use super::known::{self, Known};
use super::record;
use super::transfer::{Digests, FORMAT, Head, Said, Tensor, digest};

/// Longest head that is read: its turns are text.
const HEAD_MOST: u64 = 256 << 20;
/// No block or part of a state is longer.
const PIECE_MOST: usize = 1 << 30;
/// Bytes that are digested at once.
const CHUNK: usize = 1 << 20;

/// What is read at any place, as often as need be, and changes under nobody's hand.
pub trait Source {
    /// May read less; 0 is the end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl Source for std::fs::File {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, at)
    }
}

impl Source for &[u8] {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..));
        let mut from = from.unwrap_or_default();
        from.read(into)
    }
}

/// A session that fits together, its state still where it came from.
pub struct Received<'a> {
    pub name: Option<String>,
    pub note: String,
    pub identity: Identity,
    pub turns: Vec<Turn>,
    pub state: Option<There<'a>>,
}

/// A state that was digested where it lies.
pub struct There<'a> {
    /// How many tokens it has seen.
    pub tokens: usize,
    source: &'a dyn Source,
    blocks: Part,
    slot: Part,
    tail: Part,
    next: Part,
    failed: RefCell<Option<io::Error>>,
}

/// Pieces of one size.
#[derive(Debug, Clone, Copy)]
struct Part {
    begin: u64,
    count: usize,
    bytes: usize,
}

/// From the beginning on.
struct Reader<'a> {
    source: &'a dyn Source,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read_at(self.at, into)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn foreign(why: &str) -> Refusal {
    let what = format!("what was given ({why})");
    Refusal::Foreign { what }
}

fn damaged(name: &str) -> Refusal {
    let piece = Piece::File(name.to_owned());
    Refusal::Damaged { piece, at: 0 }
}

fn of<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|e| foreign(&e.to_string()))
}

/// Looks through all of it; `want` is who takes it.
pub fn examine<'a>(source: &'a dyn Source, want: &Identity) -> Result<Received<'a>, StoreError> {
    let mut from = Reader { source, at: 0 };
    let head = head(&mut from)?;
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
    let (identity, digests) = (
        of::<Identity>(about("identity")?)?,
        of::<Digests>(about("blake3")?)?,
    );
    if let Some(differs) = identity.differs(want) {
        return Err(Refusal::Other(differs).into());
    }
    for name in ["turns", "note", "state_tokens"] {
        let is = head.about.get(name).map(|text| digest(text.as_bytes()));
        if digests.get(name) != is.as_ref() {
            return Err(damaged(name).into());
        }
    }
    let turns = checked(of(about("turns")?)?)?;
    let tokens = known::tokens_of(&turns).len();
    let state = match head.about.get("state_tokens") {
        None if head.tensors.is_empty() => None,
        None => return Err(foreign("its tensors belong to no state").into()),
        Some(seen) => {
            let seen = seen.parse().ok().filter(|seen| *seen <= tokens);
            let seen = seen.ok_or_else(|| foreign("its state is ahead of its turns"))?;
            Some(state(from, seen, &head.tensors, &digests)?)
        }
    };
    Ok(Received {
        name: head.about.get("name").cloned(),
        note: about("note")?.to_owned(),
        identity,
        turns,
        state,
    })
}

fn head(from: &mut Reader<'_>) -> Result<Head, StoreError> {
    let io = doing("reading an exported session");
    let mut length = [0; 8];
    match from.read_exact(&mut length) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(foreign("it is too short").into());
        }
        read => read.map_err(&io)?,
    }
    let length = u64::from_le_bytes(length);
    if length > HEAD_MOST {
        return Err(foreign("its head is too long").into());
    }
    let mut head = Vec::new();
    from.take(length).read_to_end(&mut head).map_err(&io)?;
    if head.len() as u64 != length {
        return Err(foreign("it ends in its head").into());
    }
    Ok(serde_json::from_slice(&head).map_err(|e| foreign(&e.to_string()))?)
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
fn state<'a>(
    mut from: Reader<'a>,
    tokens: usize,
    tensors: &BTreeMap<String, Tensor>,
    digests: &Digests,
) -> Result<There<'a>, StoreError> {
    let data = from.at;
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, t)| t.data_offsets);
    let mut parts: BTreeMap<&str, Part> = BTreeMap::new();
    for (name, tensor) in order {
        let part = part(name, tensor, data, from.at)?;
        if digests.get(name) != Some(&digested(&mut from, name, part)?) {
            return Err(damaged(name).into());
        }
        parts.insert(name, part);
    }
    let blocks = parts.remove("blocks");
    let mut one = |name: &str| {
        let part = parts.remove(name).filter(|p| p.count == 1);
        part.ok_or_else(|| foreign(&format!("it has no tensor {name:?} of one piece")))
    };
    let (slot, tail, next) = (one("slot")?, one("tail")?, one("next")?);
    if let Some(name) = parts.keys().next() {
        return Err(foreign(&format!("tensor {name:?} is not known")).into());
    }
    Ok(There {
        tokens,
        source: from.source,
        blocks: blocks.ok_or_else(|| foreign("it has no tensor \"blocks\""))?,
        slot,
        tail,
        next,
        failed: RefCell::default(),
    })
}

/// Where a tensor lies, which is at `at`: behind the one before.
fn part(name: &str, tensor: &Tensor, data: u64, at: u64) -> Result<Part, Refusal> {
    let wrong = |why: &str| foreign(&format!("tensor {name:?} {why}"));
    let [begin, end] = tensor.data_offsets;
    let size = match (&tensor.dtype[..], &tensor.shape[..]) {
        ("U8", [pieces, bytes]) => pieces.checked_mul(*bytes),
        ("U8", [bytes]) => Some(*bytes),
        ("F32", [floats]) => floats.checked_mul(4),
        _ => None,
    };
    let is_next = data.checked_add(begin as u64) == Some(at);
    if !is_next || end < begin || size != Some(end - begin) {
        return Err(wrong("does not lie where its size says"));
    }
    let (count, bytes) = match tensor.shape[..] {
        [count, bytes] => (count, bytes),
        _ => (1, end - begin),
    };
    if bytes > PIECE_MOST || (bytes == 0 && count > 1) {
        return Err(wrong("has pieces of a size that no state has"));
    }
    Ok(Part {
        begin: at,
        count,
        bytes,
    })
}

fn digested(from: &mut Reader<'_>, name: &str, part: Part) -> Result<Digest, StoreError> {
    let mut hasher = blake3::Hasher::new();
    let mut left = part.count as u64 * part.bytes as u64;
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        let read = from.read(&mut chunk[..want]);
        match read.map_err(doing("reading an exported session"))? {
            0 => return Err(foreign(&format!("tensor {name:?} is cut off")).into()),
            n => {
                hasher.update(&chunk[..n]);
                left -= n as u64;
            }
        }
    }
    Ok(Digest(*hasher.finalize().as_bytes()))
}

impl There<'_> {
    /// Why what was given out is not what was digested, if that is so.
    pub fn failed(&self) -> Option<StoreError> {
        let why = self.failed.borrow_mut().take()?;
        Some(doing("reading an exported session")(why))
    }

    fn piece(&self, part: Part, number: usize) -> Bytes {
        let mut bytes = vec![0; part.bytes];
        let at = part.begin + number as u64 * part.bytes as u64;
        let mut from = Reader {
            source: self.source,
            at,
        };
        if let Err(why) = from.read_exact(&mut bytes) {
            self.failed.borrow_mut().get_or_insert(why);
        }
        bytes.into()
    }
}

impl State for There<'_> {
    fn blocks(&self) -> usize {
        self.blocks.count
    }
    fn block_bytes(&self) -> usize {
        self.blocks.bytes
    }
    fn block(&self, at: usize) -> Bytes {
        self.piece(self.blocks, at)
    }
    fn slot(&self) -> Bytes {
        self.piece(self.slot, 0)
    }
    fn tail(&self) -> Bytes {
        self.piece(self.tail, 0)
    }
    fn next(&self) -> Bytes {
        self.piece(self.next, 0)
    }
}
