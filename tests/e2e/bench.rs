//! `deltad bench` as a person or a script meets it. Its speeds are nobody's here: that they are
//! there, and under which names.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::daemon::home;

fn bench(home: &tempfile::TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad"));
    command
        .arg("bench")
        .arg(home.path().join("model.gguf"))
        .args(["--threads", "1"])
        .args(args)
        .stdin(Stdio::null());
    command
}

fn ran(home: &tempfile::TempDir, args: &[&str]) -> Output {
    bench(home, args).output().expect("a run")
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

const SHORT: [&str; 6] = ["--prompt", "20", "--tokens", "3", "--repeats", "2"];

#[test]
fn every_depth_and_number_of_lanes_has_its_figures_profile_and_picture() {
    let home = home("");
    let svg = home.path().join("speed.svg");
    let mut args = vec!["--depths", "0,64", "--lanes", "1,3", "--json", "--profile"];
    args.extend(["--tier", "scalar", "--svg", svg.to_str().expect("UTF-8")]);
    args.extend(SHORT);
    let output = ran(&home, &args);
    let report: Value = serde_json::from_str(&out(&output)).expect("JSON");
    let figures = report["figures"].as_array().expect("figures");
    let kinds: Vec<_> = figures
        .iter()
        .map(|f| {
            (
                f["what"].as_str().expect("a name"),
                &f["depth"],
                &f["lanes"],
            )
        })
        .collect();
    let wanted = [("prefill", 0, 1), ("decode", 0, 1), ("decode", 0, 3)];
    let deeper = [("prefill", 64, 1), ("decode", 64, 1), ("decode", 64, 3)];
    assert_eq!(kinds.len(), 6, "{report:#}");
    for (kind, (what, depth, lanes)) in kinds.iter().zip(wanted.into_iter().chain(deeper)) {
        assert_eq!(
            (kind.0, kind.1 == depth, kind.2 == lanes),
            (what, true, true),
            "{kinds:?}"
        );
    }
    for figure in figures {
        let rate = |name: &str| figure["deltad"][name].as_f64().expect("a rate");
        assert!(
            0.0 < rate("least") && rate("least") <= rate("median"),
            "{figure}"
        );
        assert!(rate("median") <= rate("most"), "{figure}");
        let shares = figure["profile"].as_array().expect("a profile");
        let sum: f64 = shares.iter().filter_map(|s| s["share"].as_f64()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{figure}");
        let works: Vec<_> = shares.iter().filter_map(|s| s["work"].as_str()).collect();
        let all = ["kda", "mla", "experts", "dense products", "head", "other"];
        assert_eq!(works, all);
    }
    assert_eq!(report["setting"]["device"], "CPU (scalar)");
    assert!(
        report["ceilings"]["read"].as_f64() > Some(1e6),
        "{report:#}"
    );
    assert!(
        report["memory"]["process"].as_u64() > Some(1 << 20),
        "{report:#}"
    );
    let picture = std::fs::read_to_string(svg).expect("a picture");
    assert!(
        picture.starts_with("<svg") && picture.contains(">deltad, 3<"),
        "{picture}"
    );
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(progress.contains("decode at 64, lanes 3: "), "{progress}");
}

#[test]
fn a_depth_is_laid_where_nobody_wants_to_read_to_it() {
    let home = home("");
    // Shorter than a block, whole blocks, and rows behind the last.
    let mut args = vec!["--depths", "5,640,1001", "--lanes", "2", "--laid", "--json"];
    args.extend(SHORT);
    let output = ran(&home, &args);
    let report: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(
        report["figures"].as_array().map(Vec::len),
        Some(3),
        "{report:#}"
    );
    assert_eq!(report["setting"]["laid"], true);
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    for read in [5, 64, 64 + 1001 % 64] {
        let words = format!("reading {read} tokens for 2 lanes");
        assert!(progress.contains(&words), "{words}: {progress}");
    }
}

#[test]
fn a_growing_sequence_is_told_at_each_doubling() {
    let home = home("");
    let args = ["--doubling", "2500", "--tokens", "2", "--json", "--quiet"];
    let output = ran(&home, &args);
    assert_eq!(output.stderr, b"");
    let report: Value = serde_json::from_str(&out(&output)).expect("JSON");
    let told = report["doublings"].as_array().expect("doublings");
    let tokens: Vec<_> = told.iter().filter_map(|d| d["tokens"].as_u64()).collect();
    assert_eq!(tokens, [1024, 2048, 2500]);
    let bytes: Vec<_> = told
        .iter()
        .filter_map(|d| d["state_bytes"].as_u64())
        .collect();
    // Twice the rows beside the same memory of KDA.
    assert!(bytes[0] < bytes[1] && bytes[1] < 2 * bytes[0], "{bytes:?}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_was_given_and_what_is_wanted() {
    let home = home("");
    let said = |args: &[&str], code: i32| {
        let output = ran(&home, args);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(output.stdout, b"");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let deep = said(&["--depths", "0,1m"], 2);
    assert!(deep.contains("1048576 tokens and 512 to measure"), "{deep}");
    assert!(deep.contains("wanted at most"), "{deep}");
    let depth = said(&["--depths", "8q"], 2);
    assert!(depth.contains("8k"), "{depth}");
    let tier = said(&["--tier", "sse"], 2);
    assert!(tier.contains("avx512"), "{tier}");
    let short = said(&["--doubling", "100"], 2);
    assert!(
        short.contains("got 100 tokens, wanted at least 1024"),
        "{short}"
    );
    let both = said(&["--doubling", "2k", "--depths", "0"], 2);
    assert!(both.contains("cannot be used with"), "{both}");
    if cfg!(not(feature = "rival")) {
        let rival = said(&["--against", "llama.cpp"], 1);
        assert!(rival.contains("--features rival"), "{rival}");
    }
    std::fs::write(home.path().join("model.gguf"), "GGUX").expect("a file");
    let wrong = said(&[], 1);
    assert!(wrong.contains("model.gguf: "), "{wrong}");
}

#[test]
fn ctrl_c_ends_it_quietly() {
    let home = home("");
    // Longer than anybody waits.
    let mut command = bench(
        &home,
        &["--profile", "--tokens", "100", "--repeats", "1000"],
    );
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a run");
    // It listens for signals before it says its first word.
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    said.read_line(&mut String::new()).expect("a word");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    let output = child.wait_with_output().expect("its output");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(output.stdout, b"");
    assert!(
        !rest.contains("deltad: ") && !rest.contains("panic"),
        "{rest}"
    );
}
