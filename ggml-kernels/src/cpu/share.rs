//! One slice written by several workers, each its own part.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that pieces of one job take disjoint parts of.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lent: PhantomData<&'a mut [T]>,
}

// SAFETY: hands out parts only through `part`, whose caller promises that parts of different
// threads do not meet; the elements themselves may move between threads.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            lent: PhantomData,
        }
    }

    /// The elements of `range`; a range outside the slice panics.
    ///
    /// # Safety
    /// While the part lives, nobody else takes a part that meets it.
    #[allow(clippy::mut_from_ref, reason = "that is its job; see Safety")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice that was lent for 'a, and met by no other part, as promised.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// The elements of `range`, to read; a range outside the slice panics.
    ///
    /// # Safety
    /// While the part lives, nobody takes a part to write that meets it.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice that was lent for 'a, and only read, as promised.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start), range.len()) }
    }
}
