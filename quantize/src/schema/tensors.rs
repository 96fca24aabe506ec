//! Tensor names and shapes, one table for reading and writing.

use super::{Ffn, Hparams, Mixer, SchemaError};
use ggml_kernels::gguf::{GgufFile, TensorInfo};
use ggml_kernels::quant::TensorType;

/// What a tensor is for. One role per layer, so (layer, role) names a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    TokenEmbd,
    OutputNorm,
    Output,
    AttnNorm,
    KdaQ,
    KdaK,
    KdaV,
    KdaConvQ,
    KdaConvK,
    KdaConvV,
    /// The decay's two matrices.
    KdaFA,
    KdaFB,
    /// Both in one.
    KdaF,
    /// The output gate's two matrices.
    KdaGA,
    KdaGB,
    /// Both in one.
    KdaG,
    KdaBeta,
    /// exp(A_log), negative where the decay has no bound.
    KdaA,
    KdaDtBias,
    KdaNorm,
    KdaOutput,
    MlaQ,
    /// Queries through a low rank.
    MlaQA,
    MlaQANorm,
    MlaQB,
    MlaKvA,
    MlaKvANorm,
    MlaKB,
    MlaVB,
    /// Both of the above undivided, as old files have them.
    MlaKvB,
    /// Of each head's output.
    MlaGate,
    MlaOutput,
    FfnNorm,
    FfnGate,
    FfnUp,
    FfnDown,
    Router,
    RouterBias,
    GateExps,
    UpExps,
    DownExps,
    GateShexp,
    UpShexp,
    DownShexp,
}

impl Role {
    /// The ecosystem's name, after `blk.N.` for those that a layer has.
    pub fn suffix(self) -> &'static str {
        match self {
            Role::TokenEmbd => "token_embd.weight",
            Role::OutputNorm => "output_norm.weight",
            Role::Output => "output.weight",
            Role::AttnNorm => "attn_norm.weight",
            Role::KdaQ | Role::MlaQ => "attn_q.weight",
            Role::KdaK => "attn_k.weight",
            Role::KdaV => "attn_v.weight",
            Role::KdaConvQ => "ssm_conv1d_q.weight",
            Role::KdaConvK => "ssm_conv1d_k.weight",
            Role::KdaConvV => "ssm_conv1d_v.weight",
            Role::KdaFA | Role::KdaF => "ssm_f_a.weight",
            Role::KdaFB => "ssm_f_b.weight",
            Role::KdaGA | Role::KdaG => "ssm_g_a.weight",
            Role::KdaGB => "ssm_g_b.weight",
            Role::KdaBeta => "ssm_beta.weight",
            Role::KdaA => "ssm_a",
            Role::KdaDtBias => "ssm_dt.bias",
            Role::KdaNorm => "ssm_norm.weight",
            Role::KdaOutput | Role::MlaOutput => "attn_output.weight",
            Role::MlaQA => "attn_q_a.weight",
            Role::MlaQANorm => "attn_q_a_norm.weight",
            Role::MlaQB => "attn_q_b.weight",
            Role::MlaGate => "attn_gate.weight",
            Role::MlaKvA => "attn_kv_a_mqa.weight",
            Role::MlaKvANorm => "attn_kv_a_norm.weight",
            Role::MlaKB => "attn_k_b.weight",
            Role::MlaVB => "attn_v_b.weight",
            Role::MlaKvB => "attn_kv_b.weight",
            Role::FfnNorm => "ffn_norm.weight",
            Role::FfnGate => "ffn_gate.weight",
            Role::FfnUp => "ffn_up.weight",
            Role::FfnDown => "ffn_down.weight",
            Role::Router => "ffn_gate_inp.weight",
            Role::RouterBias => "exp_probs_b.bias",
            Role::GateExps => "ffn_gate_exps.weight",
            Role::UpExps => "ffn_up_exps.weight",
            Role::DownExps => "ffn_down_exps.weight",
            Role::GateShexp => "ffn_gate_shexp.weight",
            Role::UpShexp => "ffn_up_shexp.weight",
            Role::DownShexp => "ffn_down_shexp.weight",
        }
    }

    /// Sizes, fastest first, as we write them. Readers disregard trailing ones.
    pub fn shape(self, h: &Hparams) -> Vec<u64> {
        let (kda, mla, moe) = (&h.kda, &h.mla, &h.moe);
        let inner = kda.d_inner();
        let q_rank = mla.q_lora_rank.unwrap_or(0);
        let shape: &[usize] = match self {
            Role::TokenEmbd | Role::Output => &[h.hidden, h.vocab],
            Role::OutputNorm | Role::AttnNorm | Role::FfnNorm => &[h.hidden],
            Role::KdaQ | Role::KdaK | Role::KdaV => &[h.hidden, inner],
            Role::KdaF | Role::KdaG => &[h.hidden, inner],
            Role::KdaConvQ | Role::KdaConvK | Role::KdaConvV => &[kda.conv, 1, inner, 1],
            Role::KdaFA | Role::KdaGA => &[h.hidden, kda.head_dim],
            Role::KdaFB | Role::KdaGB => &[kda.head_dim, inner],
            Role::KdaBeta => &[h.hidden, kda.heads],
            Role::KdaA => &[1, kda.heads, 1, 1],
            Role::KdaDtBias => &[inner],
            Role::KdaNorm => &[kda.head_dim],
            Role::KdaOutput => &[inner, h.hidden],
            Role::MlaQ => &[h.hidden, mla.heads * mla.qk()],
            Role::MlaQA => &[h.hidden, q_rank],
            Role::MlaQANorm => &[q_rank],
            Role::MlaQB => &[q_rank, mla.heads * mla.qk()],
            Role::MlaGate => &[h.hidden, mla.heads],
            Role::MlaKvA => &[h.hidden, mla.latent()],
            Role::MlaKvANorm => &[mla.kv_lora_rank],
            Role::MlaKB => &[mla.qk_nope, mla.kv_lora_rank, mla.heads],
            Role::MlaVB => &[mla.kv_lora_rank, mla.v, mla.heads],
            Role::MlaKvB => &[mla.kv_lora_rank, mla.heads * (mla.qk_nope + mla.v)],
            Role::MlaOutput => &[mla.heads * mla.v, h.hidden],
            Role::FfnGate | Role::FfnUp => &[h.hidden, h.dense_ff],
            Role::FfnDown => &[h.dense_ff, h.hidden],
            Role::Router => &[h.hidden, moe.experts],
            Role::RouterBias => &[moe.experts],
            Role::GateExps | Role::UpExps => &[h.hidden, moe.ff, moe.experts],
            Role::DownExps => &[moe.ff, h.hidden, moe.experts],
            Role::GateShexp | Role::UpShexp => &[h.hidden, moe.shared_ff],
            Role::DownShexp => &[moe.shared_ff, h.hidden],
        };
        shape.iter().map(|&n| n as u64).collect()
    }

    /// Tensors that are F32 in every file: small, and read by operators that know nothing else.
    pub fn is_always_f32(self) -> bool {
        matches!(
            self,
            Role::OutputNorm
                | Role::AttnNorm
                | Role::FfnNorm
                | Role::KdaConvQ
                | Role::KdaConvK
                | Role::KdaConvV
                | Role::KdaA
                | Role::KdaDtBias
                | Role::KdaNorm
                | Role::MlaQANorm
                | Role::MlaKvANorm
                | Role::RouterBias
        )
    }

    /// One matrix per expert.
    pub fn is_stacked_experts(self) -> bool {
        matches!(self, Role::GateExps | Role::UpExps | Role::DownExps)
    }
}

