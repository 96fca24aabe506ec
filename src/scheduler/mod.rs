//! What runs next. One thread of its own owns the model and every sequence; callers hear through
//! the channel that came with their request. Knows no socket, no wire format and no caller's text.
//!
//! | file | job |
//! |---|---|
//! | `queue` | who waits |
//! | `memory` | who is refused because its states would not fit |
//! | `runner` | the engine's thread: one turn after the other |
//! | `plan` | what the next pass holds |
//! | `step` | the pass: lanes gathered, run, handed back |
//! | `running`, `choice` | a request, and one of its answers |
//! | `beside` | masks, while the pass runs |
//! | `deliver` | events to callers who may not read |
//! | `prefixes`, `kept` | states kept for next turns, and who may give them back when |
//! | `start` | with what state a request begins |
//! | `cuts` | where a prompt's reading stops to keep one |

pub mod beside;
mod choice;
mod cuts;
mod deliver;
mod kept;
mod memory;
mod model;
pub mod plan;
mod prefixes;
mod queue;
mod runner;
mod running;
mod start;
mod stats;
mod step;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use memory::Size;
pub use model::{Fault, Model, Outward};
pub use stats::Stats;

use crate::engine::HostState;
use crate::request::{Cached, Caller, Event, Failure, Refusal, Sampling, Stop, Token};
use crate::text::{Constraint, Expect, Tokenizer};
use kept::{Keeps, Kept};
use memory::Memory;
use prefixes::Index;
use queue::Queue;
use runner::{Runner, Shared};

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
    /// Say how far the prompt is read.
    pub reports: bool,
    /// A state from the disk that the prompt goes on from.
    pub resume: Option<Resume>,
    /// More of it is on disk, of another model.
    pub is_strange: bool,
    /// Where a chat's messages end.
    pub ends: Vec<End>,
    /// Where a state is to be kept, and until when.
    pub marks: Vec<Mark>,
    /// Whose newest answer's end is to be kept.
    pub line: Option<Line>,
    /// Told how much of the prompt was there when its turn came.
    pub found: oneshot::Sender<Cached>,
    /// One for each choice, or none at all.
    pub constraints: Vec<Constraint>,
    pub events: mpsc::Sender<Event>,
}

/// The end of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// So many tokens of the prompt are up to it.
    pub at: usize,
    /// The message's number; what a template puts before the first one belongs to that.
    pub message: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub at: usize,
    pub until: Instant,
}

/// A row of requests, by its user's name for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    pub until: Instant,
}

/// A state that has seen these tokens.
pub struct Resume {
    pub tokens: Vec<Token>,
    pub state: HostState,
}

/// How the answer's tokens become text.
#[derive(Clone)]
pub enum Style {
    /// A continuation: text, whatever it says.
    Raw,
    /// A turn of a conversation: reasoning and tool calls are told apart.
    Chat(Expect),
}

#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests that run side by side. As many again may be parked, their callers not reading.
    pub max_concurrent: usize,
    pub max_queue: usize,
    /// Rows per pass, of prompts and answers together.
    pub chunk: usize,
    /// Bytes of conversation states kept for the next turn.
    pub prefix_bytes: usize,
    /// Bytes that the states of one request may take.
    pub request_memory: usize,
    /// How long a caller may leave its answer unread.
    pub patience: Duration,
}

/// The scheduler as the other threads see it.
pub struct Scheduler {
    queue: Arc<Queue>,
    stats: Arc<Stats>,
    renewed: Arc<Mutex<Option<Limits>>>,
    kept: Arc<dyn Keeps>,
    memory: Memory,
    index: Arc<Index>,
}

/// Resolves when the engine's thread has ended: `Err` with what it said if it panicked, or with the
/// reason why its model is lost.
pub type Ended = oneshot::Receiver<Result<(), String>>;

