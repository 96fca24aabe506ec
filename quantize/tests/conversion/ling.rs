//! Ling-3.0's checkpoints: what its own names, rules and blocks become.

use crate::checkpoint::{Copy, convert, fixture};
use crate::result::{hub, values};
use ggml_kernels::gguf::{Array, GgufFile, GgufWriter, Layout, PlannedTensor, Value};
use ggml_kernels::quant::TensorType;
use quantize::convert::{Conversion, Input, Options};
use quantize::recipe::FileType;
use quantize::schema::{self, Mixer};
use serde_json::json;
use std::path::Path;

const SINGLE: &str = "model.safetensors";

#[test]
fn an_f32_file_holds_the_checkpoints_values_under_the_ecosystems_names() {
    let copy = Copy::of("ling_tiny");
    let file = copy.convert(FileType::F32).unwrap();
    let same = [
        ("token_embd", "model.word_embeddings"),
        ("output", "lm_head"),
        ("blk.0.ssm_f_a", "model.layers.0.attention.f_proj"),
        ("blk.0.ssm_g_a", "model.layers.0.attention.g_proj"),
        ("blk.0.ssm_beta", "model.layers.0.attention.b_proj"),
        ("blk.0.attn_output", "model.layers.0.attention.o_proj"),
        ("blk.0.ffn_up", "model.layers.0.mlp.up_proj"),
        ("blk.3.attn_q_a", "model.layers.3.attention.q_a_proj"),
        (
            "blk.3.attn_q_a_norm",
            "model.layers.3.attention.q_a_layernorm",
        ),
        ("blk.3.attn_q_b", "model.layers.3.attention.q_b_proj"),
        ("blk.3.attn_gate", "model.layers.3.attention.g_proj"),
        ("blk.3.attn_output", "model.layers.3.attention.dense"),
        ("blk.7.ffn_gate_inp", "model.layers.7.mlp.gate"),
        (
            "blk.7.ffn_down_shexp",
            "model.layers.7.mlp.shared_experts.down_proj",
        ),
    ];
    let dir = fixture("ling_tiny");
    for (ours, theirs) in same {
        let got = values(&file, &format!("{ours}.weight"));
        assert_eq!(got, hub(&dir, &format!("{theirs}.weight")), "{ours}");
    }
    let bias = hub(&dir, "model.layers.1.mlp.gate.expert_bias");
    assert_eq!(values(&file, "blk.1.exp_probs_b.bias"), bias);
    for (ours, theirs) in [("gate", "gate"), ("down", "down"), ("up", "up")] {
        let stack = values(&file, &format!("blk.2.ffn_{ours}_exps.weight"));
        for (expert, values) in stack.chunks_exact(64 * 32).enumerate() {
            let name = format!("model.layers.2.mlp.experts.{expert}.{theirs}_proj.weight");
            assert_eq!(values, hub(&dir, &name), "{ours} of expert {expert}");
        }
    }
}

#[test]
fn a_bounded_decay_is_stored_as_the_exponential_of_its_logarithm_whatever_its_shape() {
    let copy = Copy::of("ling_tiny");
    copy.edit_shard(SINGLE, |header, _| {
        header["model.layers.0.attention.A_log"]["shape"] = json!([1, 1, 3, 1]);
        header["model.layers.0.attention.k_conv1d.weight"]["shape"] = json!([96, 4]);
    });
    let file = copy.convert(FileType::Q4KM).unwrap();
    let a = values(&file, "blk.0.ssm_a");
    let log = hub(&fixture("ling_tiny"), "model.layers.0.attention.A_log");
    assert_eq!(a.len(), 3);
    assert!(a.iter().zip(&log).all(|(a, log)| *a == log.exp()));
}

