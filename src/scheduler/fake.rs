//! A model without weights for tests: what it says next is a hash of everything it was fed, so a
//! sequence that got a wrong, missing or doubled token says something else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::model::Outward;
use super::{Admitted, Model, Style};
use crate::engine::{
    Cause, Drawn, HostState, Lane, LaneError, Logits, PassError, Spare, StateError, Want,
};
use crate::request::{Caller, Event, Sampling, Stop, Token};

pub const N_VOCAB: usize = 256;
/// Feeding this token is refused, the next one is a panic.
pub const POISON: Token = 250;
pub const BOMB: Token = 251;

#[derive(Default)]
pub struct Fake {
    /// What the model says after so many tokens, where it is told.
    pub script: HashMap<usize, Token>,
    pub pause: Duration,
    pub fixed_cut: bool,
    /// It keeps logits to itself where it may, and counts how often it did.
    pub draws: Option<Arc<AtomicUsize>>,
    /// Lanes and rows of every pass, where a test asks for them.
    pub passes: Arc<Mutex<Vec<(usize, usize)>>>,
    /// The pass of this number, from 1, fails for all.
    pub fails: Option<usize>,
    /// Whether it is lost, once a test says so.
    pub lost: Arc<AtomicBool>,
    pub alive: Arc<AtomicUsize>,
    pub most_alive: Arc<AtomicUsize>,
    pub fed: Arc<AtomicUsize>,
}

/// Counts itself, so that tests see what is freed.
pub struct State {
    hash: u64,
    len: usize,
    alive: Arc<AtomicUsize>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Relaxed);
    }
}

impl Fake {
    fn state(&self, hash: u64, len: usize) -> State {
        let others = self.alive.fetch_add(1, Relaxed);
        self.most_alive.fetch_max(others + 1, Relaxed);
        let alive = self.alive.clone();
        State { hash, len, alive }
    }

    fn run(&self, lane: &mut Lane<'_, State>) -> Logits {
        let Lane {
            sequence,
            tokens,
            want,
        } = lane;
        self.fed.fetch_add(tokens.len(), Relaxed);
        let (mut width, mut rows, mut drawn) = (N_VOCAB, Vec::new(), None);
        for (i, &token) in tokens.iter().enumerate() {
            if token == BOMB {
                panic!("a token that explodes");
            }
            let mixed = (sequence.hash ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sequence.hash = mixed ^ (mixed >> 29);
            sequence.len += 1;
            let is_last = i + 1 == tokens.len();
            if *want == Want::All || *want != Want::Nothing && is_last {
                let favourite = match self.script.get(&sequence.len) {
                    Some(&token) => token as usize,
                    None => (sequence.hash % 200) as usize,
                };
                // What it is told to say may lie beyond what it would say.
                width = N_VOCAB.max(favourite + 1);
                let mut logits: Vec<f32> = (0..width)
                    .map(|t| ((sequence.hash >> (t % 40)) & 7) as f32 / 4.0)
                    .collect();
                logits[favourite] = 9.0;
                match (&self.draws, &want) {
                    (Some(draws), Want::Drawn(_)) => {
                        draws.fetch_add(1, Relaxed);
                        drawn = Some(Drawn::Token(favourite as Token));
                    }
                    _ => rows.extend(logits),
                }
            }
        }
        match drawn {
            Some(drawn) => Logits::drawn(width, drawn),
            None => Logits::new(width, rows),
        }
    }
}

impl Model for Fake {
    type Sequence = State;
    type Snapshot = (u64, usize);

    fn sequence(&mut self) -> Result<State, StateError> {
        Ok(self.state(7, 0))
    }

    fn forward(&mut self, lanes: &mut [Lane<'_, State>]) -> Result<Vec<Logits>, PassError> {
        std::thread::sleep(self.pause);
        let poisoned = |lane: &Lane<'_, State>| lane.tokens.contains(&POISON);
        if let Some(lane) = lanes.iter().position(poisoned) {
            let why = LaneError::Poisoned;
            return Err(PassError::Refused { lane, why });
        }
        let rows = lanes.iter().map(|lane| lane.tokens.len()).sum();
        let mut passes = self.passes.lock().expect("nobody panicked");
        passes.push((lanes.len(), rows));
        if self.fails == Some(passes.len()) {
            let (what, bytes) = ("a test", 1);
            return Err(Cause::OutOfMemory { what, bytes }.into());
        }
        drop(passes);
        Ok(lanes.iter_mut().map(|lane| self.run(lane)).collect())
    }

    fn snapshot(&mut self, sequence: &State) -> (u64, usize) {
        (sequence.hash, sequence.len)
    }

    fn restore(&mut self, &(hash, len): &(u64, usize)) -> Result<State, StateError> {
        Ok(self.state(hash, len))
    }

    fn outward(&(hash, _): &(u64, usize)) -> Outward {
        Box::new(OnDisk(hash))
    }

    fn adopt(&self, state: &HostState) -> Result<(u64, usize), StateError> {
        let hash = state.slot.as_ref().try_into();
        let hash = hash.map_err(|_| StateError::Foreign)?;
        Ok((u64::from_le_bytes(hash), state.len))
    }

    fn is_lost(_: &(u64, usize)) -> bool {
        false
    }

    fn bytes(_: &State) -> usize {
        16
    }

    fn held(_: &(u64, usize), _: Option<&(u64, usize)>) -> usize {
        16
    }

    fn lost(&self) -> Option<String> {
        let words = || "a test has taken the model away".into();
        self.lost.load(Relaxed).then(words)
    }

    fn state_bytes(&self, tokens: usize) -> usize {
        1000 + 10 * tokens
    }

    fn spare(&self) -> Option<Arc<dyn Spare>> {
        None
    }

    fn is_batch_invariant(&self) -> bool {
        !self.fixed_cut
    }
}

/// All of it is the slot.
struct OnDisk(u64);

impl crate::sessions::store::State for OnDisk {
    fn blocks(&self) -> usize {
        0
    }

    fn block_bytes(&self) -> usize {
        8
    }

    fn block(&self, _: usize) -> Bytes {
        Bytes::new()
    }

    fn slot(&self) -> Bytes {
        self.0.to_le_bytes().to_vec().into()
    }

    fn tail(&self) -> Bytes {
        Bytes::new()
    }

    fn next(&self) -> Bytes {
        Bytes::new()
    }
}

/// A greedy request for four tokens.
pub fn admitted(uid: u32, prompt: &[Token]) -> (Admitted, mpsc::Receiver<Event>) {
    let (events, receiver) = mpsc::channel(8);
    let request = Admitted {
        caller: Caller {
            uid,
            pid: None,
            unit: None,
        },
        arrived: Instant::now(),
        prompt: prompt.to_vec(),
        style: Style::Raw,
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        seed: 1,
        stop: Stop::default(),
        max_tokens: 4,
        n: 1,
        logprobs: Some(1),
        scores_prompt: false,
        reports: false,
        resume: None,
        is_strange: false,
        constraints: Vec::new(),
        ends: Vec::new(),
        marks: Vec::new(),
        line: None,
        found: oneshot::channel().0,
        events,
    };
    (request, receiver)
}
