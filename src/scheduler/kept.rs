//! The states kept for next turns, as every thread has them. A pass may itself wait for memory, so
//! whoever gives states back does not wait for the pass.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::model::{Model, Outward};
use super::prefixes::{Index, Prefixes};
use super::stats::Stats;
use crate::engine::{self, Spare};
use crate::request::Token;

/// Held for a look or a change, never through a pass.
pub struct Kept<M: Model> {
    prefixes: Mutex<Prefixes<M::Snapshot>>,
    stats: Arc<Stats>,
    spare: Option<Arc<dyn Spare>>,
}

impl<M: Model> Kept<M> {
    pub fn new(
        budget: usize,
        index: Arc<Index>,
        stats: Arc<Stats>,
        spare: Option<Arc<dyn Spare>>,
    ) -> Kept<M> {
        Kept {
            prefixes: Mutex::new(Prefixes::new(budget, index, M::held)),
            stats,
            spare,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, Prefixes<M::Snapshot>> {
        // Whole at every moment, whoever panicked.
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whoever reads the figures.
    pub fn count(&self) {
        self.change(|_| ());
    }

    fn change<T>(&self, change: impl FnOnce(&mut Prefixes<M::Snapshot>) -> T) -> T {
        let mut prefixes = self.lock();
        let changed = change(&mut prefixes);
        self.stats.prefix_bytes.store(prefixes.bytes(), Relaxed);
        changed
    }

    /// What went is the kernel's again: the engine and the heap would keep it for the next state.
    fn give_back(&self) {
        if let Some(spare) = &self.spare {
            spare.give_back();
        }
        engine::trim();
    }
}

/// What those may do who know no model.
pub trait Keeps: Send + Sync {
    fn longest(&self, uid: u32, tokens: &[Token], leaves: bool) -> Option<(Outward, usize)>;
    fn hold_off(&self, holds_off: bool);
    fn set_bound(&self, bytes: usize);
    fn halve(&self);
    fn clear(&self);
}

impl<M: Model> Keeps for Kept<M> {
    fn longest(&self, uid: u32, tokens: &[Token], leaves: bool) -> Option<(Outward, usize)> {
        self.change(|prefixes| {
            let found = prefixes.longest(uid, tokens);
            let found = found.map(|(snapshot, n)| (M::outward(snapshot), n));
            if leaves {
                prefixes.drop_all(uid, tokens);
            }
            found
        })
    }

    fn hold_off(&self, holds_off: bool) {
        self.change(|prefixes| prefixes.hold_off(holds_off));
    }

    fn set_bound(&self, bytes: usize) {
        let less = self.change(|prefixes| {
            let before = prefixes.bytes();
            prefixes.set_bound(bytes);
            prefixes.bytes() < before
        });
        if less {
            self.give_back();
        }
    }

    fn halve(&self) {
        self.change(Prefixes::halve);
        self.give_back();
    }

    fn clear(&self) {
        self.change(Prefixes::clear);
        self.give_back();
    }
}
