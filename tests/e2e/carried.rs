//! Sessions that go from one daemon to another as a file, and what strangers make of such files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::daemon::{Daemon, at_home, demo, home_with, start_with};
use super::venv::{self, runs};

fn deltad(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad"));
    command.arg("--socket").arg(&daemon.socket).args(args);
    command.stdin(Stdio::null());
    command
}

fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let (status, answer) = daemon.post(path, &body);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn ask(daemon: &Daemon, session: &str, content: &str) -> Value {
    let body = json!({"content": content, "temperature": 0, "max_tokens": 48});
    post(daemon, &format!("/v1/sessions/{session}/send"), body)
}

fn text(answer: &Value) -> &str {
    let text = answer["choices"][0]["message"]["content"].as_str();
    text.unwrap_or_else(|| panic!("no text: {answer}"))
}

/// Tokens of the prompt that were computed.
fn computed(answer: &Value) -> u64 {
    let usage = &answer["usage"];
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    let (all, cached) = (usage["prompt_tokens"].as_u64(), cached.as_u64());
    all.expect("a count") - cached.expect("a count")
}

/// A second daemon of the same file of weights.
fn beside(daemon: &Daemon) -> Daemon {
    let home = tempfile::tempdir().expect("a directory");
    let model = home.path().join("model.gguf");
    std::fs::copy(daemon.home.path().join("model.gguf"), model).expect("a file");
    let config = std::fs::read_to_string(daemon.home.path().join("deltad.toml"));
    at_home(home, &config.expect("a file"))
}

/// A daemon with a session of two turns, and that session as a file.
fn exported() -> (Daemon, PathBuf) {
    let daemon = start_with(&demo("model"), "q4_k_m", "");
    post(&daemon, "/v1/sessions", json!({"name": "talk"}));
    ask(&daemon, "talk", "My locker code is 4827.");
    ask(&daemon, "talk", "My name is Tessa.");
    let file = daemon.home.path().join("talk.safetensors");
    let args = ["session", "export", "talk", file.to_str().expect("UTF-8")];
    assert_eq!(runs(&mut deltad(&daemon, &args)), Ok(()));
    (daemon, file)
}

#[test]
fn a_session_goes_on_in_another_daemon_bit_by_bit_and_nothing_is_read_again() {
    let (here, file) = exported();
    let there = beside(&here);
    let name = file.to_str().expect("UTF-8");
    assert_eq!(
        runs(&mut deltad(&there, &["session", "import", name])),
        Ok(())
    );
    let question = "What is my locker code?";
    // Here its state is in memory, there it comes from the file.
    let (warm, carried) = (ask(&here, "talk", question), ask(&there, "talk", question));
    assert!(text(&warm).contains("4827"), "{warm}");
    assert_eq!(text(&warm), text(&carried));
    assert_eq!(computed(&warm), computed(&carried));
    let usage = |answer: &Value| answer["usage"].clone();
    assert_eq!(usage(&warm), usage(&carried));
    // By the id of an answer from over there, by pipes, and under another name.
    let (_, shown) = there.get("/v1/sessions/talk");
    let on = json!({"input": "What is my name?", "previous_response_id": shown["last_response_id"],
        "temperature": 0, "max_output_tokens": 48});
    let answer = post(&there, "/v1/responses", on);
    assert!(answer.to_string().contains("Tessa"), "{answer}");
    let out = deltad(&there, &["session", "export", "talk", "-"])
        .stdout(Stdio::piped())
        .spawn();
    let out = out.expect("it runs").stdout.take().expect("a pipe");
    let mut back = deltad(&here, &["session", "import", "-", "--name", "back"]);
    assert_eq!(runs(back.stdin(out)), Ok(()));
    let (again, first) = (
        ask(&here, "back", "What is my name?"),
        ask(&there, "talk", "What is my name?"),
    );
    assert_eq!(text(&again), text(&first));
}

fn refusal(daemon: &Daemon, file: &Path) -> String {
    let name = file.to_str().expect("UTF-8");
    let output = deltad(daemon, &["session", "import", name])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The demo model, whose template begins with another sentence.
fn retold() -> tempfile::TempDir {
    let checkpoint = tempfile::tempdir().expect("a directory");
    for entry in std::fs::read_dir(demo("model")).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), checkpoint.path().join(entry.file_name())).expect("a file");
    }
    let file = checkpoint.path().join("tokenizer_config.json");
    let config = std::fs::read_to_string(&file).expect("a file");
    let other = config.replace("You are a helpful assistant", "You are kind");
    assert_ne!(config, other);
    std::fs::write(&file, other).expect("a file");
    checkpoint
}

