//! Read-only maps of files, or of their beginnings. The map is the page cache: shared between processes, loaded as
//! it is touched.
//!
//! What a map cannot refuse is somebody who shortens the file, or a disk that fails, while it is in
//! use: the kernel answers the next touch with SIGBUS, which ends a process without a word. So each
//! map is guarded: such a touch reads zeros from there to the map's end, and
//! [`GuardedMap::damaged`] says so from then on. Whoever reads looks there before the outcome is
//! believed. Files that are replaced do not come to this: the map keeps the old one.

mod guard;

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};

use guard::Guard;

/// A file's bytes, as they were when they were read. See [`map_file`].
#[derive(Debug)]
pub struct GuardedMap {
    path: PathBuf,
    file: File,
    /// Declared before the map, and so given up before it.
    guard: Guard,
    map: Mmap,
}

/// What became of a file while it was mapped. Which file is the holder's to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    #[error("the file was shortened from {from} to {to} bytes while it was in use")]
    Shortened { from: u64, to: u64 },
    #[error(
        "byte {at} of the file could not be read (it was shortened for a while, or its disk fails)"
    )]
    Unreadable { at: usize },
}

/// Maps a regular file for reading. An empty file, a directory or a device is an error.
pub fn map_file(path: &Path) -> io::Result<GuardedMap> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    map_start(file, path, len)
}

/// Maps the first `len` bytes of a file that is open for reading; `path` is what it is called. What is
/// behind them may come and go. A file that does not have so many, or none, is an error.
pub fn map_start(file: File, path: &Path, len: u64) -> io::Result<GuardedMap> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    if about.len() < len.max(1) {
        let have = match about.len() {
            0 => "the file is empty".to_owned(),
            have => format!("the file has {have} bytes, wanted {len}"),
        };
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, have));
    }
    let len = usize::try_from(len).map_err(io::Error::other)?;
    // SAFETY: a read-only map of a regular file. Its bytes are plain bytes, for which every value is
    // valid. Whoever writes the file in place changes them under us, which no map can keep out: what
    // they decide is checked once, from copies (headers), or decides no address (weights).
    let map = unsafe { MmapOptions::new().len(len).map(&file) }?;
    let guard = Guard::over(&map)?;
    Ok(GuardedMap {
        path: path.to_owned(),
        file,
        guard,
        map,
    })
}

impl GuardedMap {
    /// As it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something that was read may have been zeros instead of the file's bytes, or will be.
    pub fn damaged(&self) -> Option<Damaged> {
        // The last page of a shorter file reads zeros behind its end and raises no signal.
        let from = self.map.len() as u64;
        match self.file.metadata() {
            Ok(about) if about.len() < from => {
                let to = about.len();
                Some(Damaged::Shortened { from, to })
            }
            // Our own open file says nothing of itself where a server is away: then the touches tell.
            _ => self.guard.hit().map(|at| Damaged::Unreadable { at }),
        }
    }
}

impl GuardedMap {
    /// Copies `bytes`, if they are this map's, to `to` from the file itself: pages of a map that are touched once
    /// are each set up and given back, which takes longer than to read them. Whether it did.
    ///
    /// # Safety
    /// `to` has room for as many bytes, which nobody else touches meanwhile.
    pub(crate) unsafe fn read(&self, bytes: &[u8], to: *mut u8) -> bool {
        let start = bytes.as_ptr().addr().wrapping_sub(self.map.as_ptr().addr());
        if start > self.map.len() || bytes.len() > self.map.len() - start {
            return false;
        }
        let mut done = 0;
        while done < bytes.len() {
            let (Ok(at), left) = (libc::off_t::try_from(start + done), bytes.len() - done) else {
                return false;
            };
            // SAFETY: an open file, and room for what is left behind what is done, by the caller's word.
            let read = unsafe { libc::pread(self.file.as_raw_fd(), to.add(done).cast(), left, at) };
            let again = || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            match read {
                1.. => done += read.unsigned_abs(),
                // It ends before the map does.
                0 => return false,
                _ if again() => {}
                _ => return false,
            }
        }
        true
    }

    /// Wants what is still to be read in large pages, of 2 MiB or what the file system has: fewer
    /// steps lead from an address to memory, and weights are read faster. A touch reads so much and
    /// more, so this is for who has room for the whole file. What is in memory stays as it is.
    pub fn in_large_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Err(why) = self.map.advise(memmap2::Advice::HugePage) {
            log::debug!("{}: no large pages: {why}", self.path.display());
        }
    }
}

/// Asks the kernel to read these bytes of a map soon; nobody waits for it, and it may have no room.
/// Memory that is no file's is left as it is.
pub fn ask_for(bytes: &[u8]) {
    // The least that a page has; the kernel wants whole pages to begin with.
    let skew = bytes.as_ptr().addr() % 4096;
    let start = bytes.as_ptr().wrapping_sub(skew).cast_mut().cast();
    // SAFETY: this advice changes nothing that memory holds, whoever's it is, and an address that
    // does not suit it is an error that says so.
    let asked = unsafe { libc::madvise(start, bytes.len() + skew, libc::MADV_WILLNEED) };
    if asked != 0 {
        log::debug!("madvise: {}", io::Error::last_os_error());
    }
}

/// What this process has had from files since it began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct FromDisk {
    /// Pages that somebody waited for, because they were not in memory.
    pub waited_for: u64,
    /// Sectors of 512 bytes that were read, asked for or touched; 0 where the kernel does not count.
    pub sectors: u64,
}

impl FromDisk {
    pub fn so_far() -> FromDisk {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: room for one `rusage`, of plain numbers for which zeros are values too.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        FromDisk {
            waited_for: usage.ru_majflt.try_into().unwrap_or(0),
            sectors: usage.ru_inblock.try_into().unwrap_or(0),
        }
    }
}

impl Deref for GuardedMap {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}
