//! Clients that mean harm or are merely broken: the daemon stays up, its memory bounded, and others
//! are served.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::{Daemon, send, start, until};

fn resident_kib(daemon: &Daemon) -> u64 {
    let path = format!("/proc/{}/status", daemon.child.id());
    let status = std::fs::read_to_string(path).expect("a live process");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS"))
        .expect("a size");
    let number = line.split_whitespace().nth(1).expect("a number");
    number.parse().expect("a number")
}

fn answers(daemon: &Daemon) {
    let body = json!({"prompt": "x", "max_tokens": 2});
    let (status, answer) = daemon.post("/v1/completions", &body);
    assert_eq!(status, 200, "{answer}");
}

fn endless() -> Value {
    json!({"prompt": "x", "max_tokens": 100_000, "ignore_eos": true, "stream": true, "logprobs": 20})
}

#[test]
fn a_client_that_still_sends_hears_that_nothing_is_served_there() {
    let daemon = start("");
    for (method, path, status) in [
        ("POST", "/v1/messages/count_tokens", "404"),
        ("PUT", "/v1/completions", "405"),
    ] {
        let mut client = daemon.connect();
        let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 7";
        write!(client, "{method} {path} {head}\r\n\r\n").expect("it reads");
        // Long enough for a daemon that does not wait to have closed.
        std::thread::sleep(Duration::from_millis(200));
        client.write_all(b"{\"a\":1}").expect("it still reads");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(&answer[9..12], status, "{answer}");
    }
}

#[test]
fn a_client_that_leaves_at_any_stage_harms_nobody() {
    let daemon = start("");
    let body = endless().to_string();
    let whole = {
        let n = body.len();
        format!("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n{body}")
    };
    for cut in (0..=whole.len()).step_by(7) {
        let mut client = daemon.connect();
        client
            .write_all(&whole.as_bytes()[..cut])
            .expect("it reads");
    }
    for read in [1, 100, 10_000] {
        let mut client = daemon.connect();
        client.write_all(whole.as_bytes()).expect("it reads");
        client.read_exact(&mut vec![0; read]).expect("an answer");
    }
    until("idle", || {
        let health = daemon.get("/health").1;
        (health["active"] == 0 && health["queued"] == 0).then_some(())
    });
    answers(&daemon);
}

#[test]
fn clients_that_never_read_cost_little_and_stop_nobody() {
    let daemon = start("[limits]\nmax_concurrent = 4\n");
    answers(&daemon);
    let before = resident_kib(&daemon);
    let deaf: Vec<UnixStream> = (0..6)
        .map(|_| {
            let mut client = daemon.connect();
            send(
                &mut client,
                "POST",
                "/v1/completions",
                &endless().to_string(),
            );
            client
        })
        .collect();
    // All six run until their buffers are full, then they are parked and cost no turn.
    until("parked", || {
        let tokens = || {
            let metrics = super::daemon::exchange(daemon.connect(), "GET", "/metrics", "").1;
            let line = metrics
                .lines()
                .find(|l| l.starts_with("deltad_completion_tokens_total"));
            line.expect("a counter").to_owned()
        };
        let first = tokens();
        std::thread::sleep(std::time::Duration::from_millis(50));
        (first == tokens()).then_some(())
    });
    answers(&daemon);
    let grown = resident_kib(&daemon).saturating_sub(before);
    assert!(grown < 64 << 10, "grew by {grown} KiB");
    drop(deaf);
}

#[test]
fn a_thousand_idle_connections_cost_little_and_stop_nobody() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    let daemon = start("");
    answers(&daemon);
    let before = resident_kib(&daemon);
    let idle: Vec<UnixStream> = (0..1000).map(|_| daemon.connect()).collect();
    answers(&daemon);
    let grown = resident_kib(&daemon).saturating_sub(before);
    println!("1000 idle connections: {grown} KiB");
    assert!(grown < 64 << 10, "grew by {grown} KiB");
    drop(idle);
}

#[test]
fn clients_that_send_almost_all_of_a_large_body_cost_a_few_of_them_and_stop_nobody() {
    let daemon = start("");
    answers(&daemon);
    let before = resident_kib(&daemon);
    let n = 8 << 20;
    let head = format!("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n");
    let part = [head.into_bytes(), vec![b' '; n - 1]].concat();
    let held: Vec<UnixStream> = (0..60)
        .map(|_| {
            let mut client = daemon.connect();
            client.set_nonblocking(true).expect("a flag");
            let mut sent = 0;
            // Until it takes no more for a while.
            let mut idle = 0;
            while sent < part.len() && idle < 20 {
                match client.write(&part[sent..]) {
                    Ok(n) => (sent, idle) = (sent + n, 0),
                    Err(_) => {
                        idle += 1;
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                }
            }
            client
        })
        .collect();
    answers(&daemon);
    let grown = resident_kib(&daemon).saturating_sub(before);
    println!("60 bodies of 8 MiB, held: {grown} KiB");
    // All sixty would be 480 MiB.
    assert!(grown < 96 << 10, "grew by {grown} KiB");
    drop(held);
}

#[test]
fn bytes_that_are_no_http_and_json_that_is_no_request_are_answered_or_closed() {
    let daemon = start("");
    for bytes in [
        &b"\0\0\0\0"[..],
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        &[b'A'; 200_000],
    ] {
        let mut client = daemon.connect();
        // It may be closed while we still write.
        let _ = client.write_all(bytes);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
    let odd = [
        json!(null),
        json!({"prompt": null}),
        json!({"prompt": [[[]]]}),
        json!({"prompt": [[]]}),
        json!({"prompt": "x", "seed": 1e99}),
        json!({"prompt": "x", "n": 1e18}),
        json!({"prompt": [-1]}),
        json!({"prompt": "x", "stop": [""]}),
        json!({"prompt": "x", "logit_bias": {"99999999999": 1}}),
        json!({"messages": "x"}),
        json!({"messages": [1]}),
        json!({"messages": [{"role": 1}]}),
        json!({"messages": [{"role": "user", "content": {}}]}),
        json!({"messages": [{"role": "user", "content": "x"}], "tools": [1]}),
        json!({"messages": [{"role": "user", "content": "x"}],
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 5}}}}),
    ];
    for body in odd {
        let path = match body.get("messages") {
            Some(_) => "/v1/chat/completions",
            None => "/v1/completions",
        };
        let (status, answer) = daemon.post(path, &body);
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["error"]["message"].is_string());
    }
    answers(&daemon);
}