#[test]
fn the_block_that_guesses_ahead_is_left_out_and_said_so() {
    let input = Input::open(&fixture("ling_small")).unwrap();
    let options = Options {
        to: FileType::F16,
        overrides: Vec::new(),
    };
    let plan = Conversion::plan(&input, &options).unwrap();
    let note = plan.notes.iter().find(|note| note.contains("MTP"));
    assert!(note.unwrap().starts_with("layer 7 is left out"));
    assert!(plan.steps.iter().all(|step| step.spec.layer != Some(7)));
    let metadata = plan.metadata();
    assert_eq!(metadata.u64("bailingmoe3.block_count"), Some(7));
    assert_eq!(metadata.get("bailingmoe3.nextn_predict_layers"), None);
    let mla = plan.hparams.layers.iter().map(|l| l.mixer == Mixer::Mla);
    let mla: Vec<bool> = mla.collect();
    assert_eq!(mla, [false, false, false, false, false, true, true]);
}

/// A file as llama.cpp's converter writes one of a model with such a block.
fn with_a_block_more(from: &GgufFile, target: &Path) {
    let mut metadata = from.metadata().clone();
    let mut set = |key: &str, value: Value| metadata.set(&format!("bailingmoe3.{key}"), value);
    set("block_count", Value::U32(8));
    set("nextn_predict_layers", Value::U32(1));
    let kv = vec![0, 0, 0, 0, 0, 1, 1, 1];
    set("attention.head_count_kv", Value::Array(Array::U32(kv)));
    for (key, bounds) in [
        ("swiglu_clamp_exp", [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0]),
        (
            "swiglu_clamp_shexp",
            [0.0, 0.0, 0.0, 0.0, 1.5, 1.5, 3.0, 9.0],
        ),
    ] {
        set(key, Value::Array(Array::F32(bounds.into())));
    }
    let copied = from.tensors().iter().map(|tensor| PlannedTensor {
        name: tensor.name.clone(),
        ty: tensor.ty,
        shape: tensor.shape().to_vec(),
    });
    let norm = PlannedTensor {
        name: "blk.7.nextn.enorm.weight".into(),
        ty: TensorType::F32,
        shape: vec![256],
    };
    let plan: Vec<_> = copied.chain([norm]).collect();
    let layout = Layout::new(&metadata, &plan).unwrap();
    let file = std::fs::File::create(target).unwrap();
    let mut writer = GgufWriter::new(file, layout).unwrap();
    for tensor in from.tensors() {
        writer.write(from.data(tensor)).unwrap();
    }
    writer.write(&[0; 4 * 256]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_file_with_such_a_block_is_read_as_one_without_and_written_without() {
    let copy = Copy::of("ling_small");
    let plain = copy.convert(FileType::F16).unwrap();
    let more = copy.target().with_extension("more");
    with_a_block_more(&plain, &more);
    let (h, specs) = schema::check(&GgufFile::open(&more).unwrap()).unwrap();
    assert_eq!((h, specs), schema::check(&plain).unwrap());
    let again = copy.target().with_extension("again");
    convert(&more, &again, FileType::F16, false, None).unwrap();
    let again = GgufFile::open(&again).unwrap();
    assert_eq!(again.metadata(), plain.metadata());
    assert_eq!(again.tensors().len(), plain.tensors().len());
}

#[test]
fn several_shared_experts_are_as_wide_as_their_tensors_say() {
    let copy = Copy::of("ling_tiny");
    copy.edit_json("config.json", |c| {
        c["num_shared_experts"] = 2.into();
        c["moe_shared_expert_intermediate_size"] = 32.into();
    });
    let file = copy.convert(FileType::F16).unwrap();
    let width = "bailingmoe3.expert_shared_feed_forward_length";
    assert_eq!(file.metadata().u64(width), Some(64));
}

#[test]
fn another_architecture_of_the_same_model_type_is_refused() {
    let copy = Copy::of("ling_tiny");
    for architectures in [json!(["BailingMoeV2_5ForCausalLM"]), json!([]), json!(null)] {
        copy.edit_json("config.json", |c| c["architectures"] = architectures);
        let (message, code) = copy.refusal();
        assert!(message.contains("\"bailing_hybrid\""), "{message}");
        assert!(message.contains("\"BailingMoeV3ForCausalLM\""), "{message}");
        assert_eq!(code, 3);
    }
}
