//! `config.json`: a model's sizes under the hub's names. Refuses what is missing, contradictory,
//! or says that the model computes something else than Kimi-Linear does.

use crate::error::Error;
use crate::schema::{Ffn, Hparams, Kda, LayerKind, Mixer, Mla, Moe};
use serde_json::{Map, Value};
use std::path::Path;

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub hparams: Hparams,
    /// `lm_head` is `embed_tokens`.
    pub tied: bool,
    pub bos: Option<u64>,
    /// One id or several.
    pub eos: Vec<u64>,
    pub pad: Option<u64>,
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::input(path, format!("not JSON: {e}")))?;
        let Value::Object(map) = value else {
            return Err(Error::input(path, "not a JSON object"));
        };
        Self::from_json(&map).map_err(|what| Error::input(path, what))
    }

    /// Whether a tensor belongs to the part of the model that is converted. Layers beyond the
    /// stated count (multi-token prediction heads) do not.
    pub fn uses(&self, tensor: &str) -> bool {
        let layer = tensor.strip_prefix("model.layers.");
        let layer = layer.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        layer.is_none_or(|layer| layer < self.hparams.layers.len())
    }

    fn from_json(map: &Map<String, Value>) -> Result<Self, String> {
        let fields = Fields { map, at: "" };
        refuse_other_models(map)?;
        let n_layers = fields.size("num_hidden_layers")?;
        let dense = fields.number_or("first_k_dense_replace", 0)?;
        if dense > n_layers {
            return Err(format!(
                "`first_k_dense_replace` is {dense}, beyond `num_hidden_layers` = {n_layers}"
            ));
        }
        let linear = fields.object("linear_attn_config")?;
        let mixers = mixers(&linear, n_layers)?;
        let kind = |(at, mixer)| LayerKind {
            mixer,
            ffn: if at < dense { Ffn::Dense } else { Ffn::Sparse },
        };
        let layers: Vec<_> = mixers.into_iter().enumerate().map(kind).collect();
        let moe = if dense < n_layers {
            moe(&fields)?
        } else {
            Moe {
                experts: 0,
                used: 0,
                ff: 0,
                shared: 0,
                scale: 1.0,
                groups: 1,
                groups_used: 1,
            }
        };
        let context = match fields.optional("model_max_length")? {
            Some(n) => n,
            None => fields.size("max_position_embeddings")?,
        };
        let eos = match map.get("eos_token_id") {
            None => Vec::new(),
            Some(ids) => token_ids("eos_token_id", ids)?,
        };
        let id = |name: &str| fields.optional(name).map(|id| id.map(|id| id as u64));
        Ok(Self {
            hparams: Hparams {
                hidden: fields.size("hidden_size")?,
                vocab: fields.size("vocab_size")?,
                context_length: context,
                norm_eps: fields.float("rms_norm_eps")?,
                dense_ff: if dense > 0 {
                    fields.size("intermediate_size")?
                } else {
                    0
                },
                layers,
                kda: Kda {
                    heads: linear.size("num_heads")?,
                    head_dim: linear.size("head_dim")?,
                    conv: linear.size("short_conv_kernel_size")?,
                },
                mla: Mla {
                    heads: fields.size("num_attention_heads")?,
                    kv_lora_rank: fields.size("kv_lora_rank")?,
                    qk_nope: fields.size("qk_nope_head_dim")?,
                    qk_rope: fields.size("qk_rope_head_dim")?,
                    v: fields.size("v_head_dim")?,
                },
                moe,
            },
            tied: map.get("tie_word_embeddings") == Some(&Value::Bool(true)),
            bos: id("bos_token_id")?,
            eos,
            pad: id("pad_token_id")?,
        })
    }
}

/// One id, a list of them, or null.
pub(crate) fn token_ids(name: &str, value: &Value) -> Result<Vec<u64>, String> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list.iter().map(Value::as_u64).collect(),
        one => one.as_u64().map(|id| vec![id]),
    };
    list.ok_or_else(|| format!("`{name}` is {value}, wanted token ids"))
}

