//! Numbers that begin on a cache line, so that no whole vector lies across two.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Bytes of a line.
const LINE: usize = 64;

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Numbers of which all bits are a value, zeros among them.
///
/// # Safety
/// That is so, and [`LINE`] is a multiple of their size and of their alignment.
pub unsafe trait Plain: Copy {}
// SAFETY: any bits are a float, whose size and alignment are 4.
unsafe impl Plain for f32 {}
// SAFETY: any bits are a byte.
unsafe impl Plain for i8 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}

/// A buffer that is 64-byte aligned.
#[derive(Debug, Clone)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    numbers: PhantomData<T>,
}

pub type Floats = Aligned<f32>;

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Aligned {
            lines: Vec::new(),
            len: 0,
            numbers: PhantomData,
        }
    }
}

impl<T: Plain> Aligned<T> {
    pub fn zeroed(len: usize) -> Self {
        let mut all = Self::default();
        all.grow(len);
        all
    }

    /// The same, where there may be no room.
    pub fn try_zeroed(len: usize) -> std::io::Result<Self> {
        let mut all = Self::default();
        all.lines
            .try_reserve_exact(len.div_ceil(LINE / size_of::<T>()))?;
        all.grow(len);
        Ok(all)
    }

    /// At least `len` long; what it held is kept, what is new is zero. Never gets shorter.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            let lines = len.div_ceil(LINE / size_of::<T>());
            self.lines.resize(lines, Line([0; LINE]));
            self.len = len;
        }
    }
}

impl<T: Plain> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the lines are so many numbers and more, aligned for them, and any bits are some.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
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
