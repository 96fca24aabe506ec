//! What can go wrong, by who hears it: whoever opens a model, whose lane it was, or nobody's fault.

use std::path::{Path, PathBuf};

use ggml_kernels::backend::BackendError;
use ggml_kernels::cuda::driver::CudaError;
use ggml_kernels::gguf::GgufError;
use ggml_kernels::graph::GraphError;
use ggml_kernels::map::Damaged;
use ggml_kernels::quant::QuantError;
use ggml_kernels::storage::StorageError;
use quantize::schema::SchemaError;

use crate::request::Token;

/// A model that does not open.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    #[source]
    pub why: Unfit,
}

impl LoadError {
    pub(super) fn at(path: &Path) -> impl Fn(Unfit) -> LoadError + '_ {
        |why| LoadError {
            path: path.to_owned(),
            why,
        }
    }
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("tensor `{0}` is missing")]
    Missing(String),
    #[error(
        "cache_type {ty} cannot hold cache rows of {width} values, wanted a multiple of {block}"
    )]
    CacheType {
        ty: ggml_kernels::quant::TensorType,
        width: usize,
        block: usize,
    },
    #[error("tensor `{name}`: {why}")]
    Tensor { name: String, why: QuantError },
    #[error("this processor has no {kind}: it has {}", have())]
    NoTier { kind: ggml_kernels::cpu::Kind },
    #[error("tensor `{name}` is {ty}: no kernel for cards reads it")]
    CardType {
        name: String,
        ty: ggml_kernels::quant::TensorType,
    },
    #[error("cache_type {ty}: kernels for cards keep cache rows in f16")]
    CardCache { ty: ggml_kernels::quant::TensorType },
    #[error("no kernel for cards takes {what} of {got}, wanted {wanted}")]
    CardSize {
        what: &'static str,
        got: usize,
        wanted: String,
    },
    #[error(
        "{card} has no room for {needed} bytes{}: {free} of {total} are free", or_without(*without)
    )]
    CardMemory {
        card: String,
        needed: u64,
        /// With its routed experts on the CPU.
        without: Option<u64>,
        free: u64,
        total: u64,
    },
    #[error(transparent)]
    Card(#[from] CudaError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Device(#[from] BackendError),
    #[error(transparent)]
    Pass(#[from] GraphError),
}

fn or_without(experts: Option<u64>) -> String {
    let told = |bytes| format!(", nor for {bytes} without the experts");
    experts.map(told).unwrap_or_default()
}

fn have() -> String {
    let all = ggml_kernels::cpu::Tier::available();
    let names: Vec<_> = all.iter().map(|t| t.kind().name()).collect();
    names.join(", ")
}

/// A lane that was refused before anything was computed.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum LaneError {
    #[error("the sequence holds {have} tokens and {more} more would pass the context of {limit}")]
    ContextFull {
        have: usize,
        more: usize,
        limit: usize,
    },
    #[error("token {token} is outside the vocabulary of {n_vocab}")]
    NoSuchToken { token: Token, n_vocab: usize },
    #[error("the sequence is another model's")]
    Foreign,
    #[error("an earlier pass of this sequence failed half-way")]
    Broken,
    #[error("its rows lie in a file that is damaged: {0}")]
    Lost(Damaged),
    #[cfg(test)]
    #[error("a poisoned token")]
    Poisoned,
}

/// Why a pass gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// Every lane is as it was.
    #[error("{why}")]
    Refused { lane: usize, why: LaneError },
    #[error(transparent)]
    Failed(#[from] Cause),
}

/// A state that could not be made or taken up.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("the snapshot is another model's, or of another cache type")]
    Foreign,
    #[error("the file that it lies in is damaged: {0}")]
    Lost(Damaged),
    #[error(transparent)]
    Failed(#[from] Cause),
}

/// What failed below.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("not enough memory for {what}: {bytes} bytes")]
    OutOfMemory { what: &'static str, bytes: usize },
    #[error("the graph failed: {0}")]
    Graph(#[from] GraphError),
    #[error("the state's storage failed: {0}")]
    Storage(#[from] StorageError),
    #[error("the card failed: {0}")]
    Card(#[from] CudaError),
    #[error("nobody can listen to passes on {device}: take another device, or ggml's graph")]
    Unheard { device: String },
    /// No pass of this model can be believed from here on.
    #[error("{}: {why}", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        why: Damaged,
    },
}
