//! Decides who runs next. Pure: never touches the engine, a socket or the clock.
//!
//! Start-time fair queueing on two levels: callers share the engine equally, and a caller's share
//! is divided equally among its requests. Work is counted in [`Cost`], so after one long prefill
//! pass the others decode until they have had as much.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub id: u64,
    pub uid: u32,
}

#[derive(Default)]
pub struct Plan {
    callers: Turns<u32>,
    requests: HashMap<u32, Turns<u64>>,
}

impl Plan {
    /// Who of `ready` runs next; `None` where nobody is ready.
    pub fn next(&self, ready: &[Standing]) -> Option<Standing> {
        let within = |s: &Standing| self.requests.get(&s.uid).map(|t| t.place(s.id));
        let order = |s: &Standing| (self.callers.place(s.uid), s.uid, within(s), s.id);
        ready.iter().copied().min_by_key(order)
    }

    pub fn charge(&mut self, who: Standing, cost: Cost) {
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
mod tests {
    use super::*;

    const A: Standing = Standing { id: 1, uid: 10 };
    const A2: Standing = Standing { id: 2, uid: 10 };
    const B: Standing = Standing { id: 3, uid: 20 };

    fn served(plan: &mut Plan, ready: &[Standing], steps: usize) -> HashMap<u64, usize> {
        let mut counts = HashMap::new();
        for _ in 0..steps {
            let who = plan.next(ready).expect("somebody is ready");
            plan.charge(who, DECODE_COST);
            *counts.entry(who.id).or_default() += 1;
        }
        counts
    }

    #[test]
    fn nobody_ready_is_nobody_next() {
        assert_eq!(Plan::default().next(&[]), None);
    }

    #[test]
    fn two_requests_of_one_caller_take_turns() {
        let counts = served(&mut Plan::default(), &[A, A2], 10);
        assert_eq!((counts[&1], counts[&2]), (5, 5));
    }

    #[test]
    fn a_caller_with_two_requests_gets_no_more_than_one_with_one() {
        let counts = served(&mut Plan::default(), &[A, A2, B], 40);
        assert_eq!((counts[&1], counts[&2], counts[&3]), (10, 10, 20));
    }

    #[test]
    fn after_a_long_prefill_pass_the_others_decode_as_much() {
        let mut plan = Plan::default();
        plan.charge(A, prefill_cost(160));
        let counts = served(&mut plan, &[A, B], 10);
        assert_eq!((counts.get(&1), counts[&3]), (None, 10));
    }

    #[test]
    fn who_comes_back_is_next_but_is_not_owed_the_time_away() {
        let mut plan = Plan::default();
        served(&mut plan, &[A, B], 2);
        served(&mut plan, &[A], 100);
        assert_eq!(plan.next(&[A, B]), Some(B));
        let counts = served(&mut plan, &[A, B], 20);
        assert!(counts[&1] >= 9, "{counts:?}");
    }

    #[test]
    fn a_caller_that_left_leaves_nothing_behind() {
        let mut plan = Plan::default();
        served(&mut plan, &[A, A2, B], 9);
        plan.leave(A, false);
        plan.leave(A2, true);
        plan.leave(B, true);
        assert!(plan.requests.is_empty() && plan.callers.served.is_empty());
    }
}
