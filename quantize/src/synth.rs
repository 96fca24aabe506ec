//! Random models of a real shape, for speed runs: blocks are filled with random bits and scales
//! that keep activations in range, so no weight is ever quantized. Says nothing about quality.

mod blocks;
mod words;

use crate::convert::Observer;
use crate::error::Error;
use crate::output::Output;
use crate::recipe::{self, FileType};
use crate::schema::{
    self, BailingMoeV3, Clamps, Ffn, GateLaw, Hparams, Kda, KimiLinear, LayerKind, Mixer, Mla, Moe,
    Role, TensorSpec,
};
use ggml_kernels::gguf::{GgufWriter, Layout, Metadata, PlannedTensor};
use ggml_kernels::quant::TensorType;
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Known shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Kimi-Linear-48B-A3B.
    Full48b,
    /// A small model for a laptop or a phone.
    Edge,
    /// Ling-3.0-tiny, 7.9B-A1.3B.
    LingTiny,
    /// The states of [`Shape::Full48b`] behind as few weights as there can be: what sessions cost, on a
    /// machine that the whole model does not fit. With 28 layers, seven hold rows, as of the 48B.
    States48b,
}

impl std::str::FromStr for Shape {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "48b" => Ok(Self::Full48b),
            "edge" => Ok(Self::Edge),
            "ling-tiny" => Ok(Self::LingTiny),
            "48b-states" => Ok(Self::States48b),
            other => Err(format!(
                "`{other}` is no shape; wanted 48b, edge, ling-tiny or 48b-states"
            )),
        }
    }
}

impl Shape {
    /// Sizes with `layers` layers: every fourth is MLA (3:1), or all are.
    pub fn hparams(self, layers: usize, all_mla: bool) -> Hparams {
        let kind = |at: usize| LayerKind {
            mixer: if all_mla || at % 4 == 3 {
                Mixer::Mla
            } else {
                Mixer::Kda
            },
            ffn: if at == 0 { Ffn::Dense } else { Ffn::Sparse },
            limits: Clamps::NONE,
        };
        let layers = (0..layers).map(kind).collect();
        match self {
            Self::Full48b => kimi(layers, |full, _| full),
            Self::Edge => kimi(layers, |_, small| small),
            Self::LingTiny => ling_tiny(layers),
            Self::States48b => states_48b(layers),
        }
    }
}

/// Kimi-Linear of one of two sizes.
fn kimi(layers: Vec<LayerKind>, pick: fn(usize, usize) -> usize) -> Hparams {
    let ff = pick(1024, 512);
    Hparams {
        kin: &KimiLinear,
        hidden: pick(2304, 1024),
        vocab: pick(163_840, 32_768),
        context_length: 1 << 20,
        norm_eps: 1e-5,
        dense_ff: pick(9216, 3072),
        layers,
        kda: Kda {
            heads: pick(32, 8),
            head_dim: 128,
            conv: 4,
            gate: GateLaw::Softplus,
            whole_gates: false,
        },
        mla: Mla {
            heads: pick(32, 8),
            q_lora_rank: None,
            kv_lora_rank: pick(512, 256),
            qk_nope: 128,
            qk_rope: 64,
            v: 128,
            rope_base: None,
            head_gate: false,
        },
        moe: Moe {
            experts: pick(256, 32),
            used: pick(8, 4),
            ff,
            shared: 1,
            shared_ff: ff,
            scale: 2.446,
            groups: 1,
            groups_used: 1,
        },
    }
}

fn states_48b(layers: Vec<LayerKind>) -> Hparams {
    let large = kimi(layers, |full, _| full);
    Hparams {
        hidden: 256,
        vocab: 32_768,
        dense_ff: 256,
        mla: Mla {
            heads: 1,
            ..large.mla
        },
        moe: Moe {
            experts: 2,
            used: 1,
            ff: 256,
            shared_ff: 256,
            ..large.moe
        },
        ..large
    }
}

