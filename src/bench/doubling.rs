//! One sequence as it grows: at each doubling the bytes of its state, how fast the last half was
//! read, and how fast the tokens before the doubling's end are decoded.

use std::time::Instant;

use super::measure::BEFORE;
use super::report::Doubling;
use super::{BenchError, Progress, memory};
use crate::engine::{Engine, Want};
use crate::request::Token;

/// The first length that is told.
const FIRST: usize = 1 << 10;

/// The least that can be doubled to, where so many tokens are decoded: as many again are read.
pub fn least(tokens: usize) -> usize {
    FIRST.max(2 * (tokens + BEFORE))
}

/// Reads up to `most` tokens, at least [`least`] of them; the last `tokens` before each doubling are
/// decoded by a fork.
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
    let ahead = tokens + BEFORE;
    let mut next = least(tokens);
    loop {
        let begun = (Instant::now(), sequence.len());
        let end = next - ahead;
        while sequence.len() < end {
            progress.go_on()?;
            let at = sequence.len();
            let piece: Vec<Token> = (at..end.min(at + engine.chunk())).map(token).collect();
            engine.feed(&mut sequence, &piece, Want::Nothing)?;
        }
        let read = (end - begun.1) as f64 / begun.0.elapsed().as_secs_f64();
        let mut fork = engine.restore(&engine.snapshot(&sequence))?;
        for at in end..end + BEFORE {
            engine.feed(&mut fork, &[token(at)], Want::Last)?;
        }
        let start = Instant::now();
        for at in end + BEFORE..next {
            progress.go_on()?;
            engine.feed(&mut fork, &[token(at)], Want::Last)?;
        }
        let doubling = Doubling {
            tokens: next,
            state_bytes: fork.bytes() as u64,
            resident_bytes: memory::own(),
            read,
            decode: tokens as f64 / start.elapsed().as_secs_f64(),
        };
        progress.say(&doubling);
        told.push(doubling);
        if next == most {
            return Ok(told);
        }
        next = (2 * next).min(most);
    }
}
