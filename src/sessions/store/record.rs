//! The log's bytes: a head of 64 and records behind it, each of which says what came before it.
//! Pure: bytes in, bytes out. Owns what is a torn tail and what is damage; refuses to guess.
//!
//! A record is 32 bytes and a payload, padded to 8. Its hash covers everything else of it, the hash
//! of the record before included, and is seeded with the log's own salt: records of another log,
//! or in another order, do not fit. The chain is checked record by record; where it breaks, the
//! rest is searched for a record that fits by itself. If there is one, something that was written
//! later is whole, so what lies before it was damaged; if there is none, it is a tail that a crash
//! left, and nobody was told that it was written.

use xxhash_rust::xxh3::Xxh3;

use super::error::{Piece, Refusal};
use super::id::Id;

pub const MAGIC: [u8; 8] = *b"deltalog";
/// The newest format that this version reads, and the one that it writes.
pub const FORMAT: u16 = 1;
pub const HEAD: usize = 64;
pub const RECORD: usize = 32;
/// No record is longer.
pub const MOST: usize = 64 << 20;
/// Bytes that are hashed in search of a whole record behind a broken one.
const SEARCH: usize = 1 << 30;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Name, pin, identity: the newest counts.
    Meta = 1,
    Turn = 2,
    Checkpoint = 3,
    /// Where it came from.
    Fork = 4,
    /// Rows and state were given up; the transcript stays.
    Shed = 5,
    /// A piece of a running answer, in a file of its own.
    Partial = 6,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        use Kind::*;
        [Meta, Turn, Checkpoint, Fork, Shed, Partial]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub format: u16,
    pub uid: u32,
    pub id: Id,
    /// Random: seeds every hash of this log.
    pub salt: u64,
}

impl Head {
    pub fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.format.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.uid.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.id.0);
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let hash = hash(self.salt, &bytes[..56]);
        bytes[56..].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    pub fn of(bytes: &[u8]) -> Result<Head, Refusal> {
        let damaged = |at| Refusal::Damaged {
            piece: Piece::Log,
            at,
        };
        let Some(bytes) = bytes.first_chunk::<HEAD>() else {
            return Err(damaged(bytes.len() as u64));
        };
        if bytes[..8] != MAGIC {
            let what = "a file without the log's first eight bytes".into();
            return Err(Refusal::Foreign { what });
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if format > FORMAT {
            let (got, known) = (format, FORMAT);
            return Err(Refusal::Newer { got, known });
        }
        let salt = u64_at(bytes, 32);
        if format == 0 || hash(salt, &bytes[..56]) != u64_at(bytes, 56) {
            return Err(damaged(8));
        }
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[16..32]);
        Ok(Head {
            format,
            uid: u32_at(bytes, 12),
            id: Id(id),
            salt,
        })
    }

    /// What the first record names as the one before.
    pub fn chain(self) -> Chain {
        Chain {
            salt: self.salt,
            seq: 0,
            last: u64_at(&self.to_bytes(), 56),
        }
    }
}

/// Where a log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    pub salt: u64,
    /// Of the next record.
    pub seq: u64,
    /// The hash of the last one.
    pub last: u64,
}

impl Chain {
    /// The next record's bytes, and where the log goes on behind it.
    pub fn next(self, kind: Kind, payload: &[u8]) -> (Vec<u8>, Chain) {
        let mut bytes = Vec::with_capacity(RECORD + payload.len() + 7);
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend([kind as u8, 0, 0, 0]);
        bytes.extend(self.seq.to_le_bytes());
        bytes.extend(self.last.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let last = record_hash(self.salt, &bytes);
        bytes[24..32].copy_from_slice(&last.to_le_bytes());
        let chain = Chain {
            seq: self.seq + 1,
            last,
            ..self
        };
        (bytes, chain)
    }
}

/// A record whose bytes are as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: Kind,
    /// Where it begins.
    pub at: usize,
    pub payload: &'a [u8],
}

