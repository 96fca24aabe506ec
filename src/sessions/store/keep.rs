//! Taking sessions up and keeping their states: load, checkpoint, fork, rebuild, and what is given up
//! for want of room.

use super::checkpoint::State;
use super::entry::{Fork, Meta, Turn};
use super::error::{Refusal, StoreError, doing};
use super::id::Id;
use super::identity::Identity;
use super::known::{self, Point};
use super::loaded::Loaded;
use super::quota::{self, Give, Share};
use super::received::Received;
use super::record::{self, Head, Kind};
use super::session::{self, Session};
use super::told::{Opened, Written};
use super::transfer::Carried;
use super::user::{Held, Store, lock, now, parent};
use crate::request::Token;

impl Store {
    /// The session's turns, for a model of this identity, and its newest state.
    pub fn load(&self, id: &Id, want: &Identity) -> Result<Opened, Refusal> {
        let mut opened = self.read(id, want)?;
        (opened.state, opened.wrong) = self.state(id, &opened.tokens)?;
        let seen = opened.state.as_ref().map_or(0, |s| s.tokens);
        opened.behind = opened.tokens.len() - seen;
        Ok(opened)
    }

    /// As [`Store::load`], without any state.
    pub fn read(&self, id: &Id, want: &Identity) -> Result<Opened, Refusal> {
        let held = self.held(id)?;
        let mut held = lock(&held);
        let session = self.taken(id, &mut held)?;
        if let Some(differs) = session.meta().identity.differs(want) {
            return Err(Refusal::Other(differs));
        }
        let turns = session.turns(&*self.disk)?;
        let tokens = known::tokens_of(&turns);
        Ok(Opened {
            name: session.meta().name.clone(),
            parent: parent(&session.known),
            partial: session.partials(&*self.disk),
            behind: tokens.len(),
            state: None,
            wrong: Vec::new(),
            tokens,
            turns,
        })
    }

    /// The session's turns, whatever model it was made with. Their tokens are that model's.
    pub fn turns(&self, id: &Id) -> Result<Vec<Turn>, Refusal> {
        let held = self.held(id)?;
        let mut held = lock(&held);
        self.taken(id, &mut held)?.turns(&*self.disk)
    }

    /// The newest state that is whole and of the beginning of `tokens`, and why newer ones are not
    /// taken.
    pub fn state(
        &self,
        id: &Id,
        tokens: &[Token],
    ) -> Result<(Option<Loaded>, Vec<Refusal>), Refusal> {
        let held = self.held(id)?;
        let mut held = lock(&held);
        let mut wrong = Vec::new();
        let state = self
            .taken(id, &mut held)?
            .state(&*self.disk, tokens, &mut wrong);
        Ok((state, wrong))
    }

    /// How many tokens the newest state has seen; 0 where there is none.
    pub fn saved(&self, id: &Id) -> usize {
        let Ok(held) = self.held(id) else { return 0 };
        let mut held = lock(&held);
        let points = self
            .taken(id, &mut held)
            .map(|s| s.known.points.last().map(|p| p.tokens));
        points.ok().flatten().unwrap_or(0)
    }

    /// Writes a state that has seen `tokens`, with which the conversation begins. Rows that are on
    /// disk already are not written again.
    pub fn checkpoint(
        &self,
        id: &Id,
        tokens: &[Token],
        state: &dyn State,
    ) -> Result<Written, StoreError> {
        let held = self.held(id)?;
        let need = self.taken(id, &mut lock(&held))?.need(state);
        let free = self.disk.free().map_err(doing("asking for free space"))?;
        let floor = self.quota.floor;
        if free < floor.saturating_add(need) {
            return Err(StoreError::Floor { free, floor });
        }
        self.fit(need, Some(*id))?;
        let mut held = lock(&held);
        let session = self.taken(id, &mut held)?;
        let bytes = session.checkpoint(&*self.disk, tokens, state)?;
        self.count(bytes);
        Ok(Written { bytes })
    }

