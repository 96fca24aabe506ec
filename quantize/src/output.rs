//! A file that appears whole or not at all: written beside its target under a temporary name,
//! synced, renamed, the directory synced. Dropped early, it is gone and the old file untouched.
//!
//! It goes out in steps of [`STEP`] from its beginning: what is written in such steps lies in memory
//! in large pages, and weights are read faster from those.

use crate::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Twice the large page of x86-64.
const STEP: usize = 4 << 20;

pub struct Output {
    temporary: NamedTempFile,
    /// Less than a step that is not written yet.
    waiting: Vec<u8>,
    target: PathBuf,
    overwrite: bool,
}

impl Output {
    /// Refuses a target that exists (unless it may be replaced) and a disk without `size` bytes free.
    pub fn create(target: &Path, size: u64, overwrite: bool) -> Result<Self, Error> {
        if !overwrite && target.symlink_metadata().is_ok() {
            return Err(Error::Exists {
                path: target.to_owned(),
            });
        }
        if target.is_dir() {
            return Err(Error::input(target, "is a directory"));
        }
        let dir = directory(target);
        let disk = rustix::fs::statvfs(dir).map_err(|e| Error::io(dir, e.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < size {
            return Err(Error::NoSpace {
                path: dir.to_owned(),
                needed: size,
                free,
            });
        }
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
            waiting: Vec::with_capacity(STEP),
            target: target.to_owned(),
            overwrite,
        })
    }

    /// Puts the file in its place.
    pub fn commit(mut self) -> Result<(), Error> {
        self.flush().map_err(|e| Error::io(&self.target, e))?;
        let Self {
            temporary,
            target,
            overwrite,
            ..
        } = self;
        let failed = |e| Error::io(&target, e);
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
        let taken = bytes.len().min(STEP - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..taken]);
        if self.waiting.len() == STEP {
            self.temporary.write_all(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.temporary.write_all(&self.waiting)?;
        self.waiting.clear();
        self.temporary.flush()
    }
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
