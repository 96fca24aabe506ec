//! Output that nobody reads.

use std::path::Path;
use std::process::Stdio;

use super::{command, converted, fixture, text, words};

/// The end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
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
