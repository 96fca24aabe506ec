//! The model and its sequences: one forward pass at a time, on one thread. Knows no text, no
//! requests beyond a token's type, and no clock.
//!
//! ```ignore
//! let model = Model::open(path, &Options::default())?;
//! let mut engine = Engine::new(model)?;
//! let mut seq = engine.sequence();
//! let logits = engine.forward(&mut seq, &tokens, Want::Last)?;
//! ```

use ggml_kernels::graph::{Graph, GraphError, Observer};
use ggml_kernels::quant::TensorType;

use crate::request::Token;

mod model;
mod pass;
mod sequence;

pub use model::Model;
pub use sequence::{Sequence, Snapshot};

/// Where and how a model runs.
#[derive(Debug, Clone)]
pub struct Options {
    pub device: Device,
    /// CPU threads; `None` takes every core the process may use, or one for a very small model.
    pub threads: Option<usize>,
    /// Layers whose weights go to the device; `None` takes all. Nothing to a CPU.
    pub gpu_layers: Option<usize>,
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
            gpu_layers: None,
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

/// Runs passes. One thread owns it (it may move between threads).
#[derive(Debug)]
pub struct Engine {
    model: Model,
    cache: TensorType,
    chunk: usize,
}

impl Engine {
    pub fn new(model: Model, options: &Options) -> Result<Self, LoadError> {
        Ok(Self {
            model,
            cache: model::cache_tensor_type(options.cache_type),
            chunk: options.chunk.max(1),
        })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    pub fn sequence(&self) -> Result<Sequence, EngineError> {
        Sequence::new(&self.model.weights.hparams, self.cache, &self.model.backend)
    }

    /// Feeds `tokens` (any number; longer than a chunk is split) and returns the wanted logits.
    /// When memory runs out the sequence is as it was before the chunk that failed; after any
    /// other failure of the backend it refuses further use.
    pub fn forward(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[Token],
        want: Want,
    ) -> Result<Logits, EngineError> {
        self.feed(sequence, tokens, want, None)
    }

    /// As [`Engine::forward`], showing each computed tensor to `observer`. Slow.
    pub fn forward_observed(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[Token],
        want: Want,
        observer: &mut dyn Observer,
    ) -> Result<Logits, EngineError> {
        self.feed(sequence, tokens, want, Some(observer))
    }

    pub fn snapshot(&self, sequence: &Sequence) -> Result<Snapshot, EngineError> {
        Ok(sequence.snapshot())
    }

    pub fn restore(&self, snapshot: &Snapshot) -> Result<Sequence, EngineError> {
        let model = &self.model;
        Sequence::restored(snapshot, &model.weights.hparams, self.cache, &model.backend)
    }

    fn feed(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[Token],
        want: Want,
        mut observer: Option<&mut dyn Observer>,
    ) -> Result<Logits, EngineError> {
        let n_vocab = self.model.n_vocab();
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= n_vocab) {
            return Err(EngineError::NoSuchToken { token, n_vocab });
        }
        let (have, more, limit) = (sequence.len, tokens.len(), self.model.context());
        if have.saturating_add(more) > limit {
            return Err(EngineError::ContextFull { have, more, limit });
        }
        let mut data = Vec::new();
        let chunks = tokens.len().div_ceil(self.chunk);
        for (at, chunk) in tokens.chunks(self.chunk).enumerate() {
            let want = match want {
                Want::Last if at + 1 < chunks => Want::Nothing,
                other => other,
            };
            let observer = observer.as_mut().map(|o| &mut **o as &mut dyn Observer);
            let rows = self.pass(sequence, chunk, want, observer)?;
            if data.is_empty() {
                data = rows;
            } else {
                data.extend(rows);
            }
        }
        Ok(Logits { n_vocab, data })
    }

    fn pass(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[Token],
        want: Want,
        observer: Option<&mut dyn Observer>,
    ) -> Result<Vec<f32>, EngineError> {
        if sequence.broken {
            let why = "an earlier pass of this sequence failed half-way";
            return Err(EngineError::Backend(why.into()));
        }
        let len = sequence.len + tokens.len();
        sequence.reserve(len, &self.model.backend)?;
        match run(&mut self.model, sequence, tokens, want, observer) {
            Ok(logits) => {
                sequence.len = len;
                Ok(logits)
            }
            Err(e) => {
                let before_computing = !matches!(
                    e,
                    GraphError::Backend(ggml_kernels::backend::BackendError::Compute(_))
                );
                sequence.broken |= !before_computing;
                Err(EngineError::Backend(e.to_string()))
            }
        }
    }
}

fn run(
    model: &mut Model,
    sequence: &mut Sequence,
    tokens: &[Token],
    want: Want,
    observer: Option<&mut dyn Observer>,
) -> Result<Vec<f32>, GraphError> {
    let Model {
        weights, backend, ..
    } = model;
    let graph = Graph::new(pass::tensors_needed(&weights.hparams))?;
    let logits = pass::build(&graph, weights, sequence, tokens, want)?;
    match observer {
        Some(observer) => graph.compute_observed(backend, observer)?,
        None => graph.compute(backend)?,
    }
    logits.map_or(Ok(Vec::new()), |logits| graph.read(logits))
}
