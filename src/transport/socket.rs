//! The socket's file: made with the right owner and mode before anybody can see it, put in place of
//! a dead one only, removed at the end if it is still ours.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::service::groups;

/// The file of a listening socket. Dropping it removes the file, unless another took its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            // Nothing is left to do about a file that cannot be removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn fail<T>(path: &Path, what: &str, kind: ErrorKind) -> Result<T> {
    Err(Error::new(kind, format!("{}: {what}", path.display())))
}

/// Listens at `path`. The directory is made, private to us, where there is none.
pub fn bind(path: &Path, mode: u32, group: Option<&str>) -> Result<(UnixListener, SocketFile)> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let named = |e: Error| Error::new(e.kind(), format!("{}: {e}", path.display()));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(named)?;
    // Of two daemons that start at once, the second sees the first one's socket answer.
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::LockExclusive)?;
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(named(e)),
        Ok(m) if !m.file_type().is_socket() => {
            return fail(
                path,
                "there is a file that is no socket",
                ErrorKind::AlreadyExists,
            );
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            Err(e) => return Err(named(e)),
            Ok(_) => {
                let what = "another daemon answers there";
                return fail(path, what, ErrorKind::AddrInUse);
            }
        },
    }
    // Made in a directory that nobody else can enter, so that no moment has the wrong mode; the
    // rename replaces a dead socket in one step.
    let private = tempfile::Builder::new().prefix(".").tempdir_in(parent)?;
    let made = private.path().join("s");
    let listener = UnixListener::bind(&made).map_err(named)?;
    if let Some(group) = group {
        chown(&made, None, Some(groups::id(group)?)).map_err(named)?;
    }
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(mode)).map_err(named)?;
    let metadata = std::fs::symlink_metadata(&made)?;
    std::fs::rename(&made, path).map_err(named)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
    };
    Ok((listener, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/deltad.sock");
        (dir, path)
    }

    #[test]
    fn the_socket_is_private_and_gone_at_the_end() {
        let (_dir, path) = place();
        let (_listener, file) = bind(&path, 0o600, None).expect("a socket");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        drop(file);
        assert!(!path.exists());
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            0
        );
    }

    #[test]
    fn a_socket_that_answers_is_left_alone_and_a_dead_one_is_replaced() {
        let (_dir, path) = place();
        let (listener, file) = bind(&path, 0o600, None).expect("a socket");
        let refused = bind(&path, 0o600, None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        drop(listener);
        let (_second, _file) = bind(&path, 0o600, None).expect("the dead one is replaced");
        drop(file);
        assert!(
            path.exists(),
            "the first one's end leaves the second one's file"
        );
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let (dir, _) = place();
        let path = dir.path().join("notes");
        std::fs::write(&path, "dear diary").unwrap();
        let refused = bind(&path, 0o600, None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary");
    }

    #[test]
    fn a_group_that_does_not_exist_is_named() {
        let refused = groups::id("no-such-group").unwrap_err();
        assert!(refused.to_string().contains("no-such-group"));
    }
}
