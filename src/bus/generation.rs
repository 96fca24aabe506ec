//! One answer: its progress, and the way to stop it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio_util::sync::CancellationToken;
use zbus::OwnedObjectPath;
use zbus::names::OwnedUniqueName;

use super::value::Dictionary;

/// As the property `State` counts them; 0 is kept for "unknown".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Queued = 1,
    Running = 2,
    Finished = 3,
    Cancelled = 4,
    Failed = 5,
}

pub struct Generation {
    pub path: OwnedObjectPath,
    pub uid: u32,
    /// Who asked, and alone is told of changes.
    pub asker: OwnedUniqueName,
    pub cancel: CancellationToken,
    pub prompt_tokens: u32,
    phase: AtomicU32,
    completion_tokens: AtomicU32,
}

impl Generation {
    pub fn new(
        path: OwnedObjectPath,
        uid: u32,
        asker: OwnedUniqueName,
        prompt_tokens: usize,
    ) -> Generation {
        Generation {
            path,
            uid,
            asker,
            cancel: CancellationToken::new(),
            prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
            phase: AtomicU32::new(Phase::Queued as u32),
            completion_tokens: AtomicU32::new(0),
        }
    }

    /// Whether that is news.
    pub fn enter(&self, phase: Phase) -> bool {
        self.phase.swap(phase as u32, Relaxed) != phase as u32
    }

    pub fn phase(&self) -> u32 {
        self.phase.load(Relaxed)
    }

    pub fn completion_tokens(&self) -> u32 {
        self.completion_tokens.load(Relaxed)
    }

    pub fn count(&self, completion_tokens: usize) {
        let n = u32::try_from(completion_tokens).unwrap_or(u32::MAX);
        self.completion_tokens.store(n, Relaxed);
    }

    pub fn properties(&self) -> Dictionary {
        Dictionary::from([
            ("State".to_owned(), self.phase().into()),
            ("PromptTokens".to_owned(), self.prompt_tokens.into()),
            (
                "CompletionTokens".to_owned(),
                self.completion_tokens().into(),
            ),
        ])
    }
}
