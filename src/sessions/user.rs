//! One user's conversations, in memory and on disk, one in step with the other. The shelf is never
//! locked while the disk works.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::conversation::{About, Conversation, Summary, Turn};
use super::lasting::{self, Lasting, Untaken};
use super::replay::Replays;
use super::shelf::{Forgotten, Rest, Shelf};
use super::store::{self, Durable, Id, Identity, Store};
use crate::request::{Refusal, Token};

/// A conversation on disk that nobody answers in.
pub struct Resting {
    pub uid: u32,
    pub id: Id,
    pub tokens: Vec<Token>,
    /// It goes from memory.
    pub leaves: bool,
}

pub(super) struct User {
    shelf: Mutex<Shelf>,
    disk: Option<(Store, Identity)>,
    /// The model's name.
    model: String,
    /// On disk, and not here.
    untaken: Mutex<Vec<Untaken>>,
}

impl User {
    /// Everything that is on disk comes along.
    pub fn open(uid: u32, lasting: Option<&Lasting>, replays: &Replays) -> User {
        let model = lasting.map(|l| l.model.clone()).unwrap_or_default();
        let mut shelf = Shelf::of(model.clone());
        let opened = lasting.and_then(|l| Some((l.open(uid)?, l)));
        let mut untaken = Vec::new();
        let disk = opened.map(|(store, lasting)| {
            let (found, others) = lasting.load(uid, &store, replays);
            untaken = others;
            // The one that was used last comes last.
            for found in found.into_iter().rev() {
                let (_, gone) = shelf.insert(found);
                gone.iter().for_each(|id| delete(&store, id));
            }
            (store, lasting.identity.clone())
        });
        User {
            shelf: Mutex::new(shelf),
            disk,
            model,
            untaken: Mutex::new(untaken),
        }
    }

    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn store(&self) -> Option<&Store> {
        self.disk.as_ref().map(|(store, _)| store)
    }

    pub fn disk(&self) -> Option<(&Store, &Identity)> {
        let (store, identity) = self.disk.as_ref()?;
        Some((store, identity))
    }

    /// What a new session's record says of it.
    pub fn fresh_note(&self, about: &About) -> String {
        lasting::fresh_note(about, &self.model)
    }

    /// What refuses a session or an answer by a name that nothing here has: why that is not taken up,
    /// where it is on disk all the same.
    pub fn refused(&self, refusal: Refusal) -> Refusal {
        let untaken = match &refusal {
            Refusal::NoSuchSession { who } => self.untaken_one(who),
            Refusal::NoSuchAnswer { id } => {
                let has = |u: &Untaken| u.answers.contains(id);
                self.untaken().into_iter().find(has)
            }
            _ => None,
        };
        untaken.map_or(refusal, |untaken| Refusal::SessionRefused {
            why: format!(
                "session {:?} cannot be taken up: {}; rebuild makes a new one of its words",
                untaken.name.as_ref().unwrap_or(&untaken.id),
                untaken.why
            ),
        })
    }

