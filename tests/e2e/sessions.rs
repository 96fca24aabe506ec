//! Conversations that the daemon keeps, as a person at a terminal has them.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::daemon::{Daemon, demo, start_with};

fn daemon() -> Daemon {
    start_with(&demo("model"), "q4_k_m", "")
}

fn run(daemon: &Daemon, args: &[&str], input: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad"));
    command.arg("--socket").arg(&daemon.socket).args(args);
    command.env("XDG_STATE_HOME", daemon.home.path());
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a run");
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
        stdin.write_all(text.as_bytes()).expect("it reads");
    }
    child.wait_with_output().expect("its end")
}

fn said(output: Output) -> String {
    let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{remarks}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn ask(daemon: &Daemon, session: &str, question: &str) -> String {
    let args = ["ask", "--temperature", "0", "--session", session, question];
    said(run(daemon, &args, None))
}

#[test]
fn a_session_goes_from_one_command_to_the_next_and_into_a_chat_and_forks() {
    let daemon = daemon();
    ask(&daemon, "talk", "My locker code is 4827.");
    said(run(&daemon, &["session", "fork", "talk", "other"], None));
    let question = "What is my locker code?";
    assert_eq!(
        ask(&daemon, "talk", question),
        "Your locker code is 4827.\n"
    );
    let chat = ["chat", "--temperature", "0", "--session", "other"];
    let talked = said(run(
        &daemon,
        &chat,
        Some("What is my locker code?\n/quit\n"),
    ));
    assert!(talked.contains("4827"), "{talked}");
    let show = |name: &str| -> Value {
        let json = said(run(&daemon, &["session", "show", name, "--json"], None));
        serde_json::from_str(&json).expect("JSON")
    };
    assert_eq!(show("talk")["message_count"], 4);
    assert_eq!(show("other")["message_count"], 4);
    let listed = said(run(&daemon, &["session", "list"], None));
    let names: Vec<_> = listed
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert_eq!(names, ["other", "talk"]);
    said(run(&daemon, &["session", "delete", "other"], None));
    let gone = run(&daemon, &["session", "show", "other"], None);
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn a_text_is_read_once_and_asked_again_and_again() {
    let daemon = daemon();
    let text = "My locker code is 4827.";
    let create = ["session", "create", "manual", "--from", "-"];
    let made = said(run(&daemon, &create, Some(text)));
    assert!(made.contains("manual") && made.contains("fixed"), "{made}");
    let cached = |question: &str| {
        let args = [
            "ask",
            "--json",
            "--temperature",
            "0",
            "--session",
            "manual",
            question,
        ];
        let answer: Value = serde_json::from_str(&said(run(&daemon, &args, None))).expect("JSON");
        let usage = &answer["usage"];
        usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .expect("a count")
    };
    let first = cached("What is my locker code?");
    assert!(first > 5, "{first}");
    assert_eq!(cached("What is 3 + 4?"), first);
    let measured = said(run(&daemon, &["session", "measure", "manual"], None));
    assert!(measured.contains(&format!("{first} of ")), "{measured}");
}
