//! The model and its sequences: one forward pass at a time, on one thread. Knows no text, no
//! requests beyond a token's type, and no clock.
//!
//! ```ignore
//! let model = Model::open(path, &Options::default())?;
//! let mut engine = Engine::new(model)?;
//! let mut seq = engine.sequence();
//! let logits = engine.forward(&mut seq, &tokens, Want::Last)?;
//! ```

use std::path::Path;

use crate::request::Token;

/// Where and how a model runs.
#[derive(Debug, Clone)]
pub struct Options {
    pub device: Device,
    /// CPU threads; `None` takes every core the process may use.
    pub threads: Option<usize>,
    /// Element type of the MLA cache rows. KDA state is always f32.
    pub cache_type: CacheType,
    /// Longest sequence, in tokens; `None` takes the model's own `context_length`.
    pub context: Option<usize>,
    /// Tokens per prefill pass.
    pub chunk: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            device: Device::Auto,
            threads: None,
            cache_type: CacheType::F16,
            context: None,
            chunk: 512,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Auto,
    Cpu,
    Cuda,
    Metal,
    Vulkan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheType {
    F32,
    F16,
    Bf16,
    Q8_0,
}

/// Which positions of a pass the caller wants logits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    Nothing,
    Last,
    All,
}

/// `[n_rows, n_vocab]`, f32, row-major: one row per wanted position, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    n_vocab: usize,
    data: Vec<f32>,
}

impl Logits {
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.n_vocab)
    }
    pub fn last(&self) -> Option<&[f32]> {
        self.data.rchunks_exact(self.n_vocab).next()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the sequence holds {have} tokens and {more} more would pass the context of {limit}")]
    ContextFull {
        have: usize,
        more: usize,
        limit: usize,
    },
    #[error("token {token} is outside the vocabulary of {n_vocab}")]
    NoSuchToken { token: Token, n_vocab: usize },
    #[error("not enough memory for {what}: {bytes} bytes")]
    OutOfMemory { what: &'static str, bytes: usize },
    #[error("the backend failed: {0}")]
    Backend(String),
}

/// An opened, bound model: every tensor found by name once, every shape checked, weights mapped.
pub struct Model {}

impl Model {
    pub fn open(_path: &Path, _options: &Options) -> Result<Model, LoadError> {
        unimplemented!()
    }
    /// Metadata of the file, for the tokenizer and the chat template.
    pub fn metadata(&self) -> &ggml_kernels::gguf::Metadata {
        unimplemented!()
    }
    pub fn n_vocab(&self) -> usize {
        unimplemented!()
    }
    /// The context limit in force, in tokens.
    pub fn context(&self) -> usize {
        unimplemented!()
    }
}

/// One conversation's state: conv tails, KDA states, MLA cache rows. Dropping it frees its memory.
/// It can be snapshot and restored, never truncated: a KDA state cannot be rewound.
pub struct Sequence {}

impl Sequence {
    /// Tokens fed so far.
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Bytes of state held now.
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
}

/// A sequence's state at one moment, in memory; cheap to keep, restores any number of times.
#[derive(Clone)]
pub struct Snapshot {}

/// Runs passes. Not `Sync`: one thread owns it (it may move between threads).
pub struct Engine {}

impl Engine {
    pub fn new(_model: Model, _options: &Options) -> Result<Engine, LoadError> {
        unimplemented!()
    }
    pub fn model(&self) -> &Model {
        unimplemented!()
    }
    pub fn sequence(&self) -> Result<Sequence, EngineError> {
        unimplemented!()
    }
    /// Feeds `tokens` (any number; longer than a chunk is split) and returns the wanted logits.
    /// On error the sequence is as it was before the failed chunk.
    pub fn forward(
        &mut self,
        _seq: &mut Sequence,
        _tokens: &[Token],
        _want: Want,
    ) -> Result<Logits, EngineError> {
        unimplemented!()
    }
    pub fn snapshot(&self, _seq: &Sequence) -> Result<Snapshot, EngineError> {
        unimplemented!()
    }
    pub fn restore(&self, _snapshot: &Snapshot) -> Result<Sequence, EngineError> {
        unimplemented!()
    }
}
