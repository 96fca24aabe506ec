//! Conversations and the end of a process: killed, told to stop, started again.

use std::io::{BufRead, BufReader};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::daemon::{Daemon, demo, exchange, home_with, send, start, start_with, until};

pub fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let (status, answer) = daemon.post(path, &body);
    assert_eq!(status, 200, "{answer}");
    answer
}

pub fn say(daemon: &Daemon, content: &str) -> Value {
    let body = json!({"content": content, "temperature": 0, "max_tokens": 48});
    post(daemon, "/v1/sessions/talk/send", body)
}

fn respond(daemon: &Daemon, input: &str, after: Option<&Value>) -> Value {
    let body = json!({"input": input, "temperature": 0, "max_output_tokens": 48,
        "previous_response_id": after});
    post(daemon, "/v1/responses", body)
}

fn kill(daemon: &mut Daemon) {
    daemon.signal(Signal::KILL);
    daemon.again();
}

#[test]
fn a_killed_daemon_has_lost_no_turn_and_reads_nothing_again_that_was_saved() {
    let mut daemon = start_with(&demo("model"), "f16", "");
    post(&daemon, "/v1/sessions", json!({"name": "talk"}));
    let said = say(&daemon, "My locker code is 4827.");
    let first = respond(&daemon, "My name is Tessa.", None);
    let suspended = post(&daemon, "/v1/sessions/talk/suspend", json!({}));
    assert!(suspended["written"].as_u64() > Some(0), "{suspended}");
    kill(&mut daemon);
    let usage = |name: &str| said["usage"][name].as_u64().expect("a count");
    let before = usage("prompt_tokens") + usage("completion_tokens");
    let answer = say(&daemon, "What is my locker code?");
    let text = answer["choices"][0]["message"]["content"].as_str();
    assert!(text.is_some_and(|t| t.contains("4827")), "{answer}");
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached >= Some(before - 1), "{cached:?} of {before}");
    // Its state was not saved: it is read again, and nothing of it is missing.
    let second = respond(&daemon, "What is my name?", Some(&first["id"]));
    let text = &second["output"][0]["content"][0]["text"];
    assert!(
        text.as_str().is_some_and(|t| t.contains("Tessa")),
        "{second}"
    );
    kill(&mut daemon);
    let fork = respond(&daemon, "What is my name?", Some(&first["id"]));
    assert_eq!(&fork["output"][0]["content"][0]["text"], text);
    let id = second["id"].as_str().expect("an id");
    assert_eq!(daemon.get(&format!("/v1/responses/{id}")).0, 200);
    // By the other door, and in two ways at once.
    let by_id = json!({"input": "What is my locker code?", "conversation": "talk",
        "temperature": 0, "max_output_tokens": 48});
    let answer = post(&daemon, "/v1/responses", by_id);
    assert!(answer.to_string().contains("4827"), "{answer}");
}

fn written(daemon: &Daemon) -> u64 {
    let text = exchange(daemon.connect(), "GET", "/metrics", "").1;
    let name = "deltad_session_written_bytes_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|n| n.trim().parse().ok()).expect("a count")
}

#[test]
fn a_turn_writes_little_a_state_once_and_rest_nothing() {
    let daemon = start_with(&demo("model"), "f16", "");
    post(&daemon, "/v1/sessions", json!({"name": "talk"}));
    let mut before = written(&daemon);
    for question in ["My locker code is 4827.", "What is my locker code?"] {
        say(&daemon, question);
        let now = written(&daemon);
        assert!((1..=64 << 10).contains(&(now - before)), "{before}, {now}");
        before = now;
    }
    // A chat that is sent whole is not kept.
    let messages = json!([{"role": "user", "content": "What is 3 + 4?"}]);
    let chat = json!({"messages": messages, "max_tokens": 16});
    post(&daemon, "/v1/chat/completions", chat);
    assert_eq!(written(&daemon), before);
    let suspended = post(&daemon, "/v1/sessions/talk/suspend", json!({}));
    let state = suspended["written"].as_u64().expect("a count");
    let now = written(&daemon);
    assert!(
        (state..=state + (64 << 10)).contains(&(now - before)),
        "{before}, {now}"
    );
    let again = post(&daemon, "/v1/sessions/talk/suspend", json!({}));
    assert_eq!(
        (again["written"].as_u64(), written(&daemon)),
        (Some(0), now)
    );
}

