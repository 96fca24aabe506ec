//! `imatrix` and `quality`: what they need, and what they refuse.

use std::fs;
use std::path::Path;
use std::process::Output;

use ggml_kernels::gguf::GgufFile;

use super::{converted, run, text, words};

#[test]
fn an_importance_matrix_is_made_and_used_and_the_loss_measured_by_commands_alone() {
    let home = tempfile::tempdir().unwrap();
    let (text, f16) = (words(home.path()), converted(home.path(), "tiny", "f16"));
    let matrix = home.path().join("importance.gguf");
    let matrix = matrix.to_str().unwrap();
    let short = ["--chunk", "48", "--chunks", "2"];
    let imatrix = |extra: &[&str]| {
        let args = ["imatrix", &f16, &text, "-o", matrix];
        run(&[&args, &short[..], extra].concat())
    };
    let made = imatrix(&[]);
    let said = text_of(&made);
    assert_eq!(made.status.code(), Some(0), "{said}");
    assert!(said.contains("2 chunks of 48 tokens"), "{said}");
    assert_eq!(imatrix(&[]).status.code(), Some(4));
    assert_eq!(text_of(&imatrix(&["--overwrite", "--quiet"])), "");
    let q4 = home.path().join("q4.gguf");
    let q4 = q4.to_str().unwrap();
    let args = ["convert", &f16, q4, "--type", "q4_0", "--imatrix", matrix];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(0));
    assert!(!text_of(&output).contains("not in the importance matrix"));

    let quality = |b: &str| -> serde_json::Value {
        let args = ["quality", &f16, b, &text, "--json"];
        let output = run(&[&args, &short[..]].concat());
        assert!(output.stderr.is_empty(), "{}", text_of(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let same = quality(&f16);
    assert_eq!(same["kl"]["mean"], 0.0);
    assert_eq!(same["kl"]["max"], 0.0);
    assert_eq!(same["top_1"], 1.0);
    assert_eq!(same["text"]["positions"], 46);
    let lost = quality(q4);
    assert!(lost["kl"]["mean"].as_f64().unwrap() > 0.0);
    assert_eq!(lost["a"]["perplexity"], same["a"]["perplexity"]);
    assert!(lost["b"]["bytes"].as_u64() < lost["a"]["bytes"].as_u64());
    let args = ["quality", &f16, q4, &text];
    let table = run(&[&args, &short[..]].concat());
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("KL divergence, mean") && table.contains("46 (2 chunks of 48)"));
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn measuring_refuses_what_cannot_be_measured_and_says_why() {
    let home = tempfile::tempdir().unwrap();
    let text = words(home.path());
    let (tiny, uneven) = (
        converted(home.path(), "tiny", "f16"),
        converted(home.path(), "uneven", "q8_0"),
    );
    let file = |name: &str, bytes: &[u8]| {
        let path = home.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let refused = |args: &[&str], code: i32, why: &str| {
        let output = run(args);
        let said = text_of(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    };
    refused(
        &["quality", &tiny, &uneven, &text, "--chunk", "48"],
        3,
        "not the vocabulary of",
    );
    let short = file("short.txt", b"three small words");
    refused(
        &["quality", &tiny, &tiny, &short],
        3,
        "wanted at least 512: one chunk",
    );
    let out = home.path().join("out.gguf");
    let out = out.to_str().unwrap();
    refused(
        &["imatrix", &tiny, &short, "-o", out],
        3,
        "wanted at least 512",
    );
    let latin = file("latin.txt", b"caf\xe9");
    refused(&["imatrix", &tiny, &latin, "-o", out], 3, "not UTF-8");
    refused(
        &["imatrix", &tiny, "/nonexistent.txt", "-o", out],
        1,
        "/nonexistent.txt",
    );
    refused(&["imatrix", &text, &text, "-o", out], 3, "words.txt");
    refused(&["imatrix", &tiny, &text], 2, "--output");
    // Found before the model is: hours may lie between.
    refused(
        &[
            "imatrix",
            "/nonexistent.gguf",
            &text,
            "-o",
            "/nowhere/out.gguf",
        ],
        1,
        "/nowhere/out.gguf",
    );
    refused(
        &["quality", &tiny, &tiny, &text, "--chunk", "100000000"],
        3,
        "the model's context",
    );
    let mute = file("mute.gguf", &without_tokenizer(&tiny));
    refused(
        &["quality", &mute, &tiny, &text],
        3,
        "tokenizer.ggml.model: missing",
    );
    assert!(!Path::new(out).exists());
}

/// The same model with no word of a tokenizer.
fn without_tokenizer(path: &str) -> Vec<u8> {
    use ggml_kernels::gguf::{GgufWriter, Layout, PlannedTensor};
    let file = GgufFile::open(Path::new(path)).unwrap();
    let mut metadata = file.metadata().clone();
    metadata.map.retain(|key, _| !key.starts_with("tokenizer."));
    let plan = |t: &ggml_kernels::gguf::TensorInfo| PlannedTensor {
        name: t.name.clone(),
        ty: t.ty,
        shape: t.shape().into(),
    };
    let planned: Vec<_> = file.tensors().iter().map(plan).collect();
    let layout = Layout::new(&metadata, &planned).unwrap();
    let mut out = GgufWriter::new(Vec::new(), layout).unwrap();
    for tensor in file.tensors() {
        out.write(file.data(tensor)).unwrap();
    }
    out.finish().unwrap()
}
