//! `deltad-quantize` as a script sees it: exit codes, what is printed, what is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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
