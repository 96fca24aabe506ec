//! Kimi-Linear: `kimi-linear` files, `KimiLinearForCausalLM` on the hub.

use super::{
    Clamps, Ffn, Fields, GateLaw, Hparams, Kda, Keys, Kin, LayerKind, Mixer, Mla, Moe, Role,
    SchemaError,
};
use ggml_kernels::gguf::Value;

#[derive(Debug)]
pub struct KimiLinear;

impl Kin for KimiLinear {
    fn architecture(&self) -> &'static str {
        "kimi-linear"
    }

    fn on_the_hub(&self) -> (&'static str, Option<&'static str>) {
        ("KimiLinearForCausalLM", Some("kimi_linear"))
    }

    fn read(&self, keys: &Keys<'_>) -> Result<Hparams, SchemaError> {
        let n = keys.size("block_count", Keys::MAX_LAYERS)?;
        let layers = keys.layers(n, 0)?;
        let (kda_heads, mla_heads) = keys.heads(&layers)?;
        if let Some(rank) = keys.optional("attention.q_lora_rank")?
            && rank > 0
        {
            let wanted = "0: queries through a low rank are not supported";
            return Err(keys.wrong("attention.q_lora_rank", rank, wanted));
        }
        let mla = keys.mla(mla_heads)?;
        let stated = [
            ("attention.key_length", mla.latent()),
            ("attention.value_length", mla.kv_lora_rank),
        ];
        for (key, wanted) in stated {
            // Files with an undivided `attn_kv_b` state the width per head here.
            let per_head = [mla.qk(), mla.v];
            match keys.optional(key)? {
                Some(got) if got != wanted && !per_head.contains(&got) => {
                    return Err(keys.wrong(key, got, format!("{wanted}")));
                }
                _ => {}
            }
        }
        Ok(Hparams {
            kin: &KimiLinear,
            hidden: keys.size("embedding_length", Keys::MAX_SIZE)?,
            vocab: keys.vocab()?,
            context_length: keys.context_length()?,
            norm_eps: keys.norm_eps()?,
            dense_ff: keys.dense_ff()?,
            moe: keys.moe(&layers)?,
            layers,
            kda: keys.kda(kda_heads)?,
            mla,
        })
    }

    fn own_keys(&self, h: &Hparams) -> Vec<(&'static str, Value)> {
        let rank = h.mla.kv_lora_rank as u32;
        vec![("attention.value_length", Value::U32(rank))]
    }

    fn config(&self, fields: &Fields<'_>) -> Result<Hparams, String> {
        fields.must_say(&[
            ("hidden_act", "silu".into()),
            ("moe_router_activation_func", "sigmoid".into()),
            ("moe_renormalize", true.into()),
            ("moe_layer_freq", 1.into()),
            ("mla_use_nope", true.into()),
            ("q_lora_rank", serde_json::Value::Null),
            ("quantization_config", serde_json::Value::Null),
        ])?;
        let n = fields.layer_count("num_hidden_layers")?;
        let dense = fields.at_most("first_k_dense_replace", n, "num_hidden_layers")?;
        let linear = fields.object("linear_attn_config")?;
        let kind = |(at, mixer)| LayerKind {
            mixer,
            ffn: if at < dense { Ffn::Dense } else { Ffn::Sparse },
            limits: Clamps::NONE,
        };
        let layers = mixers(&linear, n)?.into_iter().enumerate().map(kind);
        let context_length = match fields.optional("model_max_length")? {
            Some(n) => n,
            None => fields.size("max_position_embeddings")?,
        };
        Ok(Hparams {
            kin: &KimiLinear,
            hidden: fields.size("hidden_size")?,
            vocab: fields.size("vocab_size")?,
            context_length,
            norm_eps: fields.float("rms_norm_eps")?,
            dense_ff: if dense > 0 {
                fields.size("intermediate_size")?
            } else {
                0
            },
            layers: layers.collect(),
            kda: Kda {
                heads: linear.size("num_heads")?,
                head_dim: linear.size("head_dim")?,
                conv: linear.size("short_conv_kernel_size")?,
                gate: GateLaw::Softplus,
                whole_gates: false,
            },
            mla: Mla {
                heads: fields.size("num_attention_heads")?,
                q_lora_rank: None,
                kv_lora_rank: fields.size("kv_lora_rank")?,
                qk_nope: fields.size("qk_nope_head_dim")?,
                qk_rope: fields.size("qk_rope_head_dim")?,
                v: fields.size("v_head_dim")?,
                rope_base: None,
                head_gate: false,
            },
            moe: if dense < n { moe(fields)? } else { Moe::NONE },
        })
    }

    fn hub_name(&self, role: Role) -> &'static str {
        match role {
            Role::TokenEmbd => "model.embed_tokens.weight",
            Role::OutputNorm => "model.norm.weight",
            Role::Output => "lm_head.weight",
            Role::AttnNorm => "input_layernorm.weight",
            Role::FfnNorm => "post_attention_layernorm.weight",
            Role::KdaQ | Role::MlaQ => "self_attn.q_proj.weight",
            Role::KdaK => "self_attn.k_proj.weight",
            Role::KdaV => "self_attn.v_proj.weight",
            Role::KdaConvQ => "self_attn.q_conv1d.weight",
            Role::KdaConvK => "self_attn.k_conv1d.weight",
            Role::KdaConvV => "self_attn.v_conv1d.weight",
            Role::KdaFA | Role::KdaF => "self_attn.f_a_proj.weight",
            Role::KdaFB => "self_attn.f_b_proj.weight",
            Role::KdaGA | Role::KdaG => "self_attn.g_a_proj.weight",
            Role::KdaGB => "self_attn.g_b_proj.weight",
            Role::KdaBeta => "self_attn.b_proj.weight",
            Role::KdaA => "self_attn.A_log",
            Role::KdaDtBias => "self_attn.dt_bias",
            Role::KdaNorm => "self_attn.o_norm.weight",
            Role::KdaOutput | Role::MlaOutput => "self_attn.o_proj.weight",
            Role::MlaQA => "self_attn.q_a_proj.weight",
            Role::MlaQANorm => "self_attn.q_a_layernorm.weight",
            Role::MlaQB => "self_attn.q_b_proj.weight",
            Role::MlaGate => "self_attn.g_proj.weight",
            Role::MlaKvA => "self_attn.kv_a_proj_with_mqa.weight",
            Role::MlaKvANorm => "self_attn.kv_a_layernorm.weight",
            Role::MlaKB | Role::MlaVB | Role::MlaKvB => "self_attn.kv_b_proj.weight",
            Role::FfnGate => "mlp.gate_proj.weight",
            Role::FfnUp => "mlp.up_proj.weight",
            Role::FfnDown => "mlp.down_proj.weight",
            Role::Router => "block_sparse_moe.gate.weight",
            Role::RouterBias => "block_sparse_moe.gate.e_score_correction_bias",
            Role::GateExps => "block_sparse_moe.experts.{}.w1.weight",
            Role::DownExps => "block_sparse_moe.experts.{}.w2.weight",
            Role::UpExps => "block_sparse_moe.experts.{}.w3.weight",
            Role::GateShexp => "block_sparse_moe.shared_experts.gate_proj.weight",
            Role::UpShexp => "block_sparse_moe.shared_experts.up_proj.weight",
            Role::DownShexp => "block_sparse_moe.shared_experts.down_proj.weight",
        }
    }
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
    let ff = fields.size("moe_intermediate_size")?;
    let shared = fields.number_or("num_shared_experts", 0)?;
    Ok(Moe {
        experts: fields.size("num_experts")?,
        used,
        ff,
        shared,
        shared_ff: shared.saturating_mul(ff),
        scale: fields.float_or("routed_scaling_factor", 1.0)?,
        groups: fields.number_or("num_expert_group", 1)?.max(1),
        groups_used: fields.number_or("topk_group", 1)?.max(1),
    })
}
