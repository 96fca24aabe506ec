//! A daemon over a model of random weights: what it says means nothing, but it says it, within
//! every rule, so that speed can be measured through the doors that programs use.

use std::process::Command;
use std::sync::atomic::AtomicBool;

use quantize::convert::Silent;
use quantize::recipe::FileType;
use quantize::synth::{self, Shape};
use serde_json::{Value, json};

use super::daemon::{Daemon, at_home};

const CONFIG: &str = "[model]\nthreads = 1\ncontext = 2048\n";

/// As `deltad-quantize synth` writes it.
fn edge() -> Daemon {
    let home = tempfile::tempdir().expect("a directory");
    let made = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .arg("synth")
        .arg(home.path().join("model.gguf"))
        .args(["--shape", "edge", "--layers", "2", "--quiet"])
        .status();
    assert!(made.expect("the program").success());
    at_home(home, CONFIG)
}

/// The vocabulary of the 48B shape over layers that are as thin as they can be.
fn whole_vocabulary() -> Daemon {
    let home = tempfile::tempdir().expect("a directory");
    let mut h = Shape::Full48b.hparams(2, false);
    (h.hidden, h.dense_ff, h.moe.experts) = (256, 256, 8);
    (h.moe.ff, h.moe.shared_ff) = (256, 256);
    (h.kda.heads, h.mla.heads, h.mla.kv_lora_rank) = (2, 2, 256);
    let path = home.path().join("model.gguf");
    let never = AtomicBool::new(false);
    synth::write(&h, FileType::Q4KS, &path, false, &never, &mut Silent).expect("a model");
    at_home(home, CONFIG)
}

fn chat(daemon: &Daemon, more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Good day."}], "seed": 3,
        "max_tokens": 200});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    let (status, answer) = daemon.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0].clone()
}

fn answers(daemon: &Daemon) {
    let free = chat(daemon, json!({"max_tokens": 12, "ignore_eos": true}));
    assert_eq!(free["finish_reason"], "length");
    assert_ne!(free["message"]["content"], "");
    // The template tells turns apart, and the system's words count.
    let (_, usage) = daemon.post(
        "/v1/chat/completions",
        &json!({"messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Good day."}], "max_tokens": 1}),
    );
    assert!(
        usage["usage"]["prompt_tokens"].as_u64() > Some(12),
        "{usage}"
    );
    let schema = json!({"type": "object", "properties": {"tall": {"type": "boolean"}},
        "required": ["tall"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}});
    let bound = chat(daemon, json!({"response_format": format}));
    let text = bound["message"]["content"].as_str().expect("text");
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert!(value["tall"].is_boolean(), "{text}");
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": schema}});
    let call = chat(daemon, json!({"tools": [tool], "tool_choice": "required"}));
    assert_eq!(call["finish_reason"], "tool_calls", "{call}");
    let tokens = |text: &str| {
        let (_, answer) = daemon.post("/tokenize", &json!({"content": text}));
        answer["tokens"].as_array().expect("tokens").len()
    };
    assert_eq!(tokens("<|im_user|>"), 1);
    // Words merge: eleven bytes are fewer tokens.
    assert!(tokens("hello there") <= 8);
    let round = json!({"content": "Zwölf Boxkämpfer 拳 🥊\n"});
    let (_, ids) = daemon.post("/tokenize", &round);
    assert_eq!(daemon.post("/detokenize", &ids).1, round);
}

#[test]
fn a_synthetic_model_is_served() {
    let daemon = edge();
    let bytes = std::fs::metadata(daemon.home.path().join("model.gguf"));
    assert!(bytes.expect("a file").len() < 100 << 20);
    answers(&daemon);
}

#[test]
fn a_vocabulary_as_large_as_the_48bs_is_served() {
    let daemon = whole_vocabulary();
    let bytes = std::fs::metadata(daemon.home.path().join("model.gguf"));
    assert!(bytes.expect("a file").len() < 100 << 20);
    answers(&daemon);
    let body = json!({"prompt": "x", "max_tokens": 1, "logit_bias": {"163839": 100}});
    assert_eq!(daemon.post("/v1/completions", &body).0, 200);
    let body = json!({"prompt": "x", "max_tokens": 1, "logit_bias": {"163840": 100}});
    assert_eq!(daemon.post("/v1/completions", &body).0, 400);
}
