//! A file's keys of one architecture, asked for by name, with errors that give the name.

use super::{Clamps, Ffn, GateLaw, Kda, LayerKind, Mixer, Mla, Moe, SchemaError};
use ggml_kernels::gguf::{Array, Metadata, Value};

pub struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl<'a> Keys<'a> {
    /// Layers and every width stay below this, so that products of three fit 64 bits.
    pub const MAX_SIZE: usize = 1 << 21;
    pub const MAX_LAYERS: usize = 512;
    /// `expert_gating_func`.
    pub const SIGMOID: usize = 2;

    pub fn new(metadata: &'a Metadata, prefix: &'static str) -> Self {
        Self { metadata, prefix }
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&self.full(key))
    }

    pub fn wrong(&self, key: &str, got: impl ToString, wanted: impl Into<String>) -> SchemaError {
        SchemaError::Key {
            key: self.full(key),
            got: got.to_string(),
            wanted: wanted.into(),
        }
    }

    pub fn missing(&self, key: &str) -> SchemaError {
        SchemaError::MissingKey {
            key: self.full(key),
        }
    }

    pub fn describe(&self, key: &str) -> String {
        match self.get(key) {
            None => "nothing".into(),
            Some(Value::Array(array)) => format!("an array of {}", array.len()),
            Some(value) => format!("{value:?}").chars().take(60).collect(),
        }
    }

    fn u64(&self, key: &str) -> Option<u64> {
        self.metadata.u64(&self.full(key))
    }

    fn u64s(&self, key: &str) -> Option<Vec<u64>> {
        self.metadata.u64s(&self.full(key))
    }

    pub fn bool(&self, key: &str) -> Option<bool> {
        self.metadata.bool(&self.full(key))
    }

    /// A number that need not be there.
    pub fn optional(&self, key: &str) -> Result<Option<usize>, SchemaError> {
        if self.get(key).is_none() {
            return Ok(None);
        }
        let n = self.u64(key);
        match n.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if n <= Self::MAX_SIZE => Ok(Some(n)),
            _ => {
                let wanted = format!("a number from 0 to {}", Self::MAX_SIZE);
                Err(self.wrong(key, self.describe(key), wanted))
            }
        }
    }

    pub fn size(&self, key: &str, max: usize) -> Result<usize, SchemaError> {
        if self.get(key).is_none() {
            return Err(self.missing(key));
        }
        let n = self.u64(key);
        match n.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=max).contains(&n) => Ok(n),
            _ => Err(self.wrong(key, self.describe(key), format!("a number from 1 to {max}"))),
        }
    }

    /// A size stated once, or once per layer with the same value.
    pub fn size_or_equal_array(&self, key: &str) -> Result<usize, SchemaError> {
        let Some(values) = self.u64s(key) else {
            return self.size(key, Self::MAX_SIZE);
        };
        // Layers of the other kind state 0.
        let mut stated = values.iter().filter(|&&n| n != 0);
        let first = stated.next().copied().unwrap_or(0);
        let in_range = (1..=Self::MAX_SIZE as u64).contains(&first);
        if !in_range || stated.any(|&n| n != first) {
            return Err(self.wrong(key, self.describe(key), "one width for all layers"));
        }
        Ok(first as usize)
    }

    /// A finite number.
    pub fn float(&self, key: &str) -> Result<f32, SchemaError> {
        match self.metadata.f32(&self.full(key)) {
            Some(x) if x.is_finite() => Ok(x),
            _ if self.get(key).is_none() => Err(self.missing(key)),
            _ => Err(self.wrong(key, self.describe(key), "a finite number")),
        }
    }

    /// Which layers mix with which, and which are dense, of `n` layers; blocks behind them, as many
    /// as `more`, are not the model's own.
    pub fn layers(&self, n: usize, more: usize) -> Result<Vec<LayerKind>, SchemaError> {
        let dense = self.dense()?;
        let key = "attention.head_count_kv";
        if dense > n {
            return Err(self.wrong("leading_dense_block_count", dense, format!("at most {n}")));
        }
        let kv = match (self.u64s(key), self.u64(key)) {
            (Some(list), _) if list.len() == n + more => list,
            (None, Some(all)) => vec![all; n],
            (None, None) if self.get(key).is_none() => {
                return Err(self.missing(key));
            }
            _ => {
                let wanted = format!("{} numbers, 0 for KDA layers", n + more);
                return Err(self.wrong(key, self.describe(key), wanted));
            }
        };
        let kind = |(at, &kv): (usize, &u64)| LayerKind {
            mixer: if kv == 0 { Mixer::Kda } else { Mixer::Mla },
            ffn: if at < dense { Ffn::Dense } else { Ffn::Sparse },
            limits: Clamps::NONE,
        };
        Ok(kv.iter().take(n).enumerate().map(kind).collect())
    }

    fn dense(&self) -> Result<usize, SchemaError> {
        Ok(self.optional("leading_dense_block_count")?.unwrap_or(0))
    }

    /// Width of the dense layers; 0 without any.
    pub fn dense_ff(&self) -> Result<usize, SchemaError> {
        match self.dense()? {
            0 => Ok(0),
            _ => self.size_or_equal_array("feed_forward_length"),
        }
    }

    /// A bound for each of `n` blocks, infinite where 0 is stated or nothing is.
    pub fn limits(&self, key: &str, n: usize) -> Result<Vec<f32>, SchemaError> {
        let stated = match self.get(key) {
            None => vec![0.0; n],
            Some(&Value::F32(all)) => vec![all; n],
            Some(Value::Array(Array::F32(each))) if each.len() == n => each.clone(),
            Some(_) => {
                let wanted = format!("{n} numbers of type f32");
                return Err(self.wrong(key, self.describe(key), wanted));
            }
        };
        if let Some(bad) = stated.iter().find(|x| x.is_nan() || **x < 0.0) {
            return Err(self.wrong(key, bad, "bounds from 0, which is none"));
        }
        let bound = |x: f32| if x == 0.0 { f32::INFINITY } else { x };
        Ok(stated.into_iter().map(bound).collect())
    }

    /// Heads of the KDA and of the MLA layers. A kind without layers takes the other's count.
    pub fn heads(&self, layers: &[LayerKind]) -> Result<(usize, usize), SchemaError> {
        let key = "attention.head_count";
        let Some(list) = self.u64s(key) else {
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

    /// The KDA layers, with low-rank gates of no bound.
    pub fn kda(&self, heads: usize) -> Result<Kda, SchemaError> {
        Ok(Kda {
            heads,
            head_dim: self.size("kda.head_dim", Self::MAX_SIZE)?,
            conv: self.size("ssm.conv_kernel", 64)?,
            gate: GateLaw::Softplus,
            whole_gates: false,
        })
    }

    /// The MLA layers, plain: whole queries, no rotation, no gate.
    pub fn mla(&self, heads: usize) -> Result<Mla, SchemaError> {
        let qk_rope = self.size("rope.dimension_count", Self::MAX_SIZE)?;
        let qk = self.size("attention.key_length_mla", Self::MAX_SIZE)?;
        if qk <= qk_rope {
            return Err(self.wrong(
                "attention.key_length_mla",
                qk,
                format!("more than `rope.dimension_count` = {qk_rope}"),
            ));
        }
        Ok(Mla {
            heads,
            q_lora_rank: None,
            kv_lora_rank: self.size("attention.kv_lora_rank", Self::MAX_SIZE)?,
            qk_nope: qk - qk_rope,
            qk_rope,
            v: self.size("attention.value_length_mla", Self::MAX_SIZE)?,
            rope_base: None,
            head_gate: false,
        })
    }

    pub fn vocab(&self) -> Result<usize, SchemaError> {
        if self.get("vocab_size").is_some() {
            return self.size("vocab_size", 1 << 24);
        }
        match self.metadata.strs("tokenizer.ggml.tokens") {
            Some(tokens) if !tokens.is_empty() => Ok(tokens.len()),
            _ => Err(self.missing("vocab_size")),
        }
    }

    pub fn context_length(&self) -> Result<usize, SchemaError> {
        self.size("context_length", u32::MAX as usize)
    }

    pub fn norm_eps(&self) -> Result<f32, SchemaError> {
        let key = "attention.layer_norm_rms_epsilon";
        match self.float(key)? {
            eps if eps > 0.0 && eps < 1.0 => Ok(eps),
            eps => Err(self.wrong(key, eps, "a number between 0 and 1")),
        }
    }

    /// The sparse layers, if there are any.
    pub fn moe(&self, layers: &[LayerKind]) -> Result<Moe, SchemaError> {
        if layers.iter().all(|l| l.ffn == Ffn::Dense) {
            return Ok(Moe::NONE);
        }
        let gating = self.size("expert_gating_func", 255)?;
        if gating != Self::SIGMOID {
            return Err(self.wrong("expert_gating_func", gating, "2 (sigmoid)"));
        }
        if self.bool("expert_weights_norm") == Some(false) {
            return Err(self.wrong("expert_weights_norm", "false", "true"));
        }
        let experts = self.size("expert_count", 1 << 16)?;
        let used = self.size("expert_used_count", experts)?;
        let (groups, groups_used) = self.groups(experts, used)?;
        let key = "expert_weights_scale";
        let scale = match self.get(key) {
            // Other writers leave it out, or state 0, for "no scale".
            None | Some(Value::F32(0.0)) => 1.0,
            Some(_) => self.float(key)?,
        };
        let ff = self.size_or_equal_array("expert_feed_forward_length")?;
        let shared = self.optional("expert_shared_count")?.unwrap_or(0);
        Ok(Moe {
            experts,
            used,
            ff,
            shared,
            shared_ff: shared.saturating_mul(ff),
            scale,
            groups,
            groups_used,
        })
    }

    /// (1, 1) where groups limit nothing.
    fn groups(&self, experts: usize, used: usize) -> Result<(usize, usize), SchemaError> {
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
        Ok(if groups_used == groups {
            (1, 1)
        } else {
            (groups, groups_used)
        })
    }
}
