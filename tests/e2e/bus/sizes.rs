//! What a conversation's state takes: told alike by every door, and what is held once it is there.

use std::collections::HashMap;
use std::process::Command;

use serde_json::{Value, json};

use super::private::{Client, PATH, PrivateBus};
use crate::daemon::{Daemon, demo, exchange, home_with};

/// Bytes of conversation states that the daemon holds, as it counts them.
fn held(daemon: &Daemon) -> u64 {
    let text = exchange(daemon.connect(), "GET", "/metrics", "").1;
    let line = text.lines().find(|l| l.starts_with("deltad_prefix_bytes "));
    let number = line.and_then(|l| l.split(' ').nth(1)?.parse::<f64>().ok());
    number.unwrap_or_else(|| panic!("{text}")) as u64
}

fn count(told: &Value, name: &str) -> u64 {
    let n = told[name].as_u64();
    n.unwrap_or_else(|| panic!("{name}: {told}"))
}

fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let (status, told) = daemon.post(path, &body);
    assert_eq!(status, 200, "{told}");
    told
}

/// The numbers in a line of the command's.
fn said(daemon: &Daemon, args: &[&str]) -> Vec<u64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad"));
    command.arg("--socket").arg(&daemon.socket);
    let said = command.arg("session").args(args).output().expect("a run");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{said:?}");
    let line = text.lines().last().expect("a line").to_owned();
    let words = line.split(|c: char| !c.is_ascii_digit() && c != '.');
    words.filter_map(|w| w.parse().ok()).collect()
}

/// A session's size by D-Bus: tokens measured there, and what the property says of them.
async fn on_the_bus(client: &Client, name: &str) -> (u64, HashMap<String, u64>) {
    let opened = client.call(PATH, "Manager", "OpenSession", &(name,)).await;
    let path: zbus::OwnedObjectPath = opened.expect("a path").body().deserialize().expect("o");
    let measured = client.call(&path, "Session", "Measure", &("",)).await;
    let measured: u64 = measured.expect("a count").body().deserialize().expect("t");
    let bytes = client.get(&path, "Session", "Bytes").await;
    (measured, HashMap::try_from(bytes).expect("a{st}"))
}

async fn one_cache(cache: &str) {
    let bus = PrivateBus::start();
    let home = home_with(&demo("model"), "q4_k_m", "");
    let config = format!("[model]\ncache_type = \"{cache}\"\nthreads = 1\n");
    std::fs::write(home.path().join("deltad.toml"), config).expect("a file");
    let daemon = bus.run_with(home, |_| {});
    let client = Client(bus.connect().await);
    for words in [1, 40, 55, 150, 900, 6000] {
        let name = format!("words-{words}");
        let before = held(&daemon);
        // What two texts begin with alike is kept for a third.
        let text = format!("{words}") + &" lamp".repeat(words);
        let made = json!({"name": name, "content": text, "fixed": true, "read": true});
        post(&daemon, "/v1/sessions", made);
        let grown = held(&daemon) - before;
        let told = post(&daemon, &format!("/v1/sessions/{name}/measure"), json!({}));
        let tokens = count(&told, "tokens");
        let (fixed, each) = (count(&told, "bytes_fixed"), count(&told, "bytes_per_token"));
        let block = count(&told, "block_tokens");
        let bytes = count(&told, "bytes");
        let what = format!("{cache}, {tokens} tokens: {bytes} told, {grown} held");

        // `a + b x tokens`, whoever says it.
        assert_eq!(bytes, fixed + each * tokens.next_multiple_of(block));
        let estimate = post(&daemon, "/v1/sessions/estimate", json!({"tokens": tokens}));
        for field in ["tokens", "bytes", "bytes_fixed", "bytes_per_token"] {
            assert_eq!(estimate[field], told[field], "{what}");
        }
        let line = said(&daemon, &["measure", &name]);
        assert!(line.starts_with(&[tokens]), "{line:?}: {what}");
        assert_eq!(line[line.len() - 2..], [each, block], "{line:?}: {what}");
        assert_eq!(said(&daemon, &["estimate", &tokens.to_string()]), line);
        let (measured, size) = on_the_bus(&client, &name).await;
        assert!(
            measured > tokens && measured < tokens + 16,
            "{measured}: {what}"
        );
        let of = |name: &str| size[name];
        let on_bus = (of("fixed"), of("per_token"), of("block_tokens"));
        assert_eq!(on_bus, (fixed, each, block), "{what}");

        let off = (grown as f64 / bytes as f64 - 1.0).abs();
        println!("{what}, {:.2} % off", 100.0 * off);
        assert!(off <= 0.01, "{what}");
    }
}

#[tokio::test]
async fn what_a_session_takes_is_told_alike_by_every_door_and_is_what_is_held() {
    for cache in ["f32", "f16", "bf16", "q8_0"] {
        one_cache(cache).await;
    }
}
