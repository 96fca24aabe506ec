//! What comes out of the socket against the reference's logits.

use safetensors::SafeTensors;
use serde_json::json;

use super::daemon::{fixture, start};

/// In log-probability, the project's promise for exact files.
const TOLERANCE: f64 = 1e-3;

fn i32s(file: &SafeTensors, name: &str) -> Vec<i32> {
    let tensor = file.tensor(name).expect(name);
    let words = tensor.data().as_chunks::<4>().0.iter();
    words.map(|b| i32::from_le_bytes(*b)).collect()
}

fn f32s(file: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).expect(name);
    let words = tensor.data().as_chunks::<4>().0.iter();
    words.map(|b| f32::from_le_bytes(*b)).collect()
}

fn id(name: &serde_json::Value) -> usize {
    let name = name.as_str().expect("a name");
    let id = name.strip_prefix("token_id:").expect("an id");
    id.parse().expect("a number")
}

#[test]
fn scores_and_greedy_tokens_over_the_socket_are_the_references() {
    let bytes = std::fs::read(fixture("tiny").join("golden.safetensors")).expect("goldens");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let daemon = start("");
    for n in [7, 70] {
        let prompt = i32s(&file, &format!("tokens.{n}"));
        let logits = f32s(&file, &format!("logits.{n}"));
        let n_rows = file.tensor(&format!("logits.{n}")).expect("logits").shape()[0];
        let body = json!({"prompt": prompt, "echo": true, "logprobs": 20, "max_tokens": 1,
            "temperature": 0, "return_tokens_as_token_ids": true});
        let (status, answer) = daemon.post("/v1/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let scores = &answer["choices"][0]["logprobs"];
        let names = scores["tokens"].as_array().expect("tokens");
        assert_eq!(names.len(), prompt.len() + 1);
        let mut worst = 0f64;
        let n_vocab = logits.len() / n_rows;
        for (i, row) in logits.chunks_exact(n_vocab).enumerate() {
            let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
            let want = |token: usize| f64::from(row[token]) - sum.ln();
            let at = prompt.len() - n_rows + i + 1;
            let own = scores["token_logprobs"][at].as_f64().expect("a score");
            worst = worst.max((own - want(id(&names[at]))).abs());
            for (name, got) in scores["top_logprobs"][at].as_object().expect("a table") {
                let got = got.as_f64().expect("a score");
                worst = worst.max((got - want(id(&json!(name)))).abs());
            }
        }
        assert!(worst < TOLERANCE, "{n} tokens: off by {worst}");
    }
    let body = json!({"prompt": i32s(&file, "greedy.prompt"), "logprobs": 0, "max_tokens": 48,
        "temperature": 0, "ignore_eos": true, "return_tokens_as_token_ids": true});
    let (_, answer) = daemon.post("/v1/completions", &body);
    let names = answer["choices"][0]["logprobs"]["tokens"]
        .as_array()
        .expect("tokens");
    let got: Vec<i32> = names.iter().map(|name| id(name) as i32).collect();
    assert_eq!(got, i32s(&file, "greedy.tokens"));
}

#[test]
fn texts_become_the_reference_tokens_and_come_back_over_the_socket() {
    let golden = std::fs::read_to_string(fixture("tiny").join("golden_tokenizer.json"));
    let golden: serde_json::Value = serde_json::from_str(&golden.expect("goldens")).expect("JSON");
    let daemon = start("");
    let rows = golden.as_array().expect("rows");
    assert!(rows.len() > 10, "{}", rows.len());
    for row in rows {
        for (special, ids) in [(true, &row["ids_special"]), (false, &row["ids_plain"])] {
            let body = json!({"content": row["text"], "parse_special": special});
            let (_, answer) = daemon.post("/tokenize", &body);
            assert_eq!(answer["tokens"], *ids, "{}", row["text"]);
        }
        let (_, answer) = daemon.post("/detokenize", &json!({"tokens": row["ids_special"]}));
        assert_eq!(answer["content"], row["text"]);
    }
}
