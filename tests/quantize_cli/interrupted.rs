//! What is left behind when a command is interrupted or killed, or its disk fills.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{command, entries, run, text};

/// Runs a command and interrupts it as soon as it has begun.
fn interrupted_at(args: &[&str], has_begun: impl Fn() -> bool) {
    let mut child = command(args).stderr(Stdio::piped()).spawn().unwrap();
    let since = Instant::now();
    while !has_begun() {
        assert!(since.elapsed() < Duration::from_secs(60), "nothing begun");
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
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
    interrupted_at(&args, || !entries(home.path()).is_empty());
    assert!(entries(home.path()).is_empty());
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
    let convert = ["convert", &source, target.to_str().unwrap()];
    let args = [
        &convert[..],
        &["--type", "q3_k_m", "--overwrite", "--quiet"],
    ]
    .concat();
    interrupted_at(&args, || entries(&place).len() == 2);
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
