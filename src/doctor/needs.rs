//! What a model asks of a machine, from its file's header alone, or from its shape.

use std::path::{Path, PathBuf};

use ggml_kernels::gguf::GgufFile;
use quantize::recipe::{self, FileType};
use quantize::schema::{self, Hparams, Mixer, Role, TensorSpec};

use super::machine::Needs;
use crate::config::Config;
use crate::engine::{CacheType, Options};

/// `Err` says why the daemon would not run it; the path is the caller's to say.
pub fn of(path: &Path, config: &Config) -> Result<Needs, String> {
    let file = GgufFile::open(path).map_err(|e| e.to_string())?;
    let (h, specs) = schema::check(&file).map_err(|e| e.to_string())?;
    let bytes = |spec: &TensorSpec| {
        let tensor = file.tensors().iter().find(|t| t.name == spec.name);
        tensor.map_or(0, |t| t.size as u64)
    };
    let read_per_token = read_per_token(&h, &specs, bytes);
    let limit = h.context_length;
    Ok(Needs {
        path: path.to_owned(),
        file: file.map().len() as u64,
        read_per_token,
        state: state(&h),
        per_token: per_token(&h, config.model.cache_type),
        context: config.model.context.unwrap_or(limit).min(limit) as u64,
    })
}

/// What a file of this type would ask for, its metadata (some MB of vocabulary) left out, with the
/// default cache.
pub fn of_shape(h: &Hparams, to: FileType, context: usize) -> Needs {
    let specs = schema::tensors(h);
    let bytes = |spec: &TensorSpec| {
        let ty = recipe::choose(h, spec, to, &[]).ty;
        let values: u64 = spec.shape.iter().product();
        values / ty.block_size() as u64 * ty.type_size() as u64
    };
    Needs {
        path: PathBuf::new(),
        file: specs.iter().map(bytes).sum(),
        read_per_token: read_per_token(h, &specs, bytes),
        state: state(h),
        per_token: per_token(h, Options::default().cache_type),
        context: context as u64,
    }
}

/// Of each layer's experts those that are used, and one row of the embedding, unless it is the
/// output's matrix as well.
fn read_per_token(h: &Hparams, specs: &[TensorSpec], bytes: impl Fn(&TensorSpec) -> u64) -> u64 {
    let has_output = specs.iter().any(|s| s.role == Role::Output);
    let read = specs.iter().map(|spec| match spec.role {
        Role::TokenEmbd if has_output => bytes(spec) / h.vocab as u64,
        role if role.is_stacked_experts() => bytes(spec) / h.moe.experts as u64 * h.moe.used as u64,
        _ => bytes(spec),
    });
    read.sum()
}

/// KDA's: a square for each head, and the tails of three convolutions, in f32.
fn state(h: &Hparams) -> u64 {
    let layers = h.layers.iter().filter(|l| l.mixer == Mixer::Kda).count();
    let squares = h.kda.heads * h.kda.head_dim * h.kda.head_dim;
    let tails = 3 * (h.kda.conv - 1) * h.kda.d_inner();
    (layers * (squares + tails) * size_of::<f32>()) as u64
}

/// MLA's: a row for each token and layer.
fn per_token(h: &Hparams, cache: CacheType) -> u64 {
    let layers = h.layers.iter().filter(|l| l.mixer == Mixer::Mla).count();
    let row = match cache {
        CacheType::F32 => 4 * h.mla.latent(),
        CacheType::F16 | CacheType::Bf16 => 2 * h.mla.latent(),
        // Blocks of 32 values take 34 bytes.
        CacheType::Q8_0 => h.mla.latent().div_ceil(32) * 34,
    };
    (layers * row) as u64
}
