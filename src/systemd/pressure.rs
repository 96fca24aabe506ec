//! The service manager's word that memory is short, in all of its forms: a file that speaks by urgent
//! events (a control group's, or the machine's), a pipe, or a socket. Knows nothing of what is done then.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use base64::Engine;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::Notify;

/// Where the word comes from.
enum Source {
    /// The kernel's trigger: it speaks by an urgent event, and nothing is to be read.
    Trigger(File),
    /// Whoever writes to it means it, whatever is written.
    Pipe(File),
    Socket(UnixStream),
}

/// The word that memory runs short, as the manager arranged it.
pub struct Pressure {
    felt: Arc<Notify>,
}

impl Pressure {
    /// Watches what `MEMORY_PRESSURE_WATCH` names, on a thread of its own, which blocks nobody there.
    pub fn watch() -> Pressure {
        let path = std::env::var_os("MEMORY_PRESSURE_WATCH");
        let write = std::env::var("MEMORY_PRESSURE_WRITE").ok();
        Pressure::of(path.as_deref(), write.as_deref())
    }

    /// `write`: what is to be said first, in base64.
    fn of(path: Option<&OsStr>, write: Option<&str>) -> Pressure {
        let felt = Arc::new(Notify::new());
        match path.map(|path| open(path, write)).transpose() {
            Ok(None | Some(None)) => {}
            Ok(Some(Some(source))) => {
                let told = felt.clone();
                let watching = std::thread::Builder::new().name("pressure".into());
                if let Err(e) = watching.spawn(move || watch(source, &told)) {
                    log::warn!("memory pressure is not watched: {e}");
                }
            }
            Err(e) => log::warn!("memory pressure is not watched: {e}"),
        }
        Pressure { felt }
    }

    /// Resolves when memory is short. Who speaks keeps from saying so all the time.
    pub async fn felt(&self) {
        self.felt.notified().await;
    }
}

/// `None`: the manager wants it not to be watched.
fn open(path: &OsStr, write: Option<&str>) -> io::Result<Option<Source>> {
    if path == "/dev/null" {
        return Ok(None);
    }
    let write = match write {
        Some(text) => base64::engine::general_purpose::STANDARD.decode(text),
        None => Ok(Vec::new()),
    };
    let write = write.map_err(io::Error::other)?;
    let kind = std::fs::metadata(path)?.file_type();
    let mut options = File::options();
    options.read(true).write(true);
    if kind.is_socket() {
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(&write)?;
        stream.set_nonblocking(true)?;
        return Ok(Some(Source::Socket(stream)));
    }
    if kind.is_fifo() {
        // Open for writing as well: a pipe that its writers left would be at its end. What is to be said
        // first would come back to us here, so it is not said.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let pipe = options.custom_flags(nonblock).open(path)?;
        return Ok(Some(Source::Pipe(pipe)));
    }
    if !kind.is_file() {
        let what = "neither a regular file, nor a pipe, nor a socket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut file = options.open(path)?;
    file.write_all(&write)?;
    Ok(Some(Source::Trigger(file)))
}

fn watch(mut source: Source, told: &Notify) {
    loop {
        let (wanted, mut polled) = match &source {
            Source::Trigger(file) => (PollFlags::PRI, [PollFd::new(file, PollFlags::PRI)]),
            Source::Pipe(pipe) => (PollFlags::IN, [PollFd::new(pipe, PollFlags::IN)]),
            Source::Socket(stream) => (PollFlags::IN, [PollFd::new(stream, PollFlags::IN)]),
        };
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return log::warn!("memory pressure is watched no longer: {e}"),
            // The control group is gone, and we soon after.
            Ok(_) if !polled[0].revents().contains(wanted) => return,
            Ok(_) => {}
        }
        let goes_on = match &mut source {
            Source::Trigger(_) => Ok((true, true)),
            Source::Pipe(pipe) => drain(pipe),
            Source::Socket(stream) => drain(stream),
        };
        match goes_on {
            Ok((spoke, goes_on)) => {
                if spoke {
                    told.notify_one();
                }
                if !goes_on {
                    return log::warn!("memory pressure is watched no longer: the other end left");
                }
            }
            Err(e) => return log::warn!("memory pressure is watched no longer: {e}"),
        }
    }
}

/// Reads what is there; whether there was any, and whether more may come.
fn drain(from: &mut impl Read) -> io::Result<(bool, bool)> {
    let (mut some, mut room) = (false, [0; 512]);
    loop {
        match from.read(&mut room) {
            Ok(0) => return Ok((some, false)),
            Ok(_) => some = true,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok((some, true)),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    async fn is_felt(pressure: &Pressure) -> bool {
        let felt = tokio::time::timeout(Duration::from_secs(5), pressure.felt());
        felt.await.is_ok()
    }

    async fn is_quiet(pressure: &Pressure) -> bool {
        let felt = tokio::time::timeout(Duration::from_millis(100), pressure.felt());
        felt.await.is_err()
    }

    fn of(path: &Path, write: Option<&str>) -> Pressure {
        Pressure::of(Some(path.as_os_str()), write)
    }

    #[tokio::test]
    async fn a_pipe_speaks_again_and_again_and_outlives_its_writers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pressure");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let pressure = of(&path, Some("bWUh"));
        assert!(is_quiet(&pressure).await, "it heard itself");
        for _ in 0..2 {
            let mut writer = File::options().write(true).open(&path).expect("the pipe");
            writer.write_all(b"some text").expect("room");
            drop(writer);
            assert!(is_felt(&pressure).await);
            assert!(is_quiet(&pressure).await, "it was read to its end");
        }
    }

    #[tokio::test]
    async fn a_socket_is_told_what_is_to_be_said_and_then_listened_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pressure");
        let listener = UnixListener::bind(&path).expect("a socket");
        let pressure = of(&path, Some("c29tZSAyMDA="));
        let (mut other, _) = listener.accept().expect("it connects");
        let mut said = [0; 8];
        other.read_exact(&mut said).expect("it speaks");
        assert_eq!(&said, b"some 200");
        assert!(is_quiet(&pressure).await);
        for _ in 0..2 {
            other.write_all(b"!").expect("it listens");
            assert!(is_felt(&pressure).await);
        }
        drop(other);
        assert!(is_quiet(&pressure).await, "an end is no pressure");
    }

    #[test]
    fn what_is_no_source_is_refused_by_what_it_is() {
        let refused = open(OsStr::new("/"), None).err().map(|e| e.to_string());
        let want = "neither a regular file, nor a pipe, nor a socket";
        assert_eq!(refused.as_deref(), Some(want));
        assert!(open(OsStr::new("/dev/null"), None).is_ok_and(|s| s.is_none()));
        assert!(open(OsStr::new("/nowhere"), None).is_err());
        assert!(open(OsStr::new("/proc/self/status"), Some("not base64")).is_err());
    }
}
