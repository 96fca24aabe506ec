use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use super::daemon::{demo, send, start, start_with, until};

#[test]
fn a_second_turn_reads_only_what_is_new_and_says_what_a_cold_daemon_says() {
    let ask = |daemon: &super::daemon::Daemon, messages: &Value| {
        let body = json!({"messages": messages, "max_tokens": 12, "temperature": 0});
        let (status, answer) = daemon.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let said = |answer: &Value| answer["choices"][0]["message"]["content"].clone();
    let cached =
        |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    let first = json!([{"role": "user", "content": "My name is Clara."}]);
    // A model that draws the tokens that its text is read as: a cold daemon knows no others.
    let fresh = || start_with(&demo("model"), "f16", "");
    let warm = fresh();
    let answer = ask(&warm, &first);
    let next = json!([first[0], {"role": "assistant", "content": said(&answer)},
        {"role": "user", "content": "What is my name?"}]);
    let warm_answer = ask(&warm, &next);
    let cold_answer = ask(&fresh(), &next);
    assert!(cached(&warm_answer) > Some(5), "{warm_answer}");
    assert_eq!(cached(&cold_answer), Some(0));
    assert_eq!(said(&warm_answer), said(&cold_answer));
}

#[test]
fn closing_mid_stream_frees_the_engine() {
    let daemon = start("");
    let mut client = daemon.connect();
    let body = json!({"prompt": "x", "max_tokens": 1_000_000, "ignore_eos": true, "stream": true});
    send(&mut client, "POST", "/v1/completions", &body.to_string());
    let lines = BufReader::new(client).lines().map_while(Result::ok);
    let seen = lines.filter(|l| l.starts_with("data:")).take(2).count();
    assert_eq!(seen, 2);
    until("idle", || {
        (daemon.get("/health").1["active"] == 0).then_some(())
    });
}

/// Texts and the figures of every token, all bits of them: greedy and drawn, of several answers,
/// bound to a schema, short and long.
#[test]
fn what_a_client_is_told_does_not_depend_on_its_neighbours() {
    let limits = "[limits]\nmax_concurrent = 8\n";
    let daemon = start_with(&demo("model"), "q4_k_m", limits);
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}},
        "required": ["n"], "additionalProperties": false});
    let choices = |i: usize| {
        let (path, body) = match i % 4 {
            3 => (
                "/v1/chat/completions",
                json!({"messages": [{"role": "user", "content": format!("How many is {i}?")}],
                    "max_tokens": 24, "seed": i, "temperature": 1, "logprobs": true,
                    "response_format": {"type": "json_schema",
                        "json_schema": {"name": "a", "strict": true, "schema": schema}}}),
            ),
            kind => (
                "/v1/completions",
                json!({"prompt": format!("Client {i} says ").repeat(1 + 12 * i), "max_tokens": 24,
                    "temperature": kind, "seed": i, "n": 1 + kind, "logprobs": 2,
                    "ignore_eos": true}),
            ),
        };
        let (status, answer) = daemon.post(path, &body);
        assert_eq!(status, 200, "{answer}");
        answer["choices"].clone()
    };
    let alone: Vec<Value> = (0..8).map(choices).collect();
    for _ in 0..3 {
        let together: Vec<Value> = std::thread::scope(|scope| {
            let choices = &choices;
            let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || choices(i))).collect();
            let answers = threads.into_iter().map(|t| t.join());
            answers.map(|a| a.expect("an answer")).collect()
        });
        assert_eq!(together, alone);
    }
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let daemon = start("");
    daemon.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 3}));
    let text = super::daemon::exchange(daemon.connect(), "GET", "/metrics", "").1;
    let of_line = |line: &str| {
        let mut words = line.strip_prefix("# TYPE ")?.split_whitespace();
        let (name, kind) = (words.next()?.to_owned(), words.next()?.to_owned());
        let total = if kind == "counter" { "_total" } else { "" };
        Some((name + total, kind))
    };
    let emitted: BTreeMap<String, String> = text.lines().filter_map(of_line).collect();
    assert!(emitted.len() > 8, "{text}");
    let of_row = |row: &str| {
        let mut cells = row.strip_prefix("| `deltad_")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`');
        let name = name.split('{').next()?;
        Some((format!("deltad_{name}"), cells.next()?.to_owned()))
    };
    let document = include_str!("../../docs/http.md");
    let documented: BTreeMap<String, String> = document.lines().filter_map(of_row).collect();
    assert_eq!(emitted, documented);
}
