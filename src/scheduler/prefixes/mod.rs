//! States kept in memory so that the next turn does not read the conversation again. Bounded in
//! bytes: what saves least for what it takes goes first. Never shared between users: the time to the
//! first token would tell one what another asked.

mod tree;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Line;
use crate::request::{Miss, Token};
use tree::Tree;

/// In so many looks and keeps, what a state that nobody uses is worth halves: about twenty requests.
const HALF_LIFE: f64 = 64.0;
/// Lines without a state that are remembered, to say why it is not there.
const BARE: usize = 256;

/// Lines of requests of a user whose ends stay.
const LINES: usize = 64;

/// What is kept, for other threads to ask.
#[derive(Default)]
pub struct Index {
    hash: RandomState,
    known: Mutex<HashSet<(u32, u64)>>,
}

impl Index {
    pub fn holds(&self, uid: u32, tokens: &[Token]) -> bool {
        self.lock().contains(&(uid, self.key(tokens)))
    }

    fn key(&self, tokens: &[Token]) -> u64 {
        self.hash.hash_one(tokens)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(u32, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Prefixes<S> {
    index: Arc<Index>,
    users: HashMap<u32, User<S>>,
    /// Bytes of a state that another one does not hold too.
    held: fn(&S, Option<&S>) -> usize,
    budget: usize,
    /// What the machine leaves of it.
    bound: usize,
    /// Nothing more is kept for now.
    held_off: bool,
    clock: u64,
}

struct User<S> {
    tree: Tree<S>,
    /// A state was too large to be kept at all.
    refused: bool,
    /// Of each line of requests, the newest last: its name, the state at its end, and what that is
    /// known by.
    lines: Vec<(String, usize, u64)>,
}

/// What is there of a prompt.
pub struct Found<'a, S> {
    /// The longest state kept that the prompt goes on from, and how many tokens it has seen.
    pub state: Option<(&'a S, usize)>,
    /// Why there is no longer one.
    pub miss: Option<Miss>,
    /// So many tokens were known.
    pub known: usize,
}

impl<S> Prefixes<S> {
    pub fn new(budget: usize, index: Arc<Index>, held: fn(&S, Option<&S>) -> usize) -> Prefixes<S> {
        Prefixes {
            index,
            users: HashMap::new(),
            held,
            budget,
            bound: usize::MAX,
            held_off: false,
            clock: 0,
        }
    }

    fn user(&mut self, uid: u32) -> &mut User<S> {
        let held = self.held;
        self.users.entry(uid).or_insert_with(|| User {
            tree: Tree::new(held),
            refused: false,
            lines: Vec::new(),
        })
    }

    /// From now on nobody has room for more, or has again.
    pub fn hold_off(&mut self, held_off: bool) {
        self.held_off = held_off;
    }

    /// Gives back half of what is kept.
    pub fn halve(&mut self) {
        let half = self.bytes() / 2;
        let budget = std::mem::replace(&mut self.budget, half);
        self.shrink();
        self.budget = budget;
    }

    /// Whether a state of this size could be kept at all; that it could not is remembered.
    pub fn has_room_for(&mut self, uid: u32, bytes: usize) -> bool {
        if self.held_off {
            return false;
        }
        let fits = bytes <= self.room();
        self.user(uid).refused |= !fits;
        fits
    }

    /// At least one token of the prompt is left to feed: it gives the first logits.
    pub fn find(&mut self, uid: u32, prompt: &[Token]) -> Found<'_, S> {
        self.clock += 1;
        let clock = self.clock;
        let User { tree, refused, .. } = self.user(uid);
        let walk = tree.walk(prompt);
        let most = prompt.len().saturating_sub(1);
        let deepest = tree.deepest(&walk, most);
        let depth = deepest.map_or(0, |(_, depth)| depth);
        if let Some((at, _)) = deepest {
            tree.touch(at, clock);
        }
        let miss = if tree.is_empty() && *refused {
            Some(Miss::NoState)
        } else if tree.is_empty() {
            Some(Miss::Empty)
        } else if tree.lost(&walk, depth) {
            Some(Miss::Evicted)
        } else if walk.parts && (walk.matched > depth || depth == 0) {
            let (at, message) = (walk.matched, 0);
            Some(Miss::Diverged { at, message })
        } else if walk.matched > depth {
            Some(Miss::NoState)
        } else {
            None
        };
        let kept = deepest.and_then(|(at, depth)| Some((&tree.kept(at)?.snapshot, depth)));
        Found {
            state: kept,
            miss,
            known: walk.matched,
        }
    }

    /// `until`: it is to stay so long, whatever it saves.
    pub fn keep(&mut self, uid: u32, tokens: &[Token], snapshot: S, until: Option<Instant>) {
        self.clock += 1;
        let (clock, key) = (self.clock, self.index.key(tokens));
        let tree = &mut self.user(uid).tree;
        let at = tree.keep(tokens, key, snapshot, clock);
        tree.pin(at, until);
        self.index.lock().insert((uid, key));
        self.shrink();
    }

    /// As [`Prefixes::keep`], of a state that is there; whether it is.
    pub fn pin(&mut self, uid: u32, tokens: &[Token], until: Option<Instant>) -> bool {
        let tree = &mut self.user(uid).tree;
        let at = tree.at(tokens);
        if let Some(at) = at {
            tree.pin(at, until);
        }
        at.is_some()
    }

    /// The state after these tokens stays as the end of a line, and the one that was it before does
    /// not have to.
    pub fn follow(&mut self, uid: u32, line: &Line, tokens: &[Token]) {
        let key = self.index.key(tokens);
        let User { tree, lines, .. } = self.user(uid);
        let Some(at) = tree.at(tokens) else { return };
        let before = lines.iter().position(|(name, ..)| *name == line.name);
        let before = before.or((lines.len() >= LINES).then_some(0));
        if let Some(i) = before {
            let (_, was, known) = lines.remove(i);
            if tree.kept(was).is_some_and(|kept| kept.key == known) {
                tree.unpin(was);
            }
        }
        tree.pin(at, Some(line.until));
        lines.push((line.name.clone(), at, key));
    }

    /// A smaller budget is kept to at once.
    pub fn set_budget(&mut self, budget: usize) {
        self.budget = budget;
        self.shrink();
    }

    /// As [`Prefixes::set_budget`], of what there is for all: the smaller of the two counts.
    pub fn set_bound(&mut self, bound: usize) {
        self.bound = bound;
        self.shrink();
    }

    fn room(&self) -> usize {
        self.budget.min(self.bound)
    }

    /// Gives all of it back; the next turns read their conversations again.
    pub fn clear(&mut self) {
        self.users.clear();
        self.index.lock().clear();
    }

    /// The longest kept state of these tokens' beginning, with its length.
    pub fn longest(&self, uid: u32, tokens: &[Token]) -> Option<(&S, usize)> {
        let tree = &self.users.get(&uid)?.tree;
        let (at, depth) = tree.deepest(&tree.walk(tokens), tokens.len())?;
        Some((&tree.kept(at)?.snapshot, depth))
    }

    /// Gives back every state of these tokens' beginning.
    pub fn drop_all(&mut self, uid: u32, tokens: &[Token]) {
        let tree = &self.user(uid).tree;
        let walk = tree.walk(tokens);
        let all = tree.on(&walk);
        all.into_iter().for_each(|at| self.drop_at(uid, at));
    }

    /// Gives back those of these tokens' beginning that are lost.
    pub fn drop_lost(&mut self, uid: u32, tokens: &[Token], is_lost: fn(&S) -> bool) {
        let tree = &self.user(uid).tree;
        let mut lost = tree.on(&tree.walk(tokens));
        lost.retain(|&at| tree.kept(at).is_some_and(|k| is_lost(&k.snapshot)));
        lost.into_iter().for_each(|at| self.drop_at(uid, at));
    }

    fn drop_at(&mut self, uid: u32, at: usize) {
        let taken = self.users.get_mut(&uid).and_then(|u| u.tree.take(at));
        if let Some(gone) = taken {
            self.index.lock().remove(&(uid, gone.key));
        }
    }

    fn shrink(&mut self) {
        let room = self.room();
        while self.bytes() > room {
            // What only says why something is not there takes next to nothing.
            let (n, bytes, oldest) = self.bare();
            match (oldest, self.least()) {
                (Some((uid, at)), _) if n > BARE || bytes > room / 16 => self.cut(uid, at),
                (_, Some((uid, at))) => self.drop_at(uid, at),
                (Some((uid, at)), None) => self.cut(uid, at),
                (None, None) => return,
            }
        }
    }

    fn cut(&mut self, uid: u32, at: usize) {
        if let Some(user) = self.users.get_mut(&uid) {
            user.tree.cut(at);
        }
    }

    /// Lines without a state: how many, the bytes of their ends, and the oldest.
    fn bare(&self) -> (usize, usize, Option<(u32, usize)>) {
        let users = self.users.iter();
        let bare = users.flat_map(|(uid, user)| user.tree.bare().map(|b| (*uid, b)));
        let (mut n, mut bytes, mut oldest) = (0, 0, None);
        for (uid, (at, used, tokens)) in bare {
            n += 1;
            bytes += tokens * size_of::<Token>();
            oldest = oldest.min(Some((used, uid, at))).or(Some((used, uid, at)));
        }
        (n, bytes, oldest.map(|(_, uid, at)| (uid, at)))
    }

    /// The state that saves least for what it takes: tokens since the one above it, which would be
    /// gone back to, for each byte that would be free.
    fn least(&self) -> Option<(u32, usize)> {
        let now = Instant::now();
        let each = self.users.iter().flat_map(|(uid, user)| {
            user.tree.each().map(|(at, since, freed, used, pinned)| {
                let age = self.clock.saturating_sub(used) as f64;
                let worth = since as f64 / freed.max(1) as f64 * (-age / HALF_LIFE).exp2();
                let stays = pinned.is_some_and(|until| until > now);
                ((stays, worth), (*uid, at))
            })
        });
        let least = each.min_by(|((a, x), _), ((b, y), _)| a.cmp(b).then(x.total_cmp(y)));
        least.map(|(_, who)| who)
    }

    pub fn bytes(&self) -> usize {
        self.users.values().map(|u| u.tree.bytes()).sum()
    }
}

#[cfg(test)]
mod tests;