    /// Gives up a session's rows and states; its transcript stays.
    pub fn shed(&self, id: &Id) -> Result<(), StoreError> {
        let held = self.held(id)?;
        let mut held = lock(&held);
        self.shed_held(self.taken(id, &mut held)?)
    }

    fn shed_held(&self, session: &mut Session) -> Result<(), StoreError> {
        if !session.known.points.is_empty() {
            let written = session.append(&*self.disk, Kind::Shed, &[]);
            self.count(written.map_err(doing("giving up a state"))?);
            session.known.points.clear();
        }
        session.clear(&*self.disk);
        Ok(())
    }

    /// A new session with the turns that can be read of `id`, whatever became of its files and
    /// whatever model it was made with. Its tokens are those of `identity`, or none.
    pub fn rebuild(&self, id: &Id, identity: &Identity) -> Result<Id, StoreError> {
        self.held(id)?;
        let log = session::log_of(&*self.disk, *id)?;
        let head = Head::of(&log)?;
        let (mut meta, mut turns) = (None, Vec::new());
        for record in record::salvage(&log, head) {
            match record.kind {
                Kind::Meta => meta = Meta::of(record.payload).or(meta),
                Kind::Turn => turns.extend(Turn::of(record.payload)),
                _ => {}
            }
        }
        let was = meta.as_ref().map(|m| &m.identity);
        let same = was.is_some_and(|was| was.differs(identity).is_none());
        let meta = meta.unwrap_or_else(|| Meta {
            name: None,
            note: String::new(),
            pinned: false,
            created: 0,
            identity: identity.clone(),
        });
        let meta = Meta {
            name: meta.name,
            note: meta.note,
            pinned: false,
            created: now(),
            identity: identity.clone(),
        };
        let mut records = vec![(Kind::Meta, meta.to_bytes())];
        let mut have = 0;
        for mut turn in turns {
            // A turn before it may be lost, and its tokens with it.
            if !same || turn.kept > have {
                (turn.kept, turn.tokens) = (0, Vec::new());
            }
            have = turn.kept + turn.tokens.len();
            records.push((Kind::Turn, turn.to_bytes()));
        }
        self.fit(log.len() as u64, Some(*id))?;
        self.make(&records, |_| Ok(()))
    }

    /// A session to be written for others. Damaged states stay behind.
    pub fn carry(&self, id: &Id) -> Result<Carried, Refusal> {
        let held = self.held(id)?;
        let mut held = lock(&held);
        let session = self.taken(id, &mut held)?;
        let turns = session.turns(&*self.disk)?;
        let tokens = known::tokens_of(&turns);
        Ok(Carried {
            name: session.meta().name.clone(),
            note: session.meta().note.clone(),
            identity: session.meta().identity.clone(),
            state: session.state(&*self.disk, &tokens, &mut Vec::new()),
            turns,
        })
    }

    /// Bytes that may be taken in of an exported session. A head may spell its bytes out as numbers:
    /// it is longer than what it becomes.
    pub fn room(&self) -> Result<u64, StoreError> {
        let free = self.disk.free().map_err(doing("asking for free space"))?;
        let most = self.quota.disk.saturating_mul(4);
        Ok(most.min(free.saturating_sub(self.quota.floor)))
    }

    /// Makes a session of an exported one.
    pub fn import(
        &self,
        received: &Received<'_>,
        name: Option<String>,
        note: String,
    ) -> Result<Id, StoreError> {
        let meta = Meta {
            name,
            note,
            pinned: false,
            created: now(),
            identity: received.identity.clone(),
        };
        let mut records = vec![(Kind::Meta, meta.to_bytes())];
        let turns = received.turns.iter();
        records.extend(turns.map(|t| (Kind::Turn, t.to_bytes())));
        let need: usize = records.iter().map(|(_, bytes)| bytes.len()).sum();
        self.fit(need as u64, None)?;
        let id = self.make(&records, |_| Ok(()))?;
        let Some(state) = &received.state else {
            return Ok(id);
        };
        let mut tokens = known::tokens_of(&received.turns);
        tokens.truncate(state.tokens);
        let written = self.checkpoint(&id, &tokens, state);
        if let Some(failed) = written.err().or_else(|| state.failed()) {
            self.delete(&id)?;
            return Err(failed);
        }
        Ok(id)
    }