/// Fields that must say, or leave unsaid, that the model computes what the engine computes.
fn refuse_other_models(map: &Map<String, Value>) -> Result<(), String> {
    let says = |name: &str| map.get(name).unwrap_or(&Value::Null);
    let model_type = says("model_type");
    let architecture = &says("architectures")[0];
    if model_type != "kimi_linear" && architecture != "KimiLinearForCausalLM" {
        return Err(format!(
            "unknown architecture: `model_type` is {model_type}, `architectures` begins with \
             {architecture}; wanted \"kimi_linear\", \"KimiLinearForCausalLM\""
        ));
    }
    let wanted: [(&str, Value); 7] = [
        ("hidden_act", "silu".into()),
        ("moe_router_activation_func", "sigmoid".into()),
        ("moe_renormalize", true.into()),
        ("moe_layer_freq", 1.into()),
        ("mla_use_nope", true.into()),
        ("q_lora_rank", Value::Null),
        ("quantization_config", Value::Null),
    ];
    for (name, wanted) in wanted {
        let got = says(name);
        if !got.is_null() && *got != wanted {
            return Err(format!("`{name}` is {got}, only {wanted} is supported"));
        }
    }
    Ok(())
}

/// Which layers are KDA and which MLA; the hub counts them from 1.
fn mixers(linear: &Fields<'_>, n_layers: usize) -> Result<Vec<Mixer>, String> {
    let mut mixers = vec![None; n_layers];
    for (field, mixer) in [("kda_layers", Mixer::Kda), ("full_attn_layers", Mixer::Mla)] {
        for layer in linear.numbers(field)? {
            let slot = layer.checked_sub(1).and_then(|at| mixers.get_mut(at));
            let slot = slot.ok_or_else(|| {
                format!("`linear_attn_config.{field}` names layer {layer} of {n_layers} (from 1)")
            })?;
            if slot.replace(mixer).is_some() {
                return Err(format!("`linear_attn_config` names layer {layer} twice"));
            }
        }
    }
    let all: Option<Vec<Mixer>> = mixers.iter().copied().collect();
    all.ok_or_else(|| {
        let at = mixers.iter().position(Option::is_none).unwrap_or(0) + 1;
        format!("layer {at} is in neither list of `linear_attn_config`")
    })
}

fn moe(fields: &Fields<'_>) -> Result<Moe, String> {
    // Both spellings are about.
    let used = match fields.optional("num_experts_per_token")? {
        Some(n) => n,
        None => match fields.optional("num_experts_per_tok")? {
            Some(n) => n,
            None => fields.size("num_experts_per_token")?,
        },
    };
    let scale = match fields.map.get("routed_scaling_factor") {
        None | Some(Value::Null) => 1.0,
        Some(_) => fields.float("routed_scaling_factor")?,
    };
    Ok(Moe {
        experts: fields.size("num_experts")?,
        used,
        ff: fields.size("moe_intermediate_size")?,
        shared: fields.number_or("num_shared_experts", 0)?,
        scale,
        groups: fields.number_or("num_expert_group", 1)?.max(1),
        groups_used: fields.number_or("topk_group", 1)?.max(1),
    })
}

/// A JSON object whose fields are asked for by name, with errors that give the name.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: &'static str,
}

impl<'a> Fields<'a> {
    fn missing(&self, name: &str) -> String {
        format!("`{}{name}` is missing", self.at)
    }

    /// A number that may be absent or null.
    fn optional(&self, name: &str) -> Result<Option<usize>, String> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(Some(n)),
                None => Err(format!("`{}{name}` is {value}, wanted a count", self.at)),
            },
        }
    }

    fn number_or(&self, name: &str, default: usize) -> Result<usize, String> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    fn size(&self, name: &str) -> Result<usize, String> {
        match self.optional(name)? {
            None => Err(self.missing(name)),
            Some(0) => Err(format!("`{}{name}` is 0", self.at)),
            Some(n) => Ok(n),
        }
    }

    fn float(&self, name: &str) -> Result<f32, String> {
        let value = self.map.get(name).ok_or_else(|| self.missing(name))?;
        let float = value.as_f64().map(|x| x as f32);
        let float = float.filter(|x| x.is_finite());
        float.ok_or_else(|| format!("`{}{name}` is {value}, wanted a number", self.at))
    }

    fn numbers(&self, name: &str) -> Result<Vec<usize>, String> {
        let value = self.map.get(name).ok_or_else(|| self.missing(name))?;
        let numbers = value.as_array().and_then(|list| {
            let number = |n: &Value| n.as_u64().and_then(|n| usize::try_from(n).ok());
            list.iter().map(number).collect()
        });
        numbers.ok_or_else(|| format!("`{}{name}` is {value}, wanted layer numbers", self.at))
    }

    fn object(&self, name: &str) -> Result<Fields<'a>, String> {
        match self.map.get(name) {
            None => Err(self.missing(name)),
            Some(Value::Object(map)) => Ok(Fields {
                map,
                at: "linear_attn_config.",
            }),
            Some(value) => Err(format!("`{name}` is {value}, wanted an object")),
        }
    }
}
