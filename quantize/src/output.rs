//! A file that appears whole or not at all: written beside its target under a temporary name,
//! synced, renamed, the directory synced. Dropped early, it is gone and the old file untouched.

use crate::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

pub struct Output {
    temporary: NamedTempFile,
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
            target: target.to_owned(),
            overwrite,
        })
    }

    /// Puts the file in its place.
    pub fn commit(self) -> Result<(), Error> {
        let Self {
            temporary,
            target,
            overwrite,
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
        self.temporary.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.temporary.flush()
    }
}

fn directory(target: &Path) -> &Path {
    match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}
