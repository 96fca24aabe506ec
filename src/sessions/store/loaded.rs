//! A state back from its files: every byte is digested where it lies, in the page cache, and nothing is
//! copied where files can be mapped. What is lent so is looked at again by whoever reads it.

use std::collections::BTreeMap;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::checkpoint::{MAGIC, PAGE, rows, stride};
use super::disk::{Disk, How};
use super::entry::{self, Place};
use super::error::{Piece, Refusal};
use super::known::Point;
use super::record::FORMAT;
use super::session::Session;
use crate::engine::{Lent, fetch};
use crate::request::Token;

/// Threads that read a state's blocks, and blocks that one reads before another is worth it.
const READERS: usize = 4;
const ALONE: usize = 32;

/// A state from disk, every byte of it checked where it lies.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// How many tokens it has seen.
    pub tokens: usize,
    pub blocks: Vec<Bytes>,
    pub slot: Bytes,
    pub tail: Bytes,
    pub next: Bytes,
    /// The files that it lies in, where it is not a copy.
    pub lent: Lent,
}

/// The parts of a state file whose hash was right.
fn parts(file: &Bytes, tokens: usize) -> Option<[Bytes; 3]> {
    let mut from = entry::Bytes(file.get(..PAGE)?);
    let known = from.take(8)? == MAGIC && from.take(2)? == FORMAT.to_le_bytes();
    from.zeros(6)?;
    if !known || from.u64()? != tokens as u64 {
        return None;
    }
    let mut at = PAGE;
    let mut part = |len: Option<u64>| {
        let end = at.checked_add(usize::try_from(len?).ok()?)?;
        let part = (end <= file.len()).then(|| file.slice(at..end));
        at = end;
        part
    };
    let parts = [part(from.u64()), part(from.u64()), part(from.u64())];
    let [slot, tail, next] = parts;
    let parts = [slot?, tail?, next?];
    (at == file.len()).then_some(parts)
}

impl Session {
    /// The newest state that is of the beginning of `tokens` and whole; why newer ones are not
    /// taken goes to `wrong`, and their rows are not built upon.
    pub fn state(
        &mut self,
        disk: &dyn Disk,
        tokens: &[Token],
        wrong: &mut Vec<Refusal>,
    ) -> Option<Loaded> {
        let points = self.known.points.iter().rev();
        let mut found = None;
        for point in points.filter(|p| p.is_of(tokens)) {
            match self.point(disk, point) {
                Ok(loaded) => {
                    found = Some(loaded);
                    break;
                }
                Err(refused) => wrong.push(refused),
            }
        }
        if !wrong.is_empty() {
            self.distrusted = true;
            let segments = self.known.points.iter().flat_map(|p| &p.blocks);
            let after = segments.map(|b| b.segment + 1).max().unwrap_or(0);
            self.skip_segments = self.skip_segments.max(after);
        }
        found
    }

    fn point(&self, disk: &dyn Disk, point: &Point) -> Result<Loaded, Refusal> {
        let bytes = usize::try_from(point.block_bytes).unwrap_or(usize::MAX);
        let most = |s: &mut BTreeMap<u32, u64>, place: &Place| {
            let end = u64::from(place.index).saturating_mul(stride(bytes));
            let end = end.saturating_add(point.block_bytes);
            let known = s.entry(place.segment).or_default();
            *known = end.max(*known);
        };
        let mut ends = BTreeMap::new();
        point.blocks.iter().for_each(|place| most(&mut ends, place));
        let mut lent = Lent::default();
        let mut segments = BTreeMap::new();
        for (segment, end) in ends {
            let of = |p: &Place| p.segment == segment;
            let piece = Piece::Block(point.blocks.iter().position(of).unwrap_or(0));
            let whole = self.lent(disk, &rows(segment), end, &mut lent);
            let whole = whole.map_err(|why| Refusal::Unreadable { piece, why })?;
            segments.insert(segment, whole);
        }
        let file = self.lent(
            disk,
            &format!("state.{}", point.file),
            point.state_bytes.saturating_add(1),
            &mut lent,
        );
        let piece = Piece::State;
        let file = file.map_err(|why| Refusal::Unreadable { piece, why })?;
        let (blocks, [slot, tail, next]) = check(point, bytes, &segments, &file)?;
        Ok(Loaded {
            tokens: point.tokens,
            blocks,
            slot,
            tail,
            next,
            lent,
        })
    }

    /// A file's beginning, at most `most` bytes of it.
    fn lent(
        &self,
        disk: &dyn Disk,
        name: &str,
        most: u64,
        lent: &mut Lent,
    ) -> std::io::Result<Bytes> {
        let file = disk.open(&self.dir(), name, How::Read)?;
        let len = usize::try_from(file.size()?.min(most)).map_err(std::io::Error::other)?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        let (bytes, whose) = file.lend(len)?;
        if let Some(whose) = whose {
            fetch(&bytes);
            lent.0.push(whose);
        }
        Ok(bytes)
    }
}

/// The blocks and the parts of a state, each digested where it lies, by a few threads.
fn check(
    point: &Point,
    bytes: usize,
    segments: &BTreeMap<u32, Bytes>,
    file: &Bytes,
) -> Result<(Vec<Bytes>, [Bytes; 3]), Refusal> {
    let numbered: Vec<(usize, &Place)> = point.blocks.iter().enumerate().collect();
    let look = |part: &[(usize, &Place)]| {
        let each = part.iter().map(|(number, place)| {
            let begin = u64::from(place.index).saturating_mul(stride(bytes));
            let there = &segments[&place.segment];
            let first = usize::try_from(begin)
                .unwrap_or(usize::MAX)
                .min(there.len());
            let block = there.slice(first..first.saturating_add(bytes).min(there.len()));
            let is_whole = block.len() == bytes;
            if is_whole && xxh3_128(&block) == place.hash {
                return Ok(block);
            }
            let piece = Piece::Block(*number);
            let at = if is_whole {
                begin
            } else {
                begin + block.len() as u64
            };
            Err(Refusal::Damaged { piece, at })
        });
        each.collect::<Result<Vec<Bytes>, Refusal>>()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let part = numbered.len().div_ceil(threads.min(READERS)).max(ALONE);
    std::thread::scope(|scope| {
        let parts = numbered.chunks(part);
        let readers: Vec<_> = parts.map(|part| scope.spawn(|| look(part))).collect();
        let rest = check_rest(point, file);
        let each = readers.into_iter().map(|reader| match reader.join() {
            Ok(blocks) => blocks,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        let blocks = each.collect::<Result<Vec<_>, _>>();
        let rest = rest?;
        Ok((blocks?.concat(), rest))
    })
}

/// What is not blocks.
fn check_rest(point: &Point, file: &Bytes) -> Result<[Bytes; 3], Refusal> {
    let damaged = |at: u64| Refusal::Damaged {
        piece: Piece::State,
        at,
    };
    if file.len() as u64 != point.state_bytes {
        return Err(damaged(point.state_bytes.min(file.len() as u64)));
    }
    if xxh3_128(file) != point.state_hash {
        return Err(damaged(0));
    }
    parts(file, point.tokens).ok_or_else(|| damaged(0))
}
