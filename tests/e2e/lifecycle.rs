use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::json;

use super::daemon::{Daemon, command, home, run_with, send, start};

#[test]
fn the_socket_is_private_and_gone_after_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = start("");
        let mode = std::fs::metadata(&daemon.socket)
            .expect("a socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        daemon.signal(signal);
        assert!(daemon.wait().success());
        assert!(!daemon.socket.exists());
    }
}

#[test]
fn a_socket_left_by_a_killed_daemon_is_replaced_and_one_that_answers_is_not() {
    let mut daemon = start("");
    let second = command(daemon.home.path(), &daemon.socket)
        .status()
        .expect("a run");
    assert!(!second.success(), "the first one answers there");
    daemon.signal(Signal::KILL);
    daemon.wait();
    assert!(daemon.socket.exists(), "a killed daemon cannot tidy up");
    daemon.child = command(daemon.home.path(), &daemon.socket)
        .spawn()
        .expect("a run");
    daemon.wait_ready();
}

#[test]
fn a_second_signal_cuts_a_running_answer_and_says_so() {
    let mut daemon = start("[service]\ndrain = \"600s\"\n");
    let mut client = daemon.connect();
    let body = json!({"prompt": "x", "max_tokens": 1_000_000, "ignore_eos": true, "stream": true});
    send(&mut client, "POST", "/v1/completions", &body.to_string());
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    assert!(lines.any(|l| l.starts_with("data:")));
    daemon.signal(Signal::TERM);
    // The listener is closed once the first signal was seen, so the second is not merged with it.
    super::daemon::until("the listener is closed", || {
        std::os::unix::net::UnixStream::connect(&daemon.socket)
            .is_err()
            .then_some(())
    });
    daemon.signal(Signal::TERM);
    let last = lines
        .filter(|l| l.starts_with("data:"))
        .last()
        .expect("more lines");
    assert!(last.contains("\"code\":\"stopping\""), "{last}");
    assert!(daemon.wait().success());
}

/// Shortens the model under a daemon whose standard error is kept, and returns that once it ended.
fn words_after_shortening(mut daemon: Daemon) -> String {
    let model = daemon.home.path().join("model.gguf");
    let file = std::fs::File::options().write(true).open(&model);
    file.expect("a file").set_len(4096).expect("shorter");
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(!daemon.socket.exists());
    let words = std::fs::read_to_string(daemon.home.path().join("stderr")).expect("a file");
    assert!(words.contains(&model.display().to_string()), "{words}");
    words
}

fn start_with_kept_words() -> Daemon {
    let home = home("");
    let words = std::fs::File::create(home.path().join("stderr")).expect("a file");
    run_with(home, |command| {
        command.stderr(words);
    })
}

#[test]
fn a_model_shortened_under_an_answer_fails_it_with_words_and_ends_the_daemon_in_good_order() {
    let daemon = start_with_kept_words();
    let mut client = daemon.connect();
    let body = json!({"prompt": "x", "max_tokens": 1_000_000, "ignore_eos": true, "stream": true});
    send(&mut client, "POST", "/v1/completions", &body.to_string());
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    assert!(lines.any(|l| l.starts_with("data:")));
    let heard = std::thread::spawn(move || lines.filter(|l| l.starts_with("data:")).last());
    let words = words_after_shortening(daemon);
    assert!(words.contains("to 4096 bytes"), "{words}");
    let last = heard.join().expect("no panic").expect("more lines");
    assert!(last.contains("to 4096 bytes"), "{last}");
}

#[test]
fn a_model_shortened_under_an_idle_daemon_ends_it_before_the_next_caller_is_answered_from_zeros() {
    words_after_shortening(start_with_kept_words());
}

#[test]
fn a_model_that_is_none_is_an_exit_code_and_no_crash() {
    let home = home("");
    std::fs::write(
        home.path().join("model.gguf"),
        b"GGUF\x03\0\0\0 and no more",
    )
    .expect("a file");
    let socket = home.path().join("s");
    let status = command(home.path(), &socket).status().expect("a run");
    assert_eq!(status.code(), Some(1));
    assert!(!socket.exists());
}
