//! A state beside its transcript: blocks of rows appended to segments that are never rewritten, and
//! the rest in a file of its own for every checkpoint. The record in the log comes last: what it
//! names is there to stay by then, and what no record names was never there.

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::disk::{self, Disk, How};
use super::entry::{Checkpoint, Place, tokens_hash};
use super::error::{StoreError, doing};
use super::record::{FORMAT, Kind};
use super::session::Session;
use crate::request::Token;

/// Blocks and the rest begin where pages do.
pub const PAGE: usize = 4096;
/// A segment that is longer gets a successor.
const SEGMENT_MOST: u64 = 1 << 30;
pub const MAGIC: [u8; 8] = *b"deltstat";

/// What an engine remembers of a sequence, as bytes that mean the same to every executor.
pub trait State {
    /// Blocks that are full and do not change any more.
    fn blocks(&self) -> usize;
    /// Bytes of each.
    fn block_bytes(&self) -> usize;
    fn block(&self, at: usize) -> Bytes;
    /// What has one size, however long the text.
    fn slot(&self) -> Bytes;
    /// Rows behind the last full block.
    fn tail(&self) -> Bytes;
    /// What comes next, as far as it was computed.
    fn next(&self) -> Bytes;
}

/// The name of a segment.
pub fn rows(segment: u32) -> String {
    format!("rows.{segment}")
}

/// From one block in a segment to the next.
pub fn stride(block_bytes: usize) -> u64 {
    block_bytes.max(1).next_multiple_of(PAGE) as u64
}

/// The state file's first page.
fn head(tokens: usize, parts: &[Bytes; 3]) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[16..24].copy_from_slice(&(tokens as u64).to_le_bytes());
    for (at, part) in parts.iter().enumerate() {
        let at = 24 + 8 * at;
        bytes[at..at + 8].copy_from_slice(&(part.len() as u64).to_le_bytes());
    }
    bytes
}

/// A block, unless its device does not give it any more: what is missing must never be taken for zeros.
fn whole_block(state: &dyn State, at: usize) -> std::io::Result<Bytes> {
    let (bytes, wanted) = (state.block(at), state.block_bytes());
    if bytes.len() == wanted {
        return Ok(bytes);
    }
    let got = bytes.len();
    let why = format!(
        "block {at} has {got} bytes, wanted {wanted}: its device does not give it any more"
    );
    Err(std::io::Error::other(why))
}

impl Session {
    /// Bytes that a checkpoint of `state` takes, about: blocks may have changed.
    pub fn need(&self, state: &dyn State) -> u64 {
        let held = self.known.points.last().map_or(0, |p| p.blocks.len());
        let new = state.blocks().saturating_sub(held) as u64;
        let rest = state.slot().len() + state.tail().len() + state.next().len();
        new * stride(state.block_bytes()) + (PAGE + rest) as u64
    }

    /// Makes `state`, which has seen `tokens`, the session's newest, and returns the bytes written.
    /// After an error the session is as it was.
    pub fn checkpoint(
        &mut self,
        disk: &dyn Disk,
        tokens: &[Token],
        state: &dyn State,
    ) -> Result<u64, StoreError> {
        let (got, have) = (tokens.len(), self.known.tokens());
        if got > have {
            return Err(StoreError::Ahead { got, have });
        }
        let seen = tokens_hash(tokens);
        let last = self.known.points.last();
        let is_there = last.is_some_and(|p| (p.tokens, p.tokens_hash) == (got, seen));
        if is_there && !self.distrusted {
            return self
                .settle(disk)
                .map_err(doing("writing a checkpoint's record"));
        }
        let block_bytes = state.block_bytes();
        let hashes = (0..state.blocks()).map(|at| Ok(xxh3_128(&whole_block(state, at)?)));
        let hashes = hashes.collect::<std::io::Result<Vec<u128>>>();
        let hashes = hashes.map_err(doing("reading a state"))?;
        let held = last.filter(|p| p.block_bytes == block_bytes as u64 && !self.distrusted);
        let held = held.map_or(&[][..], |p| &p.blocks);
        let same = held.iter().zip(&hashes).take_while(|(p, h)| p.hash == **h);
        let first = same.count();
        let (blocks, mut written) = self.write_rows(disk, state, first, &hashes)?;
        // Whatever becomes of it: a number is used once.
        let file = self.known.next_file;
        self.known.next_file += 1;
        let record = Checkpoint {
            turns: self.known.turns.len() as u32,
            tokens: got as u32,
            tokens_hash: seen,
            file,
            block_bytes: block_bytes as u64,
            first: first as u32,
            blocks,
            ..self.write_state(disk, file, got, state)?
        };
        written += record.state_bytes;
        let appended = self.append(disk, Kind::Checkpoint, &record.to_bytes());
        written += appended.map_err(doing("writing a checkpoint's record"))?;
        let fits = self.known.checkpoint(record);
        debug_assert!(fits.is_ok(), "of what is known");
        self.distrusted = false;
        self.clear(disk);
        Ok(written)
    }

