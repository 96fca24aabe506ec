//! `config.json` of Ling-3.0. Refuses, by the field's name, what the engine does not compute, and
//! whatever nobody here has heard of.

use super::{BailingMoeV3, set_limits};
use crate::schema::{Clamps, Ffn, Fields, GateLaw, Hparams, Kda, LayerKind, Mixer, Mla, Moe};
use serde_json::Value as Json;

pub fn read(fields: &Fields<'_>) -> Result<Hparams, String> {
    fields.must_say(&[
        ("model_type", "bailing_hybrid".into()),
        ("hidden_act", "silu".into()),
        ("score_function", "sigmoid".into()),
        ("scoring_func", "sigmoid".into()),
        ("topk_method", "noaux_tc".into()),
        ("router_dtype", "fp32".into()),
        ("norm_topk_prob", true.into()),
        ("moe_router_enable_expert_bias", true.into()),
        ("kda_safe_gate", true.into()),
        ("no_kda_lora", true.into()),
        ("use_kda_lora", false.into()),
        ("gated_attention_proj_granularity_type", "head_wise".into()),
        ("rope_interleave", true.into()),
        ("use_bias", false.into()),
        ("use_qkv_bias", false.into()),
        ("quantization_config", Json::Null),
    ])?;
    fields.must_be_among(KNOWN)?;
    let n = fields.layer_count("num_hidden_layers")?;
    let dense = fields.at_most("first_k_dense_replace", n, "num_hidden_layers")?;
    let group = fields.size("layer_group_size")?;
    // A last group that is not whole is of MLA layers alone.
    let is_mla = |at: usize| (at + 1).is_multiple_of(group) || at >= n / group * group;
    let kind = |at| LayerKind {
        mixer: if is_mla(at) { Mixer::Mla } else { Mixer::Kda },
        ffn: if at < dense { Ffn::Dense } else { Ffn::Sparse },
        limits: Clamps::NONE,
    };
    let mut layers: Vec<_> = (0..n).map(kind).collect();
    let ahead = fields.number_or("num_nextn_predict_layers", 0)?;
    let experts = limits(fields, "expert_swiglu_limit_list", n, ahead)?;
    let shared = limits(fields, "share_expert_swiglu_limit_list", n, ahead)?;
    set_limits(&mut layers, &experts, &shared);
    let heads = fields.size("num_attention_heads")?;
    let lower = fields.float("kda_lower_bound")?;
    if lower >= 0.0 {
        return Err(format!(
            "`kda_lower_bound` is {lower}, wanted a number below 0"
        ));
    }
    Ok(Hparams {
        kin: &BailingMoeV3,
        hidden: fields.size("hidden_size")?,
        vocab: fields.size("vocab_size")?,
        context_length: fields.size("max_position_embeddings")?,
        norm_eps: fields.float("rms_norm_eps")?,
        dense_ff: if dense > 0 {
            fields.size("intermediate_size")?
        } else {
            0
        },
        moe: if dense < n { moe(fields)? } else { Moe::NONE },
        layers,
        kda: Kda {
            heads,
            head_dim: fields.size("head_dim")?,
            conv: fields.size("short_conv_kernel_size")?,
            gate: GateLaw::Bounded { lower },
            whole_gates: true,
        },
        mla: mla(fields, heads)?,
    })
}

/// Fields that are read, must say one thing, say nothing about what is computed, or are read by
/// none of the model's implementations.
const KNOWN: &[&str] = &[
    // Read.
    "architectures",
    "bos_token_id",
    "eos_token_id",
    "expert_swiglu_limit_list",
    "first_k_dense_replace",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "kda_lower_bound",
    "kv_lora_rank",
    "layer_group_size",
    "max_position_embeddings",
    "moe_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "n_group",
    "num_attention_heads",
    "num_experts",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_nextn_predict_layers",
    "num_shared_experts",
    "pad_token_id",
    "q_lora_rank",
    "qk_head_dim",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "routed_scaling_factor",
    "share_expert_swiglu_limit_list",
    "short_conv_kernel_size",
    "tie_word_embeddings",
    "topk_group",
    "v_head_dim",
    "vocab_size",
    // Of one value, checked above.
    "gated_attention_proj_granularity_type",
    "hidden_act",
    "kda_safe_gate",
    "model_type",
    "moe_router_enable_expert_bias",
    "no_kda_lora",
    "norm_topk_prob",
    "rope_interleave",
    "router_dtype",
    "score_function",
    "scoring_func",
    "topk_method",
    // About training, files and other programs.
    "_attn_implementation",
    "_name_or_path",
    "attention_dropout",
    "auto_map",
    "dtype",
    "embedding_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "mtp_loss_scaling_factor",
    "output_dropout",
    "output_router_logits",
    "return_dict",
    "router_aux_loss_coef",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    // Said, and read by nobody.
    "group_norm_size",
    "linear_silu",
    "max_window_layers",
    "mtp_use_kda",
    "num_key_value_heads",
    "num_kv_heads_for_linear_attn",
    "partial_rotary_factor",
    "rotary_dim",
    "scale_router_input",
    "seq_aux",
    "up_proj_norm",
    "use_mla_nope",
    "use_nGPT",
    "use_qk_norm",
    "value_norm",
];

