//! Conversations that leave as a file and come in as one, and those on disk that could not be taken
//! up, whose words can be had back. One file of a user is on its way at a time.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, PoisonError};

use super::all::Sessions;
use super::conversation::{About, Summary};
use super::lasting::{self, Untaken};
use super::replay::Replays;
use super::store::{self, Carried, Id, StoreError};
use super::user::User;

use crate::request::{Refusal, Token};

/// The right of a user to a file on its way.
struct Carry {
    sessions: Arc<Sessions>,
    uid: u32,
}

impl Drop for Carry {
    fn drop(&mut self) {
        let carrying = self.sessions.carrying.lock();
        carrying
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.uid);
    }
}

/// A conversation on its way out.
pub struct Outgoing {
    carried: Carried,
    _carry: Carry,
}

impl Outgoing {
    /// Writes one safetensors file; returns its bytes.
    pub fn write(&self, out: &mut dyn Write) -> Result<u64, Refusal> {
        self.carried.write(out).map_err(|e| told(&e))
    }
}

/// A file on its way in, on the disk of the sessions and of no name there.
pub struct Incoming {
    file: File,
    have: u64,
    most: u64,
    carry: Carry,
}

impl Incoming {
    /// Refused before they are sent: more bytes than are taken.
    pub fn expect(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.most {
            return Ok(());
        }
        let most = self.most;
        Err(Refusal::SessionRefused {
            why: format!(
                "the file has {bytes} bytes or more, and {most} are taken, by sessions.disk and \
                 what is free"
            ),
        })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.have += bytes.len() as u64;
        self.expect(self.have)?;
        let written = self.file.write_all(bytes);
        written.map_err(|e| Refusal::Storage {
            why: format!("taking in a file failed: {e}"),
        })
    }
}

/// What the store says, to a caller.
fn told(e: &StoreError) -> Refusal {
    let why = e.to_string();
    match e {
        StoreError::Refused(store::Refusal::Unreadable { .. })
        | StoreError::Io { .. }
        | StoreError::InUse(_)
        | StoreError::NotPrivate(..)
        | StoreError::Quota { .. }
        | StoreError::Floor { .. } => Refusal::Storage { why },
        StoreError::Refused(_)
        | StoreError::TooLarge { .. }
        | StoreError::NoTurn { .. }
        | StoreError::Kept { .. }
        | StoreError::Ahead { .. } => Refusal::SessionRefused { why },
    }
}

fn in_memory() -> Refusal {
    Refusal::Invalid {
        param: "id".into(),
        message: "the session is in memory only, by its own wish or sessions.disk".into(),
    }
}

impl Sessions {
    fn carry(self: &Arc<Self>, uid: u32) -> Result<Carry, Refusal> {
        let mut carrying = self.carrying.lock().unwrap_or_else(PoisonError::into_inner);
        if !carrying.insert(uid) {
            return Err(Refusal::Carrying);
        }
        let sessions = self.clone();
        Ok(Carry { sessions, uid })
    }

    /// The session of that id or name, taken up or not, as it lies on disk.
    pub fn export(self: &Arc<Self>, uid: u32, who: &str) -> Result<Outgoing, Refusal> {
        let carry = self.carry(uid)?;
        self.with(uid, |user| {
            let id = match user.shelf().on_disk(who) {
                Ok(id) => id.ok_or_else(in_memory)?,
                Err(unknown) => user.untaken_one(who).ok_or(unknown)?.on_disk,
            };
            let store = user.store().ok_or_else(in_memory)?;
            let carried = store.carry(&id).map_err(|e| told(&e.into()))?;
            Ok(Outgoing {
                carried,
                _carry: carry,
            })
        })
    }

    /// A place for a file that comes in.
    pub fn receive(self: &Arc<Self>, uid: u32) -> Result<Incoming, Refusal> {
        let carry = self.carry(uid)?;
        self.with(uid, |user| {
            let Some(store) = user.store() else {
                let why = "there is no disk for sessions (sessions.disk)".to_owned();
                return Err(Refusal::Storage { why });
            };
            let most = store.room().map_err(|e| told(&e))?;
            Ok(Incoming {
                file: store.scratch().map_err(|e| told(&e))?,
                have: 0,
                most,
                carry,
            })
        })
    }

