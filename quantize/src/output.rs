//! A file that appears whole or not at all: written beside its target under a temporary name,
//! synced, renamed, the directory synced. Dropped early, it is gone and the old file untouched. One
//! that takes hours outlives its process, as a [`Part`].
//!
//! It goes out in steps of [`STEP`] from its beginning: what is written in such steps lies in memory
//! in large pages, and weights are read faster from those.

mod part;

pub use part::{Part, Record};

use crate::error::Error;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempPath};

/// Twice the large page of x86-64.
const STEP: usize = 4 << 20;

pub struct Output {
    temporary: NamedTempFile,
    /// What stands behind so many bytes is no part of the file.
    size: u64,
    /// Where `waiting` goes.
    at: u64,
    /// Less than a step that is not written yet.
    waiting: Vec<u8>,
    target: PathBuf,
    overwrite: bool,
}

impl Output {
    /// Refuses a target that exists (unless it may be replaced) and a disk without `size` bytes free.
    pub fn create(target: &Path, size: u64, overwrite: bool) -> Result<Self, Error> {
        may_become(target, overwrite)?;
        let dir = directory(target);
        has_room(dir, size)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".part")
            // The umask applies, as for any file that a user makes.
            .permissions(std::fs::Permissions::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(|e| Error::io(dir, e))?;
        Ok(Self {
            temporary,
            size,
            at: 0,
            waiting: Vec::with_capacity(STEP),
            target: target.to_owned(),
            overwrite,
        })
    }

    /// Goes on at byte `at` of a file of `size` bytes to be, which is `target` one day.
    fn resume(
        (file, path): (File, TempPath),
        (at, size): (u64, u64),
        target: &Path,
        overwrite: bool,
    ) -> io::Result<Self> {
        let mut temporary = NamedTempFile::from_parts(file, path);
        temporary.seek(SeekFrom::Start(at))?;
        Ok(Self {
            temporary,
            size,
            at,
            waiting: Vec::with_capacity(STEP),
            target: target.to_owned(),
            overwrite,
        })
    }

    /// Leaves what was written under its temporary name, which is returned.
    pub fn keep(mut self) -> Result<PathBuf, Error> {
        self.flush().map_err(|e| Error::io(&self.target, e))?;
        let kept = self.temporary.keep();
        let (_, path) = kept.map_err(|e| Error::io(&self.target, e.error))?;
        Ok(path)
    }

    /// Puts the file in its place.
    pub fn commit(mut self) -> Result<(), Error> {
        self.flush().map_err(|e| Error::io(&self.target, e))?;
        let Self {
            temporary,
            size,
            target,
            overwrite,
            ..
        } = self;
        let failed = |e| Error::io(&target, e);
        temporary.as_file().set_len(size).map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        if overwrite {
            temporary.persist(&target).map_err(|e| failed(e.error))?;
        } else {
            // Fails where the target has appeared since.
            temporary
                .persist_noclobber(&target)
                .map_err(|e| match e.error.kind() {
                    io::ErrorKind::AlreadyExists => Error::Exists {
                        path: target.clone(),
                    },
                    _ => failed(e.error),
                })?;
        }
        let dir = directory(&target);
        let sync = File::open(dir).and_then(|dir| dir.sync_all());
        sync.map_err(|e| Error::io(dir, e))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Whoever goes on in the middle of a step ends that first.
        let step = STEP - (self.at % STEP as u64) as usize;
        let taken = bytes.len().min(step - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == step {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.temporary.flush()
    }
}

impl Output {
    fn send(&mut self) -> io::Result<()> {
        self.temporary.write_all(&self.waiting)?;
        self.at += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

/// Refuses a target that exists, unless it may be replaced, and one that never may.
fn may_become(target: &Path, overwrite: bool) -> Result<(), Error> {
    if !overwrite && target.symlink_metadata().is_ok() {
        return Err(Error::Exists {
            path: target.to_owned(),
        });
    }
    if target.is_dir() {
        return Err(Error::input(target, "is a directory"));
    }
    Ok(())
}

/// Refuses a disk without so many bytes free.
fn has_room(dir: &Path, needed: u64) -> Result<(), Error> {
    let disk = rustix::fs::statvfs(dir).map_err(|e| Error::io(dir, e.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed {
        return Err(Error::NoSpace {
            path: dir.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

fn directory(target: &Path) -> &Path {
    match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_was_written_in_steps_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("file");
        let bytes: Vec<u8> = (0..2 * STEP + 77).map(|i| (i * 31 % 251) as u8).collect();
        for step in [1 << 20, STEP - 1, STEP, STEP + 1, 2 * STEP + 77] {
            let mut output = Output::create(&target, bytes.len() as u64, true).unwrap();
            for part in bytes.chunks(step) {
                output.write_all(part).unwrap();
            }
            output.commit().unwrap();
            assert!(std::fs::read(&target).unwrap() == bytes, "{step}");
        }
    }
}
