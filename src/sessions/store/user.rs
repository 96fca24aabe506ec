//! One user's sessions: making, listing, writing and removing them. A turn is acknowledged here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{self, Disk, How};
use super::entry::{Meta, Turn};
use super::error::{Refusal, StoreError, doing};
use super::files::Files;
use super::id::Id;
use super::known::Known;
use super::quota::Quota;
use super::record::{self, FORMAT, Head, Kind};
use super::session::{self, LOG, Session};
use super::told::{About, Durable, Listed};

/// Directories that are being made, or being removed.
const MAKING: &str = ".making-";
const GOING: &str = ".going-";

/// One user's sessions.
#[derive(Debug)]
pub struct Store {
    pub(super) disk: Box<dyn Disk>,
    pub(super) uid: u32,
    pub(super) quota: Quota,
    /// `None`: it could not be taken up; the reason is found anew when it is asked for.
    pub(super) sessions: Mutex<BTreeMap<Id, Held>>,
    written: AtomicU64,
}

pub(super) type Held = Arc<Mutex<Option<Session>>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every method leaves things in order before anything that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Store {
    /// The sessions below `dir/<uid>`, which is ours alone until the store is dropped.
    pub fn open(dir: &Path, uid: u32, quota: Quota) -> Result<Store, StoreError> {
        Store::on(Box::new(Files::open(dir, uid)?), uid, quota)
    }

    /// As [`Store::open`], on any disk.
    pub fn on(disk: Box<dyn Disk>, uid: u32, quota: Quota) -> Result<Store, StoreError> {
        // A process before this one may have died before it made names stay; nothing is built upon
        // them, and nothing removed, until they do.
        let settled = disk.sync_dir(None);
        settled.map_err(doing("opening the sessions' directory"))?;
        let mut sessions = BTreeMap::new();
        for name in disk.dirs().map_err(doing("listing the sessions"))? {
            if name.starts_with(MAKING) || name.starts_with(GOING) {
                // Left by a crash. What cannot go now goes next time.
                let _ = remove(&*disk, &name);
                continue;
            }
            let Ok(id) = name.parse::<Id>() else {
                log::warn!("{name:?} among the sessions is none, and stays as it is");
                continue;
            };
            let session = match Session::open(&*disk, id, uid) {
                Ok(session) => Some(session),
                Err(why) => {
                    log::warn!("session {id}: {why}");
                    None
                }
            };
            sessions.insert(id, Arc::new(Mutex::new(session)));
        }
        Ok(Store {
            disk,
            uid,
            quota,
            sessions: Mutex::new(sessions),
            written: AtomicU64::new(0),
        })
    }

    /// Bytes written since it was opened.
    pub fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    pub(super) fn held(&self, id: &Id) -> Result<Held, Refusal> {
        let held = lock(&self.sessions).get(id).cloned();
        held.ok_or(Refusal::Absent(*id))
    }

    /// The session, read again if it could not be taken up before.
    pub(super) fn taken<'s>(
        &self,
        id: &Id,
        held: &'s mut Option<Session>,
    ) -> Result<&'s mut Session, Refusal> {
        if held.is_none() {
            // It may have been deleted while we waited.
            self.held(id)?;
            *held = Some(Session::open(&*self.disk, *id, self.uid)?);
        }
        held.as_mut().ok_or(Refusal::Absent(*id))
    }

    /// All sessions, the last used first.
    pub fn list(&self) -> Vec<Listed> {
        let all: Vec<(Id, Held)> = lock(&self.sessions)
            .iter()
            .map(|(id, held)| (*id, held.clone()))
            .collect();
        let each = all.iter().filter_map(|(id, held)| self.told(id, held));
        let mut listed: Vec<Listed> = each.collect();
        listed.sort_by_key(|l| (std::cmp::Reverse(l.used), l.id));
        listed
    }

    /// As in a list; `None` if there is none.
    pub fn listed(&self, id: &Id) -> Option<Listed> {
        self.told(id, &self.held(id).ok()?)
    }

    fn told(&self, id: &Id, held: &Held) -> Option<Listed> {
        let mut held = lock(held);
        match self.taken(id, &mut held) {
            Ok(session) => Some(Listed {
                id: *id,
                name: session.meta().name.clone(),
                note: session.meta().note.clone(),
                pinned: session.meta().pinned,
                turns: session.known.turns.len(),
                tokens: session.known.tokens(),
                bytes: session.bytes,
                used: session.known.used,
                parent: parent(&session.known),
                unusable: None,
            }),
            Err(Refusal::Absent(_)) => None,
            Err(why) => Some(Listed {
                id: *id,
                name: None,
                note: String::new(),
                pinned: false,
                turns: 0,
                tokens: 0,
                bytes: 0,
                used: 0,
                parent: None,
                unusable: Some(why.to_string()),
            }),
        }
    }

    /// A file for what is not yet looked at; it has no name and is gone once it is closed.
    pub fn scratch(&self) -> Result<std::fs::File, StoreError> {
        let made = self.disk.scratch();
        made.map_err(doing("making a file for what comes in"))
    }

    /// A new session without turns.
    pub fn create(&self, about: &About) -> Result<Id, StoreError> {
        let meta = Meta {
            name: about.name.clone(),
            note: about.note.clone(),
            pinned: false,
            created: now(),
            identity: about.identity.clone(),
        };
        let records = [(Kind::Meta, meta.to_bytes())];
        self.fit(records[0].1.len() as u64, None)?;
        self.make(&records, |_| Ok(()))
    }

    /// A directory with a log of these records, and with what `fill` puts beside it.
    pub(super) fn make(
        &self,
        records: &[(Kind, Vec<u8>)],
        fill: impl Fn(&str) -> std::io::Result<()>,
    ) -> Result<Id, StoreError> {
        let io = doing("making a session");
        let id = Id(self.disk.number().map_err(&io)?);
        let mut salt = [0; 8];
        salt.copy_from_slice(&self.disk.number().map_err(&io)?[..8]);
        let head = Head {
            format: FORMAT,
            uid: self.uid,
            id,
            salt: u64::from_le_bytes(salt),
        };
        let (log, _) = session::first(head, records);
        let (disk, making, name) = (&*self.disk, format!("{MAKING}{id}"), id.to_string());
        let make = || {
            disk.make_dir(&making)?;
            fill(&making)?;
            let file = disk.open(&making, LOG, How::Create)?;
            disk::write(&*file, 0, &log)?;
            disk.sync_both(&*file, &making)?;
            disk.rename_dir(&making, &name)?;
            disk.sync_dir(None)
        };
        if let Err(failed) = make() {
            // Nobody was told of it. What stays under this name goes when the store is opened.
            let _ = disk.rename_dir(&name, &making);
            if disk.sync_dir(None).is_ok() {
                let _ = remove(disk, &making);
            }
            return Err(io(failed));
        }
        self.written.fetch_add(log.len() as u64, Relaxed);
        let mut session = Session::read(disk, id, self.uid)?;
        session.settled = true;
        let held = Arc::new(Mutex::new(Some(session)));
        lock(&self.sessions).insert(id, held);
        Ok(id)
    }

    /// Writes a turn; it is there to stay when this returns.
    pub fn turn(&self, id: &Id, turn: &Turn) -> Result<Durable, StoreError> {
        let mut turn = turn.clone();
        turn.at = if turn.at == 0 { now() } else { turn.at };
        let payload = turn.to_bytes();
        if payload.len() > record::MOST {
            return Err(StoreError::TooLarge {
                what: "a turn",
                got: payload.len(),
                most: record::MOST,
            });
        }
        self.fit(payload.len() as u64, Some(*id))?;
        let held = self.held(id)?;
        let mut held = lock(&held);
        let session = self.taken(id, &mut held)?;
        let (kept, have) = (turn.kept, session.known.tokens());
        if kept > have {
            return Err(StoreError::Kept { kept, have });
        }
        let written = session.append(&*self.disk, Kind::Turn, &payload);
        self.count(written.map_err(doing("writing a turn"))?);
        let fits = session.known.turn(&turn);
        debug_assert!(fits.is_ok(), "seen above");
        session.forget_partial();
        Ok(Durable {
            turn: session.known.turns.len(),
        })
    }

    /// Writes a piece of a running answer: it outlives this process and is no turn yet. `is_first`:
    /// pieces of an attempt before this one are of no use any more.
    pub fn partial(&self, id: &Id, piece: &Turn, is_first: bool) -> Result<(), StoreError> {
        let held = self.held(id)?;
        let mut held = lock(&held);
        let session = self.taken(id, &mut held)?;
        let written = session.partial(&*self.disk, piece, is_first);
        self.count(written.map_err(doing("writing a piece of an answer"))?);
        Ok(())
    }

    pub(super) fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
    }

    pub fn rename(&self, id: &Id, name: Option<String>) -> Result<(), StoreError> {
        self.change(id, |meta| meta.name = name)
    }

    pub fn note(&self, id: &Id, note: String) -> Result<(), StoreError> {
        self.change(id, |meta| meta.note = note)
    }

    /// A pinned session is never given up for want of room.
    pub fn pin(&self, id: &Id, pinned: bool) -> Result<(), StoreError> {
        self.change(id, |meta| meta.pinned = pinned)
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut Meta)) -> Result<(), StoreError> {
        let held = self.held(id)?;
        let mut held = lock(&held);
        let session = self.taken(id, &mut held)?;
        let mut meta = session.meta().clone();
        change(&mut meta);
        if meta != *session.meta() {
            let written = session.append(&*self.disk, Kind::Meta, &meta.to_bytes());
            self.count(written.map_err(doing("writing about a session"))?);
            session.known.meta = Some(meta);
        }
        Ok(())
    }

    /// Removes a session. Once this returns, it does not come back.
    pub fn delete(&self, id: &Id) -> Result<(), StoreError> {
        let held = self.held(id)?;
        self.remove(id, &mut lock(&held))
    }

    pub(super) fn remove(&self, id: &Id, held: &mut Option<Session>) -> Result<(), StoreError> {
        let (disk, going) = (&*self.disk, format!("{GOING}{id}"));
        let gone = match disk.rename_dir(&id.to_string(), &going) {
            // An attempt before this one got as far.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        };
        let gone = gone.and_then(|()| disk.sync_dir(None));
        gone.map_err(doing("removing a session"))?;
        *held = None;
        lock(&self.sessions).remove(id);
        // What stays behind goes when the store is opened again.
        let _ = remove(disk, &going);
        Ok(())
    }
}

/// A directory and what lies in it.
fn remove(disk: &dyn Disk, dir: &str) -> std::io::Result<()> {
    for file in disk.files(dir)? {
        disk.remove(dir, &file.name)?;
    }
    disk.remove_dir(dir)
}

pub(super) fn parent(known: &Known) -> Option<(Id, usize)> {
    known.fork.map(|f| (f.parent, f.turns as usize))
}
