//! The next token of each row of logits, or the few that it is among, chosen on the card: of some
//! hundred thousand logits a few bytes come to the host. The sums are f32's, of pieces of 4096 tokens.
//!
//! Refused: temperatures, shares and numbers out of their range; vocabularies of more than two
//! million; more rows than room was made for.

use super::check::{count, hold, same};
use super::driver::{Buffer, CudaError, Device, Overlap, Part, Pinned, Plain, Stream};

/// As in `draw.cu`.
const THREADS: u32 = 512;
const PIECE: usize = 4096;
const BINS: usize = 512;
/// Tokens that a cut may leave to come to the host.
pub const MOST_FEW: usize = 1024;

/// What is to be chosen of a row. A token weighs e to its logit over the temperature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wish {
    Nothing,
    /// The largest logit, the lowest token of equals.
    Likeliest,
    /// The first token, in their order, before and with which the weights are more than `unit` of
    /// the whole, `0 <= unit < 1`.
    Any {
        temperature: f32,
        unit: f64,
    },
    /// Not one token, but the few that are left by a cut.
    Few {
        temperature: f32,
        cut: Cut,
    },
}

/// What is certain to be among the few, if they are enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// So many of the heaviest.
    Best(usize),
    /// All that weigh so much of the heaviest, in (0, 1].
    Weight(f32),
    /// Heaviest ones that weigh so much of the whole together, in [0, 1).
    Mass(f32),
}

/// What came of a wish.
#[derive(Debug, Clone, PartialEq)]
pub enum Drawn {
    Token(u32),
    Few(Few),
    /// A cut left too many to tell: all logits are wanted.
    TooMany,
}

/// The heaviest tokens, by number.
#[derive(Debug, Clone, PartialEq)]
pub struct Few {
    /// With their logits.
    pub tokens: Vec<(u32, f32)>,
    /// Of all tokens, those that are not here too; the heaviest weighs 1.
    pub mass: f32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RawWish {
    unit: f64,
    cold: f32,
    share: f32,
    kind: u32,
    best: u32,
}
// SAFETY: numbers without gaps: one of 8 bytes, four of 4.
unsafe impl Plain for RawWish {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RawDrawn {
    token: u32,
    count: u32,
    most: f32,
    mass: f32,
}
// SAFETY: four numbers of 4 bytes.
unsafe impl Plain for RawDrawn {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RawFew {
    token: u32,
    logit: f32,
}
// SAFETY: two numbers of 4 bytes.
unsafe impl Plain for RawFew {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RawPiece {
    most: f32,
    token: u32,
    mass: f32,
    pad: u32,
}
// SAFETY: four numbers of 4 bytes.
unsafe impl Plain for RawPiece {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct DrawArgs {
    logits: u64,
    wishes: u64,
    pieces: u64,
    bins: u64,
    drawn: u64,
    few: u64,
    vocab: u32,
    count: u32,
}
// SAFETY: numbers without gaps: six of 8 bytes, two of 4.
unsafe impl Plain for DrawArgs {}

/// What rows of one length are chosen from with.
#[derive(Debug)]
pub struct Draws {
    vocab: usize,
    rows: usize,
    asked: Vec<Wish>,
    wishes_here: Pinned<RawWish>,
    wishes: Buffer<RawWish>,
    pieces: Buffer<RawPiece>,
    bins: Buffer<u32>,
    drawn: Buffer<RawDrawn>,
    drawn_here: Pinned<RawDrawn>,
    few: Buffer<RawFew>,
    few_here: Pinned<RawFew>,
}

impl Draws {
    /// For passes of up to `rows` rows of `vocab` logits.
    pub fn new(device: &Device, rows: usize, vocab: usize) -> Result<Draws, CudaError> {
        let pieces = vocab.div_ceil(PIECE);
        let wanted = "1 to 2097152";
        let fits = (1..=THREADS as usize).contains(&pieces);
        hold(fits, "Draws", "the vocabulary", vocab, wanted)?;
        Ok(Draws {
            vocab,
            rows,
            asked: vec![Wish::Nothing; rows],
            wishes_here: Pinned::zeroed(device, rows)?,
            wishes: device.zeroed(rows)?,
            pieces: device.zeroed(rows * pieces)?,
            bins: device.zeroed(rows * BINS)?,
            drawn: device.zeroed(rows)?,
            drawn_here: Pinned::zeroed(device, rows)?,
            few: device.zeroed(rows * MOST_FEW)?,
            few_here: Pinned::zeroed(device, rows * MOST_FEW)?,
        })
    }

    /// What the next pass is to choose: of its rows in order, nothing of those after.
    pub fn ask(&mut self, wishes: &[Wish]) -> Result<(), CudaError> {
        const PLACE: &str = "Draws::ask";
        let wanted = format!("at most {}", self.rows);
        hold(
            wishes.len() <= self.rows,
            PLACE,
            "rows",
            wishes.len(),
            wanted,
        )?;
        let raw = wishes.iter().map(Wish::raw);
        let mut raw = raw.collect::<Result<Vec<_>, CudaError>>()?;
        raw.resize(self.rows, RawWish::NOTHING);
        self.wishes_here.put(0, &raw)?;
        self.asked.fill(Wish::Nothing);
        self.asked[..wishes.len()].copy_from_slice(wishes);
        Ok(())
    }

