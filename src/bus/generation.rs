//! One answer as an object on the bus: its progress, and the way to stop it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio_util::sync::CancellationToken;
use zbus::message::Header;
use zbus::names::OwnedUniqueName;
use zbus::object_server::SignalEmitter;
use zbus::{OwnedObjectPath, interface};

use super::Bus;
use super::error::Error;
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

/// The object.
pub struct Served {
    pub bus: Arc<Bus>,
    pub generation: Arc<Generation>,
}

#[interface(name = "org.deltad.Inference1.Generation", introspection_docs = false)]
impl Served {
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        self.bus.owner(&header, self.generation.uid).await?;
        self.generation.cancel.cancel();
        Ok(())
    }

    #[zbus(property)]
    async fn state(&self, #[zbus(header)] header: Option<Header<'_>>) -> Result<u32, Error> {
        self.bus.reader(header, self.generation.uid).await?;
        Ok(self.generation.phase())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn prompt_tokens(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<u32, Error> {
        self.bus.reader(header, self.generation.uid).await?;
        Ok(self.generation.prompt_tokens)
    }

    #[zbus(property(emits_changed_signal = "false"))]
    async fn completion_tokens(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<u32, Error> {
        self.bus.reader(header, self.generation.uid).await?;
        Ok(self.generation.completion_tokens())
    }

    #[zbus(signal)]
    async fn delta(
        emitter: &SignalEmitter<'_>,
        choice: u32,
        kind: &str,
        text: &str,
        details: Dictionary,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn finished(
        emitter: &SignalEmitter<'_>,
        reason: &str,
        usage: Dictionary,
    ) -> zbus::Result<()>;
}