    /// A new session that begins with the first `turns` turns of another. States are shared where
    /// there are any of those turns; no row is copied. `called`: its name and note, from its first moment
    /// on, where they are not the other's: a name that came later would be two sessions' for a while.
    pub fn fork(
        &self,
        id: &Id,
        turns: usize,
        called: Option<(Option<String>, String)>,
    ) -> Result<Id, StoreError> {
        let held = self.held(id)?;
        let need = {
            let mut held = lock(&held);
            let session = self.taken(id, &mut held)?;
            session.bytes - session.states
        };
        self.fit(need, Some(*id))?;
        let mut held = lock(&held);
        let session = self.taken(id, &mut held)?;
        let have = session.known.turns.len();
        if turns > have {
            let at = turns;
            return Err(StoreError::NoTurn { at, turns: have });
        }
        let mut said = session.turns(&*self.disk)?;
        said.truncate(turns);
        let tokens = known::tokens_of(&said);
        let points = session.known.points.iter();
        let points: Vec<&Point> = points
            .filter(|p| p.turns <= turns && p.is_of(&tokens))
            .collect();
        let places = points.iter().flat_map(|p| &p.blocks);
        let fork = Fork {
            parent: *id,
            turns: turns as u32,
            first_own: places.map(|b| b.segment + 1).max().unwrap_or(0),
        };
        let of = session.meta();
        let (name, note) = called.unwrap_or_else(|| (of.name.clone(), of.note.clone()));
        let meta = Meta {
            name,
            note,
            pinned: false,
            created: now(),
            identity: of.identity.clone(),
        };
        let mut records = vec![(Kind::Fork, fork.to_bytes()), (Kind::Meta, meta.to_bytes())];
        records.extend(said.iter().map(|t| (Kind::Turn, t.to_bytes())));
        let plain = records.len();
        records.extend(
            points
                .iter()
                .map(|p| (Kind::Checkpoint, p.alone().to_bytes())),
        );
        let from = id.to_string();
        let share = |to: &str| {
            for file in self.disk.files(&from)? {
                if points.iter().any(|p| p.names(&file.name)) {
                    self.disk.link(&from, &file.name, to)?;
                }
            }
            Ok(())
        };
        // Where files cannot have two names, the child reads its turns again.
        self.make(&records, share)
            .or_else(|_| self.make(&records[..plain], |_| Ok(())))
    }

    /// Makes room for `need` more bytes.
    pub(super) fn fit(&self, need: u64, whose: Option<Id>) -> Result<(), StoreError> {
        let limit = self.quota.disk;
        let all: Vec<(Id, Held)> = lock(&self.sessions)
            .iter()
            .map(|(id, held)| (*id, held.clone()))
            .collect();
        let share = |(id, held): &(Id, Held)| {
            // Who is being written just now is in use.
            let held = held.try_lock().ok()?;
            let session = held.as_ref()?;
            Some(Share {
                id: *id,
                bytes: session.bytes,
                states: session.states,
                used: session.known.used,
                stays: session.meta().pinned || whose == Some(*id),
            })
        };
        let shares = all.iter().filter_map(share).collect();
        let Some(gives) = quota::plan(shares, need, limit) else {
            return Err(StoreError::Quota { need, limit });
        };
        for give in gives {
            let (Give::State(id) | Give::Whole(id)) = give;
            // Waiting for it could be waiting for somebody who waits for us.
            let Some(held) = all.iter().find(|(of, _)| *of == id) else {
                continue;
            };
            let Ok(mut held) = held.1.try_lock() else {
                return Err(StoreError::Quota { need, limit });
            };
            match give {
                Give::State(_) => {
                    log::info!("session {id}: its state makes room for others");
                    self.shed_held(self.taken(&id, &mut held)?)?;
                }
                Give::Whole(_) => {
                    log::warn!("session {id}: given up, since sessions may take {limit} bytes");
                    self.remove(&id, &mut held)?;
                }
            }
        }
        Ok(())
    }
}
