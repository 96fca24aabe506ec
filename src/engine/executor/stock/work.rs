//! What one lane wants of a pass, and how that is rounded so that the same graph serves many.

use crate::engine::Want;
use crate::request::Token;

/// Attention looks at a multiple of so many rows: ggml-cuda's kernels for MLA's width want it.
pub(super) const STEP: usize = 256;
/// Where a conversation is long, at a multiple of so many: a new number is a new graph.
const COARSE: usize = 1024;
const LONG: usize = 8192;

/// Rows of the cache that a pass looks at which ends with `len` of them written.
pub(super) fn bucket(len: usize) -> usize {
    len.next_multiple_of(if len > LONG { COARSE } else { STEP })
}

pub(super) struct Work<'t> {
    pub past: usize,
    pub tokens: &'t [Token],
    pub want: Want,
}

/// What a graph depends on: works of one shape differ in their inputs alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shape {
    n_kv: usize,
    tokens: usize,
    want: Want,
}

impl Work<'_> {
    pub fn end(&self) -> usize {
        self.past + self.tokens.len()
    }

    pub fn n_kv(&self) -> usize {
        bucket(self.end())
    }

    pub fn shape(&self) -> Shape {
        Shape {
            n_kv: self.n_kv(),
            tokens: self.tokens.len(),
            want: self.want,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_rounded_up_coarser_where_there_are_many() {
        for (len, rows) in [
            (1, 256),
            (256, 256),
            (257, 512),
            (8192, 8192),
            (8193, 9216),
            (100_000, 100_352),
        ] {
            assert_eq!(bucket(len), rows, "{len}");
        }
    }
}
