//! Read-only maps of whole files. The map is the page cache: shared between processes, loaded as
//! it is touched.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Maps a regular file for reading. An empty file, a directory or a device is an error.
///
/// Whoever shortens the file while it is mapped gets this process a SIGBUS: replace model files by
/// rename, as `deltad-quantize` does, never in place.
pub fn map_file(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    if about.len() == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file is empty",
        ));
    }
    // SAFETY: a private read-only map of a regular file; the bytes are only ever read as plain
    // bytes, for which every value is valid. Files are replaced by rename, not changed in place.
    unsafe { Mmap::map(&file) }
}
