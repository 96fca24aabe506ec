//! Sizes of a model, from metadata and back. Every size is bounded and agrees with the others.

use super::ARCHITECTURE;
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKind {
    pub mixer: Mixer,
    pub ffn: Ffn,
}

/// Sizes of the KDA layers. `heads * head_dim` is the width of q, k and v alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kda {
    pub heads: usize,
    pub head_dim: usize,
    /// Taps of the causal convolution.
    pub conv: usize,
}

impl Kda {
    pub fn d_inner(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// Sizes of the MLA layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mla {
    pub heads: usize,
    pub kv_lora_rank: usize,
    /// Width per head of the key part that comes from the latent row.
    pub qk_nope: usize,
    /// Width of the key part that all heads share. It is never rotated in this architecture.
    pub qk_rope: usize,
    pub v: usize,
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

/// Sizes of the sparse layers. Gating is sigmoid; the chosen weights are normalised to sum 1,
/// then scaled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moe {
    pub experts: usize,
    pub used: usize,
    /// Width of one expert.
    pub ff: usize,
    /// Shared experts, stored as one of `shared * ff`; 0 = none.
    pub shared: usize,
    pub scale: f32,
    /// Experts are chosen from `groups_used` of these groups; 1 = no limit.
    pub groups: usize,
    pub groups_used: usize,
}

/// All sizes of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Hparams {
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

/// Why a model was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SchemaError {
    #[error("`general.architecture` is `{got}`, this program runs `{ARCHITECTURE}`")]
    Architecture { got: String },
    #[error("key `{key}` is missing")]
    MissingKey { key: String },
    #[error("key `{key}`: got {got}, wanted {wanted}")]
    Key {
        key: String,
        got: String,
        wanted: String,
    },
    #[error("tensor `{name}` is missing")]
    MissingTensor { name: String },
    #[error("{name}: shape {got:?}, kimi-linear wants {wanted:?}")]
    Shape {
        name: String,
        got: Vec<u64>,
        wanted: Vec<u64>,
    },
    #[error("{name}: type {got}, kimi-linear wants {wanted}")]
    Type {
        name: String,
        got: String,
        wanted: &'static str,
    },
}

/// Layers and every width stay below this, so that products of three fit 64 bits.
const MAX_SIZE: usize = 1 << 21;
const MAX_LAYERS: usize = 512;

