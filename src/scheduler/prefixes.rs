//! States at turn boundaries, kept in memory so that the next turn does not read the conversation
//! again. Bounded in bytes, least recently used out first. Never shared between users: the time to
//! the first token would tell one what another asked.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::request::Token;

/// What is kept, for other threads to ask.
#[derive(Default)]
pub struct Index {
    hash: RandomState,
    known: Mutex<HashSet<(u32, u64)>>,
}

impl Index {
    pub fn holds(&self, uid: u32, tokens: &[Token]) -> bool {
        self.lock().contains(&self.key(uid, tokens))
    }

    fn key(&self, uid: u32, tokens: &[Token]) -> (u32, u64) {
        (uid, self.hash.hash_one(tokens))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(u32, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Prefixes<S> {
    index: Arc<Index>,
    kept: Vec<Kept<S>>,
    budget: usize,
    clock: u64,
}

struct Kept<S> {
    uid: u32,
    /// What the state was fed, from its beginning.
    tokens: Vec<Token>,
    snapshot: S,
    bytes: usize,
    used: u64,
}

impl<S> Prefixes<S> {
    pub fn new(budget: usize, index: Arc<Index>) -> Prefixes<S> {
        Prefixes {
            index,
            kept: Vec::new(),
            budget,
            clock: 0,
        }
    }

    /// Whether a state of this size could be kept at all.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= self.budget
    }

    pub fn holds(&self, uid: u32, tokens: &[Token]) -> bool {
        self.kept.iter().any(|k| k.uid == uid && k.tokens == tokens)
    }

    /// The longest kept state that `prompt` goes on from, with its length. At least one token of
    /// the prompt is left to feed: it gives the first logits.
    pub fn find(&mut self, uid: u32, prompt: &[Token]) -> Option<(&S, usize)> {
        self.clock += 1;
        let fits = |k: &&mut Kept<S>| {
            k.uid == uid && k.tokens.len() < prompt.len() && prompt.starts_with(&k.tokens)
        };
        let found = self.kept.iter_mut().filter(fits);
        let kept = found.max_by_key(|k| k.tokens.len())?;
        kept.used = self.clock;
        Some((&kept.snapshot, kept.tokens.len()))
    }

    pub fn keep(&mut self, uid: u32, tokens: Vec<Token>, snapshot: S, bytes: usize) {
        self.clock += 1;
        self.kept.retain(|k| k.uid != uid || k.tokens != tokens);
        self.index.lock().insert(self.index.key(uid, &tokens));
        self.kept.push(Kept {
            uid,
            tokens,
            snapshot,
            bytes,
            used: self.clock,
        });
        self.shrink();
    }

    /// A smaller budget is kept to at once.
    pub fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
        self.shrink();
    }

    /// Gives all of it back; the next turns read their conversations again.
    pub fn clear(&mut self) {
        self.kept = Vec::new();
        self.index.lock().clear();
    }

    /// The longest kept state of these tokens' beginning, with its length.
    pub fn longest(&self, uid: u32, tokens: &[Token]) -> Option<(&S, usize)> {
        let own = self.kept.iter().filter(|k| k.uid == uid);
        let found = own.filter(|k| tokens.starts_with(&k.tokens));
        let kept = found.max_by_key(|k| k.tokens.len())?;
        Some((&kept.snapshot, kept.tokens.len()))
    }

    /// Gives back every state of these tokens' beginning.
    pub fn drop_all(&mut self, uid: u32, tokens: &[Token]) {
        let goes = |k: &Kept<S>| k.uid == uid && tokens.starts_with(&k.tokens);
        for kept in self.kept.extract_if(.., |k| goes(k)) {
            self.index.lock().remove(&self.index.key(uid, &kept.tokens));
        }
    }

    fn shrink(&mut self) {
        while self.bytes() > self.budget {
            let oldest = (0..self.kept.len()).min_by_key(|&i| self.kept[i].used);
            if let Some(i) = oldest {
                let gone = self.kept.swap_remove(i);
                let key = self.index.key(gone.uid, &gone.tokens);
                self.index.lock().remove(&key);
            }
        }
    }

    pub fn bytes(&self) -> usize {
        // The key counts too: short states of long texts are not free.
        let of = |k: &Kept<S>| k.bytes + std::mem::size_of_val(k.tokens.as_slice());
        self.kept.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_kept_beginning_is_found_and_one_token_is_left() {
        let mut prefixes = Prefixes::new(1 << 20, Arc::default());
        prefixes.keep(1, vec![1, 2], "short", 10);
        prefixes.keep(1, vec![1, 2, 3], "long", 10);
        assert_eq!(prefixes.find(1, &[1, 2, 3, 4]), Some((&"long", 3)));
        assert_eq!(prefixes.find(1, &[1, 2, 3]), Some((&"short", 2)));
        assert_eq!(prefixes.find(1, &[2, 1, 3]), None);
    }

    #[test]
    fn one_user_never_finds_what_another_left() {
        let mut prefixes = Prefixes::new(1 << 20, Arc::default());
        prefixes.keep(1, vec![1], (), 10);
        assert_eq!(prefixes.find(2, &[1, 2]), None);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut prefixes = Prefixes::new(40, Arc::default());
        prefixes.keep(1, vec![1], "a", 10);
        prefixes.keep(1, vec![2], "b", 10);
        prefixes.find(1, &[1, 9]);
        prefixes.keep(1, vec![3], "c", 10);
        assert_eq!(prefixes.find(1, &[2, 9]), None);
        assert_eq!(prefixes.find(1, &[1, 9]), Some((&"a", 1)));
        assert!(prefixes.bytes() <= 40);
        prefixes.set_budget(20);
        assert_eq!(prefixes.find(1, &[3, 9]), None);
        assert_eq!(prefixes.find(1, &[1, 9]), Some((&"a", 1)));
        prefixes.clear();
        assert_eq!(prefixes.bytes(), 0);
    }

    #[test]
    fn other_threads_are_told_what_is_kept_and_what_went() {
        let index = Arc::new(Index::default());
        let mut prefixes = Prefixes::new(1 << 20, index.clone());
        for end in 1..=4 {
            prefixes.keep(1, (0..end).collect(), end, 10);
        }
        assert_eq!(prefixes.longest(1, &[0, 1, 2]), Some((&3, 3)));
        prefixes.drop_all(1, &[0, 1, 2]);
        let held = |end: Token| index.holds(1, &(0..end).collect::<Vec<_>>());
        assert_eq!([held(1), held(3), held(4)], [false, false, true]);
        assert!(!index.holds(2, &[0, 1, 2, 3]));
        prefixes.set_budget(1);
        assert!(!held(4));
    }
}
