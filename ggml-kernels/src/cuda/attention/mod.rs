//! MLA on the card. A small pass (one token a lane) is absorbed: `row`, `attend` and `finish`, whose
//! grids are the same at every depth, so that a graph of them serves any. A wide pass is expanded: rows and
//! queries are made (`rows`), the lanes' rows gathered, expanded by the products of `wide` for as many heads as
//! there is memory, and `flash` walks them.
//!
//! Refused: sizes that the kernels have no room for, and lengths that do not fit each other. What a lane's table
//! names is its caller's promise: blocks `[layers, 64, rank + rope]` of this card for all tokens up to the pass's
//! own.
//!
//! | file | job |
//! |---|---|
//! | `args` | what the kernels take |
//! | `small` | passes of one token a lane |
//! | `wide` | passes of many |

mod args;
mod small;
mod wide;

pub use small::{MlaWeights, SmallMla, SmallPass};
pub use wide::{FlashPass, RowsPass, Splits, WideMla, expanders, gather_rows};

use super::driver::{CudaError, Part, Plain};

/// Sizes of MLA's layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlaShape {
    pub heads: u32,
    /// Columns of a query and a key that are not rotated.
    pub nope: u32,
    /// Those that may be.
    pub rope: u32,
    /// Columns of a cached row that are expanded to keys and values; `rope` follow them.
    pub rank: u32,
    /// Columns of a head's result.
    pub v: u32,
}

impl MlaShape {
    /// Columns of a row of the cache.
    pub fn latent(&self) -> u32 {
        self.rank + self.rope
    }

    /// Columns of a head's query.
    pub fn query(&self) -> u32 {
        self.nope + self.rope
    }

    /// What scores are multiplied with: the root of a query's columns, and powers of two instead of e.
    fn scale(&self) -> f32 {
        std::f32::consts::LOG2_E / (self.query() as f32).sqrt()
    }

    fn check(&self) -> Result<(), CudaError> {
        let sizes = [
            ("nope", self.nope, 16, 128),
            ("rope", self.rope, 16, 64),
            ("rank", self.rank, 32, 512),
            ("v", self.v, 16, 128),
        ];
        for (what, size, of, most) in sizes {
            if size == 0 || !size.is_multiple_of(of) || size > most {
                let wanted = format!("a multiple of {of} up to {most}");
                return Err(CudaError::refused("MLA", what, size, wanted));
            }
        }
        if self.heads == 0 || self.heads > 1024 {
            return Err(CudaError::refused("MLA", "heads", self.heads, "1 to 1024"));
        }
        Ok(())
    }
}

/// How far each pair of rotated columns is turned from one position to the next, in 2^-64 of a turn: position
/// times this, without what overflows, is where the pair stands.
fn speeds(rope: u32, base: f32) -> Vec<u64> {
    let turns = |pair: u32| {
        let exponent = -2.0 * f64::from(pair) / f64::from(rope);
        f64::from(base).powf(exponent) / std::f64::consts::TAU
    };
    (0..rope / 2)
        .map(|pair| (turns(pair) * 2f64.powi(64)) as u64)
        .collect()
}

/// Rows on the card, `stride` values from one to the next.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub values: Part<'a, f32>,
    pub stride: u32,
}

impl Rows<'_> {
    fn check(&self, what: &'static str, rows: u32, columns: u32) -> Result<(), CudaError> {
        if self.stride < columns {
            return Err(CudaError::refused(
                what,
                "values to a row",
                self.stride,
                columns,
            ));
        }
        let least = match rows {
            0 => 0,
            rows => (rows as usize - 1) * self.stride as usize + columns as usize,
        };
        at_least(what, "values", self.values.len(), least)
    }

    /// [`Rows::check`], for kernels that take four values at once.
    fn check_quads(&self, what: &'static str, rows: u32, columns: u32) -> Result<(), CudaError> {
        self.check(what, rows, columns)?;
        if !self.stride.is_multiple_of(4) || !self.values.address().is_multiple_of(16) {
            let got = format!(
                "{} values apart from {:#x} on",
                self.stride,
                self.values.address()
            );
            return Err(CudaError::refused(
                what,
                "its place",
                got,
                "multiples of 16 bytes",
            ));
        }
        Ok(())
    }
}

fn at_least(
    place: &'static str,
    what: &'static str,
    got: usize,
    least: usize,
) -> Result<(), CudaError> {
    if got < least {
        return Err(CudaError::refused(
            place,
            what,
            got,
            format!("at least {least}"),
        ));
    }
    Ok(())
}

/// Values that kernels read or write 16 bytes at a time.
fn aligned<T: Plain>(place: &'static str, part: &Part<'_, T>) -> Result<u64, CudaError> {
    if part.address().is_multiple_of(16) {
        return Ok(part.address());
    }
    let got = format!("{:#x}", part.address());
    Err(CudaError::refused(
        place,
        "an address",
        got,
        "a multiple of 16",
    ))
}