    /// Makes a session of the file that came in. `name`: what it is to be called; else its own name
    /// comes along, where it is free. Tokens are below `n_vocab`, or it is refused.
    pub fn import(
        &self,
        incoming: Incoming,
        name: Option<String>,
        n_vocab: usize,
    ) -> Result<Summary, Refusal> {
        let uid = incoming.carry.uid;
        self.with(uid, |user| {
            let (store, identity) = user.disk().ok_or_else(in_memory)?;
            let received = store::examine(&incoming.file, identity).map_err(|e| told(&e))?;
            for (n, turn) in received.turns.iter().enumerate() {
                let strange = turn.tokens.iter().find(|t| **t as usize >= n_vocab);
                let why = match strange {
                    Some(token) => format!("it has token {token}, and the model {n_vocab}"),
                    None if !lasting::is_readable(turn) => "another program wrote it".to_owned(),
                    None => continue,
                };
                let why = format!("the file's turn {n} is not taken: {why}");
                return Err(Refusal::SessionRefused { why });
            }
            let named = |name| About {
                name,
                ..lasting::about(&received.note)
            };
            let about = match name {
                Some(name) => named(Some(name)),
                None => {
                    let own = named(received.name.clone());
                    let is_free = user.shelf().check(&own).is_ok();
                    if is_free { own } else { named(None) }
                }
            };
            user.shelf().check(&about)?;
            let note = user.fresh_note(&about);
            let id = store.import(&received, about.name, note);
            user.take_in(&id.map_err(|e| told(&e))?, uid, &self.replays)
        })
    }

    /// Sessions on disk that could not be taken up, and why.
    pub fn untaken(&self, uid: u32) -> Vec<Untaken> {
        self.with(uid, |user| user.untaken())
    }

    /// A new session of what can be read of one that could not be taken up. That one stays.
    pub fn rebuild(&self, uid: u32, who: &str) -> Result<Summary, Refusal> {
        self.with(uid, |user| {
            let unknown = || Refusal::NoSuchSession { who: who.into() };
            let untaken = user.untaken_one(who).ok_or_else(unknown)?;
            let (store, identity) = user.disk().ok_or_else(unknown)?;
            let id = store.rebuild(&untaken.on_disk, identity);
            let id = id.map_err(|e| told(&e))?;
            // It may have come along with an answer; now it is held, so that it is seen.
            let listed = store.listed(&id).ok_or_else(unknown)?;
            let about = lasting::about(&listed.note);
            let named = About {
                name: listed.name,
                ..about
            };
            let is_free = user.shelf().check(&named).is_ok();
            let renamed = if is_free {
                Ok(())
            } else {
                store.rename(&id, None)
            };
            let noted = renamed.and_then(|()| store.note(&id, user.fresh_note(&named)));
            noted.map_err(|e| told(&e))?;
            user.take_in(&id, uid, &self.replays)
        })
    }

    /// Gives up what is on disk of the session's state, so that its text is read anew; its tokens.
    pub fn shed(&self, uid: u32, who: &str) -> Result<Vec<Token>, Refusal> {
        self.with(uid, |user| {
            let summary = user.shelf().summary(who)?;
            if summary.busy {
                return Err(Refusal::SessionBusy { who: who.into() });
            }
            let on_disk = user.shelf().on_disk(who)?;
            if let (Some(store), Some(id)) = (user.store(), on_disk) {
                store.shed(&id).map_err(|e| told(&e))?;
            }
            user.shelf().unsaved(who)
        })
    }
}

impl User {
    /// Puts a session that is on disk, and was not here, on the shelf.
    fn take_in(&self, id: &Id, uid: u32, replays: &Replays) -> Result<Summary, Refusal> {
        let (store, identity) = self.disk().ok_or_else(in_memory)?;
        let gone = || Refusal::Storage {
            why: format!("session {id} went to make room for others"),
        };
        let listed = store.listed(id).ok_or_else(gone)?;
        let taken = lasting::take_up(uid, store, identity, &listed, replays);
        let taken = taken.map_err(|e| told(&e.into()))?;
        let mut shelf = self.shelf();
        // Another may have taken the name meanwhile.
        if let Err(refused) = shelf.check(&taken.about) {
            drop(shelf);
            self.give_up([*id]);
            return Err(refused);
        }
        let (id, gone) = shelf.insert(taken);
        let summary = shelf.summary(&id);
        drop(shelf);
        self.give_up(gone);
        summary
    }
}
