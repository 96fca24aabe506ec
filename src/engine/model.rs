//! A model's weights: every tensor found by name once, every shape checked by the schema, and
//! placed where it will be computed. The rest of the engine uses fields, never names.

use std::path::Path;
use std::sync::Arc;

use ggml_kernels::backend::{Backend, DeviceKind};
use ggml_kernels::gguf::{GgufFile, Metadata};
use ggml_kernels::quant::{TensorType, dequantize};
use ggml_kernels::storage::{Placement, Storage};
use quantize::schema::{self, Ffn, Hparams, Mixer, Role};

use super::{CacheType, Device, LoadError, Options};

/// An opened, bound model.
#[derive(Debug)]
pub struct Model {
    pub(super) weights: Weights,
    pub(super) backend: Backend,
    metadata: Metadata,
    context: usize,
}

/// Every tensor, where a pass finds it.
#[derive(Debug)]
pub(super) struct Weights {
    pub hparams: Hparams,
    pub storages: Vec<Storage>,
    pub token_embd: Weight,
    pub output_norm: Weight,
    pub output: Weight,
    pub layers: Vec<Layer>,
}

/// A tensor of one of the model's storages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    pub storage: usize,
    pub at: usize,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub attn_norm: Weight,
    pub mixer: MixerWeights,
    pub ffn_norm: Weight,
    pub ffn: FfnWeights,
}

#[derive(Debug)]
pub(super) enum MixerWeights {
    Kda(Box<KdaWeights>),
    Mla(MlaWeights),
}

#[derive(Debug)]
pub(super) struct KdaWeights {
    pub q: Weight,
    pub k: Weight,
    pub v: Weight,
    pub conv_q: Weight,
    pub conv_k: Weight,
    pub conv_v: Weight,
    pub f_a: Weight,
    pub f_b: Weight,
    pub g_a: Weight,
    pub g_b: Weight,
    pub beta: Weight,
    pub a: Weight,
    pub dt_bias: Weight,
    pub norm: Weight,
    pub output: Weight,
}

#[derive(Debug)]
pub(super) struct MlaWeights {
    pub q: Weight,
    pub kv_a: Weight,
    pub kv_a_norm: Weight,
    pub k_b: Weight,
    pub v_b: Weight,
    pub output: Weight,
}

#[derive(Debug)]
pub(super) enum FfnWeights {
    Dense(Mlp),
    Sparse(Box<SparseWeights>),
}

#[derive(Debug)]
pub(super) struct Mlp {
    pub gate: Weight,
    pub up: Weight,
    pub down: Weight,
}

#[derive(Debug)]
pub(super) struct SparseWeights {
    pub router: Weight,
    pub router_bias: Weight,
    pub experts: Mlp,
    pub shared: Option<Mlp>,
}

impl Model {
    /// Opens `path` and binds it. Mapped weights are read when they are first touched.
    pub fn open(path: &Path, options: &Options) -> Result<Self, LoadError> {
        let fail = |e: &dyn std::fmt::Display| LoadError(format!("{}: {e}", path.display()));
        let file = GgufFile::open(path).map_err(|e| fail(&e))?;
        let (hparams, specs) = schema::check(&file).map_err(|e| fail(&e))?;
        let ty = cache_tensor_type(options.cache_type);
        for width in [hparams.mla.latent(), hparams.mla.kv_lora_rank] {
            if ty.row_bytes(width).is_none() {
                let block = ty.block_size();
                return Err(fail(&format!(
                    "cache_type {ty} cannot hold cache rows of {width} values, wanted a multiple of {block}"
                )));
            }
        }
        let limit = hparams.context_length;
        let context = options.context.unwrap_or(limit).min(limit);
        let kind = match options.device {
            Device::Auto => DeviceKind::Auto,
            Device::Cpu => DeviceKind::Cpu,
            Device::Cuda => DeviceKind::Gpu("CUDA"),
            Device::Metal => DeviceKind::Gpu("M"),
            Device::Vulkan => DeviceKind::Gpu("Vulkan"),
        };
        let bytes = std::fs::metadata(path).map_err(|e| fail(&e))?.len();
        let threads = options.threads.unwrap_or_else(|| default_threads(bytes));
        let backend = Backend::open(kind, threads).map_err(|e| fail(&e))?;
        let bound =
            Binder::place(&file, &hparams, &specs, &backend, options).map_err(|e| fail(&e))?;
        let layers = hparams.layers.iter().enumerate();
        let layers = layers.map(|(at, kind)| bound.layer(at, kind.mixer, kind.ffn, &hparams));
        let layers = layers.collect::<Result<_, _>>().map_err(|e| fail(&e))?;
        let global = |role| bound.find(None, role).map_err(|e| fail(&e));
        let token_embd = global(Role::TokenEmbd)?;
        let weights = Weights {
            token_embd,
            output_norm: global(Role::OutputNorm)?,
            // A file without one ties the output to the embedding.
            output: bound.find(None, Role::Output).unwrap_or(token_embd),
            layers,
            storages: bound.storages,
            hparams,
        };
        Ok(Self {
            weights,
            backend,
            context,
            metadata: file.metadata().clone(),
        })
    }