fn ling_tiny(layers: Vec<LayerKind>) -> Hparams {
    Hparams {
        kin: &BailingMoeV3,
        hidden: 1536,
        vocab: 157_184,
        context_length: 1 << 17,
        norm_eps: 1e-6,
        dense_ff: 4608,
        layers,
        kda: Kda {
            heads: 16,
            head_dim: 128,
            conv: 4,
            gate: GateLaw::Bounded { lower: -5.0 },
            whole_gates: true,
        },
        mla: Mla {
            heads: 16,
            q_lora_rank: Some(256),
            kv_lora_rank: 512,
            qk_nope: 128,
            qk_rope: 64,
            v: 128,
            rope_base: Some(6e6),
            head_gate: true,
        },
        moe: Moe {
            experts: 128,
            used: 8,
            ff: 512,
            shared: 1,
            shared_ff: 512,
            scale: 2.5,
            groups: 8,
            groups_used: 4,
        },
    }
}

/// Values made in one go by one core.
const PIECE: usize = 1 << 20;

/// Writes a random model. Equal arguments give equal files.
pub fn write(
    h: &Hparams,
    to: FileType,
    target: &Path,
    overwrite: bool,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    let specs = schema::tensors(h);
    let types: Vec<TensorType> = specs
        .iter()
        .map(|spec| recipe::choose(h, spec, to, &[]).ty)
        .collect();
    let plan = |(spec, ty): (&TensorSpec, &TensorType)| PlannedTensor {
        name: spec.name.clone(),
        ty: *ty,
        shape: spec.shape.clone(),
    };
    let planned: Vec<_> = specs.iter().zip(&types).map(plan).collect();
    let layout = Layout::new(&metadata(h, to), &planned)?;
    let output = Output::create(target, layout.file_size(), overwrite)?;
    let failed = |e| Error::io(target, e);
    let mut writer = GgufWriter::new(output, layout).map_err(failed)?;
    for (at, (spec, ty)) in specs.iter().zip(types).enumerate() {
        observer.tensor(&spec.name);
        let values = crate::source::elements(spec) as usize;
        let fill = fill_of(h, spec);
        // A batch of pieces at a time, so that memory does not grow with the tensor.
        let per_batch = PIECE * 2 * rayon::current_num_threads();
        for start in (0..values).step_by(per_batch) {
            let n = per_batch.min(values - start);
            let bytes = |n: usize| n / ty.block_size() * ty.type_size();
            let mut out = vec![0; bytes(n)];
            out.par_chunks_mut(bytes(PIECE))
                .enumerate()
                .for_each(|(piece, out)| {
                    let seed = ((at as u64) << 40) + (start / PIECE + piece) as u64;
                    blocks::fill(ty, fill, seed, out);
                });
            writer.write(&out).map_err(failed)?;
            observer.advance(n as u64);
            if interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
        }
    }
    let output = writer.finish().map_err(failed)?;
    output.commit()
}

/// What a tensor's values should look like.
fn fill_of(h: &Hparams, spec: &TensorSpec) -> blocks::Fill {
    let row = spec.shape[0] as f32;
    match spec.role {
        Role::OutputNorm
        | Role::AttnNorm
        | Role::FfnNorm
        | Role::KdaNorm
        | Role::MlaQANorm
        | Role::MlaKvANorm => blocks::Fill::Uniform {
            low: 1.0,
            high: 1.0,
        },
        // -exp(A_log) and dt_bias as the model's initialisation has them; exp(A_log) as Ling's
        // weights are said to have it.
        Role::KdaA => match h.kda.gate {
            GateLaw::Softplus => blocks::Fill::Uniform {
                low: -16.0,
                high: -1.0,
            },
            GateLaw::Bounded { .. } => blocks::Fill::Uniform {
                low: 1.46,
                high: 2.33,
            },
        },
        Role::KdaDtBias => blocks::Fill::Uniform {
            low: -7.0,
            high: 1.0,
        },
        Role::RouterBias => blocks::Fill::Uniform {
            low: -0.1,
            high: 0.1,
        },
        Role::KdaConvQ | Role::KdaConvK | Role::KdaConvV => blocks::Fill::Spread(0.5),
        Role::TokenEmbd => blocks::Fill::Spread(1.0),
        _ => blocks::Fill::Spread(1.2 / row.sqrt()),
    }
}

fn metadata(h: &Hparams, to: FileType) -> Metadata {
    let mut metadata = Metadata::default();
    h.write(&mut metadata);
    metadata.set("general.type", "model");
    metadata.set("general.name", "synthetic");
    metadata.set("general.file_type", to.id());
    metadata.set("general.quantization_version", 2u32);
    words::write(h.vocab, &mut metadata);
    metadata
}
