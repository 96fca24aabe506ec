//! `deltad-quantize` as a script sees it: exit codes, what is printed, what is left behind.

mod interrupted;
mod measuring;
mod pipes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use deltad::door::chat;
use deltad::request::Prompt;
use deltad::text::{ChatTemplate, Specials, Tokenizer, encode_chat};
use ggml_kernels::gguf::GgufFile;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    path.to_str().unwrap().to_owned()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect()
}

#[test]
fn exit_codes_tell_a_script_what_went_wrong() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("tiny.gguf");
    let target = target.to_str().unwrap();
    let tiny = fixture("tiny");
    let convert = |extra: &[&str]| {
        let args = [&["convert", &tiny, target, "--type", "q8_0"], extra].concat();
        run(&args).status.code()
    };
    assert_eq!(convert(&["--type", "q9_9"]), Some(2));
    assert_eq!(convert(&["--tensor-type", "(=q8_0"]), Some(2));
    assert_eq!(convert(&["--imatrix", "/nonexistent"]), Some(3));
    assert_eq!(convert(&[]), Some(0));
    assert_eq!(convert(&[]), Some(4));
    assert_eq!(convert(&["--overwrite"]), Some(0));
    assert_eq!(run(&["verify", target]).status.code(), Some(0));
    let inner = home.path().join("missing/tiny.gguf");
    let args = ["convert", &tiny, inner.to_str().unwrap(), "--type", "q8_0"];
    assert_eq!(run(&args).status.code(), Some(1));
    let mut bytes = fs::read(target).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(target, bytes).unwrap();
    for command in ["verify", "inspect"] {
        let output = run(&[command, target]);
        assert_eq!(output.status.code(), Some(3), "{command}");
        assert!(text(&output.stderr).contains("is it truncated?"));
    }
}

#[test]
fn a_size_chooses_the_type_that_loses_least_and_says_what_it_loses() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("out.gguf");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    let dry = |size: &str| {
        let (model, target) = (model.to_str().unwrap(), target.to_str().unwrap());
        run(&["convert", model, target, "--size", size, "--dry-run"])
    };
    let chosen = |size: &str| text(&dry(size).stdout).lines().last().unwrap().to_owned();
    assert!(chosen("1GiB").starts_with("f16: "), "{}", chosen("1GiB"));
    let said = text(&dry("7MiB").stdout);
    assert!(said.contains("q4_k_m: 6."), "{said}");
    assert!(said.contains("expected loss: mean KL 0.00"), "{said}");
    // What needs a matrix is not taken without one, but spoken of.
    let said = text(&dry("4700KB").stdout);
    assert!(said.contains("note: with an importance matrix"), "{said}");
    let refused = dry("1MiB");
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("the smallest, "));
    assert_eq!(dry("much").status.code(), Some(2));
    assert!(entries(home.path()).is_empty());
}

#[test]
fn a_type_that_needs_an_importance_matrix_says_how_to_make_one_and_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("out.gguf");
    let target = target.to_str().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    let refused = run(&[
        "convert",
        model.to_str().unwrap(),
        target,
        "--type",
        "iq2_xs",
    ]);
    assert_eq!(refused.status.code(), Some(3));
    let said = text(&refused.stderr);
    assert!(said.contains("iq2_xs needs an importance matrix"), "{said}");
    assert!(said.contains("deltad-quantize imatrix F16.gguf"), "{said}");
    assert!(entries(home.path()).is_empty());
}

#[test]
fn a_dry_run_shows_every_tensor_and_writes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("out.gguf");
    let args = [
        "convert",
        &fixture("uneven"),
        target.to_str().unwrap(),
        "--type",
        "q4_k_m",
        "--dry-run",
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(0));
    let table = text(&output.stdout);
    let experts = table
        .lines()
        .find(|l| l.starts_with("blk.2.ffn_gate_exps.weight"));
    let cells: Vec<&str> = experts
        .unwrap()
        .split("  ")
        .filter(|c| !c.is_empty())
        .collect();
    let cells: Vec<&str> = cells.iter().map(|c| c.trim()).collect();
    let note = "q4_k wants rows of 256 x, got 128";
    assert_eq!(
        cells[1..],
        ["[128, 40, 5]", "bf16", "q5_0", "17.2 KiB", note]
    );
    assert!(table.lines().last().unwrap().contains("bits per weight"));
    assert!(entries(home.path()).is_empty());
}

#[test]
fn quiet_is_silent_and_json_is_json() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("out.gguf");
    let target = target.to_str().unwrap();
    let output = run(&[
        "convert",
        &fixture("uneven"),
        target,
        "--type",
        "q4_k_m",
        "--quiet",
    ]);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        (String::new(), String::new())
    );
    let json =
        |args: &[&str]| -> serde_json::Value { serde_json::from_slice(&run(args).stdout).unwrap() };
    let inspected = json(&["inspect", target, "--json"]);
    assert_eq!(inspected["runs"], true);
    assert_eq!(inspected["metadata"]["kimi-linear.block_count"], 6);
    let verified = json(&["verify", target, "--json"]);
    assert_eq!(verified["good"], true);
    let tensors = |v: &serde_json::Value| v["tensors"].as_array().unwrap().len();
    assert_eq!(tensors(&inspected), tensors(&verified));
}