/// Seen so far of an answer without an end, after so many words.
fn begin(daemon: &Daemon, words: usize) -> String {
    post(daemon, "/v1/sessions", json!({"name": "talk"}));
    let mut client = daemon.connect();
    let body = json!({"content": "go", "stream": true, "ignore_eos": true, "seed": 1,
        "logit_bias": {"510": -100}, "max_tokens": 1_000_000});
    send(
        &mut client,
        "POST",
        "/v1/sessions/talk/send",
        &body.to_string(),
    );
    let mut seen = String::new();
    let lines = BufReader::new(client).lines().map_while(Result::ok);
    let mut n = 0;
    for line in lines {
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let chunk: Value = serde_json::from_str(data).expect("JSON");
        seen += chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default();
        n += 1;
        if n >= words {
            break;
        }
    }
    seen
}

fn kept(daemon: &Daemon) -> Vec<Value> {
    let (status, shown) = daemon.get("/v1/sessions/talk");
    assert_eq!(status, 200, "{shown}");
    shown["messages"].as_array().cloned().expect("messages")
}

#[test]
fn what_was_said_until_the_daemon_was_told_to_stop_stays() {
    let mut daemon = start("[service]\ndrain = \"1s\"\n[limits]\nmax_concurrent = 1\n");
    post(&daemon, "/v1/sessions", json!({"name": "other"}));
    let mut client = daemon.connect();
    let body =
        json!({"content": "go", "stream": true, "ignore_eos": true, "max_tokens": 1_000_000});
    let path = "/v1/sessions/other/send";
    send(&mut client, "POST", path, &body.to_string());
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    let words = |line: &String| {
        let chunk = line.strip_prefix("data: ");
        let chunk = chunk.and_then(|data| serde_json::from_str::<Value>(data).ok());
        let text = chunk.map(|c| c["choices"][0]["delta"]["content"].clone());
        text.is_some_and(|t| t.as_str().is_some_and(|t| !t.is_empty()))
    };
    assert!(lines.by_ref().any(|line| words(&line)), "no words came");
    daemon.signal(Signal::TERM);
    // Read on, so that nobody waits for a full pipe.
    lines.for_each(drop);
    assert!(daemon.wait().success());
    daemon.again();
    let (status, shown) = daemon.get("/v1/sessions/other");
    assert_eq!(
        (status, &shown["message_count"]),
        (200, &json!(2)),
        "{shown}"
    );
    assert_ne!(shown["messages"][1]["content"], "");
}

#[test]
fn a_caller_that_leaves_and_a_kill_right_after_lose_no_word_that_was_seen() {
    let mut daemon = start("");
    let seen = begin(&daemon, 20);
    until("the answer's end", || {
        (daemon.get("/v1/sessions/talk").1["busy"] == false).then_some(())
    });
    kill(&mut daemon);
    let messages = kept(&daemon);
    let text = messages[1]["content"].as_str().expect("words");
    assert!(text.starts_with(&seen), "{seen:?} of {text:?}");
}

#[test]
fn without_disk_for_conversations_no_byte_of_them_is_on_one() {
    let mut daemon = start("[sessions]\ndisk = \"0B\"\n");
    post(&daemon, "/v1/sessions", json!({"name": "talk"}));
    let body = json!({"content": "secret", "max_tokens": 4});
    post(&daemon, "/v1/sessions/talk/send", body);
    respond(&daemon, "secret", None);
    assert!(!daemon.home.path().join("deltad").exists());
    kill(&mut daemon);
    assert_eq!(daemon.get("/v1/sessions/talk").0, 404);
}

#[test]
fn a_chat_that_is_sent_whole_goes_on_from_what_is_on_disk() {
    let mut daemon = start_with(&demo("model"), "f16", "");
    let first = respond(&daemon, "My locker code is 4827.", None);
    daemon.signal(Signal::TERM);
    daemon.again();
    let said = first["output"][0]["content"][0]["text"].clone();
    let body = json!({"temperature": 0, "max_tokens": 48, "messages": [
        {"role": "user", "content": "My locker code is 4827."},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "What is my locker code?"}]});
    let answer = post(&daemon, "/v1/chat/completions", body);
    let text = answer["choices"][0]["message"]["content"].as_str();
    assert!(text.is_some_and(|t| t.contains("4827")), "{answer}");
    let usage = |name: &str| first["usage"][name].as_u64().expect("a count");
    let before = usage("input_tokens") + usage("output_tokens");
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached >= Some(before - 1), "{cached:?} of {before}");
}

