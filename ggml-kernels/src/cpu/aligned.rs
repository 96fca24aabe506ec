//! Floats that begin on a cache line, so that no vector of sixteen lies across two.

use std::ops::{Deref, DerefMut};

/// Floats to a line.
const LINE: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// A buffer of `f32`, 64-byte aligned.
#[derive(Debug, Clone, Default)]
pub struct Floats {
    lines: Vec<Line>,
    len: usize,
}

impl Floats {
    pub fn zeroed(len: usize) -> Floats {
        Floats {
            lines: vec![Line::default(); len.div_ceil(LINE)],
            len,
        }
    }

    /// At least `len` long; what it held is kept, what is new is zero. Never gets shorter.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            self.lines.resize(len.div_ceil(LINE), Line::default());
            self.len = len;
        }
    }
}

impl Deref for Floats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: a `Line` is sixteen floats and nothing else, and `len` fit into the lines.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_on_a_line_and_keeps_what_it_held() {
        let mut floats = Floats::zeroed(5);
        floats[4] = 3.0;
        floats.grow(1000);
        floats.grow(7);
        assert_eq!(floats.len(), 1000);
        assert_eq!(floats.as_ptr() as usize % 64, 0);
        assert_eq!((floats[4], floats[5], floats[999]), (3.0, 0.0, 0.0));
    }
}
