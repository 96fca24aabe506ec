//! Sizes of a model, and what is special about it. Every size is bounded and agrees with the others.

use super::{GateLaw, KIN, Keys, Kin, SchemaError};
use ggml_kernels::gguf::{Array, Metadata, Value};

/// What mixes tokens in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    /// Gated linear attention with a fixed state.
    Kda,
    /// Full attention over a latent cache.
    Mla,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ffn {
    Dense,
    Sparse,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerKind {
    pub mixer: Mixer,
    pub ffn: Ffn,
    pub limits: Clamps,
}

/// What a sparse layer's products `min(silu(gate), limit) * clamp(up, -limit, limit)` are bounded
/// by; infinity where they are not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clamps {
    pub experts: f32,
    pub shared: f32,
}

impl Clamps {
    pub const NONE: Clamps = Clamps {
        experts: f32::INFINITY,
        shared: f32::INFINITY,
    };
}

/// The KDA layers. `heads * head_dim` is the width of q, k and v alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kda {
    pub heads: usize,
    pub head_dim: usize,
    /// Taps of the causal convolution.
    pub conv: usize,
    pub gate: GateLaw,
    /// Decay and output gate each have one whole matrix; otherwise two, through `head_dim` columns.
    pub whole_gates: bool,
}

impl Kda {
    pub fn d_inner(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// The MLA layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mla {
    pub heads: usize,
    /// Columns that queries go through, with a norm; `None`: one matrix.
    pub q_lora_rank: Option<usize>,
    pub kv_lora_rank: usize,
    /// Width per head of the key part that comes from the latent row.
    pub qk_nope: usize,
    /// Width of the key part that all heads share.
    pub qk_rope: usize,
    pub v: usize,
    /// The shared part's neighbouring columns are rotated by position, the first pair by one
    /// radian a token, the others by falling powers of this; `None`: not at all.
    pub rope_base: Option<f32>,
    /// A gate opens each head's output.
    pub head_gate: bool,
}

impl Mla {
    /// Width per head of queries and keys.
    pub fn qk(&self) -> usize {
        self.qk_nope + self.qk_rope
    }
    /// Width of a cache row.
    pub fn latent(&self) -> usize {
        self.kv_lora_rank + self.qk_rope
    }
}

/// The sparse layers. Gating is sigmoid; the chosen weights are normalised to sum 1, then scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moe {
    pub experts: usize,
    pub used: usize,
    /// Width of one expert.
    pub ff: usize,
    /// Shared experts, stored as one; 0 = none.
    pub shared: usize,
    /// Width of all of them.
    pub shared_ff: usize,
    pub scale: f32,
    /// Experts are chosen from `groups_used` of these groups; 1 = no limit.
    pub groups: usize,
    pub groups_used: usize,
}

impl Moe {
    /// Of a model without sparse layers.
    pub const NONE: Moe = Moe {
        experts: 0,
        used: 0,
        ff: 0,
        shared: 0,
        shared_ff: 0,
        scale: 1.0,
        groups: 1,
        groups_used: 1,
    };
}

/// All that there is to know of a model but its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Hparams {
    pub kin: &'static dyn Kin,
    pub hidden: usize,
    pub vocab: usize,
    pub context_length: usize,
    pub norm_eps: f32,
    /// Width of the dense layers.
    pub dense_ff: usize,
    pub layers: Vec<LayerKind>,
    pub kda: Kda,
    pub mla: Mla,
    pub moe: Moe,
}

impl Hparams {
    /// Reads and checks the sizes of a file.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, SchemaError> {
        let got = metadata.str("general.architecture").unwrap_or("(absent)");
        let Some(kin) = KIN.into_iter().find(|kin| kin.architecture() == got) else {
            let got = got.to_owned();
            return Err(SchemaError::Architecture { got });
        };
        let keys = Keys::new(metadata, kin.architecture());
        let hparams = kin.read(&keys)?;
        hparams.check_products(&keys)?;
        Ok(hparams)
    }

    fn check_products(&self, keys: &Keys<'_>) -> Result<(), SchemaError> {
        let bounds = [
            ("attention.head_count", self.mla.heads * self.mla.qk()),
            ("attention.head_count", self.mla.heads * self.mla.v),
            ("kda.head_dim", self.kda.d_inner()),
            ("expert_shared_count", self.moe.shared_ff),
        ];
        for (key, width) in bounds {
            if width > Keys::MAX_SIZE {
                let wanted = format!("a width of at most {}", Keys::MAX_SIZE);
                return Err(keys.wrong(key, width, wanted));
            }
        }
        Ok(())
    }

    /// Adds the sizes to a file's metadata, under the ecosystem's keys.
    pub fn write(&self, metadata: &mut Metadata) {
        let prefix = self.kin.architecture();
        metadata.set("general.architecture", prefix);
        let mut set = |key: &str, value: Value| metadata.set(&format!("{prefix}.{key}"), value);
        let size = |n: usize| Value::U32(n as u32);
        set("block_count", size(self.layers.len()));
        set("context_length", size(self.context_length));
        set("embedding_length", size(self.hidden));
        set("feed_forward_length", size(self.dense_ff));
        set("vocab_size", size(self.vocab));
        // One number where it can be said with one, as other readers expect; a list otherwise.
        let heads = |l: &LayerKind| match l.mixer {
            Mixer::Kda => self.kda.heads as u32,
            Mixer::Mla => self.mla.heads as u32,
        };
        let heads: Vec<u32> = self.layers.iter().map(heads).collect();
        if heads.iter().all(|&h| h == heads[0]) {
            set("attention.head_count", Value::U32(heads[0]));
        } else {
            set("attention.head_count", Value::Array(Array::U32(heads)));
        }
        let kv = |l: &LayerKind| u32::from(l.mixer == Mixer::Mla);
        let kv = self.layers.iter().map(kv).collect();
        set("attention.head_count_kv", Value::Array(Array::U32(kv)));
        set(
            "attention.layer_norm_rms_epsilon",
            Value::F32(self.norm_eps),
        );
        set("attention.kv_lora_rank", size(self.mla.kv_lora_rank));
        set("attention.key_length", size(self.mla.latent()));
        set("attention.key_length_mla", size(self.mla.qk()));
        set("attention.value_length_mla", size(self.mla.v));
        set("rope.dimension_count", size(self.mla.qk_rope));
        set("ssm.conv_kernel", size(self.kda.conv));
        set("kda.head_dim", size(self.kda.head_dim));
        let dense = self.layers.iter().filter(|l| l.ffn == Ffn::Dense).count();
        set("leading_dense_block_count", size(dense));
        set("expert_count", size(self.moe.experts));
        set("expert_used_count", size(self.moe.used));
        set("expert_feed_forward_length", size(self.moe.ff));
        set("expert_shared_count", size(self.moe.shared));
        set("expert_weights_scale", Value::F32(self.moe.scale));
        set("expert_weights_norm", Value::Bool(true));
        set("expert_gating_func", size(Keys::SIGMOID));
        // Other readers take a stated count of 1 as grouping and then want more experts than
        // groups, and fewer groups used than there are: groups are stated where they limit.
        if self.moe.groups_used != self.moe.groups {
            set("expert_group_count", size(self.moe.groups));
            set("expert_group_used_count", size(self.moe.groups_used));
        }
        for (key, value) in self.kin.own_keys(self) {
            set(key, value);
        }
    }
}
