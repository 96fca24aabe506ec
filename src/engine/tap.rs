//! What a pass shows of itself to who listens: the same words on every executor.

use quantize::schema::Role;

/// A moment of a pass.
#[derive(Debug, Clone, Copy)]
pub enum Tap<'a> {
    /// Rows that meet a weight in a product. For stacked weights (experts, heads) each matrix
    /// of the stack has taps of its own.
    Input {
        layer: Option<usize>,
        role: Role,
        matrix: usize,
        /// Any number of rows of the weight's width.
        rows: &'a [f32],
    },
    /// Rows between layers, `[rows, hidden]`.
    Hidden { at: Point, rows: &'a [f32] },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    Embedding,
    After { layer: usize },
    OutputNorm,
}

/// Listens to a pass.
pub trait Listener {
    fn hear(&mut self, tap: Tap<'_>);
}