#[test]
fn files_that_are_cut_foreign_or_of_another_model_or_template_are_refused_by_name() {
    let (daemon, file) = exported();
    let whole = std::fs::read(&file).expect("a file");
    let changed = daemon.home.path().join("changed");
    let why = |bytes: &[u8]| {
        std::fs::write(&changed, bytes).expect("a file");
        refusal(&daemon, &changed)
    };
    let head = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight")) as usize;
    for (n, said) in [
        (4, "too short"),
        (head - 9, "ends in its head"),
        (whole.len() - 1, "cut off"),
    ] {
        let why = why(&whole[..n]);
        assert!(why.contains(said), "{n}: {why}");
    }
    let model = std::fs::read(daemon.home.path().join("model.gguf")).expect("a file");
    let foreign = why(&model);
    assert!(foreign.contains("no session's file"), "{foreign}");
    let mut flipped = whole.clone();
    flipped[head + 99] ^= 1;
    let damaged = why(&flipped);
    assert!(damaged.contains("is damaged"), "{damaged}");
    // Another file of weights, and the same weights with another template.
    let other = start_with(&demo("model"), "q8_0", "");
    let why = refusal(&other, &file);
    assert!(why.contains("another model"), "{why}");
    let other = start_with(retold().path(), "q4_k_m", "");
    let why = refusal(&other, &file);
    assert!(why.contains("another chat template"), "{why}");
    let listed = daemon.get("/v1/sessions").1;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn a_session_is_read_anew_with_its_words_and_of_another_model_too() {
    let (daemon, _file) = exported();
    let before = ask(&daemon, "talk", "What is my locker code?");
    let path = "/v1/sessions/talk/rebuild";
    let rebuilt = post(&daemon, path, json!({}));
    assert_eq!(
        (&rebuilt["name"], &rebuilt["message_count"]),
        (&json!("talk"), &json!(6))
    );
    // It was read just now, so that only what is new is computed.
    let after = ask(&daemon, "talk", "What is my locker code?");
    assert_eq!(text(&after), text(&before));
    let Daemon { home, .. } = &daemon;
    let sessions = home.path().join("deltad");
    let other = home_with(&demo("model"), "q8_0", "");
    // The same conversations under another model: a swap.
    std::fs::remove_file(home.path().join("model.gguf")).expect("it is there");
    std::fs::copy(
        other.path().join("model.gguf"),
        home.path().join("model.gguf"),
    )
    .expect("a file");
    assert!(sessions.exists());
    let mut daemon = daemon;
    daemon.signal(rustix::process::Signal::TERM);
    daemon.again();
    let (_, listed) = daemon.get("/v1/sessions");
    assert_eq!(listed["data"], json!([]));
    assert_eq!(listed["unusable"][0]["name"], "talk", "{listed}");
    let said = deltad(&daemon, &["session", "list"])
        .output()
        .expect("it runs")
        .stdout;
    let said = String::from_utf8(said).expect("UTF-8");
    assert!(
        said.contains("another model") && said.contains("rebuild"),
        "{said}"
    );
    assert_eq!(
        runs(&mut deltad(&daemon, &["session", "rebuild", "talk"])),
        Ok(())
    );
    let answer = ask(&daemon, "talk", "What is my locker code?");
    assert!(text(&answer).contains("4827"), "{answer}");
}

/// Reads the head of a safetensors file as its own specification says: a length, then JSON.
fn head(file: &[u8]) -> Value {
    let (length, rest) = file.split_first_chunk::<8>().expect("a length");
    let length = u64::from_le_bytes(*length) as usize;
    let head: Value = serde_json::from_slice(&rest[..length]).expect("JSON");
    let tensors = head.as_object().expect("an object").iter();
    let ends = tensors.filter_map(|(_, t)| t["data_offsets"][1].as_u64());
    assert_eq!(ends.max(), Some((rest.len() - length) as u64));
    head
}

#[test]
fn any_python_opens_an_exported_session() {
    let (_daemon, file) = exported();
    let head = head(&std::fs::read(&file).expect("a file"));
    assert_eq!(head["__metadata__"]["format"], "deltad-session-1");
    let packages = ["safetensors==0.6.2", "numpy==2.3.3"];
    let python = match venv::python("safetensors-venv", "safetensors, numpy", &packages) {
        Ok(python) => python,
        Err(why) => return eprintln!("SKIPPED: no safetensors for Python here: {why}"),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/exported.py");
    assert_eq!(runs(Command::new(python).arg(script).arg(&file)), Ok(()));
}
