//! What a model asks of a machine, from its file's header alone.

use std::path::Path;

use ggml_kernels::gguf::GgufFile;
use quantize::schema::{self, Hparams, Mixer, Role};

use super::machine::Needs;
use crate::config::Config;
use crate::engine::CacheType;

/// `Err` says why the daemon would not run it; the path is the caller's to say.
pub fn of(path: &Path, config: &Config) -> Result<Needs, String> {
    let file = GgufFile::open(path).map_err(|e| e.to_string())?;
    let (h, specs) = schema::check(&file).map_err(|e| e.to_string())?;
    let has_output = specs.iter().any(|s| s.role == Role::Output);
    let mut read_per_token = 0;
    for spec in &specs {
        let tensor = file.tensors().iter().find(|t| t.name == spec.name);
        let bytes = tensor.map_or(0, |t| t.size as u64);
        read_per_token += match spec.role {
            // One row of it, unless it is the output's matrix as well.
            Role::TokenEmbd if has_output => bytes / h.vocab as u64,
            role if role.is_stacked_experts() => bytes / h.moe.experts as u64 * h.moe.used as u64,
            _ => bytes,
        };
    }
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
