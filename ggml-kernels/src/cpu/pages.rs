//! Memory of states that come and go: what is large goes back to the kernel at the moment it is let go,
//! without asking the kernel for anything. The heap does not: it keeps what is freed, and to unmap
//! costs the kernel a little memory of its own to take maps apart, for which a control group over its
//! mark makes the thread wait, up to two seconds each time. So the pages are given back and their
//! addresses kept, for the next of the same size.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{MmapOptions, MmapRaw};

use super::aligned::{Aligned, Plain};

/// From here on pages of its own; below, the rest of the last page would be too much, and the heap
/// packs better. What the C library's heap would map by itself, too.
const MAPPED: usize = 128 << 10;
/// Each span begins on a line of the cache.
const LINE: usize = 64;

/// Maps that nobody has, their pages given back, by their lengths.
static LEFT: Mutex<BTreeMap<usize, Length>> = Mutex::new(BTreeMap::new());

/// Maps of one length.
#[derive(Default)]
struct Length {
    made: usize,
    /// Room for all that were made: to put one here asks for no memory.
    left: Vec<MmapRaw>,
}

/// What several spans lie in, until the last of them is let go.
enum Home {
    Mapped(Option<MmapRaw>),
    Heap(Aligned<i8>),
}

impl Home {
    /// Zeros.
    fn of(bytes: usize) -> io::Result<Home> {
        if bytes < MAPPED {
            return Aligned::try_zeroed(bytes).map(Home::Heap);
        }
        let mut all = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        let length = all.entry(bytes).or_default();
        if let Some(map) = length.left.pop() {
            return Ok(Home::Mapped(Some(map)));
        }
        let map = MmapRaw::from(MmapOptions::new().len(bytes).map_anon()?);
        length.made += 1;
        length.left.reserve(length.made);
        Ok(Home::Mapped(Some(map)))
    }

    fn start(&mut self) -> NonNull<u8> {
        let start = match self {
            Home::Mapped(map) => map.as_ref().map(MmapRaw::as_mut_ptr),
            Home::Heap(lines) => Some(lines.as_mut_ptr().cast()),
        };
        start.and_then(NonNull::new).unwrap_or(NonNull::dangling())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Home::Mapped(map) = self else { return };
        let Some(map) = map.take() else { return };
        // SAFETY: nobody has a span of it: each would keep this home.
        let empty = unsafe { give_back(&map) };
        let mut all = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(length) = all.get_mut(&map.len()) else {
            return;
        };
        if empty {
            length.left.push(map);
        } else {
            // It is unmapped.
            length.made -= 1;
        }
    }
}

/// The pages of a map of no file; whether it is all zeros now.
///
/// # Safety
/// Nobody has a reference to what is in it.
unsafe fn give_back(map: &MmapRaw) -> bool {
    // Elsewhere this advice leaves what was written.
    #[cfg(target_os = "linux")]
    // SAFETY: as the caller promises; the map stays, and bytes of no file become zeros.
    unsafe {
        map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed)
            .is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = map;
        false
    }
}

/// Numbers that nobody else has, in memory that they may share with other spans.
pub struct Span<T> {
    start: NonNull<T>,
    len: usize,
    /// Keeps the memory.
    _home: Arc<Home>,
    numbers: PhantomData<T>,
}

// SAFETY: a span is the only one of its numbers, which are no thread's; its home only frees them.
unsafe impl<T: Send> Send for Span<T> {}
// SAFETY: as above; through a shared span they are only read.
unsafe impl<T: Sync> Sync for Span<T> {}

impl<T: Plain> Span<T> {
    pub fn zeroed(len: usize) -> io::Result<Span<T>> {
        let one = spans(&[len])?.pop();
        Ok(one.expect("one length was given"))
    }
}

/// Spans of so many zeros each, side by side, that go back together.
pub fn spans<T: Plain>(lens: &[usize]) -> io::Result<Vec<Span<T>>> {
    let full = || io::Error::from(io::ErrorKind::OutOfMemory);
    let mut starts = Vec::with_capacity(lens.len());
    let mut bytes = 0usize;
    for len in lens {
        starts.push(bytes);
        let next = len
            .checked_mul(size_of::<T>())
            .and_then(|len| len.checked_next_multiple_of(LINE));
        bytes = next
            .and_then(|len| bytes.checked_add(len))
            .ok_or_else(full)?;
    }
    let mut home = Home::of(bytes)?;
    let first = home.start();
    let home = Arc::new(home);
    let span = |(at, &len): (usize, &usize)| Span {
        // SAFETY: within the home, whose bytes are as many as all spans', or at its end.
        start: unsafe { first.add(at) }.cast(),
        len,
        _home: home.clone(),
        numbers: PhantomData,
    };
    Ok(starts.into_iter().zip(lens).map(span).collect())
}

impl<T: Plain> Deref for Span<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: so many numbers lie there, on a line and so aligned, any bits are some, and nobody
        // else has them: spans of one home do not meet.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Span<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> std::fmt::Debug for Span<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} numbers", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A length that no other test has.
    const LARGE: usize = MAPPED + 12_345;

    fn resident(span: &Span<i8>) -> usize {
        let pages = span.len().div_ceil(4096);
        let mut there = vec![0u8; pages];
        // SAFETY: the span begins on a page, being alone in its home, and `there` has room for each.
        let asked = unsafe {
            libc::mincore(
                span.start.as_ptr().cast(),
                span.len,
                there.as_mut_ptr().cast(),
            )
        };
        assert_eq!(asked, 0);
        there.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn spans_of_one_home_do_not_meet_and_begin_on_lines() {
        for scale in [1, 10_000] {
            let mut all = spans::<f32>(&[3 * scale, 0, 17 * scale, scale]).unwrap();
            for (at, span) in all.iter_mut().enumerate() {
                assert!(span.iter().all(|x| *x == 0.0));
                assert_eq!(span.as_ptr().addr() % 64, 0);
                span.fill(at as f32);
            }
            let last = all.pop().unwrap();
            for (at, span) in all.iter().enumerate() {
                assert!(span.iter().all(|x| *x == at as f32));
            }
            drop(all);
            assert!(last.iter().all(|x| *x == 3.0), "its home stays");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_let_go_is_the_kernels_at_once_and_comes_again_empty() {
        let mut span = Span::<i8>::zeroed(LARGE).unwrap();
        span.fill(7);
        let place = span.as_ptr();
        assert_eq!(resident(&span), LARGE.div_ceil(4096));
        drop(span);
        let again = Span::<i8>::zeroed(LARGE).unwrap();
        assert_eq!(again.as_ptr(), place);
        assert_eq!(resident(&again), 0);
        assert!(again.iter().all(|x| *x == 0));
    }

    #[test]
    fn more_than_there_is_room_for_is_refused() {
        assert!(Span::<f32>::zeroed(usize::MAX / 2).is_err());
        assert!(spans::<f32>(&[usize::MAX / 8, usize::MAX / 8]).is_err());
    }
}
