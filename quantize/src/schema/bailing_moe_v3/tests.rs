use super::*;
use crate::schema::{Mixer, tensors};
use crate::synth::Shape;
use ggml_kernels::gguf::Metadata;
use serde_json::{Map, Value as Json, json};

/// Ling-3.0-tiny's sizes, with bounds.
fn bounded() -> Hparams {
    let mut h = Shape::LingTiny.hparams(9, false);
    h.layers[5].limits.experts = 4.0;
    h.layers[8].limits.shared = 7.5;
    h
}

fn metadata(h: &Hparams) -> Metadata {
    let mut metadata = Metadata::default();
    h.write(&mut metadata);
    metadata
}

#[test]
fn sizes_bounds_and_laws_survive_being_written() {
    let mut h = bounded();
    assert_eq!(Hparams::from_metadata(&metadata(&h)), Ok(h.clone()));
    h.mla.q_lora_rank = None;
    (h.moe.groups, h.moe.groups_used) = (1, 1);
    h.moe.shared_ff = 640;
    h.kda.gate = GateLaw::Bounded { lower: -3.5 };
    h.layers.iter_mut().for_each(|l| l.limits = Clamps::NONE);
    let metadata = metadata(&h);
    for absent in [
        "attention.q_lora_rank",
        "swiglu_clamp_exp",
        "expert_group_count",
    ] {
        assert_eq!(metadata.get(&format!("bailingmoe3.{absent}")), None);
    }
    assert_eq!(Hparams::from_metadata(&metadata), Ok(h));
}

#[test]
fn the_published_models_have_the_parameters_that_their_files_are_known_to_have() {
    let count = |h: &Hparams| -> u64 {
        let specs = tensors(h).into_iter();
        specs.map(|spec| spec.shape.iter().product::<u64>()).sum()
    };
    let tiny = Shape::LingTiny.hparams(24, false);
    assert_eq!(count(&tiny), 7_893_392_800);
    let flash = read(FLASH).unwrap();
    assert_eq!(count(&flash), 124_414_211_552);
    let mla = |h: &Hparams| h.layers.iter().filter(|l| l.mixer == Mixer::Mla).count();
    assert_eq!((mla(&tiny), mla(&flash)), (6, 7));
}

#[test]
fn blocks_that_guess_ahead_are_not_the_models_own() {
    let h = bounded();
    let mut metadata = metadata(&h);
    let mut set = |key: &str, value: Value| metadata.set(&format!("bailingmoe3.{key}"), value);
    set("block_count", Value::U32(10));
    set("nextn_predict_layers", Value::U32(1));
    let kv = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 1];
    set("attention.head_count_kv", Value::Array(Array::U32(kv)));
    let mut bounds = vec![0.0; 10];
    bounds[5] = 4.0;
    set("swiglu_clamp_exp", Value::Array(Array::F32(bounds)));
    let mut bounds = vec![0.0; 10];
    (bounds[8], bounds[9]) = (7.5, 1.0);
    set("swiglu_clamp_shexp", Value::Array(Array::F32(bounds)));
    assert_eq!(Hparams::from_metadata(&metadata), Ok(h));
}

