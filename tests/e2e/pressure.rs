//! Memory that runs short, by a manager's pipe or socket: what rests goes to the disk, and nothing that
//! was said is lost.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use super::daemon::{Daemon, demo, home, home_with, run_with, until};

/// A daemon whose manager speaks there.
fn watching(home: tempfile::TempDir, speaks: &Path) -> Daemon {
    run_with(home, |command| {
        command
            .env("MEMORY_PRESSURE_WATCH", speaks)
            .env("MEMORY_PRESSURE_WRITE", "c29tZSAyMDA=");
    })
}

fn health(daemon: &Daemon) -> Value {
    let (status, health) = daemon.get("/health");
    assert_eq!(status, 200, "{health}");
    health
}

fn states(health: &Value) -> u64 {
    health["memory"]["states"].as_u64().expect("bytes")
}

#[test]
fn one_word_in_a_pipe_puts_conversations_to_the_disk_and_they_go_on_from_there() {
    let home = home_with(&demo("model"), "f16", "");
    let pipe = home.path().join("pressure");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let daemon = watching(home, &pipe);
    for name in ["one", "two", "three"] {
        let text = format!("This is text {name}. ") + &"The quick brown fox jumps. ".repeat(250);
        let made = json!({"name": name, "content": text, "read": true});
        let (status, made) = daemon.post("/v1/sessions", &made);
        assert_eq!(status, 200, "{made}");
    }
    let before = health(&daemon);
    assert_eq!(before["pressure"], "calm");
    assert!(states(&before) > 3 << 20, "{before}");
    let mut writer = std::fs::File::options()
        .write(true)
        .open(&pipe)
        .expect("it is open at the other end");
    let start = Instant::now();
    writer.write_all(b"!").expect("room");
    until("the conversations rest", || {
        let now = health(&daemon);
        (now["pressure"] == "rest" && states(&now) < states(&before) / 10).then_some(())
    });
    println!("given back after {} ms", start.elapsed().as_millis());
    let ask = json!({"content": "And?", "max_tokens": 4, "temperature": 0});
    let (status, answer) = daemon.post("/v1/sessions/two/send", &ask);
    assert_eq!(status, 200, "{answer}");
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert!(cached.as_u64() > Some(1000), "not read again: {answer}");
}

#[test]
fn a_socket_is_told_the_threshold_and_a_word_there_is_heard() {
    let home = home("");
    let path = home.path().join("pressure");
    let listener = UnixListener::bind(&path).expect("a socket");
    let daemon = watching(home, &path);
    let (mut manager, _) = listener.accept().expect("it connects");
    let mut threshold = [0; 8];
    manager.read_exact(&mut threshold).expect("it speaks");
    assert_eq!(&threshold, b"some 200");
    assert_eq!(health(&daemon)["pressure"], "calm");
    manager.write_all(b"!").expect("it listens");
    until("it is heard", || {
        (health(&daemon)["pressure"] != "calm").then_some(())
    });
}
