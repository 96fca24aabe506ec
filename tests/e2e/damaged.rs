//! Files of sessions that are cut, changed or taken away under a running daemon: that costs a
//! session's state, or the session, and never the daemon.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::daemon::{Daemon, demo, start_with};

fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let (status, answer) = daemon.post(path, &body);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

fn ask(daemon: &Daemon, session: &str, content: &str) -> Value {
    let body = json!({"content": content, "temperature": 0, "max_tokens": 32});
    post(daemon, &format!("/v1/sessions/{session}/send"), body)
}

fn text(answer: &Value) -> &str {
    let text = answer["choices"][0]["message"]["content"].as_str();
    text.unwrap_or_else(|| panic!("no text: {answer}"))
}

fn cached(answer: &Value) -> u64 {
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    cached.expect("a count")
}

/// Where a session lies.
fn dir(daemon: &Daemon, name: &str) -> PathBuf {
    let (_, shown) = daemon.get(&format!("/v1/sessions/{name}"));
    let id = shown["id"]
        .as_str()
        .expect("an id")
        .trim_start_matches("sess_")
        .to_owned();
    let found = find(daemon.home.path(), &id);
    found.unwrap_or_else(|| panic!("no directory {id}"))
}

fn find(below: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(below).ok()? {
        let path = entry.ok()?.path();
        if path.ends_with(name) {
            return Some(path);
        }
        if path.is_dir()
            && let Some(found) = find(&path, name)
        {
            return Some(found);
        }
    }
    None
}

fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).expect("a directory");
    let all = all.map(|e| e.expect("an entry").path());
    let is = |p: &PathBuf| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(kind))
    };
    let found: Vec<PathBuf> = all.filter(is).collect();
    assert!(!found.is_empty(), "no {kind} in {}", dir.display());
    found
}

fn cut(path: &Path) {
    let file = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("a file");
    let length = file.metadata().expect("a length").len();
    file.set_len(length / 2).expect("it can be cut");
}

/// More tokens than a block has.
const LONG: &str = "My locker code is 4827. What is 3 + 4? What is 5 + 6? \
    What is 1 + 2? What is 7 + 8? What is 2 + 2? What is 9 + 1? What is my locker code?";

#[test]
fn rows_and_states_that_are_cut_or_gone_under_a_running_daemon_cost_reading_again() {
    let daemon = start_with(&demo("model"), "f16", "");
    let unharmed = start_with(&demo("model"), "f16", "");
    let question = "What is my locker code?";
    // Nobody's words are another's: what one has in memory would serve all.
    for (person, name, harm) in [
        ("Tessa", "rows", cut as fn(&Path)),
        ("Robin", "state", cut),
        ("Maria", "rows", gone),
        ("Oscar", "state", gone),
    ] {
        let session = person.to_lowercase();
        let long = format!("My name is {person}. {LONG}");
        for daemon in [&daemon, &unharmed] {
            post(daemon, "/v1/sessions", json!({"name": session}));
            ask(daemon, &session, &long);
        }
        let want = ask(&unharmed, &session, question);
        assert!(cached(&want) > 64, "{want}");
        post(
            &daemon,
            &format!("/v1/sessions/{session}/suspend"),
            json!({}),
        );
        let dir = dir(&daemon, &session);
        files(&dir, &format!("{name}."))
            .iter()
            .for_each(|f| harm(f));
        let got = ask(&daemon, &session, question);
        assert_eq!(text(&got), text(&want), "{name}");
        assert!(cached(&got) < 64, "it was read again: {got}");
        // What is written next is whole again.
        let path = format!("/v1/sessions/{session}/suspend");
        let written = post(&daemon, &path, json!({}))["written"].as_u64();
        assert!(written > Some(0), "{name}: {written:?}");
        let again = ask(&daemon, &session, "What is my name?");
        assert!(cached(&again) > 64, "{name}: {again}");
    }
}

fn gone(path: &Path) {
    std::fs::remove_file(path).expect("it is there");
}

#[test]
fn a_log_that_is_damaged_under_a_running_daemon_costs_that_session_and_its_words_are_had_back() {
    let mut daemon = start_with(&demo("model"), "f16", "");
    for name in ["bad", "good"] {
        post(&daemon, "/v1/sessions", json!({"name": name}));
        for question in [
            "My name is Tessa.",
            "What is 3 + 4?",
            "My locker code is 4827.",
        ] {
            ask(&daemon, name, question);
        }
    }
    let log = files(&dir(&daemon, "bad"), "log").remove(0);
    let mut bytes = std::fs::read(&log).expect("a log");
    let at = bytes
        .windows(8)
        .position(|w| w == b"What is ")
        .expect("the question");
    bytes[at] ^= 1;
    std::fs::write(&log, &bytes).expect("a file");
    // What is in memory goes on.
    ask(&daemon, "bad", "What is 5 + 6?");
    daemon.signal(Signal::KILL);
    daemon.again();
    let (_, listed) = daemon.get("/v1/sessions");
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1), "{listed}");
    let bad = &listed["unusable"][0];
    let why = bad["why"].as_str().expect("a reason");
    assert!(why.contains("log is damaged at byte"), "{why}");
    let id = bad["id"].as_str().expect("an id");
    let rebuilt = post(&daemon, &format!("/v1/sessions/{id}/rebuild"), json!({}));
    assert_eq!(
        rebuilt["message_count"], 6,
        "all but the damaged turn: {rebuilt}"
    );
    let answer = ask(
        &daemon,
        rebuilt["id"].as_str().expect("an id"),
        "What is my locker code?",
    );
    assert!(text(&answer).contains("4827"), "{answer}");
    let answer = ask(&daemon, "good", "What is my locker code?");
    assert!(text(&answer).contains("4827"), "{answer}");
}
