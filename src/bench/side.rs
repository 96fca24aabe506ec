//! Who is measured. A side holds sequences numbered from 0, feeds them and goes back to where they
//! were; what the tokens say is nobody's concern.

use bytes::Bytes;

use super::BenchError;
use crate::engine::meter::Meter;
use crate::engine::{BLOCK, Engine, HostState, Lane, Lent, Sequence, Snapshot, Want};
use crate::request::{Draw, Token};

pub trait Side {
    fn name(&self) -> &'static str;

    /// `lanes` empty sequences, each with room for so many tokens; what was before is forgotten.
    fn begin(&mut self, lanes: usize, room: usize) -> Result<(), BenchError>;

    /// Feeds sequences their next tokens in one pass and waits for the logits of each one's last.
    /// At most a pass's tokens in all.
    fn feed(&mut self, lanes: &[(usize, &[Token])]) -> Result<(), BenchError>;

    /// Puts a sequence that has read [`to_stretch`] of `depth` tokens where it would be after all of
    /// them: its rows are the same again and again, each in a place of its own.
    fn stretch(&mut self, lane: usize, depth: usize) -> Result<(), BenchError>;

    /// Keeps the state of every sequence.
    fn keep(&mut self) -> Result<(), BenchError>;

    /// Every sequence as it was when it was kept.
    fn go_back(&mut self) -> Result<(), BenchError>;
}

/// Tokens to read before a sequence can be stretched to `depth`: a block, and what lies behind the last.
pub fn to_stretch(depth: usize) -> usize {
    depth.min(BLOCK + depth % BLOCK)
}

/// The engine.
pub struct Ours {
    engine: Engine,
    sequences: Vec<Sequence>,
    kept: Vec<Snapshot>,
    /// Counts while it is there.
    pub meter: Option<Meter>,
}

impl Ours {
    pub fn new(engine: Engine) -> Ours {
        Ours {
            engine,
            sequences: Vec::new(),
            kept: Vec::new(),
            meter: None,
        }
    }

    pub fn n_vocab(&self) -> usize {
        self.engine.model().n_vocab()
    }
}

impl Side for Ours {
    fn name(&self) -> &'static str {
        "deltad"
    }

    fn begin(&mut self, lanes: usize, _: usize) -> Result<(), BenchError> {
        (self.sequences, self.kept) = (Vec::new(), Vec::new());
        for _ in 0..lanes {
            self.sequences.push(self.engine.sequence()?);
        }
        Ok(())
    }

    fn feed(&mut self, lanes: &[(usize, &[Token])]) -> Result<(), BenchError> {
        let mut wanted = lanes.iter().peekable();
        let mut fed = Vec::with_capacity(lanes.len());
        for (at, sequence) in self.sequences.iter_mut().enumerate() {
            if let Some((_, tokens)) = wanted.next_if(|(lane, _)| *lane == at) {
                fed.push(Lane {
                    sequence,
                    tokens,
                    // As the daemon asks: a card keeps its logits.
                    want: Want::Drawn(Draw::LIKELIEST),
                });
            }
        }
        match &mut self.meter {
            Some(meter) => self.engine.forward_metered(&mut fed, meter)?,
            None => self.engine.forward(&mut fed)?,
        };
        Ok(())
    }

    fn stretch(&mut self, lane: usize, depth: usize) -> Result<(), BenchError> {
        let short = self.engine.snapshot(&self.sequences[lane]);
        let block = short.block(0);
        let copy = |_| Bytes::copy_from_slice(&block);
        let long = HostState {
            len: depth,
            blocks: (0..depth / BLOCK).map(copy).collect(),
            slot: short.slot(),
            tail: short.tail(),
            lent: Lent::default(),
        };
        self.sequences[lane] = self.engine.restore(&self.engine.adopt(&long)?)?;
        Ok(())
    }

    fn keep(&mut self) -> Result<(), BenchError> {
        let keep = |sequence| self.engine.snapshot(sequence);
        self.kept = self.sequences.iter().map(keep).collect();
        Ok(())
    }

    fn go_back(&mut self) -> Result<(), BenchError> {
        self.sequences.clear();
        for kept in &self.kept {
            self.sequences.push(self.engine.restore(kept)?);
        }
        Ok(())
    }
}
