//! Ling-3.0: `bailingmoe3` files, `BailingMoeV3ForCausalLM` on the hub. The hub gives its models
//! and those of Ling 2.6, which are another architecture, one `model_type`.

mod config;

use super::{
    Clamps, Ffn, Fields, GateLaw, Hparams, Kda, Keys, Kin, LayerKind, Mla, Role, SchemaError,
};
use ggml_kernels::gguf::{Array, Value};

#[derive(Debug)]
pub struct BailingMoeV3;

impl Kin for BailingMoeV3 {
    fn architecture(&self) -> &'static str {
        "bailingmoe3"
    }

    fn on_the_hub(&self) -> (&'static str, Option<&'static str>) {
        ("BailingMoeV3ForCausalLM", None)
    }

    fn read(&self, keys: &Keys<'_>) -> Result<Hparams, SchemaError> {
        refuse_other_positions(keys)?;
        let all = keys.size("block_count", Keys::MAX_LAYERS)?;
        // Blocks behind the model's own guess several tokens ahead. Nobody runs them here.
        let ahead = keys.optional("nextn_predict_layers")?.unwrap_or(0);
        if ahead >= all {
            let wanted = format!("fewer than `block_count` = {all}");
            return Err(keys.wrong("nextn_predict_layers", ahead, wanted));
        }
        let mut layers = keys.layers(all - ahead, ahead)?;
        let experts = keys.limits("swiglu_clamp_exp", all)?;
        let shared = keys.limits("swiglu_clamp_shexp", all)?;
        set_limits(&mut layers, &experts, &shared);
        if keys.bool("kda.safe_gate") == Some(false) {
            return Err(keys.wrong("kda.safe_gate", "false", "true"));
        }
        let lower = keys.float("kda.gate_lower_bound")?;
        if lower >= 0.0 {
            return Err(keys.wrong("kda.gate_lower_bound", lower, "a number below 0"));
        }
        let (heads, _) = keys.heads(&layers)?;
        let plain = keys.mla(heads)?;
        if plain.qk_rope % 2 != 0 {
            let wanted = "an even number, as pairs are rotated";
            return Err(keys.wrong("rope.dimension_count", plain.qk_rope, wanted));
        }
        let base = keys.float("rope.freq_base")?;
        if base <= 0.0 {
            return Err(keys.wrong("rope.freq_base", base, "a number above 0"));
        }
        let mla = Mla {
            q_lora_rank: keys
                .optional("attention.q_lora_rank")?
                .filter(|&rank| rank > 0),
            rope_base: Some(base),
            head_gate: true,
            ..plain
        };
        if let Some(got) = keys.optional("attention.key_length")?
            && got != mla.latent()
        {
            let wanted = mla.latent().to_string();
            return Err(keys.wrong("attention.key_length", got, wanted));
        }
        let mut moe = keys.moe(&layers)?;
        if let Some(width) = keys.optional("expert_shared_feed_forward_length")?
            && width > 0
            && moe.shared > 0
        {
            moe.shared_ff = width;
        }
        Ok(Hparams {
            kin: &BailingMoeV3,
            hidden: keys.size("embedding_length", Keys::MAX_SIZE)?,
            vocab: keys.vocab()?,
            context_length: keys.context_length()?,
            norm_eps: keys.norm_eps()?,
            dense_ff: keys.dense_ff()?,
            moe,
            layers,
            kda: Kda {
                gate: GateLaw::Bounded { lower },
                whole_gates: true,
                ..keys.kda(heads)?
            },
            mla,
        })
    }

    fn own_keys(&self, h: &Hparams) -> Vec<(&'static str, Value)> {
        let size = |n: usize| Value::U32(n as u32);
        let mut own = vec![
            ("attention.value_length", size(h.kda.head_dim)),
            ("kda.safe_gate", Value::Bool(true)),
            ("expert_shared_feed_forward_length", size(h.moe.shared_ff)),
        ];
        if let GateLaw::Bounded { lower } = h.kda.gate {
            own.push(("kda.gate_lower_bound", Value::F32(lower)));
        }
        if let Some(rank) = h.mla.q_lora_rank {
            own.push(("attention.q_lora_rank", size(rank)));
        }
        if let Some(base) = h.mla.rope_base {
            own.push(("rope.freq_base", Value::F32(base)));
        }
        let bounds = |of: fn(&Clamps) -> f32| -> Vec<f32> {
            let bound = |x: f32| if x.is_finite() { x } else { 0.0 };
            h.layers.iter().map(|l| bound(of(&l.limits))).collect()
        };
        for (key, bounds) in [
            ("swiglu_clamp_exp", bounds(|l| l.experts)),
            ("swiglu_clamp_shexp", bounds(|l| l.shared)),
        ] {
            if bounds.iter().any(|&x| x != 0.0) {
                own.push((key, Value::Array(Array::F32(bounds))));
            }
        }
        own
    }

    fn config(&self, fields: &Fields<'_>) -> Result<Hparams, String> {
        config::read(fields)
    }

    fn hub_name(&self, role: Role) -> &'static str {
        match role {
            Role::TokenEmbd => "model.word_embeddings.weight",
            Role::OutputNorm => "model.norm.weight",
            Role::Output => "lm_head.weight",
            Role::AttnNorm => "input_layernorm.weight",
            Role::FfnNorm => "post_attention_layernorm.weight",
            Role::KdaQ | Role::MlaQ => "attention.q_proj.weight",
            Role::KdaK => "attention.k_proj.weight",
            Role::KdaV => "attention.v_proj.weight",
            Role::KdaConvQ => "attention.q_conv1d.weight",
            Role::KdaConvK => "attention.k_conv1d.weight",
            Role::KdaConvV => "attention.v_conv1d.weight",
            Role::KdaF | Role::KdaFA => "attention.f_proj.weight",
            Role::KdaFB => "attention.f_b_proj.weight",
            // One name for two things of different shapes.
            Role::KdaG | Role::KdaGA | Role::MlaGate => "attention.g_proj.weight",
            Role::KdaGB => "attention.g_b_proj.weight",
            Role::KdaBeta => "attention.b_proj.weight",
            Role::KdaA => "attention.A_log",
            Role::KdaDtBias => "attention.dt_bias",
            Role::KdaNorm => "attention.o_norm.weight",
            Role::KdaOutput => "attention.o_proj.weight",
            Role::MlaQA => "attention.q_a_proj.weight",
            Role::MlaQANorm => "attention.q_a_layernorm.weight",
            Role::MlaQB => "attention.q_b_proj.weight",
            Role::MlaKvA => "attention.kv_a_proj_with_mqa.weight",
            Role::MlaKvANorm => "attention.kv_a_layernorm.weight",
            Role::MlaKB | Role::MlaVB | Role::MlaKvB => "attention.kv_b_proj.weight",
            Role::MlaOutput => "attention.dense.weight",
            Role::FfnGate => "mlp.gate_proj.weight",
            Role::FfnUp => "mlp.up_proj.weight",
            Role::FfnDown => "mlp.down_proj.weight",
            Role::Router => "mlp.gate.weight",
            Role::RouterBias => "mlp.gate.expert_bias",
            Role::GateExps => "mlp.experts.{}.gate_proj.weight",
            Role::UpExps => "mlp.experts.{}.up_proj.weight",
            Role::DownExps => "mlp.experts.{}.down_proj.weight",
            Role::GateShexp => "mlp.shared_experts.gate_proj.weight",
            Role::UpShexp => "mlp.shared_experts.up_proj.weight",
            Role::DownShexp => "mlp.shared_experts.down_proj.weight",
        }
    }
}

