//! Every kind of damaged checkpoint is refused by name, with exit code 3, and leaves no file.

use crate::checkpoint::{Copy, write_shard};
use quantize::recipe::FileType;
use serde_json::{Value, json};
use std::fs;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SHARD_2: &str = "model-00002-of-00003.safetensors";

#[track_caller]
fn refused(copy: &Copy, says: &[&str]) {
    let (message, code) = copy.refusal();
    for part in says {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert_eq!(code, 3, "{message}");
}

#[test]
fn a_truncated_shard() {
    let copy = Copy::of("uneven");
    let shard = copy.path(SHARD_2);
    let bytes = fs::read(&shard).unwrap();
    for keep in [bytes.len() - 1, bytes.len() / 2, 100, 7] {
        fs::write(&shard, &bytes[..keep]).unwrap();
        refused(&copy, &[SHARD_2, "no whole safetensors file"]);
    }
}

#[test]
fn an_index_that_names_a_missing_shard() {
    let copy = Copy::of("uneven");
    fs::remove_file(copy.path(SHARD_2)).unwrap();
    refused(&copy, &[INDEX, SHARD_2, "missing"]);
}

#[test]
fn an_index_that_leaves_the_directory() {
    let copy = Copy::of("uneven");
    copy.edit_json(INDEX, |index| {
        index["weight_map"]["lm_head.weight"] = "../in/model-00001-of-00003.safetensors".into();
    });
    refused(&copy, &[INDEX, "a file of this directory"]);
}

#[test]
fn an_index_that_names_the_wrong_shard_for_a_tensor() {
    let copy = Copy::of("uneven");
    copy.edit_json(INDEX, |index| {
        index["weight_map"]["lm_head.weight"] = SHARD_2.into();
    });
    refused(&copy, &[INDEX, "lm_head.weight", "does not hold it"]);
}

#[test]
fn no_weights_at_all() {
    let copy = Copy::of("tiny");
    fs::remove_file(copy.path(SINGLE)).unwrap();
    refused(&copy, &[SINGLE, INDEX]);
}

#[test]
fn a_tensor_of_the_wrong_shape() {
    let copy = Copy::of("tiny");
    copy.edit_shard(SINGLE, |header, _| {
        let shape = &mut header["model.layers.0.self_attn.q_proj.weight"]["shape"];
        assert_eq!(*shape, json!([64, 64]));
        *shape = json!([32, 128]);
    });
    refused(
        &copy,
        &["layers.0.self_attn.q_proj.weight", "[32, 128]", "[64, 64]"],
    );
}

#[test]
fn a_tensor_of_the_wrong_type() {
    let copy = Copy::of("tiny");
    copy.edit_shard(SINGLE, |header, _| {
        header["model.norm.weight"]["dtype"] = "I32".into();
    });
    refused(
        &copy,
        &["model.norm.weight", "I32", "wanted F32, F16 or BF16"],
    );
}

#[test]
fn a_missing_tensor() {
    let copy = Copy::of("tiny");
    copy.edit_shard(SINGLE, |header, _| {
        let tensor = header.remove("model.layers.2.self_attn.A_log").unwrap();
        header.insert("model.layers.2.self_attn.A_lag".into(), tensor);
    });
    refused(&copy, &["`model.layers.2.self_attn.A_log` is missing"]);
}

#[test]
fn weights_that_are_not_finite() {
    for (bad, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let copy = Copy::of("tiny");
        copy.edit_shard(SINGLE, |header, data| {
            let tensor = &header["model.layers.1.block_sparse_moe.experts.2.w2.weight"];
            let start = tensor["data_offsets"][0].as_u64().unwrap() as usize;
            // [64, 32]: row 5 of expert 2 is row 2 * 64 + 5 of the stack.
            let at = start + 5 * 32 * 4;
            data[at..at + 4].copy_from_slice(&bad.to_le_bytes());
        });
        refused(&copy, &["blk.1.ffn_down_exps.weight", name]);
    }
}

#[test]
fn weights_that_a_type_cannot_hold() {
    let copy = Copy::of("tiny");
    copy.edit_shard(SINGLE, |header, data| {
        let start = header["lm_head.weight"]["data_offsets"][0]
            .as_u64()
            .unwrap() as usize;
        data[start..start + 4].copy_from_slice(&1e6f32.to_le_bytes());
    });
    refused(
        &copy,
        &["output.weight", "overflows the range of f16", "bf16"],
    );
    copy.convert(FileType::Bf16).unwrap();
}

#[test]
fn an_unknown_architecture() {
    let copy = Copy::of("tiny");
    copy.edit_json("config.json", |config| {
        config["model_type"] = "llama".into();
        config["architectures"] = json!(["LlamaForCausalLM"]);
    });
    refused(
        &copy,
        &["config.json", "unknown architecture", "LlamaForCausalLM"],
    );
}

#[test]
fn each_size_that_is_missing_from_the_configuration() {
    let needed = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "kv_lora_rank",
        "qk_rope_head_dim",
        "qk_nope_head_dim",
        "v_head_dim",
        "num_experts",
        "num_experts_per_token",
        "linear_attn_config",
        "rms_norm_eps",
    ];
    for field in needed {
        let copy = Copy::of("tiny");
        copy.edit_json("config.json", |config| {
            config.remove(field).unwrap();
        });
        refused(&copy, &["config.json", &format!("`{field}` is missing")]);
    }
}

