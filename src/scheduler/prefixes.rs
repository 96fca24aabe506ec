//! States at turn boundaries, kept in memory so that the next turn does not read the conversation
//! again. Bounded in bytes, least recently used out first. Never shared between users: the time to
//! the first token would tell one what another asked.

use crate::request::Token;

pub struct Prefixes<S> {
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
    pub fn new(budget: usize) -> Prefixes<S> {
        Prefixes {
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
    }

    fn shrink(&mut self) {
        while self.bytes() > self.budget {
            let oldest = (0..self.kept.len()).min_by_key(|&i| self.kept[i].used);
            if let Some(i) = oldest {
                self.kept.swap_remove(i);
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
        let mut prefixes = Prefixes::new(1 << 20);
        prefixes.keep(1, vec![1, 2], "short", 10);
        prefixes.keep(1, vec![1, 2, 3], "long", 10);
        assert_eq!(prefixes.find(1, &[1, 2, 3, 4]), Some((&"long", 3)));
        assert_eq!(prefixes.find(1, &[1, 2, 3]), Some((&"short", 2)));
        assert_eq!(prefixes.find(1, &[2, 1, 3]), None);
    }

    #[test]
    fn one_user_never_finds_what_another_left() {
        let mut prefixes = Prefixes::new(1 << 20);
        prefixes.keep(1, vec![1], (), 10);
        assert_eq!(prefixes.find(2, &[1, 2]), None);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut prefixes = Prefixes::new(40);
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
}
