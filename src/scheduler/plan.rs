//! Decides what the next pass holds. Pure: never touches the engine, a socket or the clock.
//!
//! A pass is for many: every answer under way gets a token, and prompts get the rows that are left.
//! Where not all fit, start-time fair queueing on two levels decides: callers share the engine
//! equally, and a caller's share is divided equally among its requests. Work is counted in [`Cost`].

use std::collections::HashMap;
use std::hash::Hash;

/// In decoded tokens' worth of time.
pub type Cost = u64;

/// Prompt tokens that take as long as decoding one token: a prefill pass reads each weight once
/// for all its tokens, decoding reads them for one.
const PROMPT_TOKENS_PER_COST: usize = 16;

pub fn prefill_cost(n_tokens: usize) -> Cost {
    (n_tokens / PROMPT_TOKENS_PER_COST).max(1) as Cost
}

pub const DECODE_COST: Cost = 1;

/// A running request as the plan sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standing {
    pub id: u64,
    pub uid: u32,
}

/// What a request could do in the next pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// So much of its prompt is unread, of which one pass may read `most`.
    Prompt { left: usize, most: usize },
    /// So many of its answers want a token each.
    Answers(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub who: Standing,
    pub work: Work,
}

/// So many prompt tokens, or answers that get a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    pub who: Standing,
    pub n: usize,
}

/// What one pass may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Answers that get a token.
    pub answers: usize,
    /// Rows in all.
    pub rows: usize,
    /// Prompt rows beside answers: each of them waits for these.
    pub beside: usize,
    /// Prompts are read in pieces of `rows` and in passes of their own: a model that rounds
    /// differently at another cut must not say something else because of its neighbours.
    pub fixed_cut: bool,
}

#[derive(Default)]
pub struct Plan {
    callers: Turns<u32>,
    requests: HashMap<u32, Turns<u64>>,
}

impl Plan {
    /// The next pass, and charges it; empty where nobody wishes anything.
    pub fn batch(&mut self, wishes: &[Wish], room: &Room) -> Vec<Grant> {
        let first = wishes.iter().min_by_key(|w| self.order(w.who));
        if room.fixed_cut
            && let Some(&Wish { who, work }) = first
            && let Work::Prompt { left, most } = work
        {
            let n = left.min(most).min(room.rows);
            self.charge(who, prefill_cost(n));
            return vec![Grant { who, n }];
        }
        let mut grants = self.answers(wishes, room.answers.min(room.rows));
        let n: usize = grants.iter().map(|g| g.n).sum();
        if n == 0 {
            self.prompts(wishes, room.rows, &mut grants);
        } else if !room.fixed_cut {
            self.prompts(wishes, room.beside.min(room.rows - n), &mut grants);
        }
        grants
    }

    /// One lane after the other to whoever is next, so that a request with many answers gets no
    /// more than its share of too few lanes.
    fn answers(&mut self, wishes: &[Wish], lanes: usize) -> Vec<Grant> {
        let count = |w: &Wish| match w.work {
            Work::Answers(n) => Some((w.who, n)),
            Work::Prompt { .. } => None,
        };
        let mut open: Vec<(Standing, usize)> = wishes.iter().filter_map(count).collect();
        open.retain(|(_, n)| *n > 0);
        let mut grants: Vec<Grant> = Vec::new();
        for _ in 0..lanes {
            let next = (0..open.len()).min_by_key(|&i| self.order(open[i].0));
            let Some(at) = next else { break };
            let who = open[at].0;
            self.charge(who, DECODE_COST);
            match grants.iter_mut().find(|g| g.who == who) {
                Some(grant) => grant.n += 1,
                None => grants.push(Grant { who, n: 1 }),
            }
            open[at].1 -= 1;
            if open[at].1 == 0 {
                open.swap_remove(at);
            }
        }
        grants
    }

    /// Prompts that end in this pass go first, in half of the rows; what is left goes by turns, so
    /// that a long prompt gets on however many short ones come.
    fn prompts(&mut self, wishes: &[Wish], rows: usize, grants: &mut Vec<Grant>) {
        let unread = |w: &Wish| match w.work {
            Work::Prompt { left, most } => Some((w.who, left, left.min(most))),
            Work::Answers(_) => None,
        };
        let mut open: Vec<_> = wishes.iter().filter_map(unread).collect();
        open.sort_by_key(|(who, ..)| self.order(*who));
        let (mut for_short, mut rows) = (rows / 2, rows);
        let mut give = |plan: &mut Plan, who: Standing, n: usize| {
            plan.charge(who, prefill_cost(n));
            grants.push(Grant { who, n });
        };
        open.retain(|&(who, left, most)| {
            let fits = left == most && left <= for_short;
            if fits {
                for_short -= left;
                rows -= left;
                give(self, who, left);
            }
            !fits
        });
        for (who, _, most) in open {
            let n = most.min(rows);
            if n == 0 {
                return;
            }
            rows -= n;
            give(self, who, n);
        }
    }

    fn order(&self, who: Standing) -> impl Ord + use<> {
        let within = self.requests.get(&who.uid).map(|t| t.place(who.id));
        (self.callers.place(who.uid), who.uid, within, who.id)
    }

    fn charge(&mut self, who: Standing, cost: Cost) {
        self.callers.charge(who.uid, cost);
        self.requests
            .entry(who.uid)
            .or_default()
            .charge(who.id, cost);
    }

    /// The request has ended; `last` says that its caller has no other one running.
    pub fn leave(&mut self, who: Standing, last: bool) {
        if last {
            self.requests.remove(&who.uid);
            self.callers.served.remove(&who.uid);
        } else if let Some(turns) = self.requests.get_mut(&who.uid) {
            turns.served.remove(&who.id);
        }
    }
}

struct Turns<K> {
    /// Where the one served last stood: nobody can stand behind it, so who comes or comes back
    /// is served soon but is not owed the time it was away.
    clock: u64,
    served: HashMap<K, u64>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Turns {
            clock: 0,
            served: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq> Turns<K> {
    fn place(&self, who: K) -> (u64, u64) {
        let served = self.served.get(&who).copied().unwrap_or(0);
        (served.max(self.clock), served)
    }

    fn charge(&mut self, who: K, cost: Cost) {
        let served = self.served.entry(who).or_insert(0);
        self.clock = self.clock.max(*served);
        *served = self.clock + cost;
    }
}

#[cfg(test)]
mod tests;