#[test]
fn a_configuration_that_contradicts_itself_or_asks_for_what_is_not_there() {
    type Edit = fn(&mut serde_json::Map<String, Value>);
    let edits: &[(Edit, &str)] = &[
        (
            |c| c["linear_attn_config"]["kda_layers"] = json!([1, 2, 3]),
            "layer 5 is in neither",
        ),
        (
            |c| c["linear_attn_config"]["full_attn_layers"] = json!([3, 4]),
            "layer 3 twice",
        ),
        (
            |c| c["linear_attn_config"]["kda_layers"] = json!([0, 2, 3, 5]),
            "layer 0 of 5",
        ),
        (
            |c| c["first_k_dense_replace"] = 9.into(),
            "`first_k_dense_replace` is 9",
        ),
        (
            |c| c["num_experts_per_token"] = 5.into(),
            "expert_used_count",
        ),
        (|c| c["hidden_size"] = json!(-64), "`hidden_size` is -64"),
        (|c| c["hidden_size"] = json!(1u64 << 40), "embedding_length"),
        (|c| c["q_lora_rank"] = 16.into(), "`q_lora_rank` is 16"),
        (
            |c| c["hidden_act"] = "gelu".into(),
            "`hidden_act` is \"gelu\"",
        ),
        (
            |c| c["moe_renormalize"] = false.into(),
            "`moe_renormalize` is false",
        ),
        (|c| c["vocab_size"] = 700.into(), "embed_tokens"),
    ];
    for (edit, says) in edits {
        let copy = Copy::of("tiny");
        copy.edit_json("config.json", edit);
        refused(&copy, &[says]);
    }
    let copy = Copy::of("tiny");
    fs::write(copy.path("config.json"), "[1").unwrap();
    refused(&copy, &["config.json", "not JSON"]);
}

#[test]
fn a_header_that_reaches_beyond_its_file() {
    let copy = Copy::of("tiny");
    let mut bytes = fs::read(copy.path(SINGLE)).unwrap();
    for length in [bytes.len() as u64, 1 << 50, u64::MAX] {
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        fs::write(copy.path(SINGLE), &bytes).unwrap();
        refused(&copy, &[SINGLE, "no whole safetensors file"]);
    }
}

#[test]
fn offsets_that_reach_beyond_the_data() {
    let copy = Copy::of("tiny");
    copy.edit_shard(SINGLE, |header, _| {
        header["model.norm.weight"]["data_offsets"][1] = json!(u64::MAX);
    });
    refused(&copy, &[SINGLE, "no whole safetensors file"]);
}

#[test]
fn a_tensor_in_two_shards() {
    let copy = Copy::of("uneven");
    copy.edit_shard(SHARD_2, |header, _| {
        let (name, tensor) = header
            .iter()
            .find(|(name, _)| *name != "__metadata__")
            .unwrap();
        let (name, tensor) = (name.clone(), tensor.clone());
        header.remove(&name);
        header.insert("lm_head.weight".into(), tensor);
    });
    refused(&copy, &["holds `lm_head.weight`, and so does"]);
}

#[test]
fn a_tensor_twice_in_one_header() {
    let copy = Copy::of("tiny");
    let bytes = fs::read(copy.path(SINGLE)).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..8 + n].to_vec()).unwrap();
    let parsed: Value = serde_json::from_str(&header).unwrap();
    let again = format!("{{\"model.norm.weight\":{},", parsed["model.norm.weight"]);
    let header = header.replacen('{', &again, 1);
    write_shard(&copy.path(SINGLE), header.as_bytes(), &bytes[8 + n..]);
    refused(&copy, &[SINGLE, "`model.norm.weight` twice"]);
}

#[test]
fn no_tokenizer() {
    let copy = Copy::of("tiny");
    fs::remove_file(copy.path("tiktoken.model")).unwrap();
    refused(&copy, &["no tokenizer", "tiktoken.model", "tokenizer.json"]);
}

#[test]
fn a_damaged_tokenizer() {
    let copy = Copy::of("tiny");
    let ranks = fs::read_to_string(copy.path("tiktoken.model")).unwrap();
    let damaged = [
        (
            ranks.replacen("AQ== 1", "AQ== one", 1),
            "line 2: wanted base64 and a rank",
        ),
        (
            ranks.replacen("AQ== 1", "AA== 1", 1),
            "line 2: token or rank appears twice",
        ),
        (ranks.replacen("AQ== 1", "AQ== 9999", 1), "are not 0 to"),
        (
            ranks.clone() + "////////AAAA 510\n////////AAAB 9999\n",
            "are not 0 to",
        ),
    ];
    for (text, says) in damaged {
        fs::write(copy.path("tiktoken.model"), text).unwrap();
        refused(&copy, &["tiktoken.model", says]);
    }
}

#[test]
fn an_end_of_text_beyond_the_vocabulary() {
    let copy = Copy::of("tiny");
    copy.edit_json("generation_config.json", |c| {
        c["eos_token_id"] = json!([512, 4000])
    });
    refused(&copy, &["4000", "768 tokens"]);
}
