//! Memory that stays short: new requests are turned away at every door, and taken again afterwards.

use std::io::Write;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;
use tokio_stream::StreamExt;

use super::private::{Client, Dictionary, NAME, Options, PATH, PrivateBus, short};
use crate::daemon::{Daemon, home, send, until};

fn asked(daemon: &Daemon) -> (u16, String) {
    use std::io::Read;
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2});
    let mut stream = daemon.connect();
    send(
        &mut stream,
        "POST",
        "/v1/chat/completions",
        &body.to_string(),
    );
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    (answer[9..12].parse().expect("a status"), answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_memory_stays_short_every_door_turns_new_requests_away_and_then_takes_them_again() {
    let bus = PrivateBus::start();
    let home = home("[limits]\nrequest_bytes = \"256MiB\"\n");
    let pipe = home.path().join("pressure");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let daemon = bus.run_with(home, |command| {
        command.env("MEMORY_PRESSURE_WATCH", &pipe);
    });
    let client = Client(bus.connect().await);
    assert_eq!(client.count(PATH, "Manager", "Pressure").await, 0);
    let rule = format!("type='signal',interface='org.freedesktop.DBus.Properties',path='{PATH}'");
    let heard = zbus::MessageStream::for_match_rule(rule.as_str(), &client.0, None);
    let mut heard = heard.await.expect("a stream");
    let running = client.chat("hello", super::private::endless()).await;
    let options = std::fs::File::options().write(true).open(&pipe);
    let mut manager = options.expect("it is open at the other end");
    // Nobody is turned away while most of the daemon's memory is the program's own file.
    let mut sends = daemon.connect();
    let head = "POST /v1/responses HTTP/1.1\r\nHost: any\r\nContent-Length: 201326592\r\n\r\n";
    sends.write_all(head.as_bytes()).expect("it reads");
    sends.write_all(&vec![b' '; 160 << 20]).expect("it reads");
    until("it has it", || {
        let memory = &daemon.get("/health").1["memory"];
        (memory["own"].as_u64() > memory["files"].as_u64()).then_some(())
    });
    // One word is not enough.
    until("it refuses", || {
        manager.write_all(b"!").expect("room");
        std::thread::sleep(std::time::Duration::from_millis(300));
        let (status, health) = daemon.get("/health");
        assert_eq!(status, 200, "{health}");
        (health["pressure"] == "refuse").then_some(())
    });
    let (status, answer) = asked(&daemon);
    assert_eq!(status, 503, "{answer}");
    let head = answer.to_lowercase();
    assert!(
        head.contains("retry-after: 1") && head.contains("memory_short"),
        "{answer}"
    );
    let body = ("hello", short(2));
    let refused = client.call(PATH, "Manager", "Ask", &body).await;
    let (name, _) = refused.expect_err("a refusal");
    assert_eq!(name, format!("{NAME}.Error.QueueFull"));
    let named = Options::from([("name", "talk".into())]);
    let session = client.create(named).await;
    let refused = client.send(&session, "hello", short(2)).await;
    assert!(refused.is_err(), "nor is a session answered in");
    // Who was answered already is answered on.
    let state = client.count(&running.0, "Generation", "State").await;
    assert_eq!(state, 2, "running");
    let mut rungs = Vec::new();
    until_rung(&mut heard, 4, &mut rungs).await;
    until_rung(&mut heard, 3, &mut rungs).await;
    assert_eq!(rungs.first(), Some(&1), "{rungs:?}");
    until("it is taken again", || {
        (asked(&daemon).0 == 200).then_some(())
    });
    let answer = client.call(PATH, "Manager", "Ask", &body).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// Hears what is signalled, up to that rung.
async fn until_rung(heard: &mut zbus::MessageStream, rung: u32, rungs: &mut Vec<u32>) {
    while rungs.last() != Some(&rung) {
        let next = tokio::time::timeout(std::time::Duration::from_secs(120), heard.next());
        let message = next.await.expect("a signal").expect("a signal");
        let message = message.expect("a signal");
        let body = message.body();
        let (_, changed, _): (String, Dictionary, Vec<String>) =
            body.deserialize().expect("changes");
        let told = changed.get("Pressure").map(u32::try_from);
        rungs.extend(told.map(|rung| rung.expect("a number")));
    }
}
