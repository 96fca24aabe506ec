//! What runs next. One thread of its own owns the model and every sequence; callers hear through
//! the channel that came with their request. Knows no socket, no wire format and no caller's text.

pub mod beside;
mod deliver;
mod model;
pub mod plan;
mod prefixes;
mod queue;
mod running;
mod stats;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use model::{Fault, Model};
pub use stats::Stats;

use crate::request::{Caller, Event, Failure, Refusal, Sampling, Stop, Token};
use crate::text::{Constraint, Expect, Tokenizer};
use beside::Beside;
use deliver::{Outbox, Reader};
use plan::{Plan, Standing};
use prefixes::Prefixes;
use queue::{Mode, Queue};
use running::Running;

/// A request that `service` has checked: the prompt is neither empty nor too long, every number is
/// in range. Only this is queued.
pub struct Admitted {
    pub caller: Caller,
    pub arrived: Instant,
    /// At least one token, all inside the vocabulary.
    pub prompt: Vec<Token>,
    pub style: Style,
    pub sampling: Sampling,
    pub seed: u64,
    pub stop: Stop,
    /// What the context leaves, at most.
    pub max_tokens: usize,
    /// At least 1.
    pub n: usize,
    pub logprobs: Option<usize>,
    /// Send the prompt's log-probabilities first.
    pub scores_prompt: bool,
    /// One for each choice, or none at all.
    pub constraints: Vec<Constraint>,
    pub events: mpsc::Sender<Event>,
}

/// How the answer's tokens become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A continuation: text, whatever it says.
    Raw,
    /// A turn of a conversation: reasoning and tool calls are told apart.
    Chat(Expect),
}

/// How long a full channel is waited for when everything ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests that run side by side. As many again may be parked, their callers not reading.
    pub max_concurrent: usize,
    pub max_queue: usize,
    /// Prompt tokens per pass. Fixed, whoever else runs: a different cut rounds differently, and
    /// what a request says must not depend on its neighbours.
    pub chunk: usize,
    /// Bytes of conversation states kept for the next turn.
    pub prefix_bytes: usize,
    /// How long a caller may leave its answer unread.
    pub patience: Duration,
}

/// The scheduler as the other threads see it.
pub struct Scheduler {
    queue: Arc<Queue>,
    stats: Arc<Stats>,
    wishes: Arc<Mutex<Wishes>>,
}

/// What other threads want of the engine's, which takes it up between two passes.
#[derive(Default)]
struct Wishes {
    limits: Option<Limits>,
    forget: bool,
}

/// Resolves when the engine's thread has ended: `Err` with what it said if it panicked.
pub type Ended = oneshot::Receiver<Result<(), String>>;

