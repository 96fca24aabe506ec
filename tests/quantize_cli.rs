//! `deltad-quantize` as a script sees it: exit codes, what is printed, what is left behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use deltad::door::chat;
use deltad::request::Prompt;
use deltad::text::{ChatTemplate, Specials, Tokenizer, encode_chat};
use ggml_kernels::gguf::GgufFile;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .args(args)
        .output()
        .unwrap()
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

#[test]
fn an_interrupt_removes_what_was_begun() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("big.gguf");
    // Some 1.3 GB: far more than can be written before the signal arrives.
    let args = [
        "synth",
        target.to_str().unwrap(),
        "--layers",
        "2",
        "--shape",
        "48b",
        "--quiet",
    ];
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while entries(home.path()).is_empty() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing was begun"
        );
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(entries(home.path()).is_empty());
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

/// The whole is 21 MiB: `ulimit -f` lets it become one, as a disk would that others fill meanwhile.
#[test]
fn a_disk_that_fills_midway_costs_neither_the_old_file_nor_leaves_half_a_new_one() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("out.gguf");
    fs::write(&target, "precious").unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    // In units of 512 bytes. The signal that comes with the limit is ignored, and stays so over
    // `exec`: what is left is a write that fails.
    let limited = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", limited, "sh", env!("CARGO_BIN_EXE_deltad-quantize")])
        .args(["convert", demo.to_str().unwrap(), target.to_str().unwrap()])
        .args(["--type", "f16", "--overwrite", "--quiet"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    let words = text(&output.stderr);
    assert!(
        words.contains("out.gguf") && words.contains("too large"),
        "{words}"
    );
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(entries(home.path()), [target]);
}

/// A file of random weights that takes a while to convert.
fn random(home: &Path) -> String {
    let source = home.join("random.gguf").to_str().unwrap().to_owned();
    let synth = ["synth", &source, "--layers", "4", "--shape", "edge"];
    let made = run(&[&synth[..], &["--type", "bf16", "--quiet"]].concat());
    assert!(made.status.success());
    source
}

#[test]
fn an_interrupted_conversion_leaves_the_old_file_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let source = random(home.path());
    let place = home.path().join("place");
    fs::create_dir(&place).unwrap();
    let target = place.join("out.gguf");
    fs::write(&target, "precious").unwrap();
    // A type that takes its time.
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .args(["convert", &source, target.to_str().unwrap()])
        .args(["--type", "q3_k_m", "--overwrite", "--quiet"])
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while entries(&place).len() < 2 {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "nothing was begun"
        );
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(entries(&place), [target]);
}

#[test]
fn what_was_finished_when_it_was_killed_or_interrupted_is_not_done_again() {
    let home = tempfile::tempdir().unwrap();
    let source = random(home.path());
    let place = home.path().join("place");
    fs::create_dir(&place).unwrap();
    let (target, part) = (place.join("out.gguf"), place.join(".out.gguf.part"));
    let name = target.to_str().unwrap();
    let convert = ["convert", &source, name, "--type", "q8_0"];
    assert!(run(&convert).status.success());
    let whole = fs::read(&target).unwrap();
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::INT] {
        fs::remove_file(&target).unwrap();
        let mut child = command(&convert).stderr(Stdio::piped()).spawn().unwrap();
        let written = || part.metadata().map_or(0, |about| about.blocks() * 512);
        while written() < 100 << 20 {
            assert!(child.try_wait().unwrap().is_none(), "ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let ended = child.wait_with_output().unwrap();
        if signal == rustix::process::Signal::INT {
            assert_eq!(ended.status.code(), Some(130));
            let said = text(&ended.stderr);
            assert!(said.contains("is kept in"), "{said}");
        }
        assert_eq!(entries(&place), std::slice::from_ref(&part));
        let again = run(&convert);
        let said = text(&again.stderr);
        assert_eq!(again.status.code(), Some(0), "{said}");
        assert!(said.contains("tensors were finished before"), "{said}");
        assert!(fs::read(&target).unwrap() == whole);
        assert_eq!(entries(&place), std::slice::from_ref(&target));
    }
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

/// The end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"));
    command.args(args);
    command
}

#[test]
fn every_command_ends_quietly_when_nobody_reads_what_it_prints() {
    let home = tempfile::tempdir().unwrap();
    let (words, tiny) = (words(home.path()), fixture("tiny"));
    let model = converted(home.path(), "tiny", "f16");
    let short = ["--chunk", "48", "--chunks", "2", "--quiet"];
    let dry = ["convert", &tiny, "x.gguf", "--type", "q8_0", "--dry-run"];
    let quality = [&["quality", &model, &model, &words], &short[..]].concat();
    let quality_json = [&quality[..], &["--json"]].concat();
    for args in [
        &dry[..],
        &["inspect", &model],
        &["inspect", &model, "--json"],
        &["verify", &model],
        &["verify", &model, "--json"],
        &quality,
        &quality_json,
        &["completions", "bash"],
    ] {
        let output = command(args).stdout(unread()).output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    // Help is printed by clap, which does not mind.
    for args in [&["--help"][..], &["--version"], &["inspect", "--help"]] {
        let output = command(args).stdout(unread()).output().unwrap();
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

/// Remarks on standard error are for whoever reads them; the work is done all the same.
#[test]
fn every_command_does_its_work_when_nobody_reads_its_remarks() {
    let home = tempfile::tempdir().unwrap();
    let (words, tiny) = (words(home.path()), fixture("tiny"));
    let model = converted(home.path(), "tiny", "f16");
    let place = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (q8, matrix, random) = (place("q8.gguf"), place("matrix.gguf"), place("random.gguf"));
    let short = ["--chunk", "48", "--chunks", "2"];
    let imatrix = [&["imatrix", &model, &words, "-o", &matrix], &short[..]].concat();
    let quality = [&["quality", &model, &model, &words], &short[..]].concat();
    for args in [
        &["convert", &tiny, &q8, "--type", "q4_k_m"][..],
        &imatrix,
        &quality,
        &["synth", &random, "--shape", "edge", "--layers", "1"],
        &["verify", &model],
        &["manual", home.path().to_str().unwrap()],
    ] {
        let run = command(args)
            .stderr(unread())
            .stdout(Stdio::null())
            .status();
        assert_eq!(run.unwrap().code(), Some(0), "{args:?}");
    }
    for file in [q8, matrix, random] {
        assert!(Path::new(&file).exists(), "{file}");
    }
    let refused = command(&["inspect", "/nope.gguf"])
        .stderr(unread())
        .status();
    assert_eq!(refused.unwrap().code(), Some(3));
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
