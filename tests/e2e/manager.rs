//! What a service manager hears, and what it may do while answers run. The same under a real
//! systemd: `make test-systemd`.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::daemon::{Daemon, command, home, send};

/// A daemon with somebody listening at `NOTIFY_SOCKET`.
fn managed(extra: &str, watchdog: &str) -> (Daemon, UnixDatagram) {
    let home = home(extra);
    let notify = home.path().join("notify");
    let manager = UnixDatagram::bind(&notify).expect("a socket");
    let limit = Some(Duration::from_secs(120));
    manager.set_read_timeout(limit).expect("a time limit");
    let daemon = Daemon::of(home, |home, socket| {
        let mut command = command(home, socket);
        command.env("NOTIFY_SOCKET", &notify);
        command.env("WATCHDOG_USEC", watchdog);
        command.spawn().expect("the daemon")
    });
    (daemon, manager)
}

/// Everything said up to and with the message that holds `word`.
fn heard(manager: &UnixDatagram, word: &str) -> Vec<String> {
    let mut messages = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = manager.recv(&mut buffer).unwrap_or_else(|e| {
            panic!("no {word}, but {messages:?}: {e}");
        });
        messages.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
        if messages.last().is_some_and(|m| m.contains(word)) {
            return messages;
        }
    }
}

#[test]
fn a_manager_hears_of_loading_readiness_life_and_the_end() {
    let (mut daemon, manager) = managed("", "1000000");
    let start = heard(&manager, "READY=1");
    assert!(start[0].contains("EXTEND_TIMEOUT_USEC="), "{start:?}");
    assert!(start[0].contains("STATUS=loading model"), "{start:?}");
    let ready = start.last().expect("a message");
    assert!(ready.contains("STATUS=serving model: idle"), "{ready}");
    let (status, _) = daemon.get("/health");
    assert_eq!(status, 200, "ready means that it answers");
    for _ in 0..3 {
        heard(&manager, "WATCHDOG=1");
    }
    daemon.signal(Signal::TERM);
    heard(&manager, "STOPPING=1");
    assert!(daemon.wait().success());
}

#[test]
fn a_reload_keeps_running_answers_and_a_wrong_file_changes_nothing() {
    let (mut daemon, manager) = managed("", "0");
    heard(&manager, "READY=1");
    let mut client = daemon.connect();
    let body = json!({"prompt": "x", "max_tokens": 1_000_000, "ignore_eos": true, "stream": true});
    send(&mut client, "POST", "/v1/completions", &body.to_string());
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    assert!(lines.any(|l| l.starts_with("data:")));

    let file = daemon.home.path().join("deltad.toml");
    let config = |limits: &str| {
        let text = format!("[model]\ncache_type = \"f32\"\nthreads = 1\n{limits}");
        std::fs::write(&file, text).expect("a file");
        daemon.signal(Signal::HUP);
        let begin = heard(&manager, "RELOADING=1").pop().expect("a message");
        assert!(begin.contains("MONOTONIC_USEC="), "{begin}");
        heard(&manager, "READY=1").pop().expect("a message")
    };
    let short = json!({"prompt": "x", "max_tokens": 9, "ignore_eos": true});
    let tokens = || {
        let (status, answer) = daemon.post("/v1/completions", &short);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["completion_tokens"].as_u64()
    };
    config("[limits]\nmax_tokens = 3\n[service]\ndrain = \"0s\"\n");
    assert_eq!(tokens(), Some(3));
    let refused = config("[limits]\nmax_token = 7\n");
    assert!(refused.contains("did you mean max_tokens?"), "{refused}");
    assert_eq!(tokens(), Some(3));

    assert!(lines.any(|l| l.starts_with("data:")), "it still runs");
    // The drain is the new one: nothing is waited for.
    daemon.signal(Signal::TERM);
    let last = lines.filter(|l| l.starts_with("data:")).last();
    assert!(last.is_some_and(|l| l.contains("\"code\":\"stopping\"")));
    assert!(daemon.wait().success());
}

#[test]
fn an_unused_daemon_ends_and_a_used_one_does_not() {
    let (mut daemon, manager) = managed("[service]\nidle_exit = \"1s\"\n", "0");
    heard(&manager, "READY=1");
    let used = daemon.connect();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(daemon.child.try_wait().expect("a child"), None);
    drop(used);
    let end = heard(&manager, "STOPPING=1").pop().expect("a message");
    assert!(end.contains("STATUS=unused"), "{end}");
    assert!(daemon.wait().success());
    assert!(!daemon.socket.exists());
}