/// How a log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    Whole,
    /// A crash left something behind the last whole record.
    Torn,
    /// Something that was written later is whole.
    Damaged,
}

/// The records of a log up to the first that is not whole.
#[derive(Debug)]
pub struct Read<'a> {
    pub head: Head,
    pub records: Vec<Record<'a>>,
    /// Bytes of head and records.
    pub good: usize,
    pub chain: Chain,
    pub tail: Tail,
}

/// Reads a log.
pub fn read(log: &[u8]) -> Result<Read<'_>, Refusal> {
    let head = Head::of(log)?;
    let (records, good, chain) = follow(log, HEAD, head.chain());
    let tail = match log.len() - good {
        0 => Tail::Whole,
        _ if behind(log, good, chain).is_some() => Tail::Damaged,
        _ => Tail::Torn,
    };
    Ok(Read {
        head,
        records,
        good,
        chain,
        tail,
    })
}

/// The records that follow each other from `at` on.
pub fn follow(log: &[u8], mut at: usize, mut chain: Chain) -> (Vec<Record<'_>>, usize, Chain) {
    let mut records = Vec::new();
    while let Some((record, prev, seq, hash)) = whole(log, at, chain.salt)
        && (prev, seq) == (chain.last, chain.seq)
    {
        at += RECORD + record.payload.len().next_multiple_of(8);
        chain.seq += 1;
        chain.last = hash;
        records.push(record);
    }
    (records, at, chain)
}

/// Every record that is whole by itself, in the order in which it was written: what can be had back
/// from a damaged log.
pub fn salvage(log: &[u8], head: Head) -> Vec<Record<'_>> {
    let (mut records, mut at, mut chain) = follow(log, HEAD, head.chain());
    while let Some((from, next)) = behind(log, at, chain) {
        let (more, end, after) = follow(log, from, next);
        records.extend(more);
        (at, chain) = (end, after);
    }
    records
}

/// Where behind `good` the first record lies that is whole by itself and newer, and its chain. A
/// search that would take too long counts as found, at the end.
fn behind(log: &[u8], good: usize, chain: Chain) -> Option<(usize, Chain)> {
    let mut fuel = SEARCH;
    for at in (good..log.len().saturating_sub(RECORD - 1)).step_by(8) {
        let Some(len) = plausible(log, at) else {
            continue;
        };
        let Some(left) = fuel.checked_sub(RECORD + len) else {
            return Some((log.len(), chain));
        };
        fuel = left;
        let Some((_, last, seq, _)) = whole(log, at, chain.salt) else {
            continue;
        };
        if seq >= chain.seq {
            return Some((at, Chain { seq, last, ..chain }));
        }
    }
    None
}

/// The length of the payload, if a record could begin here.
fn plausible(log: &[u8], at: usize) -> Option<usize> {
    let head = log.get(at..at.checked_add(RECORD)?)?;
    let len = u32_at(head, 0) as usize;
    let fits = len <= MOST && len.next_multiple_of(8) <= log.len() - at - RECORD;
    (fits && Kind::of(head[4]).is_some() && head[5..8] == [0; 3]).then_some(len)
}

/// The record at `at`, if its hash says so, with the hash before it, its number and its hash.
fn whole(log: &[u8], at: usize, salt: u64) -> Option<(Record<'_>, u64, u64, u64)> {
    let len = plausible(log, at)?;
    let bytes = &log[at..at + RECORD + len.next_multiple_of(8)];
    let hash = u64_at(bytes, 24);
    if record_hash(salt, bytes) != hash {
        return None;
    }
    let record = Record {
        kind: Kind::of(bytes[4])?,
        at,
        payload: &bytes[RECORD..RECORD + len],
    };
    Some((record, u64_at(bytes, 16), u64_at(bytes, 8), hash))
}

fn record_hash(salt: u64, bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(salt);
    hash.update(&bytes[..24]);
    hash.update(&bytes[RECORD..]);
    hash.digest()
}

fn hash(salt: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, salt)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