/// Enough text for chunks of 48 tokens in any vocabulary.
fn words(home: &Path) -> String {
    let path = home.join("words.txt");
    let words: String = (0..60)
        .map(|i| format!("word {} of {i}; ", i * i))
        .collect();
    fs::write(&path, words).unwrap();
    path.to_str().unwrap().to_owned()
}

fn converted(home: &Path, name: &str, to: &str) -> String {
    let target = home.join(format!("{name}-{to}.gguf"));
    let target = target.to_str().unwrap().to_owned();
    let args = ["convert", &fixture(name), &target, "--type", to, "--quiet"];
    assert_eq!(run(&args).status.code(), Some(0));
    target
}

#[test]
fn several_types_are_several_files() {
    let home = tempfile::tempdir().unwrap();
    let pattern = home.path().join("tiny-{type}.gguf");
    let convert = |target: &Path, types: &str| {
        let target = target.to_str().unwrap();
        run(&["convert", &fixture("tiny"), target, "--type", types])
    };
    assert_eq!(convert(&pattern, "q8_0,f16").status.code(), Some(0));
    let mut made: Vec<_> = entries(home.path());
    made.sort();
    let named = |ty: &str| home.path().join(format!("tiny-{ty}.gguf"));
    assert_eq!(made, [named("f16"), named("q8_0")]);
    for file in made {
        let verified = run(&["verify", file.to_str().unwrap(), "--quiet"]);
        assert_eq!(verified.status.code(), Some(0));
    }
    let refused = convert(&home.path().join("one.gguf"), "q8_0,f16");
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("put {type} into it"));
}

#[test]
fn an_error_names_its_file_once() {
    let home = tempfile::tempdir().unwrap();
    let (words, out) = (words(home.path()), home.path().join("out.gguf"));
    let out = out.to_str().unwrap();
    let junk = home.path().join("junk.gguf");
    fs::write(&junk, "junk").unwrap();
    for file in ["/nope.gguf", junk.to_str().unwrap()] {
        for args in [
            &["inspect", file][..],
            &["verify", file],
            &["convert", file, out, "--type", "q8_0"],
            &["imatrix", file, &words, "-o", out],
            &["quality", file, file, &words],
        ] {
            let said = text(&run(args).stderr);
            assert_eq!(said.matches(file).count(), 1, "{args:?}: {said}");
        }
    }
}

/// What a converted file says of tokens and templates is what the hub's own libraries say.
#[test]
fn a_converted_checkpoint_of_lings_layout_tokenizes_and_renders_as_the_reference() {
    let home = tempfile::tempdir().unwrap();
    for (name, goldens) in [
        ("ling_tiny", "tokenizer/ling"),
        ("ling_small", "ling_small"),
    ] {
        let target = home.path().join(format!("{name}.gguf"));
        let output = run(&[
            "convert",
            &fixture(name),
            target.to_str().unwrap(),
            "--type",
            "f16",
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let file = GgufFile::open(&target).unwrap();
        let meta = file.metadata();
        assert_eq!(meta.str("tokenizer.ggml.model"), Some("gpt2"));
        assert_eq!(meta.str("tokenizer.ggml.pre"), Some("bailingmoe2"));
        assert_eq!(meta.bool("tokenizer.ggml.add_bos_token"), Some(false));
        let tokenizer = Tokenizer::from_metadata(meta).unwrap();
        let template = ChatTemplate::from_metadata(meta, &tokenizer).unwrap();
        let ends = ["<|endoftext|>", "<|role_end|>"].map(|t| tokenizer.special_id(t).unwrap());
        assert_eq!(tokenizer.end_tokens(), ends);
        assert_eq!(tokenizer.eos(), Some(ends[1]));
        let pad = meta.u64("tokenizer.ggml.padding_token_id");
        assert_eq!(pad, Some(ends[0].into()));
        let golden = |file: &str| -> Vec<serde_json::Value> {
            let path = Path::new(&fixture(goldens)).join(file);
            serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
        };
        for case in golden("golden_tokenizer.json") {
            let text = case["text"].as_str().unwrap();
            for (specials, field) in [
                (Specials::Parse, "ids_special"),
                (Specials::Plain, "ids_plain"),
            ] {
                let ids = serde_json::json!(tokenizer.encode(text, specials));
                assert_eq!(ids, case[field], "{name}: {field} of {text:?}");
            }
        }
        for case in golden("golden_chat.json") {
            let body = serde_json::json!({
                "messages": case["messages"],
                "tools": case["tools"],
                "enable_thinking": case["enable_thinking"],
            });
            let asked = chat::chat(&body).unwrap();
            let Prompt::Chat {
                messages,
                tools,
                options,
                ..
            } = &asked.requests[0].prompt
            else {
                panic!("a chat is a chat");
            };
            let opens = case["add_generation_prompt"] != false;
            let prompt = template
                .render_with(options, messages, tools, opens)
                .unwrap();
            assert_eq!(prompt.to_text(), case["text"].as_str().unwrap(), "{name}");
            let ids = serde_json::json!(encode_chat(&tokenizer, &prompt));
            assert_eq!(ids, case["ids"], "{name}: {}", case["text"]);
        }
    }
}