/// A bound for each layer, infinite where 0 is stated or no list is. A list may go on with the
/// blocks that guess ahead.
fn limits(fields: &Fields<'_>, name: &str, n: usize, ahead: usize) -> Result<Vec<f32>, String> {
    let list = match fields.get(name) {
        Json::Null => return Ok(vec![f32::INFINITY; n]),
        Json::Array(list) if [n, n.saturating_add(ahead)].contains(&list.len()) => list,
        Json::Array(list) => {
            let got = list.len();
            return Err(format!(
                "`{name}` has {got} entries, wanted {n}, a layer's each"
            ));
        }
        other => return Err(format!("`{name}` is {other}, wanted a list of numbers")),
    };
    let bound = |value: &Json| match value.as_f64().map(|x| x as f32) {
        Some(0.0) => Ok(f32::INFINITY),
        Some(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err(format!(
            "`{name}` holds {value}, wanted bounds from 0, which is none"
        )),
    };
    list.iter().take(n).map(bound).collect()
}

fn mla(fields: &Fields<'_>, heads: usize) -> Result<Mla, String> {
    let mla = Mla {
        heads,
        q_lora_rank: fields.optional("q_lora_rank")?.filter(|&rank| rank > 0),
        kv_lora_rank: fields.size("kv_lora_rank")?,
        qk_nope: fields.size("qk_nope_head_dim")?,
        qk_rope: fields.size("qk_rope_head_dim")?,
        v: fields.size("v_head_dim")?,
        rope_base: Some(rope_base(fields)?),
        head_gate: true,
    };
    let whole = mla.qk_nope.saturating_add(mla.qk_rope);
    match fields.optional("qk_head_dim")? {
        Some(got) if got != whole => Err(format!(
            "`qk_head_dim` is {got}, wanted {whole}: `qk_nope_head_dim` and `qk_rope_head_dim` together"
        )),
        _ if !mla.qk_rope.is_multiple_of(2) => Err(format!(
            "`qk_rope_head_dim` is {}, wanted an even number, as pairs are rotated",
            mla.qk_rope
        )),
        _ => Ok(mla),
    }
}

/// Stated as a field, or in an object as newer programs save it. Scaled positions are refused.
fn rope_base(fields: &Fields<'_>) -> Result<f32, String> {
    let mut stated = match fields.get("rope_theta") {
        Json::Null => None,
        _ => Some(fields.float("rope_theta")?),
    };
    for name in ["rope_scaling", "rope_parameters"] {
        let Some(rope) = fields.maybe_object(name)? else {
            continue;
        };
        rope.must_say(&[("rope_type", "default".into()), ("type", "default".into())])?;
        // The factor is not used: the rotated width is stated apart.
        rope.must_be_among(&["rope_theta", "rope_type", "type", "partial_rotary_factor"])?;
        if rope.get("rope_theta").is_null() {
            continue;
        }
        let base = rope.float("rope_theta")?;
        match stated.replace(base) {
            Some(other) if other != base => {
                return Err(format!(
                    "`rope_theta` is {other} and `{name}.rope_theta` {base}"
                ));
            }
            _ => {}
        }
    }
    match stated {
        Some(base) if base > 0.0 => Ok(base),
        Some(base) => Err(format!("`rope_theta` is {base}, wanted a number above 0")),
        None => fields.float("rope_theta"),
    }
}

fn moe(fields: &Fields<'_>) -> Result<Moe, String> {
    let ff = fields.size("moe_intermediate_size")?;
    let shared = fields.number_or("num_shared_experts", 0)?;
    let width = fields.optional("moe_shared_expert_intermediate_size")?;
    Ok(Moe {
        experts: fields.size("num_experts")?,
        used: fields.size("num_experts_per_tok")?,
        ff,
        shared,
        shared_ff: match width {
            _ if shared == 0 => 0,
            Some(width) if width > 0 => width,
            _ => shared.saturating_mul(ff),
        },
        scale: fields.float_or("routed_scaling_factor", 1.0)?,
        groups: fields.number_or("n_group", 1)?.max(1),
        groups_used: fields.number_or("topk_group", 1)?.max(1),
    })
}
