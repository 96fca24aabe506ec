//! `deltad bench`: how fast a model is here, alone or beside llama.cpp on the same file.
//!
//! | file | job |
//! |---|---|
//! | `side` | who is measured: the engine, and what any other must be able to do |
//! | `measure` | states laid, then repeats in turn, timed |
//! | `doubling` | one sequence as it grows |
//! | `memory` | what the process holds |
//! | `report` | the figures as data, and as JSON |
//! | `page`, `picture` | the same as text or Markdown, and as SVG |

pub mod doubling;
pub mod measure;
mod memory;
pub mod page;
pub mod picture;
pub mod report;
pub mod side;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::cli::exit;
use crate::engine::{LoadError, PassError, StateError};
use crate::stdio;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{at} tokens and {more} to measure: got {} tokens, wanted at most {limit}, the model's context", at + more)]
    TooDeep {
        at: usize,
        more: usize,
        limit: usize,
    },
    #[error("the pass failed: {0}")]
    Pass(#[from] PassError),
    #[error("no sequence: {0}")]
    State(#[from] StateError),
    #[error("--against llama.cpp: {0}")]
    Rival(String),
    #[error("{}: {why}", path.display())]
    Picture { path: PathBuf, why: io::Error },
    #[error(transparent)]
    Output(io::Error),
    #[error("signals: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    pub fn exit_code(&self) -> u8 {
        match self {
            BenchError::Interrupted => exit::INTERRUPTED,
            BenchError::TooDeep { .. } => exit::USAGE,
            _ => exit::FAILED,
        }
    }

    /// Whoever stopped it, or reads no more, knows.
    pub fn is_quiet(&self) -> bool {
        match self {
            BenchError::Interrupted => true,
            BenchError::Output(e) => stdio::is_closed(e),
            _ => false,
        }
    }
}

/// Says on standard error how far it is, and when to stop.
pub struct Progress {
    quiet: bool,
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub fn say(&self, what: impl std::fmt::Display) {
        if !self.quiet {
            stdio::remark(what);
        }
    }

    pub fn go_on(&self) -> Result<(), BenchError> {
        if self.stop.load(Relaxed) {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }
}