    /// Appends the blocks from `first` on, and returns where they lie once they are there to stay.
    fn write_rows(
        &mut self,
        disk: &dyn Disk,
        state: &dyn State,
        first: usize,
        hashes: &[u128],
    ) -> Result<(Vec<Place>, u64), StoreError> {
        let io = doing("writing rows");
        if first == hashes.len() {
            return Ok((Vec::new(), 0));
        }
        let (segment, held) = self.segment(disk).map_err(&io)?;
        let (dir, name) = (self.dir(), rows(segment));
        let how = if held.is_some() {
            How::Write
        } else {
            How::Create
        };
        let file = disk.open(&dir, &name, how).map_err(&io)?;
        let stride = stride(state.block_bytes());
        let begin = held.unwrap_or(0).next_multiple_of(stride);
        let (mut at, mut places) = (begin, Vec::new());
        for (block, hash) in hashes.iter().enumerate().skip(first) {
            let mut bytes = match whole_block(state, block) {
                Ok(bytes) => bytes,
                Err(gone) => {
                    if file.set_len(begin).is_err() {
                        self.skip_segments = segment + 1;
                    }
                    return Err(io(gone));
                }
            };
            if bytes.len() as u64 != stride {
                let mut padded = bytes.to_vec();
                padded.resize(stride as usize, 0);
                bytes = padded.into();
            }
            if let Err(failed) = disk::write(&*file, at, &bytes) {
                // Nobody knows of these blocks: the room is given back.
                if file.set_len(begin).is_err() {
                    self.skip_segments = segment + 1;
                }
                return Err(io(failed));
            }
            places.push(Place {
                segment,
                index: (at / stride) as u32,
                hash: *hash,
            });
            at += stride;
        }
        if let Err(failed) = file.sync() {
            self.skip_segments = segment + 1;
            return Err(io(failed));
        }
        Ok((places, at - begin))
    }

    /// The segment to append to and its length; `None`: it is to be made.
    fn segment(&self, disk: &dyn Disk) -> std::io::Result<(u32, Option<u64>)> {
        let own = self.known.fork.map_or(0, |f| f.first_own);
        let first = own.max(self.skip_segments);
        let number = |name: &str| name.strip_prefix("rows.")?.parse::<u32>().ok();
        let files = disk.files(&self.dir())?;
        let segments = files
            .iter()
            .filter_map(|f| Some((number(&f.name)?, f.bytes)));
        Ok(match segments.max() {
            Some((last, bytes)) if last >= first && bytes < SEGMENT_MOST => (last, Some(bytes)),
            Some((last, _)) => (first.max(last + 1), None),
            None => (first, None),
        })
    }

    /// Writes what is not blocks into `state.<file>`; it and all names in the directory are there to
    /// stay then. Of the record, fills in its size and hash.
    fn write_state(
        &self,
        disk: &dyn Disk,
        file: u32,
        tokens: usize,
        state: &dyn State,
    ) -> Result<Checkpoint, StoreError> {
        let (dir, name) = (self.dir(), format!("state.{file}"));
        let parts = [state.slot(), state.tail(), state.next()];
        // Of the parts just read, a device that still gives a block has given all; without a block there
        // are a slot or rows in the tail.
        let reading = doing("reading a state");
        if state.blocks() > 0 {
            whole_block(state, 0).map_err(reading)?;
        } else if tokens > 0 && parts[0].is_empty() && parts[1].is_empty() {
            return Err(reading(std::io::Error::other(
                "its device does not give it any more",
            )));
        }
        let head = head(tokens, &parts);
        let (mut hash, mut at) = (Xxh3::new(), 0);
        let mut write = || {
            match disk.remove(&dir, &name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let to = disk.open(&dir, &name, How::Create)?;
            for part in [&head[..], &parts[0], &parts[1], &parts[2]] {
                hash.update(part);
                disk::write(&*to, at, part)?;
                at += part.len() as u64;
            }
            disk.sync_both(&*to, &dir)
        };
        if let Err(failed) = write() {
            let _ = disk.remove(&dir, &name);
            return Err(doing("writing a state")(failed));
        }
        Ok(Checkpoint {
            turns: 0,
            tokens: 0,
            tokens_hash: 0,
            file,
            block_bytes: 0,
            state_bytes: at,
            state_hash: hash.digest128(),
            first: 0,
            blocks: Vec::new(),
        })
    }
}
