//! An opened file, held against the schema. Knows no executor.

use std::path::Path;
use std::sync::Arc;

use ggml_kernels::gguf::{GgufFile, Metadata, TensorInfo};
use ggml_kernels::quant::dequantize;
use quantize::schema::{self, Hparams, Role, TensorSpec};

use super::error::{Cause, Unfit};
use super::{LoadError, Options};

/// What a file holds. Mapped weights are read when they are first touched.
#[derive(Debug)]
pub struct Model {
    pub(super) file: Arc<GgufFile>,
    hparams: Hparams,
    /// What the file holds of what the schema knows.
    pub(super) specs: Vec<TensorSpec>,
    context: usize,
}

impl Model {
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, LoadError> {
        let fail = LoadError::at(path);
        let file = GgufFile::open(path).map_err(|e| fail(e.into()))?;
        let (hparams, specs) = schema::check(&file).map_err(|e| fail(e.into()))?;
        let ty = options.cache_type.tensor_type();
        for width in [hparams.mla.latent(), hparams.mla.kv_lora_rank] {
            if ty.row_bytes(width).is_none() {
                let block = ty.block_size();
                return Err(fail(Unfit::CacheType { ty, width, block }));
            }
        }
        let limit = hparams.context_length;
        Ok(Self {
            context: options.context.unwrap_or(limit).min(limit),
            file: Arc::new(file),
            hparams,
            specs,
        })
    }

    /// Metadata of the file, for the tokenizer and the chat template.
    pub fn metadata(&self) -> &Metadata {
        self.file.metadata()
    }
    pub fn n_vocab(&self) -> usize {
        self.hparams.vocab
    }
    /// The context limit in force, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }
    pub fn hparams(&self) -> &Hparams {
        &self.hparams
    }

    /// Whether the file changed under us, so that zeros may have been read for weights.
    pub(super) fn damaged(&self) -> Option<Cause> {
        let why = self.file.damaged()?;
        let path = self.file.map().path().to_owned();
        Some(Cause::Damaged { path, why })
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.specs.iter().any(|s| s.role == role)
    }

    pub(super) fn tensor(&self, name: &str) -> Result<&TensorInfo, Unfit> {
        let tensor = self.file.tensor(name);
        tensor.ok_or_else(|| Unfit::Missing(name.to_owned()))
    }

    /// Old files keep `kv_b [rank, heads * (qk_nope + v)]` whole: per head the key rows, then the
    /// value rows. Absorbed attention wants `k_b` transposed, `[qk_nope, rank, heads]`, and `v_b`
    /// apart, `[rank, v, heads]`: those, in f32. `None` where the file has them apart.
    pub(super) fn split_kv_b(&self, layer: Option<usize>) -> Result<Option<[Vec<f32>; 2]>, Unfit> {
        let whole = |s: &&TensorSpec| s.layer == layer && s.role == Role::MlaKvB;
        let Some(spec) = self.specs.iter().find(whole) else {
            return Ok(None);
        };
        let tensor = self.tensor(&spec.name)?;
        let m = &self.hparams.mla;
        let (rank, nope, v) = (m.kv_lora_rank, m.qk_nope, m.v);
        let mut whole = vec![0.0; rank * m.heads * (nope + v)];
        dequantize(tensor.ty, self.file.data(tensor), &mut whole).map_err(|why| {
            let name = spec.name.clone();
            Unfit::Tensor { name, why }
        })?;
        let mut k_b = vec![0.0; rank * nope * m.heads];
        let mut v_b = Vec::with_capacity(rank * v * m.heads);
        for (head, rows) in whole.chunks_exact(rank * (nope + v)).enumerate() {
            let (keys, values) = rows.split_at(rank * nope);
            for (n, row) in keys.chunks_exact(rank).enumerate() {
                for (r, &value) in row.iter().enumerate() {
                    k_b[(head * rank + r) * nope + n] = value;
                }
            }
            v_b.extend_from_slice(values);
        }
        Ok(Some([k_b, v_b]))
    }
}
