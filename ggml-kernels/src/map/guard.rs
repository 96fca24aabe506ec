//! Ranges of memory in which a SIGBUS is healed instead of ending the process: the handler puts
//! zeros there and leaves a mark. Every other SIGBUS goes where it went before.
//!
//! A handler may take no lock and no memory, so the ranges are a fixed table of atomics.

use std::io;
use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_int, c_void, siginfo_t};

/// Ranges at one time: a map each. The largest published checkpoints have a few hundred shards.
const RANGES: usize = 4096;

static TABLE: Table<RANGES> = Table::new();

/// What handled SIGBUS before us.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

static PAGE: AtomicUsize = AtomicUsize::new(0);

/// A guarded range, until it is dropped. Its owner holds the memory for longer.
#[derive(Debug)]
pub(super) struct Guard {
    slot: usize,
}

impl Guard {
    /// Over a map that starts at a page.
    pub fn over(map: &[u8]) -> io::Result<Guard> {
        // Held while a slot is looked for: two may not take the same.
        static INSTALLED: Mutex<bool> = Mutex::new(false);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if !*installed {
            install()?;
            *installed = true;
        }
        let start = map.as_ptr() as usize;
        let slot = TABLE.take(start, start + map.len());
        let full = || io::Error::other(format!("more than {RANGES} files are mapped already"));
        slot.map(|slot| Guard { slot }).ok_or_else(full)
    }

    /// Where the first healed touch was, from the start of the range.
    pub fn hit(&self) -> Option<usize> {
        TABLE.0[self.slot].hit.load(SeqCst).checked_sub(1)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE.give_back(self.slot);
    }
}

struct Table<const N: usize>([Range; N]);

/// Every access is `SeqCst`: all threads see one order of them.
struct Range {
    /// Odd while the range is in force; never the same twice.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    /// Zero, or one more than the offset of the first touch that was healed.
    hit: AtomicUsize,
}

impl<const N: usize> Table<N> {
    const fn new() -> Self {
        Table(
            [const {
                Range {
                    version: AtomicUsize::new(0),
                    start: AtomicUsize::new(0),
                    end: AtomicUsize::new(0),
                    hit: AtomicUsize::new(0),
                }
            }; N],
        )
    }

    /// One caller at a time.
    fn take(&self, start: usize, end: usize) -> Option<usize> {
        let free = |range: &Range| range.version.load(SeqCst).is_multiple_of(2);
        let slot = self.0.iter().position(free)?;
        let range = &self.0[slot];
        range.start.store(start, SeqCst);
        range.end.store(end, SeqCst);
        range.hit.store(0, SeqCst);
        range.version.fetch_add(1, SeqCst);
        Some(slot)
    }

    fn give_back(&self, slot: usize) {
        self.0[slot].version.fetch_add(1, SeqCst);
    }

    /// The range that holds `address`: its slot, start and end. A range that comes or goes meanwhile
    /// is none of ours: the one that a thread stands in cannot go.
    fn find(&self, address: usize) -> Option<(usize, usize, usize)> {
        (0..N).find_map(|slot| {
            let range = &self.0[slot];
            let version = range.version.load(SeqCst);
            let (start, end) = (range.start.load(SeqCst), range.end.load(SeqCst));
            let whole = version % 2 == 1 && range.version.load(SeqCst) == version;
            (whole && (start..end).contains(&address)).then_some((slot, start, end))
        })
    }

    fn mark(&self, slot: usize, offset: usize) {
        // The first one stays.
        let _ = self.0[slot]
            .hit
            .compare_exchange(0, offset + 1, SeqCst, SeqCst);
    }
}