/// Bounds belong to sparse layers.
fn set_limits(layers: &mut [LayerKind], experts: &[f32], shared: &[f32]) {
    for (layer, (&experts, &shared)) in layers.iter_mut().zip(experts.iter().zip(shared)) {
        if layer.ffn == Ffn::Sparse {
            layer.limits = Clamps { experts, shared };
        }
    }
}

/// Files of models that see state positions of several coordinates.
fn refuse_other_positions(keys: &Keys<'_>) -> Result<(), SchemaError> {
    let key = "rope.dimension_sections";
    if keys.get(key).is_some() {
        let wanted = "nothing: positions of several coordinates are not supported";
        return Err(keys.wrong(key, keys.describe(key), wanted));
    }
    let key = "rope.scaling.type";
    match keys.get(key) {
        None => {}
        Some(Value::Str(none)) if none == "none" => {}
        Some(_) => {
            let wanted = "\"none\": scaled positions are not supported";
            return Err(keys.wrong(key, keys.describe(key), wanted));
        }
    }
    for key in ["rope.scaling.factor", "rope.scale_linear"] {
        if keys.get(key).is_some() && keys.float(key)? != 1.0 {
            let wanted = "1: scaled positions are not supported";
            return Err(keys.wrong(key, keys.describe(key), wanted));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
