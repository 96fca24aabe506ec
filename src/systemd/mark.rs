//! What our control group may hold: `memory.high` and `memory.max`, beside the file that the manager
//! has us watch. The kernel says nothing when a mark is set below what we hold: it makes each thread
//! that asks for a page wait up to two seconds. So we look ourselves. Without a manager, or without a
//! group of our own, there is no mark. Knows not what is done about it.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::Notify;

const FILES: [&str; 2] = ["memory.high", "memory.max"];

/// The marks of our control group, and word of their changes.
pub struct Marks {
    /// Open from the start: over a mark, to open a file takes seconds.
    files: Vec<File>,
    changed: Arc<Notify>,
}

impl Marks {
    /// Of the group that `MEMORY_PRESSURE_WATCH` is a file of, watched by a thread of its own.
    pub fn watch() -> Marks {
        let group = group();
        let changed = Arc::new(Notify::new());
        let files = group.as_deref().map(open).unwrap_or_default();
        if let Some(group) = group.filter(|_| !files.is_empty()) {
            let tell = changed.clone();
            let spawned =
                std::thread::Builder::new()
                    .name("marks".into())
                    .spawn(move || match watch(&group, &tell) {
                        Ok(never) => match never {},
                        Err(e) => {
                            log::warn!("{}: memory marks are not watched: {e}", group.display())
                        }
                    });
            if let Err(e) = spawned {
                log::warn!("memory marks are not watched: {e}");
            }
        }
        Marks { files, changed }
    }

    /// The lower of the two in bytes; `None`: the group may hold what it wants.
    pub fn bytes(&self) -> Option<u64> {
        lowest(&self.files)
    }

    /// Resolves when somebody has set one.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn group() -> Option<PathBuf> {
    let watched = PathBuf::from(std::env::var_os("MEMORY_PRESSURE_WATCH")?);
    watched.parent().map(Path::to_owned)
}

fn open(group: &Path) -> Vec<File> {
    let files = FILES.iter().map(|file| group.join(file));
    files.filter_map(|file| File::open(file).ok()).collect()
}

fn lowest(files: &[File]) -> Option<u64> {
    let mark = |file: &File| {
        let mut room = [0; 32];
        let read = file.read_at(&mut room, 0).ok()?;
        // "max" is no number, and no mark.
        std::str::from_utf8(&room[..read]).ok()?.trim().parse().ok()
    };
    files.iter().filter_map(mark).min()
}

enum Never {}

fn watch(group: &Path, tell: &Notify) -> Result<Never, Errno> {
    let told = inotify::init(CreateFlags::CLOEXEC)?;
    for file in FILES.map(|file| group.join(file)) {
        if file.is_file() {
            inotify::add_watch(&told, &file, WatchFlags::MODIFY)?;
        }
    }
    let mut room = [MaybeUninit::uninit(); 1024];
    let mut events = inotify::Reader::new(told, &mut room);
    loop {
        match events.next() {
            Ok(_) => tell.notify_one(),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_lower_mark_holds_and_max_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = |file: &str, text: &str| fs::write(dir.path().join(file), text).expect("room");
        assert_eq!(lowest(&open(dir.path())), None);
        set("memory.max", "max\n");
        set("memory.high", "max\n");
        let files = open(dir.path());
        assert_eq!(lowest(&files), None);
        set("memory.high", "365953024\n");
        assert_eq!(lowest(&files), Some(365_953_024));
        set("memory.max", "1048576\n");
        assert_eq!(lowest(&files), Some(1_048_576));
    }

    #[tokio::test]
    async fn a_mark_that_is_set_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("memory.high");
        fs::write(&file, "max\n").expect("room");
        let tell = Arc::new(Notify::new());
        let (group, told) = (dir.path().to_owned(), tell.clone());
        std::thread::spawn(move || watch(&group, &told).map(|_| ()));
        let heard = async || {
            let heard = tokio::time::timeout(Duration::from_secs(5), tell.notified());
            heard.await.is_ok()
        };
        let setting = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                fs::write(&file, "4096\n").expect("room");
            }
        });
        assert!(heard().await && heard().await);
        setting.abort();
    }
}