/// One tensor of a model as the schema wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    pub name: String,
    pub role: Role,
    /// `None` for the global ones.
    pub layer: Option<usize>,
    /// Sizes, fastest first, as written.
    pub shape: Vec<u64>,
    /// False: the model runs without it (`output.weight` is then `token_embd.weight`).
    pub required: bool,
}

impl TensorSpec {
    /// `shape`, padded with ones.
    pub fn ne(&self) -> [u64; 4] {
        let mut ne = [1; 4];
        ne[..self.shape.len()].copy_from_slice(&self.shape);
        ne
    }

    fn new(h: &Hparams, layer: Option<usize>, role: Role) -> Self {
        Self {
            name: name(layer, role),
            role,
            layer,
            shape: role.shape(h),
            required: role != Role::Output,
        }
    }

    fn matches(&self, tensor: &TensorInfo) -> Result<(), SchemaError> {
        if tensor.ne != self.ne() {
            return Err(SchemaError::Shape {
                name: self.name.clone(),
                got: without_trailing_ones(tensor.shape()),
                wanted: without_trailing_ones(&self.shape),
            });
        }
        let wanted = if self.role.is_always_f32() {
            (tensor.ty != TensorType::F32).then_some("f32")
        } else {
            (tensor.ty == TensorType::I32).then_some("a type of weights")
        };
        match wanted {
            None => Ok(()),
            Some(wanted) => Err(SchemaError::Type {
                name: self.name.clone(),
                got: tensor.ty.to_string(),
                wanted,
            }),
        }
    }
}

