//! What was used last, up to so many bytes. Knows nothing of what it holds.

use std::collections::HashMap;
use std::hash::Hash;

pub(super) struct Recent<K, V> {
    all: HashMap<K, Entry<V>>,
    most: usize,
    bytes: usize,
    clock: u64,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Hash + Eq + Copy, V> Recent<K, V> {
    pub fn new(most: usize) -> Recent<K, V> {
        Recent {
            all: HashMap::new(),
            most,
            bytes: 0,
            clock: 0,
        }
    }

    pub fn find(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let entry = self.all.get_mut(key)?;
        entry.used = self.clock;
        Some(&entry.value)
    }

    /// As [`Recent::find`], and no use of it.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.all.get(key).map(|entry| &entry.value)
    }

    pub fn keep(&mut self, key: K, value: V, bytes: usize) {
        self.clock += 1;
        let used = self.clock;
        self.bytes += bytes;
        let entry = Entry { value, bytes, used };
        if let Some(old) = self.all.insert(key, entry) {
            self.bytes -= old.bytes;
        }
        self.shrink();
    }

    /// By a quarter at once, so that a full one is not searched at every turn.
    fn shrink(&mut self) {
        if self.bytes <= self.most {
            return;
        }
        let mut by_use: Vec<_> = self.all.iter().map(|(k, e)| (e.used, *k)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= self.most / 4 * 3 {
                return;
            }
            if let Some(old) = self.all.remove(&key) {
                self.bytes -= old.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_outlives_a_full_one() {
        let mut recent = Recent::new(400);
        for n in 0..4 {
            recent.keep(n, n, 100);
        }
        assert_eq!(recent.find(&0), Some(&0));
        recent.keep(4, 4, 1);
        let left = [0, 1, 4].map(|n| recent.peek(&n).is_some());
        assert_eq!(left, [true, false, true]);
    }

    #[test]
    fn what_takes_anothers_place_takes_no_more_than_itself() {
        let mut recent = Recent::new(400);
        for _ in 0..100 {
            recent.keep(1, 'a', 200);
            recent.keep(2, 'b', 200);
        }
        assert_eq!([1, 2].map(|n| recent.peek(&n).is_some()), [true, true]);
    }
}
