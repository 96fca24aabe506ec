//! One sequence as it grows: at each doubling the bytes of its state, how fast the last half was
//! read, and how fast it decodes there.

use std::time::Instant;

use super::measure::BEFORE;
use super::report::Doubling;
use super::side::MOST;
use super::{BenchError, Progress, memory};
use crate::engine::{Engine, Want};
use crate::request::Token;

/// The first length that is told.
const FIRST: usize = 1 << 10;

/// Reads `most` tokens; decodes `tokens` of a fork at each doubling.
pub fn run(
    mut engine: Engine,
    most: usize,
    tokens: usize,
    progress: &Progress,
) -> Result<Vec<Doubling>, BenchError> {
    let n_vocab = engine.model().n_vocab();
    let token = |at: usize| ((at * 7919 + 13) % n_vocab) as Token;
    let mut sequence = engine.sequence()?;
    let mut told = Vec::new();
    let mut next = FIRST.min(most);
    while sequence.len() < most {
        let begun = (Instant::now(), sequence.len());
        while sequence.len() < next {
            progress.go_on()?;
            let at = sequence.len();
            let piece: Vec<Token> = (at..next.min(at + MOST)).map(token).collect();
            engine.feed(&mut sequence, &piece, Want::Nothing)?;
        }
        let read = (next - begun.1) as f64 / begun.0.elapsed().as_secs_f64();
        let mut fork = engine.restore(&engine.snapshot(&sequence))?;
        for at in 0..BEFORE {
            engine.feed(&mut fork, &[token(next + at)], Want::Last)?;
        }
        let start = Instant::now();
        for at in BEFORE..BEFORE + tokens {
            progress.go_on()?;
            engine.feed(&mut fork, &[token(next + at)], Want::Last)?;
        }
        let doubling = Doubling {
            tokens: next,
            state_bytes: sequence.bytes() as u64,
            resident_bytes: memory::own(),
            read,
            decode: tokens as f64 / start.elapsed().as_secs_f64(),
        };
        progress.say(&doubling);
        told.push(doubling);
        next = (2 * next).min(most);
    }
    Ok(told)
}