impl Scheduler {
    pub fn start<M: Model + Send + 'static>(
        model: M,
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
    ) -> std::io::Result<(Scheduler, Ended)> {
        let queue = Arc::new(Queue::new(limits.max_queue));
        let stats = Arc::new(Stats::new());
        let wishes = Arc::new(Mutex::new(Wishes::default()));
        let (say_ended, ended) = oneshot::channel();
        let (for_runner, counted, wished) = (queue.clone(), stats.clone(), wishes.clone());
        let at_the_end = queue.clone();
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                // The runner lives and dies inside: sequences need not move between threads, and
                // when it panics its callers' channels close, which they report.
                let run = AssertUnwindSafe(move || {
                    let mut runner = Runner {
                        prefixes: Prefixes::new(limits.prefix_bytes),
                        running: Vec::new(),
                        plan: Plan::default(),
                        beside: Beside::default(),
                        next_id: 0,
                        queue: for_runner,
                        stats: counted,
                        wishes: wished,
                        model,
                        tokenizer,
                        limits,
                    };
                    runner.run();
                });
                let result = std::panic::catch_unwind(run).map_err(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or(panic.downcast_ref::<&str>().copied());
                    text.unwrap_or("a panic without a text").to_owned()
                });
                at_the_end.break_off();
                // Nobody waits for the end where the daemon itself is gone.
                let _ = say_ended.send(result);
            })?;
        let scheduler = Scheduler {
            queue,
            stats,
            wishes,
        };
        Ok((scheduler, ended))
    }

    pub fn push(&self, request: Admitted) -> Result<(), Refusal> {
        self.queue.push(request)
    }

    /// Takes nothing more. What runs may end by itself until the deadline, then it is cut.
    /// A second call moves the deadline.
    pub fn stop(&self, deadline: Instant) {
        self.queue.stop(deadline);
    }

    /// New limits, from the next pass on: nobody who runs or waits is sent away. The prompt tokens
    /// per pass stay as they were: answers under way must not round differently.
    pub fn renew(&self, limits: Limits) {
        self.queue.set_max(limits.max_queue);
        lock(&self.wishes).limits = Some(limits);
    }

    /// Gives back the states kept for next turns.
    pub fn forget(&self) {
        lock(&self.wishes).forget = true;
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

fn lock(wishes: &Mutex<Wishes>) -> MutexGuard<'_, Wishes> {
    // Whole at every moment, whoever panicked.
    wishes.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Runner<M: Model> {
    model: M,
    tokenizer: Arc<Tokenizer>,
    limits: Limits,
    queue: Arc<Queue>,
    stats: Arc<Stats>,
    wishes: Arc<Mutex<Wishes>>,
    running: Vec<Running<M>>,
    plan: Plan,
    beside: Beside,
    prefixes: Prefixes<M::Snapshot>,
    next_id: u64,
}

impl<M: Model> Runner<M> {
    fn run(&mut self) {
        loop {
            self.stats.heartbeat.fetch_add(1, Relaxed);
            self.take_wishes();
            let mode = self.queue.mode();
            let ready = self.deliver();
            match mode {
                Mode::Running => {}
                Mode::Stopping { deadline } if Instant::now() < deadline => {}
                Mode::Stopping { .. } | Mode::Broken => return self.cut(),
            }
            if mode != Mode::Running && self.running.is_empty() {
                return;
            }
            if self.take_up(ready.len()) {
                continue;
            }
            match self.plan.next(&ready) {
                Some(who) => self.step(who),
                // Parked callers wake nobody when they read; a new request does.
                None if !self.running.is_empty() => {
                    self.queue.wait(mode, Duration::from_millis(5));
                    // With no room for it, what waits would make this a busy loop.
                    if self.queue.len() > 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                None => self.queue.wait(mode, Duration::from_millis(500)),
            }
        }
    }

    fn take_wishes(&mut self) {
        let Wishes { limits, forget } = std::mem::take(&mut *lock(&self.wishes));
        if let Some(limits) = limits {
            self.prefixes.set_budget(limits.prefix_bytes);
            self.limits = Limits {
                chunk: self.limits.chunk,
                ..limits
            };
        }
        if forget {
            self.prefixes.clear();
        }
        self.stats
            .prefix_bytes
            .store(self.prefixes.bytes(), Relaxed);
    }

    /// Starts one waiting request if there is room; whether it did.
    fn take_up(&mut self, n_ready: usize) -> bool {
        let max = self.limits.max_concurrent;
        if n_ready >= max || self.running.len() >= 2 * max {
            return false;
        }
        let Some(request) = self.queue.pop() else {
            return false;
        };
        self.next_id += 1;
        self.stats.started(request.caller.uid);
        let begun = Running::start(
            self.next_id,
            request,
            &mut self.model,
            &self.tokenizer,
            &mut self.prefixes,
        );
        match begun {
            Ok(running) => self.running.push(running),
            Err(refused) => {
                let (request, e) = *refused;
                log::warn!("a request could not start: {e}");
                let mut outbox = Outbox::new(request.events);
                outbox.push(failed(&e));
                outbox.flush(Instant::now(), self.limits.patience);
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
            match r.outbox.flush(now, self.limits.patience) {
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

    fn step(&mut self, who: Standing) {
        let Some(at) = self.running.iter().position(|r| r.standing == who) else {
            return;
        };
        let running = &mut self.running[at];
        let before = running.usage;
        let result = running.step(
            &mut self.model,
            &self.tokenizer,
            &mut self.prefixes,
            &mut self.beside,
            self.limits.chunk,
        );
        let usage = running.usage;
        let new = usage.completion_tokens - before.completion_tokens;
        for i in 0..new {
            let is_first = before.completion_tokens + i == 0;
            let waited = running.since_last_token();
            self.stats.token(who.uid, waited, is_first);
        }
        if before.completion_tokens == 0 && (new > 0 || running.is_finished()) {
            let prompt = usage.prompt_tokens as u64;
            self.stats.prompt_tokens.fetch_add(prompt, Relaxed);
            let cached = usage.cached_tokens as u64;
            self.stats.cached_tokens.fetch_add(cached, Relaxed);
        }
        match result {
            Ok(cost) => self.plan.charge(who, cost),
            Err(e) => {
                log::error!("a request of user {} failed: {e}", who.uid);
                // It stays until its caller has room to hear this.
                running.fail(&e);
            }
        }
    }

    /// The last word to everyone, with a moment for those whose channel is full.
    fn cut(&mut self) {
        for running in &mut self.running {
            running.outbox.push(Event::Failed(Failure::Stopped));
        }
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            let now = Instant::now();
            let unheard = |r: &mut Running<M>| r.outbox.flush(now, LAST_WORDS) == Reader::Parked;
            self.running.retain_mut(unheard);
            if self.running.is_empty() || now >= deadline {
                return self.running.clear();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn failed(e: &Fault) -> Event {
    Event::Failed(Failure::Engine(e.to_string()))
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