fn install() -> io::Result<()> {
    // SAFETY: a question without pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = usize::try_from(page).map_err(|_| io::Error::last_os_error())?;
    PAGE.store(page, SeqCst);
    // SAFETY: numbers, a mask and an optional pointer, for all of which zeros are a value.
    let (mut ours, mut previous): (libc::sigaction, libc::sigaction) = unsafe { zeroed() };
    // SAFETY: asks for the action in force; `previous` outlives the call.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let _ = PREVIOUS.set(previous);
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_bus;
    ours.sa_sigaction = handler as usize;
    // On the alternative stack, since the previous handler, Rust's, tells an overflown stack there.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler is of the form that SA_SIGINFO asks for, and calls only what a handler may:
    // atomics, system calls, and the handler before it.
    if unsafe { libc::sigaction(libc::SIGBUS, &ours, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_bus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes what SA_SIGINFO promises.
    let code = unsafe { (*info).si_code };
    if is_fault(code) {
        // SAFETY: as above; a fault has an address.
        let address = unsafe { (*info).si_addr() } as usize;
        if heal(address) {
            return;
        }
    }
    pass_on(signal, info, context, is_fault(code));
}

/// A touch of memory that cannot be had; not a signal that somebody sent.
fn is_fault(code: c_int) -> bool {
    #[cfg(target_os = "linux")]
    if code == libc::BUS_MCEERR_AR {
        return true;
    }
    code == libc::BUS_ADRERR
}

/// Puts zeros from the page of `address` to the end of its range, so that a range faults a few times
/// at most, however much of the file is gone. False where the address is not ours.
fn heal(address: usize) -> bool {
    let Some((slot, start, end)) = TABLE.find(address) else {
        return false;
    };
    let page = PAGE.load(SeqCst);
    let from = address - address % page;
    let bytes = end.next_multiple_of(page) - from;
    // The mark first: nobody sees a zero without it.
    TABLE.mark(slot, from.max(start) - start);
    // SAFETY: the pages from `from` to the end of a range in force. A map starts at a page and fills
    // its last one, so they are that map's and nobody else's; its owner unmaps them only after the
    // range was given back, which cannot be while the thread that faulted reads there. They stay
    // readable and private to this process. On success `errno` is left alone.
    let zeros = unsafe {
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON;
        libc::mmap(from as *mut c_void, bytes, libc::PROT_READ, flags, -1, 0)
    };
    zeros != libc::MAP_FAILED
}

/// To the handler before us, or to the default, which ends the process: a fault comes again when the
/// handler returns; a signal that was sent is sent again.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, fault: bool) {
    let handler = PREVIOUS.get().filter(|previous| {
        let none = [libc::SIG_DFL, libc::SIG_IGN].contains(&previous.sa_sigaction);
        // Rust's own handler takes every signal for a fault and lets one that was sent pass.
        fault && !none
    });
    match handler {
        // SAFETY: the handler that was in force, called in the form that its flags name.
        Some(previous) if previous.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            type Full = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
            std::mem::transmute::<usize, Full>(previous.sa_sigaction)(signal, info, context);
        },
        // SAFETY: as above.
        Some(previous) => unsafe {
            type Short = extern "C" fn(c_int);
            std::mem::transmute::<usize, Short>(previous.sa_sigaction)(signal);
        },
        // SAFETY: the default action for a signal, and the signal, which stays blocked until this
        // handler returns.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
            if !fault {
                libc::raise(signal);
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_while_it_is_in_force_and_its_place_is_used_again() {
        let table = Table::<2>::new();
        assert_eq!(table.find(0), None, "a free place holds nothing");
        let one = table.take(4096, 8192).unwrap();
        let other = table.take(8192, 8200).unwrap();
        assert_eq!(table.take(1 << 20, 1 << 21), None, "both are taken");
        assert_eq!(table.find(4095), None);
        assert_eq!(table.find(4096), Some((one, 4096, 8192)));
        assert_eq!(table.find(8191), Some((one, 4096, 8192)));
        assert_eq!(table.find(8192), Some((other, 8192, 8200)));
        assert_eq!(table.find(8200), None);
        table.mark(one, 7);
        table.mark(one, 3);
        assert_eq!(table.0[one].hit.load(SeqCst), 8, "the first mark stays");
        table.give_back(one);
        assert_eq!(table.find(4096), None);
        assert_eq!(table.take(1 << 20, 1 << 21), Some(one));
        assert_eq!(table.0[one].hit.load(SeqCst), 0, "no mark of another's");
        assert_eq!(table.find(4096), None);
    }

    #[test]
    fn signals_that_somebody_sent_are_no_faults() {
        assert!(is_fault(libc::BUS_ADRERR));
        assert!(!is_fault(libc::BUS_ADRALN));
        assert!(!is_fault(libc::SI_USER));
    }
}