    /// Chooses of `logits`, `[rows, vocab]`; in a graph, whatever is asked when it is played.
    pub fn run(&self, stream: &Stream, logits: Part<'_, f32>) -> Result<(), CudaError> {
        const PLACE: &str = "Draws::run";
        let rows = logits.len() / self.vocab;
        same(PLACE, "logits", logits.len(), rows * self.vocab)?;
        let wanted = format!("at most {}", self.rows);
        hold(rows <= self.rows, PLACE, "rows", rows, wanted)?;
        stream.copy_in(&self.wishes_here, 0..rows, self.wishes.part(0..rows)?)?;
        let args = DrawArgs {
            logits: logits.address(),
            wishes: self.wishes.address(),
            pieces: self.pieces.address(),
            bins: self.bins.address(),
            drawn: self.drawn.address(),
            few: self.few.address(),
            vocab: count(PLACE, "the vocabulary", self.vocab)?,
            count: count(PLACE, "pieces", self.vocab.div_ceil(PIECE))?,
        };
        let rows = count(PLACE, "rows", rows)?;
        let kernels = [("draw_scan", 0), ("draw_token", 1), ("draw_few", 0)];
        for (name, more) in kernels {
            let kernel = stream.device().kernel(name)?;
            let grid = [args.count + more, rows, 1];
            // SAFETY: `rows` rows of `vocab` logits are there (checked), and so many of everything
            // else, by `new`; of pieces, bins and few as many to a row as the kernels count.
            unsafe { stream.launch(&kernel, grid, THREADS, 0, Overlap::WithPrevious, &args)? };
        }
        Ok(())
    }

    /// What came of the last pass's wishes, once the stream is through; `None` where nothing was asked.
    pub fn take(&self, stream: &Stream) -> Result<Vec<Option<Drawn>>, CudaError> {
        let asks = |wish: &Wish| *wish != Wish::Nothing;
        let Some(last) = self.asked.iter().rposition(asks) else {
            return Ok(vec![None; self.rows]);
        };
        let rows = last + 1;
        stream.copy_out(self.drawn.part(0..rows)?, &self.drawn_here, 0)?;
        if self.asked.iter().any(|w| matches!(w, Wish::Few { .. })) {
            let few = self.few.part(0..rows * MOST_FEW)?;
            stream.copy_out(few, &self.few_here, 0)?;
        }
        stream.synchronize()?;
        let drawn = self.drawn_here.read(0..rows)?;
        let mut of = Vec::with_capacity(self.rows);
        for (row, (wish, drawn)) in self.asked.iter().zip(drawn).enumerate() {
            of.push(match wish {
                Wish::Nothing => None,
                Wish::Likeliest | Wish::Any { .. } => Some(Drawn::Token(drawn.token)),
                Wish::Few { .. } => Some(self.few(row, drawn)?),
            });
        }
        of.resize(self.rows, None);
        Ok(of)
    }

    fn few(&self, row: usize, drawn: RawDrawn) -> Result<Drawn, CudaError> {
        let count = drawn.count as usize;
        if count > MOST_FEW {
            return Ok(Drawn::TooMany);
        }
        let at = row * MOST_FEW;
        let few = self.few_here.read(at..at + count)?;
        let mut tokens: Vec<_> = few.iter().map(|f| (f.token, f.logit)).collect();
        tokens.sort_unstable_by_key(|&(token, _)| token);
        let mass = drawn.mass;
        Ok(Drawn::Few(Few { tokens, mass }))
    }
}

impl RawWish {
    const NOTHING: RawWish = RawWish {
        unit: 0.0,
        cold: 1.0,
        share: 0.0,
        kind: 0,
        best: 0,
    };
}

impl Wish {
    fn raw(&self) -> Result<RawWish, CudaError> {
        const PLACE: &str = "Draws::ask";
        let kind = |kind| RawWish {
            kind,
            ..RawWish::NOTHING
        };
        let cold = |temperature: f32| {
            let (what, wanted) = ("the temperature", "more than 0");
            hold(temperature > 0.0, PLACE, what, temperature, wanted)?;
            Ok((1.0 / temperature).min(f32::MAX))
        };
        Ok(match *self {
            Wish::Nothing => RawWish::NOTHING,
            Wish::Likeliest => kind(1),
            Wish::Any { temperature, unit } => {
                let fits = (0.0..1.0).contains(&unit);
                hold(fits, PLACE, "the unit", unit, "0 to less than 1")?;
                RawWish {
                    unit,
                    cold: cold(temperature)?,
                    ..kind(2)
                }
            }
            Wish::Few { temperature, cut } => RawWish {
                cold: cold(temperature)?,
                ..cut.raw()?
            },
        })
    }
}

impl Cut {
    fn raw(self) -> Result<RawWish, CudaError> {
        const PLACE: &str = "Draws::ask";
        let (kind, share, best) = match self {
            Cut::Best(best) => {
                hold(best > 0, PLACE, "the best", best, "1 or more")?;
                (3, 0.0, u32::try_from(best).unwrap_or(u32::MAX))
            }
            Cut::Weight(share) => {
                let fits = share > 0.0 && share <= 1.0;
                hold(fits, PLACE, "the weight", share, "more than 0, at most 1")?;
                (4, share, 0)
            }
            Cut::Mass(share) => {
                let fits = (0.0..1.0).contains(&share);
                hold(fits, PLACE, "the mass", share, "0 to less than 1")?;
                (5, share, 0)
            }
        };
        Ok(RawWish {
            kind,
            share,
            best,
            ..RawWish::NOTHING
        })
    }
}