fn without_trailing_ones(shape: &[u64]) -> Vec<u64> {
    let keep = shape.iter().rposition(|&n| n != 1).map_or(1, |at| at + 1);
    shape[..keep.min(shape.len())].to_vec()
}

/// The name of a layer's tensor, or of a global one.
pub fn name(layer: Option<usize>, role: Role) -> String {
    match layer {
        None => role.suffix().to_owned(),
        Some(layer) => format!("blk.{layer}.{}", role.suffix()),
    }
}

/// The layer whose tensor has this name.
pub fn layer_of(name: &str) -> Option<usize> {
    let (layer, _) = name.strip_prefix("blk.")?.split_once('.')?;
    layer.parse().ok()
}

/// Every tensor of a model, in the order in which we write them.
pub fn tensors(h: &Hparams) -> Vec<TensorSpec> {
    let global = [Role::TokenEmbd, Role::OutputNorm, Role::Output];
    let mut specs: Vec<_> = global.map(|role| TensorSpec::new(h, None, role)).into();
    for (at, layer) in h.layers.iter().enumerate() {
        let mixer = match layer.mixer {
            Mixer::Kda => kda(h),
            Mixer::Mla => mla(h),
        };
        let ffn: &[Role] = match (layer.ffn, h.moe.shared) {
            (Ffn::Dense, _) => &[Role::FfnGate, Role::FfnUp, Role::FfnDown],
            (Ffn::Sparse, 0) => SPARSE,
            (Ffn::Sparse, _) => SPARSE_AND_SHARED,
        };
        let roles = [Role::AttnNorm].iter().chain(&mixer);
        let roles = roles.chain(&[Role::FfnNorm]).chain(ffn);
        specs.extend(roles.map(|&role| TensorSpec::new(h, Some(at), role)));
    }
    specs
}

fn kda(h: &Hparams) -> Vec<Role> {
    let gates: &[Role] = if h.kda.whole_gates {
        &[Role::KdaF, Role::KdaG]
    } else {
        &[Role::KdaFA, Role::KdaFB, Role::KdaGA, Role::KdaGB]
    };
    let before = [
        Role::KdaQ,
        Role::KdaK,
        Role::KdaV,
        Role::KdaConvQ,
        Role::KdaConvK,
        Role::KdaConvV,
    ];
    let after = [
        Role::KdaBeta,
        Role::KdaA,
        Role::KdaDtBias,
        Role::KdaNorm,
        Role::KdaOutput,
    ];
    [&before, gates, &after].concat()
}

fn mla(h: &Hparams) -> Vec<Role> {
    let queries: &[Role] = match h.mla.q_lora_rank {
        None => &[Role::MlaQ],
        Some(_) => &[Role::MlaQA, Role::MlaQANorm, Role::MlaQB],
    };
    let gate: &[Role] = if h.mla.head_gate {
        &[Role::MlaGate]
    } else {
        &[]
    };
    let rows = [Role::MlaKvA, Role::MlaKvANorm, Role::MlaKB, Role::MlaVB];
    [queries, &rows, gate, &[Role::MlaOutput]].concat()
}

const SPARSE_AND_SHARED: &[Role] = &[
    Role::Router,
    Role::RouterBias,
    Role::GateExps,
    Role::UpExps,
    Role::DownExps,
    Role::GateShexp,
    Role::UpShexp,
    Role::DownShexp,
];
const SPARSE: &[Role] = SPARSE_AND_SHARED.split_at(5).0;

/// Holds a whole file against the schema: every tensor there, of the right shape and kind of
/// type. Returns the sizes and what the file holds, in the schema's order: `output.weight` only
/// where it is not tied, `attn_kv_b` in place of `attn_k_b` and `attn_v_b` in old files. Tensors
/// that the schema does not know are left alone.
pub fn check(file: &GgufFile) -> Result<(Hparams, Vec<TensorSpec>), SchemaError> {
    let h = Hparams::from_metadata(file.metadata())?;
    let mut held = Vec::new();
    for spec in tensors(&h) {
        let has = |role| file.tensor(&name(spec.layer, role)).is_some();
        let spec = match spec.role {
            Role::MlaKB if !has(Role::MlaKB) && has(Role::MlaKvB) => {
                TensorSpec::new(&h, spec.layer, Role::MlaKvB)
            }
            Role::MlaVB if !has(Role::MlaVB) && has(Role::MlaKvB) => continue,
            _ => spec,
        };
        match file.tensor(&spec.name) {
            Some(tensor) => spec.matches(tensor)?,
            None if spec.required => {
                let name = spec.name;
                return Err(SchemaError::MissingTensor { name });
            }
            None => continue,
        }
        held.push(spec);
    }
    Ok((h, held))
}