#[test]
fn a_file_that_asks_for_another_model_is_refused_by_the_key() {
    let edits: &[(&str, Value)] = &[
        (
            "rope.dimension_sections",
            Value::Array(Array::I32(vec![16, 24, 24, 0])),
        ),
        ("rope.scaling.type", "yarn".into()),
        ("rope.scaling.factor", Value::F32(2.0)),
        ("rope.dimension_count", Value::U32(63)),
        ("rope.freq_base", Value::F32(0.0)),
        ("kda.safe_gate", Value::Bool(false)),
        ("kda.gate_lower_bound", Value::F32(0.0)),
        ("kda.gate_lower_bound", Value::F32(f32::NAN)),
        ("nextn_predict_layers", Value::U32(9)),
        ("swiglu_clamp_exp", Value::Array(Array::F32(vec![1.0; 8]))),
        (
            "swiglu_clamp_shexp",
            Value::Array(Array::F32(vec![-1.0; 9])),
        ),
        ("attention.key_length", Value::U32(192)),
        ("expert_weights_norm", Value::Bool(false)),
    ];
    for (key, value) in edits {
        let mut metadata = metadata(&bounded());
        let key = format!("bailingmoe3.{key}");
        metadata.set(&key, value.clone());
        let refused = Hparams::from_metadata(&metadata).unwrap_err().to_string();
        assert!(refused.contains(&key), "{value:?}: {refused}");
    }
    for key in [
        "rope.freq_base",
        "kda.gate_lower_bound",
        "attention.head_count_kv",
    ] {
        let mut metadata = metadata(&bounded());
        let key = format!("bailingmoe3.{key}");
        metadata.map.remove(&key).unwrap();
        let missing = Err(SchemaError::MissingKey { key });
        assert_eq!(Hparams::from_metadata(&metadata), missing);
    }
}

/// `config.json` of Ling-3.0-flash, as far as it is public.
const FLASH: &str = include_str!("flash.json");

fn read(config: &str) -> Result<Hparams, String> {
    edited(config, |_| ())
}

fn edited(config: &str, edit: impl FnOnce(&mut Map<String, Json>)) -> Result<Hparams, String> {
    let mut map: Map<String, Json> = serde_json::from_str(config).unwrap();
    edit(&mut map);
    BailingMoeV3.config(&Fields::new(&map))
}

#[test]
fn a_checkpoints_sizes_are_read_by_its_rules() {
    let h = read(FLASH).unwrap();
    assert_eq!(h.kda.gate, GateLaw::Bounded { lower: -5.0 });
    assert_eq!((h.mla.q_lora_rank, h.mla.rope_base), (None, Some(6e6)));
    assert_eq!((h.moe.groups, h.moe.groups_used), (8, 4));
    assert_eq!(
        (h.layers[34].limits, h.layers[1].limits),
        (
            Clamps {
                experts: f32::INFINITY,
                shared: 5.0
            },
            Clamps::NONE,
        )
    );
    assert_eq!(
        h.layers[41].limits,
        Clamps {
            experts: 4.0,
            shared: 7.0
        }
    );
    // The bound is a whole number in one of the published files, with a point in the other.
    assert_eq!(
        edited(FLASH, |c| c["kda_lower_bound"] = json!(-5)).unwrap(),
        h
    );
    // As newer programs save it.
    let moved = edited(FLASH, |c| {
        c.remove("rope_theta");
        let rope = json!({"rope_type": "default", "rope_theta": 6e6, "partial_rotary_factor": 0.5});
        c.insert("rope_parameters".into(), rope);
    });
    assert_eq!(moved.unwrap(), h);
}

#[test]
fn layers_behind_the_last_whole_group_are_mla() {
    let mixers = |n: usize, group: usize| -> String {
        let h = edited(FLASH, |c| {
            c["num_hidden_layers"] = n.into();
            c["layer_group_size"] = group.into();
            c["first_k_dense_replace"] = 1.into();
            c["expert_swiglu_limit_list"] = Json::Null;
            c["share_expert_swiglu_limit_list"] = Json::Null;
        });
        let layers = h.unwrap().layers;
        let letter = |l: &LayerKind| if l.mixer == Mixer::Mla { 'M' } else { 'k' };
        layers.iter().map(letter).collect()
    };
    assert_eq!(mixers(8, 4), "kkkMkkkM");
    assert_eq!(mixers(7, 6), "kkkkkMM");
    assert_eq!(mixers(7, 4), "kkkMMMM");
    assert_eq!(mixers(3, 5), "MMM");
}

