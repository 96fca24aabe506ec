//! Who may ask, how much, and how many at once.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use super::{Fake, hello, serve, setup};

#[test]
fn a_body_over_the_limit_is_refused() {
    let mut setup = setup();
    setup.http.request_bytes = 100;
    let server = serve(setup);
    let (status, _) = server.post("/v1/completions", json!({"prompt": "x".repeat(200)}));
    assert_eq!(status, 413);
}

#[test]
fn a_head_or_a_body_that_never_ends_is_given_up() {
    let mut setup = setup();
    setup.http.head = Duration::from_millis(200);
    setup.http.body = Duration::from_millis(200);
    let server = serve(setup);
    let mut slow = server.connect();
    slow.write_all(b"GET /health HTTP/1.1\r\nX-Slow: ").unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest)
        .expect("the connection is ended");
    let mut slow = server.connect();
    slow.write_all(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        .unwrap();
    let mut rest = [0; 12];
    slow.read_exact(&mut rest).expect("an answer");
    assert_eq!(&rest, b"HTTP/1.1 408");
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let server = serve(setup());
    for line in [
        "X: ".to_owned() + &"a".repeat(1 << 20),
        "X: a\r\n".repeat(300),
    ] {
        let mut client = server.connect();
        let head = format!(
            "GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n",
            line.trim_end()
        );
        // It may be closed while we still write.
        let _ = client.write_all(head.as_bytes());
        let mut answer = [0; 12];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn an_answer_is_no_longer_than_the_daemon_allows() {
    let mut setup = setup();
    setup.max_tokens = Some(3);
    let server = serve(setup);
    for asked in [json!(90), json!(null)] {
        let body =
            json!({"prompt": "x", "max_tokens": asked, "ignore_eos": true, "temperature": 0});
        let (_, whole) = server.post("/v1/completions", body);
        assert_eq!(whole["usage"]["completion_tokens"], 3, "{whole}");
        assert_eq!(whole["choices"][0]["finish_reason"], "length");
    }
}

#[test]
fn no_more_run_at_once_than_the_daemon_allows() {
    let mut setup = setup();
    let model = Fake {
        pause: Duration::from_millis(1),
        ..Fake::default()
    };
    let alive = model.alive.clone();
    setup.model = Some(model);
    let server = serve(setup);
    let prompts: Vec<_> = (0..8).map(|i| vec![i; 30]).collect();
    let body = json!({"prompt": prompts, "max_tokens": 20, "ignore_eos": true, "temperature": 0});
    let most = std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.post("/v1/completions", body).0);
        let mut most = 0;
        while !asking.is_finished() {
            most = most.max(alive.load(std::sync::atomic::Ordering::Relaxed));
            std::thread::yield_now();
        }
        assert_eq!(asking.join().expect("an answer"), 200);
        most
    });
    assert_eq!(most, 2);
}

#[test]
fn large_bodies_wait_for_each_other_and_small_ones_for_nobody() {
    let mut setup = setup();
    setup.http.request_bytes = 200_000;
    setup.http.body = Duration::from_millis(1500);
    let server = serve(setup);
    let large = |n: usize| {
        let mut client = server.connect();
        write!(
            client,
            "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n{{"
        )
        .unwrap();
        client
    };
    // Four hold all there is without ever sending it; the fifth is told to come back.
    let mut held: Vec<UnixStream> = (0..4).map(|_| large(200_000)).collect();
    std::thread::sleep(Duration::from_millis(100));
    held.push(large(200_000));
    assert_eq!(server.post("/v1/chat/completions", hello()).0, 200);
    let mut told: Vec<String> = Vec::new();
    for mut client in held {
        let mut answer = [0; 12];
        client.read_exact(&mut answer).expect("an answer");
        told.push(String::from_utf8_lossy(&answer[9..]).into_owned());
    }
    told.sort();
    assert!(told[..3].iter().all(|t| t == "408"), "{told:?}");
    let (status, _) = server.post("/tokenize", json!({"content": "a".repeat(100_000)}));
    assert_eq!(status, 200);
}

#[test]
fn a_user_who_is_not_on_the_list_is_refused() {
    let mut setup = setup();
    setup.allowed_uids = vec![u32::MAX - 5];
    let server = serve(setup);
    assert_eq!(server.post("/v1/chat/completions", hello()).0, 403);
    assert_eq!(server.get("/v1/models").0, 403);
}

#[test]
fn a_user_is_let_in_by_a_group_and_only_by_one_of_its_own() {
    let own = rustix::process::getgid().as_raw();
    for (group, status) in [(own, 200), (u32::MAX - 5, 403)] {
        let mut setup = setup();
        setup.allowed_uids = vec![u32::MAX - 5];
        setup.allowed_groups = vec![group];
        assert_eq!(serve(setup).get("/v1/models").0, status);
    }
}

#[test]
fn a_full_queue_is_429_with_a_time_to_come_back() {
    let mut setup = setup();
    setup.max_queue = 1;
    // No answer ends before the last prompt is there.
    setup.model = Some(Fake {
        pause: Duration::from_millis(5),
        ..Fake::default()
    });
    let server = serve(setup);
    // Of nine prompts two run at once and two wait at most, whatever the timing.
    let prompts: Vec<_> = (0..40).map(|i| vec![i; 900]).collect();
    let body = json!({"prompt": prompts, "max_tokens": 90, "temperature": 0}).to_string();
    let (status, head, _) = server.exchange("POST", "/v1/completions", &body);
    assert_eq!(status, 429);
    assert!(head.to_lowercase().contains("retry-after: 1"), "{head}");
}

#[test]
fn a_thousand_idle_connections_leave_room_for_one_that_asks() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    let server = serve(setup());
    let idle: Vec<UnixStream> = (0..1000).map(|_| server.connect()).collect();
    assert_eq!(server.post("/v1/chat/completions", hello()).0, 200);
    drop(idle);
}