    /// Metadata of the file, for the tokenizer and the chat template.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
    pub fn n_vocab(&self) -> usize {
        self.weights.hparams.vocab
    }
    /// The context limit in force, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }
    pub fn hparams(&self) -> &Hparams {
        &self.weights.hparams
    }
    /// The device that it runs on, by the registry's name.
    pub fn device(&self) -> &str {
        self.backend.name()
    }
}

pub(super) fn cache_tensor_type(ty: CacheType) -> TensorType {
    match ty {
        CacheType::F32 => TensorType::F32,
        CacheType::F16 => TensorType::F16,
        CacheType::Bf16 => TensorType::Bf16,
        CacheType::Q8_0 => TensorType::Q8_0,
    }
}

/// Below this, threads wait for each other about as long as they work. Measured on 2 cores with a
/// 21 MB file: alone, the second thread makes decoding 1.3 times as fast; beside a compiler that
/// keeps both cores busy, ggml's spinning barrier makes it 1000 times as slow (1 s per token).
const WORTH_THREADS: u64 = 64 << 20;

fn default_threads(file_bytes: u64) -> usize {
    match file_bytes < WORTH_THREADS {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// Where each (layer, role) went.
struct Binder {
    storages: Vec<Storage>,
    names: std::collections::HashMap<(Option<usize>, Role), Weight>,
}

impl Binder {
    fn place(
        file: &GgufFile,
        h: &Hparams,
        specs: &[schema::TensorSpec],
        backend: &Backend,
        options: &Options,
    ) -> Result<Self, LoadError> {
        let mut mapped = Vec::new();
        let mut device = Vec::new();
        let mut split = Vec::new();
        let mut names = std::collections::HashMap::new();
        for spec in specs {
            let Some(tensor) = file.tensor(&spec.name) else {
                return Err(LoadError(format!("tensor `{}` is missing", spec.name)));
            };
            if spec.role == Role::MlaKvB {
                let bytes = file.data(tensor);
                for (role, values) in split_kv_b(h, tensor.ty, bytes)? {
                    split.push((spec.layer, role, values));
                }
                continue;
            }
            let placement = Placement {
                name: spec.name.clone(),
                ty: tensor.ty,
                ne: tensor.ne.map(|n| n as usize),
            };
            // The embedding stays mapped: one row a token is read, and not every device reads
            // rows of every type.
            let on_device = !backend.is_cpu()
                && spec.role != Role::TokenEmbd
                && spec
                    .layer
                    .is_none_or(|l| options.gpu_layers.is_none_or(|n| l < n));
            let list = if on_device { 1 } else { 0 };
            let at = if on_device {
                device.push((placement, file.data(tensor)));
                device.len() - 1
            } else {
                mapped.push((placement, tensor.offset));
                mapped.len() - 1
            };
            names.insert((spec.layer, spec.role), Weight { storage: list, at });
        }
        let failed = |e: ggml_kernels::storage::StorageError| LoadError(e.to_string());
        let map: &Arc<_> = file.map();
        let mut storages = vec![Storage::mapped(map, &mapped).map_err(failed)?];
        storages.push(Storage::filled(backend, &device).map_err(failed)?);
        let split_bytes: Vec<(Placement, Vec<u8>)> = split
            .iter()
            .map(|(layer, role, values)| {
                let shape = role.shape(h);
                let placement = Placement {
                    name: schema::name(*layer, *role),
                    ty: TensorType::F32,
                    ne: [shape[0] as usize, shape[1] as usize, shape[2] as usize, 1],
                };
                let bytes = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
                (placement, bytes)
            })
            .collect();
        for (at, (layer, role, _)) in split.iter().enumerate() {
            names.insert((*layer, *role), Weight { storage: 2, at });
        }
        let split_bytes: Vec<_> = split_bytes
            .iter()
            .map(|(p, b)| (p.clone(), b.as_slice()))
            .collect();
        storages.push(Storage::filled(backend, &split_bytes).map_err(failed)?);
        Ok(Self { storages, names })
    }

    fn find(&self, layer: Option<usize>, role: Role) -> Result<Weight, LoadError> {
        let found = self.names.get(&(layer, role)).copied();
        found.ok_or_else(|| LoadError(format!("tensor `{}` is missing", schema::name(layer, role))))
    }

    fn layer(&self, at: usize, mixer: Mixer, ffn: Ffn, h: &Hparams) -> Result<Layer, LoadError> {
        let w = |role| self.find(Some(at), role);
        let mlp = |gate, up, down| -> Result<Mlp, LoadError> {
            Ok(Mlp {
                gate: w(gate)?,
                up: w(up)?,
                down: w(down)?,
            })
        };
        let mixer = match mixer {
            Mixer::Kda => MixerWeights::Kda(Box::new(KdaWeights {
                q: w(Role::KdaQ)?,
                k: w(Role::KdaK)?,
                v: w(Role::KdaV)?,
                conv_q: w(Role::KdaConvQ)?,
                conv_k: w(Role::KdaConvK)?,
                conv_v: w(Role::KdaConvV)?,
                f_a: w(Role::KdaFA)?,
                f_b: w(Role::KdaFB)?,
                g_a: w(Role::KdaGA)?,
                g_b: w(Role::KdaGB)?,
                beta: w(Role::KdaBeta)?,
                a: w(Role::KdaA)?,
                dt_bias: w(Role::KdaDtBias)?,
                norm: w(Role::KdaNorm)?,
                output: w(Role::KdaOutput)?,
            })),
            Mixer::Mla => MixerWeights::Mla(MlaWeights {
                q: w(Role::MlaQ)?,
                kv_a: w(Role::MlaKvA)?,
                kv_a_norm: w(Role::MlaKvANorm)?,
                k_b: w(Role::MlaKB)?,
                v_b: w(Role::MlaVB)?,
                output: w(Role::MlaOutput)?,
            }),
        };
        let ffn = match ffn {
            Ffn::Dense => FfnWeights::Dense(mlp(Role::FfnGate, Role::FfnUp, Role::FfnDown)?),
            Ffn::Sparse => FfnWeights::Sparse(Box::new(SparseWeights {
                router: w(Role::Router)?,
                router_bias: w(Role::RouterBias)?,
                experts: mlp(Role::GateExps, Role::UpExps, Role::DownExps)?,
                shared: match h.moe.shared {
                    0 => None,
                    _ => Some(mlp(Role::GateShexp, Role::UpShexp, Role::DownShexp)?),
                },
            })),
        };
        Ok(Layer {
            attn_norm: w(Role::AttnNorm)?,
            mixer,
            ffn_norm: w(Role::FfnNorm)?,
            ffn,
        })
    }
}

/// Old files keep `kv_b [rank, heads * (qk_nope + v)]` whole: per head the key rows, then the
/// value rows. Absorbed attention wants `k_b` transposed, `[qk_nope, rank, heads]`, and `v_b`
/// apart, `[rank, v, heads]`.
fn split_kv_b(
    h: &Hparams,
    ty: TensorType,
    bytes: &[u8],
) -> Result<[(Role, Vec<f32>); 2], LoadError> {
    let m = &h.mla;
    let (rank, nope, v) = (m.kv_lora_rank, m.qk_nope, m.v);
    let mut whole = vec![0.0; rank * m.heads * (nope + v)];
    dequantize(ty, bytes, &mut whole).map_err(|e| LoadError(e.to_string()))?;
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
    Ok([(Role::MlaKB, k_b), (Role::MlaVB, v_b)])
}
