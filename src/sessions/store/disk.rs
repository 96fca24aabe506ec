//! What the store asks of a disk: directories of one level below one user's, files in them, and to
//! be told when they are there to stay. Implementors: [`super::files::Files`],
//! [`super::handed::InHands`] in memory, the simulated disk of the tests, which loses what was not synced.

use std::io;

use bytes::Bytes;

use crate::engine::LentFile;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Read,
    /// It is there.
    Write,
    /// It is not there yet.
    Create,
}

/// A file in a session's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub bytes: u64,
    /// Names that the file has, here and elsewhere.
    pub links: u64,
}

pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Names of what lies below the root.
    fn dirs(&self) -> io::Result<Vec<String>>;
    fn files(&self, dir: &str) -> io::Result<Vec<Entry>>;
    fn make_dir(&self, dir: &str) -> io::Result<()>;
    fn rename_dir(&self, from: &str, to: &str) -> io::Result<()>;
    /// An empty one.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;
    /// Names in `dir`, or in the root, are there to stay.
    fn sync_dir(&self, dir: Option<&str>) -> io::Result<()>;

    /// As a sync of a file there and of the names in `dir`, in whatever order.
    fn sync_both(&self, file: &dyn File, dir: &str) -> io::Result<()> {
        file.sync()?;
        self.sync_dir(Some(dir))
    }

    fn open(&self, dir: &str, file: &str, how: How) -> io::Result<Box<dyn File>>;
    /// In place of what is there.
    fn rename(&self, dir: &str, from: &str, to: &str) -> io::Result<()>;
    /// The same file under the same name in another directory.
    fn link(&self, from: &str, file: &str, to: &str) -> io::Result<()>;
    fn remove(&self, dir: &str, file: &str) -> io::Result<()>;

    /// Bytes that are free.
    fn free(&self) -> io::Result<u64>;

    /// A file of no name, for what is not yet looked at; it is gone once it is closed.
    fn scratch(&self) -> io::Result<std::fs::File>;

    /// A number that nobody had before.
    fn number(&self) -> io::Result<[u8; 16]>;
}

pub trait File: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    /// May read less.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// May write less.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<usize>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Its contents and length are there to stay. After a failure nobody knows what is.
    fn sync(&self) -> io::Result<()>;
    /// The file's first bytes, all of which are there, and the file where they are not a copy.
    fn lend(&self, len: usize) -> io::Result<(Bytes, Option<LentFile>)> {
        Ok((read_some(self, 0, len)?.into(), None))
    }
}

/// A number that nobody had before.
pub fn number() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes)
}

/// All of a file.
pub fn read<F: File + ?Sized>(file: &F) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.size()?).map_err(io::Error::other)?;
    read_some(file, 0, len)
}

/// So many bytes from there on; fewer where the file ends.
pub fn read_some<F: File + ?Sized>(file: &F, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(io::Error::other)?;
    bytes.resize(len, 0);
    let mut done = 0;
    while done < len {
        match file.read_at(at + done as u64, &mut bytes[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    // Somebody shortened it meanwhile.
    bytes.truncate(done);
    Ok(bytes)
}

/// All of `bytes`, or an error that leaves some of them there.
pub fn write(file: &dyn File, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(at, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                at += n as u64;
                bytes = &bytes[n..];
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
