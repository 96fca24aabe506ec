//! A file that outlives the process that grows it: `.NAME.part` beside the target, under that name
//! always, and one process's at a time. Behind the end of the file to be stands a record: which plan
//! it follows, then the digest of each tensor that is finished. Whoever comes later with the same plan
//! reads those tensors again and goes on behind the last whole one; whatever else is found there is
//! begun anew.

use super::{Output, directory, has_room, may_become};
use crate::error::Error;
use ggml_kernels::gguf::Layout;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use tempfile::TempPath;

const DIGEST: u64 = blake3::OUT_LEN as u64;
/// Bytes read at a time to be looked at again.
const PIECE: u64 = 16 << 20;

/// What is there, and where the rest goes.
pub struct Part {
    pub output: Output,
    pub record: Record,
    /// Tensors that need not be written again.
    pub finished: usize,
}

/// Where it is written down that a tensor is finished.
pub struct Record {
    file: File,
    at: u64,
}

impl Record {
    /// The next tensor is. Its bytes may reach the disk later than this: then it is found out.
    pub fn finished(&mut self, digest: &blake3::Hash) -> io::Result<()> {
        self.file.write_all_at(digest.as_bytes(), self.at)?;
        self.at += DIGEST;
        Ok(())
    }
}

impl Part {
    /// For a file of this layout. `plan` is another where anything is that its bytes depend on.
    pub fn open(
        target: &Path,
        layout: &Layout,
        plan: &blake3::Hash,
        overwrite: bool,
    ) -> Result<Self, Error> {
        may_become(target, overwrite)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = directory(target).join(format!(".{name}.part"));
        let file = alone(&path)?;
        let size = layout.file_size();
        let failed = |e| Error::io(target, e);
        let finished = finished(&file, layout, plan).map_err(failed)?;
        let path = TempPath::try_from_path(path).map_err(failed)?;
        let at = match layout.places().nth(finished) {
            _ if finished == 0 => 0,
            Some(next) => next.start,
            None => size,
        };
        has_room(directory(target), size - at)?;
        let prepare = || {
            if finished == 0 {
                file.set_len(0)?;
            }
            let end = size + DIGEST * (1 + finished as u64);
            file.set_len(end)?;
            file.write_all_at(plan.as_bytes(), size)?;
            let record = Record {
                file: file.try_clone()?,
                at: end,
            };
            Ok(record)
        };
        let record = prepare().map_err(failed)?;
        let output = Output::resume((file, path), (at, size), target, overwrite);
        Ok(Self {
            output: output.map_err(failed)?,
            record,
            finished,
        })
    }
}

/// Opens the file, or makes it, for this process alone.
fn alone(path: &Path) -> Result<File, Error> {
    let failed = |e| Error::io(path, e);
    let no_links = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    loop {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.custom_flags(no_links).open(path).map_err(failed)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => Error::Busy {
                path: path.to_owned(),
            },
            TryLockError::Error(e) => failed(e),
        })?;
        // Whoever held it may have put it in its place, or removed it, before we had the lock.
        let held = file.metadata().map_err(failed)?;
        match path.symlink_metadata() {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
                return Ok(file);
            }
            _ => continue,
        }
    }
}

/// How many tensors are there, whole, of this plan.
fn finished(file: &File, layout: &Layout, plan: &blake3::Hash) -> io::Result<usize> {
    let size = layout.file_size();
    let len = file.metadata()?.len();
    if len < size + DIGEST || digest_at(file, size)? != *plan {
        return Ok(0);
    }
    let mut header = vec![0; layout.header().len()];
    file.read_exact_at(&mut header, 0)?;
    if header != layout.header() {
        return Ok(0);
    }
    let recorded = (len - size) / DIGEST - 1;
    for (tensor, place) in layout.places().enumerate() {
        let record = size + DIGEST * (1 + tensor as u64);
        if tensor as u64 >= recorded || digest_of(file, place)? != digest_at(file, record)? {
            return Ok(tensor);
        }
    }
    Ok(layout.places().count())
}

fn digest_at(file: &File, at: u64) -> io::Result<blake3::Hash> {
    let mut bytes = [0; blake3::OUT_LEN];
    file.read_exact_at(&mut bytes, at)?;
    Ok(blake3::Hash::from_bytes(bytes))
}

fn digest_of(file: &File, place: std::ops::Range<u64>) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = Vec::new();
    let mut at = place.start;
    while at < place.end {
        piece.resize((place.end - at).min(PIECE) as usize, 0);
        file.read_exact_at(&mut piece, at)?;
        hasher.update_rayon(&piece);
        at += piece.len() as u64;
    }
    Ok(hasher.finalize())
}
