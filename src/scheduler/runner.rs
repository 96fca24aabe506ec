//! The engine's thread: turn after turn it delivers, takes up who waits and runs the next pass.
//! Decides nothing about who is granted, and knows nothing of what a request says.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::beside::Beside;
use super::deliver::{Outbox, Reader};
use super::kept::Kept;
use super::model::Model;
use super::plan::{Plan, Room, Standing, Wish};
use super::queue::{Mode, Queue};
use super::running::{House, Running};
use super::step::step;
use super::{Limits, Stats, failed, lock};
use crate::request::{Event, Failure};
use crate::text::Tokenizer;

/// How long a full channel is waited for when everything ends.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Prompt rows of a pass that answers wait for.
const ROWS_BESIDE: usize = 64;

pub struct Runner<M: Model> {
    model: M,
    tokenizer: Arc<Tokenizer>,
    limits: Limits,
    queue: Arc<Queue>,
    /// Ends a wait when a parked caller reads.
    waker: Waker,
    stats: Arc<Stats>,
    renewed: Arc<Mutex<Option<Limits>>>,
    running: Vec<Running<M>>,
    plan: Plan,
    beside: Beside,
    kept: Arc<Kept<M>>,
    next_id: u64,
}

/// What other threads have a hold of, too.
pub struct Shared<M: Model> {
    pub queue: Arc<Queue>,
    pub stats: Arc<Stats>,
    pub renewed: Arc<Mutex<Option<Limits>>>,
    pub kept: Arc<Kept<M>>,
}

impl<M: Model> Runner<M> {
    pub fn new(
        model: M,
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
        shared: Shared<M>,
    ) -> Runner<M> {
        let Shared {
            queue,
            stats,
            renewed,
            kept,
        } = shared;
        Runner {
            kept,
            running: Vec::new(),
            plan: Plan::default(),
            beside: Beside::default(),
            next_id: 0,
            waker: Waker::from(queue.clone()),
            queue,
            stats,
            renewed,
            model,
            tokenizer,
            limits,
        }
    }

    /// Until it is told to stop, or `Err` with the reason why the model is lost.
    pub fn run(&mut self) -> Result<(), String> {
        loop {
            self.stats.heartbeat.fetch_add(1, Relaxed);
            self.take_limits();
            let mode = self.queue.mode();
            let ready = self.deliver();
            if let Some(why) = self.model.lost() {
                self.cut(&Failure::Engine(why.clone()));
                return Err(why);
            }
            match mode {
                Mode::Running => {}
                Mode::Stopping { deadline } if Instant::now() < deadline => {}
                Mode::Stopping { .. } | Mode::Broken => {
                    self.cut(&Failure::Stopped);
                    return Ok(());
                }
            }
            if mode != Mode::Running && self.running.is_empty() {
                return Ok(());
            }
            if self.take_up(ready.len()) {
                continue;
            }
            if !self.step(&ready) {
                let has_room = self.has_room(ready.len());
                self.queue.wait(mode, has_room, Duration::from_millis(500));
            }
        }
    }

    fn take_limits(&mut self) {
        if let Some(limits) = lock(&self.renewed).take() {
            self.kept.lock().set_budget(limits.prefix_bytes);
            self.limits = Limits {
                chunk: self.limits.chunk,
                ..limits
            };
        }
        self.kept.count();
    }

    fn has_room(&self, n_ready: usize) -> bool {
        let max = self.limits.max_concurrent;
        n_ready < max && self.running.len() < 2 * max
    }

    /// Starts one waiting request if there is room; whether it did.
    fn take_up(&mut self, n_ready: usize) -> bool {
        if !self.has_room(n_ready) {
            return false;
        }
        let Some(request) = self.queue.pop() else {
            return false;
        };
        self.next_id += 1;
        self.stats.started(request.caller.uid);
        let mut house = House {
            model: &mut self.model,
            tokenizer: &self.tokenizer,
            kept: &self.kept,
            stats: &self.stats,
        };
        let begun = Running::start(self.next_id, request, &mut house);
        match begun {
            Ok(running) => self.running.push(running),
            Err(refused) => {
                let (request, e) = *refused;
                log::warn!("a request could not start: {e}");
                let mut outbox = Outbox::new(request.events);
                outbox.push(failed(&e));
                outbox.flush(Instant::now(), self.limits.patience, &self.waker);
            }
        }
        self.stats.running.store(self.running.len(), Relaxed);
        true
    }

    /// Sends what can be sent, forgets who has left or is done, and returns who can run.
    fn deliver(&mut self) -> Vec<Standing> {
        let now = Instant::now();
        let mut ready = Vec::with_capacity(self.running.len());
        let mut left = Vec::new();
        self.running.retain_mut(|r| {
            match r.outbox.flush(now, self.limits.patience, &self.waker) {
                Reader::Listening if r.is_finished() => left.push(r.standing),
                Reader::Listening => ready.push(r.standing),
                Reader::Parked => {}
                Reader::Gone => left.push(r.standing),
            }
            left.last().is_none_or(|l| l.id != r.standing.id)
        });
        for who in left {
            let last = self.running.iter().all(|r| r.standing.uid != who.uid);
            self.plan.leave(who, last);
        }
        self.stats.running.store(self.running.len(), Relaxed);
        ready
    }

    /// Runs the next pass; whether there was any to run.
    fn step(&mut self, ready: &[Standing]) -> bool {
        let wishes = self.running.iter().filter(|r| ready.contains(&r.standing));
        let wishes: Vec<Wish> = wishes.filter_map(Running::wish).collect();
        let room = Room {
            answers: self.limits.max_concurrent,
            rows: self.limits.chunk,
            beside: ROWS_BESIDE,
            fixed_cut: !self.model.is_batch_invariant(),
        };
        let grants = self.plan.batch(&wishes, &room);
        if grants.is_empty() {
            return false;
        }
        let mut house = House {
            model: &mut self.model,
            tokenizer: &self.tokenizer,
            kept: &self.kept,
            stats: &self.stats,
        };
        let n_lanes = step(&mut self.running, &grants, &mut self.beside, &mut house);
        if n_lanes > 0 {
            self.stats.pass_lanes.observe(n_lanes as f64);
        }
        true
    }

    /// The last word to everyone, with a moment for those whose channel is full.
    fn cut(&mut self, word: &Failure) {
        for running in self.running.iter_mut().filter(|r| !r.is_finished()) {
            running.outbox.push(Event::Failed(word.clone()));
        }
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            let now = Instant::now();
            let flush = |r: &mut Running<M>| r.outbox.flush(now, LAST_WORDS, &self.waker);
            let unheard = |r: &mut Running<M>| flush(r) == Reader::Parked;
            self.running.retain_mut(unheard);
            if self.running.is_empty() || now >= deadline {
                return self.running.clear();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
