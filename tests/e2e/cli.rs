//! The client commands as a person or a script meets them: what they print, keep and return.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use super::daemon::{Daemon, demo, start_with};

fn daemon() -> Daemon {
    start_with(&demo("model"), "q4_k_m", "")
}

fn deltad(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad"));
    // A history of its own, and no terminal to ask.
    command
        .arg("--socket")
        .arg(socket)
        .env("XDG_STATE_HOME", socket.parent().expect("a directory"))
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// `deltad ask`, the likeliest tokens.
fn ask(daemon: &Daemon, args: &[&str]) -> Output {
    let mut command = deltad(&daemon.socket);
    command.args(["ask", "--temperature", "0"]).args(args);
    command.output().expect("a run")
}

fn file(daemon: &Daemon, name: &str, value: &Value) -> String {
    let path = daemon.home.path().join(name);
    std::fs::write(&path, value.to_string()).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

fn tools() -> Value {
    let text = std::fs::read_to_string(demo("conversation.json")).expect("the script");
    let script: Value = serde_json::from_str(&text).expect("JSON");
    script["tools"].clone()
}

#[test]
fn a_conversation_file_carries_a_fact_from_one_command_to_the_next() {
    let daemon = daemon();
    let talk = daemon.home.path().join("talk.json");
    let talk = talk.to_str().expect("UTF-8");
    said(&ask(
        &daemon,
        &["--conversation", talk, "My locker code is 4827."],
    ));
    let answer = said(&ask(
        &daemon,
        &["--conversation", talk, "What is my locker code?"],
    ));
    assert_eq!(answer, "Your locker code is 4827.\n");
    assert_eq!(read(talk).as_array().map(Vec::len), Some(4));
    // As context of a question it stays as it is.
    let answer = said(&ask(
        &daemon,
        &["--messages", talk, "What is my locker code?"],
    ));
    assert_eq!(answer, "Your locker code is 4827.\n");
    assert_eq!(read(talk).as_array().map(Vec::len), Some(4));
    let other = ask(
        &daemon,
        &["--conversation", talk, "--system", "Be late.", "Hello"],
    );
    assert_eq!(other.status.code(), Some(2));
}

#[test]
fn a_schema_file_binds_the_answer() {
    let daemon = daemon();
    let schema = json!({"type": "object", "properties": {"pet": {"enum": ["cat", "dog"]}},
        "required": ["pet"], "additionalProperties": false});
    let path = file(&daemon, "schema.json", &schema);
    let answer = said(&ask(&daemon, &["--schema", &path, "Hello!"]));
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert!(
        answer == json!({"pet": "cat"}) || answer == json!({"pet": "dog"}),
        "{answer}"
    );
    let list = file(&daemon, "list.json", &json!([]));
    let wrong = ask(&daemon, &["--schema", &list, "Hello!"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("list.json: want a JSON schema: an object"));
}

#[test]
fn a_tool_call_is_one_line_and_its_result_is_used() {
    let daemon = daemon();
    let tools = file(&daemon, "tools.json", &tools());
    let talk = daemon.home.path().join("talk.json");
    let talk = talk.to_str().expect("UTF-8");
    let with = ["--conversation", talk, "--tools", &tools];
    let question = "What is the weather in Oakhaven?";
    let call = said(&ask(&daemon, &[&with[..], &[question]].concat()));
    let (name, arguments) = call.split_once(' ').expect("a name and arguments");
    assert_eq!(name, "get_weather");
    let arguments: Value = serde_json::from_str(arguments).expect("JSON on one line");
    assert_eq!(arguments, json!({"city": "Oakhaven"}));
    let result = r#"{"temperature": 17, "condition": "rain"}"#;
    let twice = ["--tool-result", result, "--tool-result", result];
    let two = ask(&daemon, &[&with[..], &twice].concat());
    assert_eq!(two.status.code(), Some(2), "one tool was called");
    let answer = said(&ask(&daemon, &[&with[..], &twice[..2]].concat()));
    assert_eq!(answer, "It is 17 degrees with rain in Oakhaven.\n");
    let whole = said(&ask(&daemon, &["--json", "--tools", &tools, question]));
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn a_piped_chat_knows_its_commands_and_keeps_its_conversation() {
    let daemon = daemon();
    let saved = daemon.home.path().join("saved.json");
    let saved = saved.to_str().expect("UTF-8");
    let mut chat = chat(&daemon.socket, &["--temperature", "0"]);
    let mut keys = chat.stdin.take().expect("a pipe");
    let typed = format!(
        "My name is Marla.\n/nonsense\nWhat is my name?\n/save {saved}\n/reset\nWhat is my name?\n"
    );
    keys.write_all(typed.as_bytes()).expect("it reads");
    drop(keys);
    let output = chat.wait_with_output().expect("an end");
    let answers = said(&output);
    assert!(answers.contains("Your name is Marla."), "{answers}");
    assert!(
        answers.trim_end().ends_with("you have not told me."),
        "{answers}"
    );
    assert!(text(&output.stderr).contains("no command /nonsense"));
    let kept = read(saved);
    assert_eq!(
        kept[2],
        json!({"role": "user", "content": "What is my name?"})
    );
    let history = daemon
        .socket
        .parent()
        .expect("a directory")
        .join("deltad/history");
    let history = std::fs::read_to_string(history).expect("a history");
    assert!(history.contains("My name is Marla."));
}

#[test]
fn without_a_daemon_every_command_says_how_to_start_one() {
    let home = tempfile::tempdir().expect("a directory");
    for command in [&["status"][..], &["ask", "Hello"], &["chat"]] {
        let run = deltad(&home.path().join("none.sock"))
            .args(command)
            .output();
        let run = run.expect("a run");
        assert_eq!(run.status.code(), Some(3), "{command:?}");
        let words = text(&run.stderr);
        assert!(words.contains("none.sock"), "{words}");
        assert!(words.contains("deltad serve --model FILE.gguf"), "{words}");
    }
}

fn chat(socket: &Path, args: &[&str]) -> Child {
    let mut command = deltad(socket);
    command.arg("chat").args(args).stdin(Stdio::piped());
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().expect("a run")
}

/// Something that behaves as a daemon in one of its rarer moments: `answer` gets each connection
/// and the first line that was sent.
fn stand_in(answer: impl Fn(UnixStream, &str) + Send + 'static) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("s");
    let listener = UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            // A mere look whether somebody listens sends nothing.
            if !line.is_empty() {
                answer(stream, line.trim_end());
            }
        }
    });
    (home, socket)
}

fn reply(mut stream: &UnixStream, status: &str, body: &str) {
    let n = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {n}\r\n\r\n");
    // The client may have left.
    let _ = stream.write_all((head + body).as_bytes());
}

const LOADING: &str = r#"{"error": {"message": "the model is loading", "code": "loading"}}"#;

#[test]
fn a_daemon_that_loads_is_named_by_status_and_waited_for_by_who_asks() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let (_home, socket) = stand_in(move |stream, line| {
        let n = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match line {
            _ if n < 4 => reply(&stream, "503 Service Unavailable", LOADING),
            "GET /health HTTP/1.1" => reply(&stream, "200 OK", r#"{"status": "ok"}"#),
            _ => {
                let data = r#"{"choices": [{"delta": {"content": "here"}}]}"#;
                reply(
                    &stream,
                    "200 OK",
                    &format!("data: {data}\n\ndata: [DONE]\n\n"),
                );
            }
        }
    });
    let status = deltad(&socket).arg("status").output().expect("a run");
    assert_eq!(status.status.code(), Some(1));
    assert!(text(&status.stderr).contains("still loading its model"));
    let ask = deltad(&socket)
        .args(["ask", "Hello"])
        .output()
        .expect("a run");
    assert_eq!(said(&ask), "here\n");
    assert_eq!(text(&ask.stderr).matches("still loading").count(), 1);
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_chat() {
    let (home, socket) = stand_in(|mut stream, line| match line {
        "GET /health HTTP/1.1" => reply(&stream, "200 OK", r#"{"status": "ok", "model": "m"}"#),
        _ => {
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
            let data = r#"{"choices": [{"delta": {"content": "one two"}}]}"#;
            stream
                .write_all(format!("{head}data: {data}\n\n").as_bytes())
                .expect("it reads");
            // The rest never comes: only the client's leaving ends this.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let kept = home.path().join("kept.json");
    let mut chat = chat(&socket, &["--conversation", kept.to_str().expect("UTF-8")]);
    let mut keys = chat.stdin.take().expect("a pipe");
    keys.write_all(b"count\n").expect("it reads");
    let mut out = chat.stdout.take().expect("a pipe");
    let mut seen = Vec::new();
    while !text(&seen).contains("one two") {
        let mut byte = [0];
        out.read_exact(&mut byte).expect("an answer");
        seen.extend(byte);
    }
    let pid = rustix::process::Pid::from_child(&chat);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
    keys.write_all(b"/help\n").expect("it reads on");
    drop(keys);
    out.read_to_end(&mut seen).expect("its words");
    let output = chat.wait_with_output().expect("an end");
    assert!(output.status.success());
    assert!(
        text(&output.stderr).contains("[stopped]"),
        "{}",
        text(&output.stderr)
    );
    assert!(text(&seen).contains("/save FILE"));
    let want = json!([{"role": "user", "content": "count"},
        {"role": "assistant", "content": "one two"}]);
    assert_eq!(read(kept.to_str().expect("UTF-8")), want);
}

#[test]
fn a_reader_that_leaves_ends_the_answer_quietly() {
    let daemon = daemon();
    let mut command = deltad(&daemon.socket);
    command.args(["ask", "--temperature", "0", "Count from 1 to 9."]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("a run");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(1), String::new())
    );
}

/// The end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn every_command_ends_quietly_when_nobody_reads_what_it_prints() {
    let daemon = daemon();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["ask", "Hello"],
        &["ask", "--json", "Hello"],
        &["completions", "zsh"],
        &["serve", "--check-config"],
        &["doctor", "--json"],
        &["doctor"],
    ] {
        let output = deltad(&daemon.socket).args(args).stdout(unread()).output();
        let output = output.expect("a run");
        assert_eq!(text(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    let mut command = deltad(&daemon.socket);
    command.arg("chat").stdin(Stdio::piped()).stdout(unread());
    let mut chat = command.stderr(Stdio::piped()).spawn().expect("a run");
    let mut keys = chat.stdin.take().expect("a pipe");
    keys.write_all(b"/help\n").expect("it reads");
    drop(keys);
    let output = chat.wait_with_output().expect("an end");
    assert!(!text(&output.stderr).contains("panicked"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    let help = deltad(&daemon.socket)
        .arg("--help")
        .stdout(unread())
        .output();
    assert_eq!(text(&help.expect("a run").stderr), "");
}

#[test]
fn every_command_does_its_work_when_nobody_reads_its_remarks() {
    let daemon = daemon();
    let dir = daemon.home.path().to_str().expect("UTF-8");
    for args in [
        &["ask", "--speed", "Hello"][..],
        &["chat"],
        &["manual", dir],
    ] {
        let run = deltad(&daemon.socket).args(args).stderr(unread()).output();
        assert_eq!(run.expect("a run").status.code(), Some(0), "{args:?}");
    }
    let nobody = daemon.home.path().join("none.sock");
    let run = deltad(&nobody).arg("status").stderr(unread()).status();
    assert_eq!(run.expect("a run").code(), Some(3));
    // A daemon whose log nobody reads answers.
    let socket = daemon.home.path().join("second.sock");
    let mut command = super::daemon::command(daemon.home.path(), &socket);
    let mut second = command.stderr(unread()).spawn().expect("a daemon");
    let said = deltad(&socket).args(["status", "--wait", "60"]).output();
    let said = said.expect("a run");
    // It may have ended, which the assertion below would show.
    let _ = second.kill();
    let _ = second.wait();
    assert!(said.status.success(), "{}", text(&said.stderr));
}

#[test]
fn a_model_that_cannot_be_opened_is_named_once() {
    let home = tempfile::tempdir().expect("a directory");
    let junk = home.path().join("junk.gguf");
    std::fs::write(&junk, "junk").expect("a file");
    for file in ["/nope.gguf", junk.to_str().expect("UTF-8")] {
        let socket = home.path().join("deltad.sock");
        let run = deltad(&socket).args(["serve", "--model", file]).output();
        let run = run.expect("a run");
        assert_eq!(run.status.code(), Some(1));
        let words = text(&run.stderr);
        assert!(
            words.contains(&format!("deltad: model {file}: ")),
            "{words}"
        );
        assert_eq!(words.matches(file).count(), 1, "{words}");
    }
}

#[test]
fn the_doctor_knows_this_machine_the_model_and_the_daemon() {
    let daemon = daemon();
    let model = daemon.home.path().join("model.gguf");
    let config = daemon.home.path().join("deltad.toml");
    let args = ["doctor", "--json", "--config"];
    let run = |model: &Path| {
        let mut command = deltad(&daemon.socket);
        let output = command.args(args).arg(&config).arg(model).output();
        let output = output.expect("a run");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), report)
    };
    let (code, report) = run(&model);
    let findings = report["findings"].as_array().expect("findings");
    let bad = findings.iter().any(|f| f["verdict"] == "bad");
    assert_eq!(code, Some(i32::from(bad)), "{report}");
    assert_eq!(report["fits"], true);
    assert!(report["tokens_per_second_at_most"].as_f64() > Some(1.0));
    assert_eq!(report["machine"]["socket"]["state"], "open");
    let size = std::fs::metadata(&model).expect("a file").len();
    let needs = &report["model"];
    assert_eq!(needs["file"], size);
    assert!(needs["read_per_token"].as_u64() < Some(size), "{needs}");
    assert!(report["machine"]["memory"]["total"].as_u64() > Some(1 << 28));
    let (code, report) = run(&config);
    assert_eq!((code, &report["fits"]), (Some(1), &Value::Null));
    let told = report["findings"].to_string();
    assert!(told.contains("not a GGUF file"), "{told}");
    let page = deltad(&daemon.socket).arg("doctor").arg(&model).output();
    let page = text(&page.expect("a run").stdout);
    for about in [
        "processor",
        "memory",
        "gpu",
        "model",
        "pace",
        "units",
        "socket",
        "bus",
        "disk",
    ] {
        let lines = page
            .lines()
            .filter(|l| l.get(5..).is_some_and(|l| l.starts_with(about)));
        assert_eq!(lines.count(), 1, "{about}: {page}");
    }
}

#[test]
fn a_flag_about_thinking_that_cannot_act_is_remarked_on() {
    let daemon = daemon();
    let question = "What is 3 + 4?";
    let plain = ask(&daemon, &[question]);
    let told = ask(&daemon, &["--no-think", question]);
    assert_eq!(said(&told), said(&plain));
    let remark = text(&told.stderr);
    assert!(remark.contains("--no-think is without effect"), "{remark}");
    assert!(!text(&plain.stderr).contains("effect"));
    let both = ask(&daemon, &["--think", "--no-think", question]);
    assert_eq!(both.status.code(), Some(2));
}
