//! A sequence's state as llama.cpp writes it, made longer: its rows again and again, at further
//! positions. For measuring at a depth that nobody has to read to. Takes states of KDA or none
//! beside MLA, whose cache has keys alone, of one sequence; refuses all else.
//!
//! The layout, in the order of `llama_kv_cache::state_write` and `llama_memory_recurrent::state_write`,
//! little-endian: magic and sequence; streams; of each its cells, of each cell position, sequences and
//! their numbers; flags and layers; of each layer type, bytes of a row, rows. Then recurrent cells, of
//! each position and sequences, and their values.

use super::RivalError;

/// Bytes of a cell of one sequence: position, 1, the sequence.
const CELL: usize = 12;

struct Reader<'s> {
    left: &'s [u8],
}

impl<'s> Reader<'s> {
    fn take(&mut self, n: usize) -> Result<&'s [u8], RivalError> {
        let short = || RivalError("its state ends in the middle".into());
        let (taken, left) = self.left.split_at_checked(n).ok_or_else(short)?;
        self.left = left;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, RivalError> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
    }
}

/// `state`, as one that has `tokens` tokens, by what it has of fewer.
pub(super) fn stretched(state: &[u8], tokens: usize) -> Result<Vec<u8>, RivalError> {
    let refuse = |what: String| Err(RivalError(format!("its state: {what}")));
    let Ok(many) = u32::try_from(tokens) else {
        return refuse(format!("{tokens} tokens are too many"));
    };
    let mut from = Reader { left: state };
    let mut to = Vec::new();
    to.extend(from.take(8)?);
    let streams = from.number()?;
    to.extend(streams.to_le_bytes());
    for _ in 0..streams {
        let cells = from.number()?;
        if cells == 0 {
            to.extend(0u32.to_le_bytes());
            continue;
        }
        if cells > many {
            return refuse(format!("{cells} cells, wanted at most {tokens}"));
        }
        to.extend(many.to_le_bytes());
        attention(&mut from, &mut to, cells as usize, many)?;
    }
    if !from.left.is_empty() {
        recurrent(&mut from, &mut to, many)?;
    }
    Ok(to)
}

fn attention(
    from: &mut Reader,
    to: &mut Vec<u8>,
    cells: usize,
    many: u32,
) -> Result<(), RivalError> {
    let cell = from.take(cells * CELL)?;
    if cell[4..8] != 1u32.to_le_bytes() {
        return Err(RivalError("its state: cells of several sequences".into()));
    }
    for position in 0..many {
        to.extend(position.to_le_bytes());
        to.extend(&cell[4..CELL]);
    }
    to.extend(from.take(4)?);
    let layers = from.number()?;
    to.extend(layers.to_le_bytes());
    to.extend(from.take(8)?);
    for _ in 0..layers {
        to.extend(from.take(4)?);
        let row = from.number()?;
        to.extend(row.to_le_bytes());
        to.extend(from.take(4)?);
        let rows = from.take(cells * row as usize)?;
        let whole = many as usize * row as usize;
        let end = to.len() + whole;
        while to.len() < end {
            let n = rows.len().min(end - to.len());
            to.extend(&rows[..n]);
        }
    }
    Ok(())
}

/// The values of one moment are those of a later one.
fn recurrent(from: &mut Reader, to: &mut Vec<u8>, many: u32) -> Result<(), RivalError> {
    let cells = from.number()?;
    if cells != 1 {
        let what = format!("its state: {cells} recurrent cells, wanted 1");
        return Err(RivalError(what));
    }
    from.number()?;
    to.extend(cells.to_le_bytes());
    to.extend((many - 1).to_le_bytes());
    to.extend(from.left);
    from.left = &[];
    Ok(())
}
