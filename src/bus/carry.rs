//! Descriptors that callers give: a file of theirs that a session is written to or read from. A pipe
//! whose other end rests is waited for, and not for ever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zbus::OwnedFd;

use super::error::Error;

/// What a pipe that can be written to takes without making anybody wait (`PIPE_BUF`).
const PIPE_PIECE: usize = 4096;

pub struct Given {
    file: File,
    is_pipe: bool,
    patience: Duration,
}

impl Given {
    pub fn new(descriptor: OwnedFd, patience: Duration) -> Result<Given, Error> {
        let file = File::from(std::os::fd::OwnedFd::from(descriptor));
        let kind = file.metadata().map(|about| about.file_type());
        match kind {
            Ok(kind) if kind.is_file() || kind.is_fifo() => Ok(Given {
                is_pipe: kind.is_fifo(),
                file,
                patience,
            }),
            Ok(_) => {
                let why = "file: want a descriptor of a regular file or of a pipe";
                Err(Error::InvalidArgument(why.into()))
            }
            Err(e) => Err(Error::InvalidArgument(format!("file: {e}"))),
        }
    }

    /// Until the other end has something, or has room, or has left.
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        if !self.is_pipe {
            return Ok(());
        }
        let limit = Timespec::try_from(self.patience).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.file, what)];
        match poll(&mut fds, Some(&limit))? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Read for Given {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN)?;
        self.file.read(into)
    }
}

impl Write for Given {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT)?;
        let most = if self.is_pipe {
            PIPE_PIECE
        } else {
            bytes.len()
        };
        self.file.write(&bytes[..bytes.len().min(most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
        rustix::pipe::pipe().expect("a pipe")
    }

    #[test]
    fn a_pipe_that_nobody_reads_or_fills_is_not_waited_for_for_ever() {
        let (ours, theirs) = pipe();
        let moment = Duration::from_millis(20);
        let mut out = Given::new(theirs.into(), moment).expect("a pipe");
        let full = out.write_all(&[0; 1 << 20]).expect_err("nobody reads");
        assert_eq!(full.kind(), io::ErrorKind::TimedOut);
        let (empty, _theirs) = pipe();
        let mut from = Given::new(empty.into(), moment).expect("a pipe");
        let none = from.read(&mut [0]).expect_err("nobody writes");
        assert_eq!(none.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        let gone = out.write_all(&[0]).expect_err("nobody can read");
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_is_neither_a_file_nor_a_pipe_is_refused() {
        let null = File::open("/dev/null").expect("it is there");
        let null = std::os::fd::OwnedFd::from(null);
        let refused = Given::new(null.into(), Duration::ZERO).err();
        assert!(matches!(refused, Some(Error::InvalidArgument(_))));
    }
}