    pub fn untaken(&self) -> Vec<Untaken> {
        let untaken = self.untaken.lock();
        untaken.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one of that id or name.
    pub fn untaken_one(&self, who: &str) -> Option<Untaken> {
        let is = |u: &Untaken| u.id == who || u.name.as_deref() == Some(who);
        self.untaken().into_iter().find(is)
    }

    /// A place on disk for what is to last, with the turns that it has. `from`: it begins as the
    /// first turns of another there.
    fn place(&self, conversation: &mut Conversation, from: Option<(Id, usize)>) {
        let Some((store, identity)) = &self.disk else {
            return;
        };
        if !conversation.about.lasting {
            return;
        }
        let note = lasting::note(conversation, &self.model);
        let name = conversation.about.name.clone();
        let fork = |(id, n): (Id, usize)| store.fork(&id, n, Some((name.clone(), note.clone())));
        let anew = || {
            let made = store.create(&store::About {
                name: name.clone(),
                note: note.clone(),
                identity: identity.clone(),
            })?;
            for turn in &conversation.turns {
                store.turn(&made, &lasting::written(turn, 0, &[]))?;
            }
            Ok(made)
        };
        let made = from
            .map(fork)
            .and_then(|made: Result<_, store::StoreError>| made.ok());
        let shares = made.is_some();
        match made.map_or_else(anew, Ok) {
            Ok(id) => {
                conversation.on_disk = Some(id);
                if !shares {
                    // There, its turns have none.
                    conversation.tokens = Vec::new();
                }
            }
            Err::<_, store::StoreError>(e) => {
                log::error!("a conversation is only in memory: {e}");
                conversation.durable = false;
            }
        }
    }

    /// A session with these turns, the last one of which ends with `tokens`.
    pub fn create(
        &self,
        about: About,
        turns: Vec<Arc<Turn>>,
        tokens: Vec<Token>,
        from: Option<(Id, usize)>,
    ) -> Result<Summary, Refusal> {
        let about = About {
            held: true,
            ..about
        };
        self.shelf().check(&about)?;
        let mut made = Conversation::new(about, turns);
        made.tokens = tokens;
        self.place(&mut made, from);
        let on_disk = made.on_disk;
        let mut shelf = self.shelf();
        // Another may have taken the name meanwhile.
        if let Err(refused) = shelf.check(&made.about) {
            drop(shelf);
            self.give_up(on_disk);
            return Err(refused);
        }
        let (id, gone) = shelf.insert(made);
        let summary = shelf.summary(&id);
        drop(shelf);
        self.give_up(gone);
        summary
    }

    /// A conversation that nobody holds, and its next turn.
    pub fn go_on(
        &self,
        mut begun: Conversation,
        from: Option<(Id, usize)>,
        turn: Turn,
        tokens: Vec<Token>,
    ) -> Option<Durable> {
        self.place(&mut begun, from);
        let durable = begun
            .on_disk
            .and_then(|id| self.append(&id, &[], &turn, &tokens));
        let mut shelf = self.shelf();
        let (id, gone) = shelf.insert(begun);
        shelf.push(&id, turn, tokens, durable.is_some());
        drop(shelf);
        self.give_up(gone);
        durable
    }

    pub fn append(
        &self,
        id: &Id,
        before: &[Token],
        turn: &Turn,
        tokens: &[Token],
    ) -> Option<Durable> {
        lasting::append(self.store()?, id, before, turn, tokens)
    }

    pub fn partial(&self, who: &str, piece: &Turn, is_first: bool) {
        let Ok(Some(id)) = self.shelf().on_disk(who) else {
            return;
        };
        let written = self
            .store()
            .map(|s| s.partial(&id, &lasting::written(piece, 0, &[]), is_first));
        if let Some(Err(e)) = written {
            log::debug!("session {id}: a piece of an answer is only in memory: {e}");
        }
    }

    /// A turn in which nothing was said holds the tokens, if that is still the end of it.
    pub fn was_read(&self, who: &str, n: usize, tokens: Vec<Token>) {
        let (on_disk, before) = {
            let mut shelf = self.shelf();
            match shelf.end(who) {
                Some((have, on_disk, before)) if have == n && before != tokens => (on_disk, before),
                _ => return,
            }
        };
        let turn = Turn::said(Vec::new());
        let durable = on_disk.and_then(|id| self.append(&id, &before, &turn, &tokens));
        self.shelf().push(who, turn, tokens, durable.is_some());
    }

    pub fn delete(&self, who: &str) -> Result<String, Refusal> {
        let deleted = self.shelf().delete(who);
        let (id, on_disk) = match (deleted, self.untaken_one(who)) {
            (Ok(deleted), _) => deleted,
            // What could not be taken up can still be given up.
            (Err(_), Some(untaken)) => {
                let mut all = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
                all.retain(|u| u.on_disk != untaken.on_disk);
                (untaken.id, Some(untaken.on_disk))
            }
            (Err(unknown), None) => return Err(unknown),
        };
        self.give_up(on_disk);
        Ok(id)
    }

    pub fn forget(&self, answer: &str) -> Result<(), Refusal> {
        let Forgotten { notes, gone } = self.shelf().forget(answer)?;
        for (id, note) in notes {
            if let Some(Err(e)) = self.store().map(|s| s.note(&id, note)) {
                log::error!("session {id}: that an answer is forgotten is only in memory: {e}");
            }
        }
        self.give_up(gone);
        Ok(())
    }

    pub fn resting(&self, uid: u32, rest: Rest) -> Vec<Resting> {
        let all = self.shelf().resting(rest);
        let each = all.into_iter().map(|r| Resting {
            uid,
            id: r.on_disk,
            tokens: r.tokens,
            leaves: r.leaves,
        });
        each.collect()
    }

    pub(super) fn give_up(&self, gone: impl IntoIterator<Item = Id>) {
        if let Some(store) = self.store() {
            gone.into_iter().for_each(|id| delete(store, &id));
        }
    }
}

fn delete(store: &Store, id: &Id) {
    if let Err(e) = store.delete(id) {
        log::error!("session {id} stays on disk: {e}");
    }
}
