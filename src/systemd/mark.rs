//! What our control group may hold: `memory.high` and `memory.max`, beside the file that the manager
//! has us watch. The kernel says nothing when a mark is set below what we hold: it makes each thread
//! that asks for a page wait up to two seconds. So we look ourselves. Without a manager, or without a
//! group of our own, there is no mark. Knows not what is done about it.

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::sync::Notify;

const FILES: [&str; 2] = ["memory.high", "memory.max"];

/// The marks of our control group, and word of their changes.
pub struct Marks {
    group: Option<PathBuf>,
    changed: Arc<Notify>,
}

impl Marks {
    /// Of the group that `MEMORY_PRESSURE_WATCH` is a file of, watched by a thread of its own.
    pub fn watch() -> Marks {
        let group = group();
        let changed = Arc::new(Notify::new());
        if let Some(group) = group.clone() {
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
        Marks { group, changed }
    }

    /// The lower of the two in bytes; `None`: the group may hold what it wants.
    pub fn bytes(&self) -> Option<u64> {
        lowest(self.group.as_deref()?)
    }

    /// Resolves when somebody has set one.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// The mark as it stands, for whoever does not wait for changes.
pub fn bytes() -> Option<u64> {
    lowest(&group()?)
}

fn group() -> Option<PathBuf> {
    let watched = PathBuf::from(std::env::var_os("MEMORY_PRESSURE_WATCH")?);
    let group = watched.parent()?;
    FILES
        .iter()
        .any(|file| group.join(file).is_file())
        .then(|| group.to_owned())
}

fn lowest(group: &Path) -> Option<u64> {
    // "max" is no number, and no mark.
    let mark = |file| {
        fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    FILES.into_iter().filter_map(mark).min()
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_lower_mark_holds_and_max_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = |file: &str, text: &str| fs::write(dir.path().join(file), text).expect("room");
        assert_eq!(lowest(dir.path()), None);
        set("memory.max", "max\n");
        set("memory.high", "max\n");
        assert_eq!(lowest(dir.path()), None);
        set("memory.high", "365953024\n");
        assert_eq!(lowest(dir.path()), Some(365_953_024));
        set("memory.max", "1048576\n");
        assert_eq!(lowest(dir.path()), Some(1_048_576));
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