#[test]
fn a_checkpoint_that_asks_for_another_model_is_refused_by_the_field() {
    type Edit = fn(&mut Map<String, Json>);
    let edits: &[(Edit, &str)] = &[
        (
            |c| c["model_type"] = "bailing_moe".into(),
            "`model_type` is \"bailing_moe\"",
        ),
        (
            |c| c["kda_safe_gate"] = false.into(),
            "`kda_safe_gate` is false",
        ),
        (
            |c| c["kda_lower_bound"] = json!(0),
            "`kda_lower_bound` is 0",
        ),
        (
            |c| c["kda_lower_bound"] = json!("-5"),
            "`kda_lower_bound` is \"-5\"",
        ),
        (
            |c| c["no_kda_lora"] = false.into(),
            "`no_kda_lora` is false",
        ),
        (
            |c| c["use_kda_lora"] = true.into(),
            "`use_kda_lora` is true",
        ),
        (
            |c| c["gated_attention_proj_granularity_type"] = "element_wise".into(),
            "is \"element_wise\", only \"head_wise\"",
        ),
        (
            |c| c["scoring_func"] = "softmax".into(),
            "`scoring_func` is \"softmax\"",
        ),
        (
            |c| c["norm_topk_prob"] = false.into(),
            "`norm_topk_prob` is false",
        ),
        (
            |c| c["rope_interleave"] = false.into(),
            "`rope_interleave` is false",
        ),
        (
            |c| c["use_qkv_bias"] = true.into(),
            "`use_qkv_bias` is true",
        ),
        (|c| c["qk_head_dim"] = 190.into(), "`qk_head_dim` is 190"),
        (
            |c| {
                c["qk_head_dim"] = Json::Null;
                c["qk_rope_head_dim"] = 63.into();
            },
            "`qk_rope_head_dim` is 63, wanted an even number",
        ),
        (
            |c| c["first_k_dense_replace"] = 43.into(),
            "`first_k_dense_replace` is 43",
        ),
        (
            |c| c["layer_group_size"] = 0.into(),
            "`layer_group_size` is 0",
        ),
        (
            |c| c["num_hidden_layers"] = json!(1u64 << 60),
            "`num_hidden_layers` is",
        ),
        (
            |c| c["expert_swiglu_limit_list"] = json!([1, 2]),
            "has 2 entries",
        ),
        (|c| c["expert_swiglu_limit_list"][3] = json!(-1), "holds -1"),
        (
            |c| c["rope_scaling"] = json!({"rope_type": "yarn", "factor": 2.0}),
            "`rope_scaling.rope_type` is \"yarn\", only \"default\"",
        ),
        (
            |c| c["rope_scaling"] = json!({"mrope_section": [16, 24, 24]}),
            "`rope_scaling.mrope_section` is [16,24,24]",
        ),
        (
            |c| c["rope_scaling"] = json!({"rope_theta": 10000}),
            "`rope_theta` is 6000000 and `rope_scaling.rope_theta` 10000",
        ),
        (
            |c| drop(c.insert("quantization_config".into(), json!({"quant_method": "fp8"}))),
            "`quantization_config` is {\"quant_method\":\"fp8\"}",
        ),
        (
            |c| drop(c.insert("attn_logit_softcap".into(), json!(30.0))),
            "`attn_logit_softcap` is 30.0, a field that is not known",
        ),
        (
            |c| drop(c.remove("kda_lower_bound")),
            "`kda_lower_bound` is missing",
        ),
        (|c| drop(c.remove("head_dim")), "`head_dim` is missing"),
        (|c| drop(c.remove("rope_theta")), "`rope_theta` is missing"),
    ];
    for (edit, says) in edits {
        let refused = edited(FLASH, edit).unwrap_err();
        assert!(refused.contains(says), "{refused}, wanted {says}");
    }
    // What says nothing changes nothing.
    let quiet = edited(FLASH, |c| {
        drop(c.insert("use_something".into(), false.into()))
    });
    assert!(quiet.is_ok());
}
