//! A daemon with a long text that was read once: questions to it, forks, suspending and resuming.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::daemon::{Daemon, start};
use crate::{MIB, median, ms};

/// From the command's start to the first byte that it prints.
fn by_command(daemon: &Daemon) -> f64 {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltad"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args([
            "ask",
            "--session",
            "manual",
            "--temperature",
            "0",
            "--max-tokens",
            "8",
            "And?",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command");
    let mut said = child.stdout.take().expect("a pipe");
    let read = said.read(&mut [0; 1]).expect("it is read");
    let first = ms(start);
    assert!(
        read == 1 && said.read_to_end(&mut Vec::new()).is_ok(),
        "no word"
    );
    assert!(child.wait().is_ok_and(|s| s.success()));
    first
}

/// A daemon with a text of so many tokens.
pub fn served(model: Option<&Path>, tokens: usize) {
    let daemon = start(model);
    let name = model.map_or("the demo model".into(), |m| m.display().to_string());
    let sentence = "The quick brown fox jumps over the lazy dog. ";
    let each = daemon.post("/tokenize", &json!({"content": sentence.repeat(100)}));
    let each = each["tokens"].as_array().expect("tokens").len();
    let text = sentence.repeat(tokens * 100 / each);
    let start = Instant::now();
    let made = json!({"name": "manual", "content": text, "fixed": true, "read": true});
    daemon.post("/v1/sessions", &made);
    let read = ms(start);
    let context = daemon.post("/v1/sessions/manual/measure", &json!({}));
    println!(
        "{name}, {} tokens of {}, {:.1} MiB of state; read in {read:.0} ms:",
        context["tokens"],
        context["window"],
        context["bytes"].as_f64().unwrap_or(0.0) / MIB
    );
    let firsts: Vec<f64> = (0..5).map(|_| daemon.first("manual")).collect();
    println!(
        "  question to the text: first token {:8.1} ms, median of 5",
        median(firsts)
    );
    let asked: Vec<f64> = (0..5).map(|_| by_command(&daemon)).collect();
    println!(
        "  deltad ask --session:  {:8.1} ms to its first word, the program's start within, median of 5",
        median(asked)
    );
    let start = Instant::now();
    for n in 0..8 {
        let fork = json!({"name": format!("fork-{n}")});
        daemon.post("/v1/sessions/manual/fork", &fork);
    }
    println!(
        "  a fork                 {:8.1} ms, mean of 8",
        ms(start) / 8.0
    );
    let talk = "fork-0";
    daemon.first(talk);
    let before = daemon.bytes();
    println!("  next turn: first token {:8.1} ms", daemon.first(talk));
    println!(
        "  bytes of that turn     {:8.1} KiB",
        (daemon.bytes() - before) as f64 / 1024.0
    );
    let start = Instant::now();
    let told = daemon.post(&format!("/v1/sessions/{talk}/suspend"), &json!({}));
    println!(
        "  suspend                {:8.1} ms, {:.1} MiB",
        ms(start),
        told["written"].as_f64().unwrap_or(0.0) / MIB
    );
    println!(
        "  resumed by a turn: first token {:8.1} ms",
        daemon.first(talk)
    );
    daemon.post(&format!("/v1/sessions/{talk}/suspend"), &json!({}));
    let start = Instant::now();
    daemon.post(&format!("/v1/sessions/{talk}/resume"), &json!({}));
    println!("  resume                 {:8.1} ms", ms(start));
}
