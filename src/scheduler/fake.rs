//! A model without weights for tests: what it says next is a hash of everything it was fed, so a
//! sequence that got a wrong, missing or doubled token says something else.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Admitted, Model, Style};
use crate::engine::{EngineError, Want};
use crate::request::{Caller, Event, Sampling, Stop, Token};

pub const N_VOCAB: usize = 256;
/// Feeding this token is an error of the backend, the next one a panic.
pub const POISON: Token = 250;
pub const BOMB: Token = 251;

#[derive(Default)]
pub struct Fake {
    /// What the model says after so many tokens, where it is told.
    pub script: HashMap<usize, Token>,
    pub pause: Duration,
    pub alive: Arc<AtomicUsize>,
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
        self.alive.fetch_add(1, Relaxed);
        let alive = self.alive.clone();
        State { hash, len, alive }
    }
}

impl Model for Fake {
    type Sequence = State;
    type Snapshot = (u64, usize);

    fn sequence(&mut self) -> Result<State, EngineError> {
        Ok(self.state(7, 0))
    }

    fn forward(
        &mut self,
        sequence: &mut State,
        tokens: &[Token],
        want: Want,
        row: &mut dyn FnMut(&[f32]),
    ) -> Result<(), EngineError> {
        std::thread::sleep(self.pause);
        self.fed.fetch_add(tokens.len(), Relaxed);
        for (i, &token) in tokens.iter().enumerate() {
            match token {
                POISON => return Err(EngineError::Backend("a poisoned token".into())),
                BOMB => panic!("a token that explodes"),
                _ => {}
            }
            let mixed = (sequence.hash ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            sequence.hash = mixed ^ (mixed >> 29);
            sequence.len += 1;
            if want == Want::All || want == Want::Last && i + 1 == tokens.len() {
                let favourite = match self.script.get(&sequence.len) {
                    Some(&token) => token as usize,
                    None => (sequence.hash % 200) as usize,
                };
                // What it is told to say may lie beyond what it would say.
                let mut logits: Vec<f32> = (0..N_VOCAB.max(favourite + 1))
                    .map(|t| ((sequence.hash >> (t % 40)) & 7) as f32 / 4.0)
                    .collect();
                logits[favourite] = 9.0;
                row(&logits);
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, sequence: &State) -> Result<(u64, usize), EngineError> {
        Ok((sequence.hash, sequence.len))
    }

    fn restore(&mut self, &(hash, len): &(u64, usize)) -> Result<State, EngineError> {
        Ok(self.state(hash, len))
    }

    fn bytes(_: &State) -> usize {
        16
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
        constraints: Vec::new(),
        events,
    };
    (request, receiver)
}