/// A conversation of three questions, sent whole each time; tokens of the last prompt that were not
/// kept, and those that were new.
fn sent_whole(daemon: &mut Daemon, more: Value, ends: bool) -> (u64, u64) {
    let questions = [
        "My locker code is 4827.",
        "My name is Tessa.",
        "What is my locker code?",
    ];
    let (mut talk, mut known, mut last) = (Vec::new(), 0, (0, 0));
    for (at, question) in questions.iter().enumerate() {
        if ends && at == 2 {
            daemon.signal(Signal::TERM);
            daemon.again();
        }
        talk.push(json!({"role": "user", "content": question}));
        let mut body = json!({"temperature": 0, "max_tokens": 48, "messages": talk});
        body.as_object_mut()
            .expect("fields")
            .extend(more.as_object().cloned().expect("fields"));
        let answer = post(daemon, "/v1/chat/completions", body);
        let count = |at: &str| answer["usage"].pointer(at).and_then(Value::as_u64);
        let prompt = count("/prompt_tokens").expect("a count");
        let cached = count("/prompt_tokens_details/cached_tokens").expect("a count");
        last = (prompt - cached, prompt - known);
        known = prompt + count("/completion_tokens").expect("a count");
        let message = &answer["choices"][0]["message"];
        talk.push(json!({"role": "assistant", "content": message["content"]}));
    }
    last
}

#[test]
fn a_chat_that_is_to_last_a_day_outlives_the_daemon_and_another_leaves_nothing() {
    let mut daemon = start_with(&demo("model"), "f16", "");
    let (computed, _) = sent_whole(&mut daemon, json!({}), true);
    assert!(computed > 30, "{computed}");
    let stored = |daemon: &Daemon| {
        let entries = |dir: &std::path::Path| {
            let read = std::fs::read_dir(dir).into_iter().flatten().flatten();
            read.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let mut open = vec![daemon.home.path().join("deltad")];
        let mut logs = 0;
        while let Some(dir) = open.pop() {
            logs += usize::from(dir.join("log").exists());
            open.extend(entries(&dir).into_iter().filter(|p| p.is_dir()));
        }
        logs
    };
    assert_eq!(stored(&daemon), 0);
    let day = json!({"prompt_cache_retention": "24h"});
    let (computed, new) = sent_whole(&mut daemon, day, true);
    assert!(computed <= new + 1, "{computed} for {new}");
    assert_eq!(
        stored(&daemon),
        1,
        "one conversation, not one for each question"
    );
}

/// Puts the model of another home in the place of a daemon's; the one that was there.
fn swap(daemon: &mut Daemon, model: &std::path::Path) -> std::path::PathBuf {
    let home = daemon.home.path();
    let (place, aside) = (home.join("model.gguf"), home.join("aside.gguf"));
    std::fs::rename(&place, &aside).expect("it is there");
    std::fs::copy(model, &place).expect("a file");
    daemon.signal(Signal::TERM);
    daemon.again();
    aside
}

#[test]
fn a_model_swapped_and_swapped_back_goes_on_with_its_states_and_the_other_says_whose_they_are() {
    let mut daemon = start_with(&demo("model"), "f16", "");
    post(&daemon, "/v1/sessions", json!({"name": "talk"}));
    let said = say(&daemon, "My locker code is 4827.");
    let first = respond(&daemon, "My name is Tessa.", None);
    let other = home_with(&demo("model"), "q8_0", "");
    let back = swap(&mut daemon, &other.path().join("model.gguf"));
    let ask = json!({"content": "What is my locker code?"});
    let after = json!({"input": "Who am I?", "previous_response_id": first["id"]});
    for (path, body) in [("/v1/sessions/talk/send", ask), ("/v1/responses", after)] {
        let (status, refused) = daemon.post(path, &body);
        let code = &refused["error"]["code"];
        assert_eq!(
            (status, code),
            (400, &json!("session_refused")),
            "{refused}"
        );
        let why = refused["error"]["message"].as_str().expect("a reason");
        assert!(why.contains("another model, \"model\" ("), "{why}");
    }
    // It is answered, and read as text.
    let name = first["output"][0]["content"][0]["text"].clone();
    let whole = json!({"max_tokens": 4, "messages": [
        {"role": "user", "content": "My name is Tessa."},
        {"role": "assistant", "content": name},
        {"role": "user", "content": "What is my name?"}]});
    post(&daemon, "/v1/chat/completions", whole);
    let (_, metrics) = exchange(daemon.connect(), "GET", "/metrics", "");
    let counted = "deltad_looked_for_total{found=\"other_model\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    std::fs::rename(&back, other.path().join("first.gguf")).expect("a file");
    swap(&mut daemon, &other.path().join("first.gguf"));
    let usage = |name: &str| said["usage"][name].as_u64().expect("a count");
    let before = usage("prompt_tokens") + usage("completion_tokens");
    let answer = say(&daemon, "What is my locker code?");
    let text = answer["choices"][0]["message"]["content"].as_str();
    assert!(text.is_some_and(|t| t.contains("4827")), "{answer}");
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert!(cached >= Some(before - 1), "{cached:?} of {before}");
}