impl Scheduler {
    pub fn start<M: Model + Send + 'static>(
        model: M,
        tokenizer: Arc<Tokenizer>,
        limits: Limits,
    ) -> std::io::Result<(Scheduler, Ended)> {
        let queue = Arc::new(Queue::new(limits.max_queue));
        let stats = Arc::new(Stats::new());
        let renewed = Arc::new(Mutex::new(None));
        let memory = Memory::new(&model, limits.max_concurrent, limits.request_memory);
        let index = Arc::new(Index::default());
        let (say_ended, ended) = oneshot::channel();
        let (budget, spare) = (limits.prefix_bytes, model.spare());
        let kept = Kept::<M>::new(budget, index.clone(), stats.clone(), spare);
        let kept = Arc::new(kept);
        let shared = Shared {
            queue: queue.clone(),
            stats: stats.clone(),
            renewed: renewed.clone(),
            kept: kept.clone(),
        };
        let at_the_end = (queue.clone(), kept.clone());
        std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                // The runner lives and dies inside: sequences need not move between threads, and
                // when it panics its callers' channels close, which they report.
                let run =
                    AssertUnwindSafe(move || Runner::new(model, tokenizer, limits, shared).run());
                let result = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or(panic.downcast_ref::<&str>().copied());
                    Err(text.unwrap_or("a panic without a text").to_owned())
                });
                let (queue, kept) = at_the_end;
                // What a model has left that is lost is not to be had any more.
                kept.clear();
                queue.break_off();
                // Nobody waits for the end where the daemon itself is gone.
                let _ = say_ended.send(result);
            })?;
        let scheduler = Scheduler {
            queue,
            stats,
            renewed,
            kept,
            memory,
            index,
        };
        Ok((scheduler, ended))
    }

    /// How long each of `n` answers to a prompt of so many tokens may grow, by the memory that
    /// their states take. `asked`: what the caller wants, which fits or is refused; `most`: what
    /// else bounds it.
    pub fn fit(
        &self,
        prompt: usize,
        n: usize,
        asked: Option<usize>,
        most: usize,
    ) -> Result<usize, Refusal> {
        self.memory.fit(prompt, n, asked, most)
    }

    /// Bytes of a state by its length.
    pub fn state_size(&self) -> Size {
        self.memory.size
    }

    pub fn push(&self, request: Admitted) -> Result<(), Refusal> {
        self.queue.push(request)
    }

    /// Takes nothing more. What runs may end by itself until the deadline, then it is cut.
    /// A second call moves the deadline.
    pub fn stop(&self, deadline: Instant) {
        self.queue.stop(deadline);
    }

    /// New limits, from the next pass on: nobody who runs or waits is sent away. The rows
    /// per pass and the memory of a request stay as they were.
    pub fn renew(&self, limits: Limits) {
        self.queue.set_max(limits.max_queue);
        *lock(&self.renewed) = Some(limits);
    }

    /// Whether a state of exactly these tokens is in memory.
    pub fn holds(&self, uid: u32, tokens: &[Token]) -> bool {
        self.index.holds(uid, tokens)
    }

    /// The longest state in memory of the beginning of these tokens, and how many it has seen.
    /// `leaves`: it and shorter ones go from memory.
    pub fn saved(&self, uid: u32, tokens: &[Token], leaves: bool) -> Option<(Outward, usize)> {
        self.kept.longest(uid, tokens, leaves)
    }

    /// Gives back the states kept for next turns.
    pub fn forget(&self) {
        self.kept.clear();
    }

    /// Gives back half of them.
    pub fn halve(&self) {
        self.kept.halve();
    }

    /// So many bytes of them at most, whatever the limits say.
    pub fn set_bound(&self, bytes: usize) {
        self.kept.set_bound(bytes);
    }

    /// No more are kept, or some are again.
    pub fn hold_off(&self, holds_off: bool) {
        self.kept.hold_off(holds_off);
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

fn lock(renewed: &Mutex<Option<Limits>>) -> MutexGuard<'_, Option<Limits>> {
    // Whole at every moment, whoever panicked.
    renewed.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(e: &Fault) -> Event {
    Event::Failed(Failure::Engine(e.to_string()))
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
