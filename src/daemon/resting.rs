//! Conversations that rest: where they lie, when their states are written, and the last writing of
//! all before the daemon ends.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Settings;
use crate::door::Door;
use crate::engine::Model;
use crate::service::Rest;
use crate::sessions::store::{Digest, Hands, Identity, Keeper, Quota};
use crate::sessions::{Lasting, Place};
use crate::systemd::DescriptorStore;

/// A state is written after so long without a turn: a conversation is rarely left in the middle of a
/// sentence, and what was not written is read again.
const SAVE_AFTER: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Of the disk's free space, states leave at least a tenth, or this much.
const FLOOR: u64 = 5 << 30;

/// What the service manager holds of conversations, where the configuration gives them no disk and the
/// manager has room for them. `files`: what it held of the daemon before.
pub fn hands(settings: &Settings, files: Vec<(String, File)>) -> Option<Arc<Hands>> {
    let store = DescriptorStore::of_manager()?;
    if settings.sessions_disk != 0 {
        for (name, _) in files {
            log::warn!("{name}: given back, since sessions.disk is not 0 any more");
            store.let_go(&name);
        }
        return None;
    }
    let taken = Hands::take_up(Box::new(store), files, memory(settings));
    let taken = taken.inspect_err(|e| log::error!("conversations end with the daemon: {e}"));
    taken.ok().map(Arc::new)
}

/// Where there is no disk, conversations may take as much again as states in memory.
fn memory(settings: &Settings) -> u64 {
    settings.scheduler.prefix_bytes as u64
}

/// `None` where conversations end with the daemon.
pub fn lasting(settings: &Settings, hands: Option<Arc<Hands>>, model: &Model) -> Option<Lasting> {
    let dir = &settings.sessions_dir;
    let (place, quota) = match (settings.sessions_disk, hands) {
        (0, None) => return None,
        (0, Some(hands)) => {
            let (disk, floor) = (memory(settings), 0);
            (Place::Hands(hands), Quota { disk, floor })
        }
        (disk, _) => {
            let free = free(dir).unwrap_or(u64::MAX);
            let floor = (free / 10).min(FLOOR);
            (Place::Disk(dir.clone()), Quota { disk, floor })
        }
    };
    let digests = model.digests();
    Some(Lasting {
        model: settings.model_name(),
        place,
        quota,
        identity: Identity {
            model: Digest(digests.model),
            tokenizer: Digest(digests.tokenizer),
            template: Digest(digests.template),
            cache: format!("{:?}", settings.engine.cache_type).to_lowercase(),
        },
    })
}

/// Of the file system that the directory will be on.
fn free(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|a| a.exists())?;
    let told = rustix::fs::statvfs(there).ok()?;
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Until `stop`. `idle`: after how long a conversation leaves memory; `None`: states are written at
/// the end alone.
pub async fn watch(door: Arc<Door>, idle: Option<Duration>, stop: CancellationToken) {
    let Some(idle) = idle else { return };
    let rest = Rest {
        save: idle.min(SAVE_AFTER).as_secs(),
        leave: Some(idle.as_secs()),
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        save(&door, rest).await;
    }
}

/// What is not done within `patience` is read again by the next process.
pub async fn save_all(door: &Arc<Door>, patience: Duration) {
    let rest = Rest {
        save: 0,
        leave: None,
    };
    if tokio::time::timeout(patience, save(door, rest))
        .await
        .is_err()
    {
        log::warn!("not every conversation's state was written in time");
    }
}

async fn save(door: &Arc<Door>, rest: Rest) {
    let door = door.clone();
    let work = move || door.service.get().map(|service| service.save(rest));
    if let Err(e) = tokio::task::spawn_blocking(work).await {
        log::error!("states were not written: {e}");
    }
}