impl Hparams {
    /// Reads and checks the sizes of a file.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, SchemaError> {
        let got = metadata.str("general.architecture").unwrap_or("(absent)");
        if got != ARCHITECTURE {
            let got = got.to_owned();
            return Err(SchemaError::Architecture { got });
        }
        let keys = Keys { metadata };
        let n_layers = keys.size("block_count", MAX_LAYERS)?;
        let dense = keys.optional("leading_dense_block_count")?.unwrap_or(0);
        let layers = keys.layers(n_layers, dense)?;
        let (kda_heads, mla_heads) = keys.heads(&layers)?;
        let hidden = keys.size("embedding_length", MAX_SIZE)?;
        let qk_rope = keys.size("rope.dimension_count", MAX_SIZE)?;
        let qk = keys.size("attention.key_length_mla", MAX_SIZE)?;
        if qk <= qk_rope {
            return Err(keys.wrong(
                "attention.key_length_mla",
                qk,
                format!("more than `rope.dimension_count` = {qk_rope}"),
            ));
        }
        if let Some(rank) = keys.optional("attention.q_lora_rank")?
            && rank > 0
        {
            let wanted = "0: queries through a low rank are not supported";
            return Err(keys.wrong("attention.q_lora_rank", rank, wanted));
        }
        let mla = Mla {
            heads: mla_heads,
            kv_lora_rank: keys.size("attention.kv_lora_rank", MAX_SIZE)?,
            qk_nope: qk - qk_rope,
            qk_rope,
            v: keys.size("attention.value_length_mla", MAX_SIZE)?,
        };
        let kda = Kda {
            heads: kda_heads,
            head_dim: keys.size("kda.head_dim", MAX_SIZE)?,
            conv: keys.size("ssm.conv_kernel", 64)?,
        };
        let hparams = Self {
            hidden,
            vocab: keys.vocab()?,
            context_length: keys.size("context_length", u32::MAX as usize)?,
            norm_eps: keys.norm_eps()?,
            dense_ff: if dense == 0 {
                0
            } else {
                keys.size_or_equal_array("feed_forward_length")?
            },
            moe: keys.moe(layers.iter().any(|l| l.ffn == Ffn::Sparse))?,
            layers,
            kda,
            mla,
        };
        hparams.check_products(&keys)?;
        Ok(hparams)
    }

    fn check_products(&self, keys: &Keys<'_>) -> Result<(), SchemaError> {
        let bounds = [
            ("attention.head_count", self.mla.heads * self.mla.qk()),
            ("attention.head_count", self.mla.heads * self.mla.v),
            ("kda.head_dim", self.kda.d_inner()),
            ("expert_shared_count", self.moe.shared * self.moe.ff),
        ];
        for (key, width) in bounds {
            if width > MAX_SIZE {
                return Err(keys.wrong(key, width, format!("a width of at most {MAX_SIZE}")));
            }
        }
        let stated = [
            ("attention.key_length", self.mla.latent()),
            ("attention.value_length", self.mla.kv_lora_rank),
        ];
        for (key, wanted) in stated {
            // Files with an undivided `attn_kv_b` state the width per head here.
            let per_head = [self.mla.qk(), self.mla.v];
            match keys.optional(key)? {
                Some(got) if got != wanted && !per_head.contains(&got) => {
                    return Err(keys.wrong(key, got, format!("{wanted}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds the sizes to a file's metadata, under the ecosystem's keys.
    pub fn write(&self, metadata: &mut Metadata) {
        metadata.set("general.architecture", ARCHITECTURE);
        let mut set = |key: &str, value: Value| metadata.set(&full(key), value);
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
        set("attention.value_length", size(self.mla.kv_lora_rank));
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
        set("expert_gating_func", Value::U32(SIGMOID as u32));
        // Other readers take a stated count of 1 as grouping and then want more experts than
        // groups: it is stated only where it limits something.
        if self.moe.groups > 1 {
            set("expert_group_count", size(self.moe.groups));
            set("expert_group_used_count", size(self.moe.groups_used));
        }
    }
}

const SIGMOID: usize = 2;

fn full(key: &str) -> String {
    format!("{ARCHITECTURE}.{key}")
}

struct Keys<'a> {
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn wrong(&self, key: &str, got: impl ToString, wanted: impl Into<String>) -> SchemaError {
        SchemaError::Key {
            key: full(key),
            got: got.to_string(),
            wanted: wanted.into(),
        }
    }

    fn missing(&self, key: &str) -> SchemaError {
        SchemaError::MissingKey { key: full(key) }
    }

    fn describe(&self, key: &str) -> String {
        match self.metadata.get(&full(key)) {
            None => "nothing".into(),
            Some(Value::Array(array)) => format!("an array of {}", array.len()),
            Some(value) => format!("{value:?}").chars().take(60).collect(),
        }
    }

    /// A number that need not be there.
    fn optional(&self, key: &str) -> Result<Option<usize>, SchemaError> {
        if self.metadata.get(&full(key)).is_none() {
            return Ok(None);
        }
        let n = self.metadata.u64(&full(key));
        match n.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n <= MAX_SIZE => Ok(Some(n)),
            _ => Err(self.wrong(
                key,
                self.describe(key),
                format!("a number from 0 to {MAX_SIZE}"),
            )),
        }
    }

    fn size(&self, key: &str, max: usize) -> Result<usize, SchemaError> {
        if self.metadata.get(&full(key)).is_none() {
            return Err(self.missing(key));
        }
        let n = self.metadata.u64(&full(key));
        match n.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=max).contains(&n) => Ok(n),
            _ => Err(self.wrong(key, self.describe(key), format!("a number from 1 to {max}"))),
        }
    }

    /// A size stated once, or once per layer with the same value.
    fn size_or_equal_array(&self, key: &str) -> Result<usize, SchemaError> {
        let Some(values) = self.metadata.u64s(&full(key)) else {
            return self.size(key, MAX_SIZE);
        };
        // Layers of the other kind state 0.
        let mut stated = values.iter().filter(|&&n| n != 0);
        let first = stated.next().copied().unwrap_or(0);
        let in_range = (1..=MAX_SIZE as u64).contains(&first);
        if !in_range || stated.any(|&n| n != first) {
            return Err(self.wrong(key, self.describe(key), "one width for all layers"));
        }
        Ok(first as usize)
    }

    /// Which layers mix with which, and which are dense.
    fn layers(&self, n: usize, dense: usize) -> Result<Vec<LayerKind>, SchemaError> {
        let key = "attention.head_count_kv";
        if dense > n {
            return Err(self.wrong("leading_dense_block_count", dense, format!("at most {n}")));
        }
        let kv = match (
            self.metadata.u64s(&full(key)),
            self.metadata.u64(&full(key)),
        ) {
            (Some(list), _) if list.len() == n => list,
            (None, Some(all)) => vec![all; n],
            (None, None) if self.metadata.get(&full(key)).is_none() => {
                return Err(self.missing(key));
            }
            _ => {
                let wanted = format!("{n} numbers, 0 for KDA layers");
                return Err(self.wrong(key, self.describe(key), wanted));
            }
        };
        let kind = |(at, &kv): (usize, &u64)| LayerKind {
            mixer: if kv == 0 { Mixer::Kda } else { Mixer::Mla },
            ffn: if at < dense { Ffn::Dense } else { Ffn::Sparse },
        };
        Ok(kv.iter().enumerate().map(kind).collect())
    }

    /// Heads of the KDA and of the MLA layers. A kind without layers takes the other's count.
    fn heads(&self, layers: &[LayerKind]) -> Result<(usize, usize), SchemaError> {
        let key = "attention.head_count";
        let Some(list) = self.metadata.u64s(&full(key)) else {
            let heads = self.size(key, 1 << 16)?;
            return Ok((heads, heads));
        };
        if list.len() != layers.len() {
            let wanted = format!("{} numbers", layers.len());
            return Err(self.wrong(key, self.describe(key), wanted));
        }
        let of = |mixer: Mixer| {
            let mut heads = layers.iter().zip(&list).filter(|(l, _)| l.mixer == mixer);
            let first = heads.next().map(|(_, &h)| h);
            match first {
                Some(h) if !(1..=1 << 16).contains(&h) || heads.any(|(_, &other)| other != h) => {
                    let wanted = "one count from 1 to 65536 for all layers of a kind";
                    Err(self.wrong(key, self.describe(key), wanted))
                }
                first => Ok(first.map(|h| h as usize)),
            }
        };
        match (of(Mixer::Kda)?, of(Mixer::Mla)?) {
            (Some(kda), Some(mla)) => Ok((kda, mla)),
            (Some(h), None) | (None, Some(h)) => Ok((h, h)),
            (None, None) => Err(self.missing(key)),
        }
    }

    fn vocab(&self) -> Result<usize, SchemaError> {
        if self.metadata.get(&full("vocab_size")).is_some() {
            return self.size("vocab_size", 1 << 24);
        }
        match self.metadata.strs("tokenizer.ggml.tokens") {
            Some(tokens) if !tokens.is_empty() => Ok(tokens.len()),
            _ => Err(self.missing("vocab_size")),
        }
    }

    fn norm_eps(&self) -> Result<f32, SchemaError> {
        let key = "attention.layer_norm_rms_epsilon";
        match self.metadata.f32(&full(key)) {
            Some(eps) if eps > 0.0 && eps < 1.0 => Ok(eps),
            Some(eps) => Err(self.wrong(key, eps, "a number between 0 and 1")),
            None => Err(self.missing(key)),
        }
    }

    fn moe(&self, any_sparse: bool) -> Result<Moe, SchemaError> {
        if !any_sparse {
            return Ok(Moe {
                experts: 0,
                used: 0,
                ff: 0,
                shared: 0,
                scale: 1.0,
                groups: 1,
                groups_used: 1,
            });
        }
        let gating = self.size("expert_gating_func", 255)?;
        if gating != SIGMOID {
            return Err(self.wrong("expert_gating_func", gating, "2 (sigmoid)"));
        }
        if self.metadata.bool(&full("expert_weights_norm")) == Some(false) {
            return Err(self.wrong("expert_weights_norm", "false", "true"));
        }
        let experts = self.size("expert_count", 1 << 16)?;
        let used = self.size("expert_used_count", experts)?;
        let groups = self.optional("expert_group_count")?.unwrap_or(1).max(1);
        let groups_used = self.optional("expert_group_used_count")?;
        let groups_used = groups_used.unwrap_or(1).max(1);
        if !experts.is_multiple_of(groups) {
            let wanted = format!("a divisor of `expert_count` = {experts}");
            return Err(self.wrong("expert_group_count", groups, wanted));
        }
        if groups_used > groups || used > groups_used * (experts / groups) {
            let wanted = format!("at most {groups} groups that hold {used} experts");
            return Err(self.wrong("expert_group_used_count", groups_used, wanted));
        }
        let scale = self.metadata.f32(&full("expert_weights_scale"));
        let scale = match scale {
            // Other writers leave it out, or state 0, for "no scale".
            None | Some(0.0) => 1.0,
            Some(scale) if scale.is_finite() => scale,
            Some(scale) => return Err(self.wrong("expert_weights_scale", scale, "finite")),
        };
        Ok(Moe {
            experts,
            used,
            ff: self.size_or_equal_array("expert_feed_forward_length")?,
            shared: self.optional("expert_shared_count")?.unwrap_or(0),
            scale,
            groups,
            groups_used,
        })
    }
}
