//! One user's sessions on a real file system, below a directory descriptor: no path is followed that
//! somebody else could have bent, nothing is open to others.

use std::fs::File as Std;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags};

use super::disk::{self, Disk, Entry, File, How};
use super::error::{StoreError, doing};
use crate::engine::LentFile;

const DIR: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How often a lock is tried for, and how far apart.
const PATIENCE: u32 = 40;
const MOMENT: std::time::Duration = std::time::Duration::from_millis(10);

#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
}

impl Files {
    /// `dir/<uid>`, made where it is missing, and ours alone until this is dropped.
    pub fn open(dir: &Path, uid: u32) -> Result<Files, StoreError> {
        let io = |e: rustix::io::Errno| doing("opening the sessions' directory")(e.into());
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder
            .create(dir)
            .map_err(doing("making the sessions' directory"))?;
        let above = rustix::fs::openat(CWD, dir, DIR & !OFlags::NOFOLLOW, Mode::empty());
        let above = above.map_err(io)?;
        let name = uid.to_string();
        match rustix::fs::mkdirat(&above, &name, Mode::RWXU) {
            Ok(()) => rustix::fs::fsync(&above).map_err(io)?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(io(e)),
        }
        let root = rustix::fs::openat(&above, &name, DIR, Mode::empty()).map_err(io)?;
        let about = rustix::fs::fstat(&root).map_err(io)?;
        let me = rustix::process::geteuid().as_raw();
        let path = || dir.join(&name).display().to_string();
        if about.st_uid != me || about.st_mode & 0o077 != 0 {
            return Err(StoreError::NotPrivate(path(), me));
        }
        for _ in 0..PATIENCE {
            match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Files { root }),
                // A child that was forked this moment has it too, until it is another program.
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(MOMENT),
                Err(e) => return Err(io(e)),
            }
        }
        Err(StoreError::InUse(path()))
    }

    fn dir(&self, dir: &str) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.root, dir, DIR, Mode::empty())?)
    }
}

/// What lies in a directory, apart from itself and its parent.
fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

impl Disk for Files {
    fn dirs(&self) -> io::Result<Vec<String>> {
        names(&self.root)
    }

    fn files(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let dir = self.dir(dir)?;
        let mut files = Vec::new();
        for name in names(&dir)? {
            let about = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            files.push(Entry {
                name,
                bytes: about.st_size.cast_unsigned(),
                links: about.st_nlink.max(1),
            });
        }
        Ok(files)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.root, dir, Mode::RWXU)?)
    }

    fn rename_dir(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.root, from, &self.root, to)?)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.root, dir, AtFlags::REMOVEDIR)?)
    }

    fn sync_dir(&self, dir: Option<&str>) -> io::Result<()> {
        match dir {
            None => Ok(rustix::fs::fsync(&self.root)?),
            Some(dir) => Ok(rustix::fs::fsync(self.dir(dir)?)?),
        }
    }

    /// At once: a journal writes both down in one go, and whoever waits, waits once.
    fn sync_both(&self, file: &dyn File, dir: &str) -> io::Result<()> {
        std::thread::scope(|scope| {
            let synced = scope.spawn(|| file.sync());
            let named = self.sync_dir(Some(dir));
            let synced = synced.join();
            synced.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            named
        })
    }

    fn open(&self, dir: &str, file: &str, how: How) -> io::Result<Box<dyn File>> {
        let dir = self.dir(dir)?;
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let flags = flags
            | match how {
                How::Read => OFlags::RDONLY,
                How::Write => OFlags::RDWR,
                How::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            };
        let mode = Mode::RUSR | Mode::WUSR;
        let file = Std::from(rustix::fs::openat(dir, file, flags, mode)?);
        if !file.metadata()?.is_file() {
            let why = "not a regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Box::new(file))
    }

    fn rename(&self, dir: &str, from: &str, to: &str) -> io::Result<()> {
        let dir = self.dir(dir)?;
        Ok(rustix::fs::renameat(&dir, from, &dir, to)?)
    }

    fn link(&self, from: &str, file: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.dir(from)?, self.dir(to)?);
        Ok(rustix::fs::linkat(from, file, to, file, AtFlags::empty())?)
    }

    fn remove(&self, dir: &str, file: &str) -> io::Result<()> {
        let dir = self.dir(dir)?;
        Ok(rustix::fs::unlinkat(dir, file, AtFlags::empty())?)
    }

    fn free(&self) -> io::Result<u64> {
        let about = rustix::fs::fstatvfs(&self.root)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    fn scratch(&self) -> io::Result<Std> {
        let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
        match rustix::fs::openat(&self.root, ".", flags | OFlags::TMPFILE, mode) {
            // Where every file has a name, it has one for a moment.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                let name = format!(".scratch-{:x}", u128::from_le_bytes(self.number()?));
                let flags = flags | OFlags::CREATE | OFlags::EXCL;
                let file = rustix::fs::openat(&self.root, &name, flags, mode)?;
                rustix::fs::unlinkat(&self.root, &name, AtFlags::empty())?;
                Ok(file.into())
            }
            opened => Ok(opened?.into()),
        }
    }

    fn number(&self) -> io::Result<[u8; 16]> {
        disk::number()
    }
}

impl File for Std {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.size())
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, at)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        FileExt::write_at(self, bytes, at)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        Std::set_len(self, len)
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
    fn lend(&self, len: usize) -> io::Result<(Bytes, Option<LentFile>)> {
        let name = Path::new("a session's file");
        let lent = self.try_clone();
        match lent.and_then(|file| LentFile::new(file, name, len as u64)) {
            Ok(file) => Ok((file.bytes(), Some(file))),
            // Not every file system maps, and there is an end to how many are guarded.
            Err(_) => Ok((disk::read_some(self, 0, len)?.into(), None)),
        }
    }
}
