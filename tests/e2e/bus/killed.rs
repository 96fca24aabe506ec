//! A daemon that is killed in mid-answer: what was said stays, and every door goes on from there.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::private::{Client, Options, PATH, PrivateBus, short};
use crate::daemon::{Daemon, send};

/// Words of an answer without an end until the daemon was killed: those of its first second, and all.
fn killed_in_mid_answer(daemon: &Daemon) -> (String, String) {
    let mut client = daemon.connect();
    let body = json!({"content": "go", "stream": true, "ignore_eos": true, "seed": 1,
        "logit_bias": {"510": -100}, "max_tokens": 1_000_000});
    let path = "/v1/sessions/talk/send";
    send(&mut client, "POST", path, &body.to_string());
    let (mut early, mut all, mut since) = (String::new(), String::new(), None);
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let Ok(chunk) = serde_json::from_str::<Value>(data) else {
            continue;
        };
        let words = &chunk["choices"][0]["delta"]["content"];
        all += words.as_str().unwrap_or_default();
        let begun = since.get_or_insert_with(Instant::now).elapsed();
        if begun < Duration::from_secs(1) {
            early = all.clone();
        }
        if begun > Duration::from_secs(3) {
            daemon.signal(Signal::KILL);
            break;
        }
    }
    (early, all)
}

#[tokio::test]
async fn an_answer_that_a_kill_cut_off_is_gone_on_with_by_every_door_and_in_two_ways() {
    let bus = PrivateBus::start();
    let mut daemon = bus.serve("");
    let (status, made) = daemon.post("/v1/sessions", &json!({"name": "talk"}));
    assert_eq!(status, 200, "{made}");
    // Something was said before: what is known of that must not stand for all.
    let hello = json!({"content": "hello", "max_tokens": 4});
    let (status, said) = daemon.post("/v1/sessions/talk/send", &hello);
    assert_eq!(status, 200, "{said}");
    let (early, all) = killed_in_mid_answer(&daemon);
    assert!(!early.is_empty());
    bus.again(&mut daemon);
    let (_, shown) = daemon.get("/v1/sessions/talk");
    assert_eq!(shown["message_count"], 4, "{shown}");
    let kept = shown["messages"][3]["content"].as_str().expect("words");
    assert!(
        kept.starts_with(&early),
        "{} of {}",
        kept.len(),
        early.len()
    );
    assert!(kept.starts_with(&all) || all.starts_with(kept));
    // By the answer's id, in two ways.
    let last = shown["last_response_id"].as_str().expect("an id");
    let (_, cut) = daemon.get(&format!("/v1/responses/{last}"));
    assert_eq!(cut["incomplete_details"]["reason"], "interrupted", "{cut}");
    let on = |text: &str| {
        let body = json!({"input": text, "previous_response_id": last, "max_output_tokens": 3});
        let (status, answer) = daemon.post("/v1/responses", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let (one, other) = (on("and"), on("and"));
    assert_ne!(one["id"], other["id"]);
    let tokens = &one["usage"]["input_tokens"];
    assert_eq!(tokens, &other["usage"]["input_tokens"]);
    // What was cut off is in the prompt, word by word.
    let (_, said) = daemon.post("/tokenize", &json!({"content": kept}));
    let said = said["tokens"].as_array().expect("tokens").len() as u64;
    assert!(said > 20 && tokens.as_u64() > Some(said), "{said}: {one}");
    // By D-Bus, where it stands, and in a fork of it.
    let client = Client(bus.connect().await);
    let opened = client
        .call(PATH, "Manager", "OpenSession", &("talk",))
        .await;
    let opened: zbus::OwnedObjectPath = opened.expect("a path").body().deserialize().expect("o");
    let before = client.count(&opened, "Session", "MessageCount").await;
    let cloned = client
        .call(&opened, "Session", "Clone", &(Options::new(),))
        .await;
    let cloned: zbus::OwnedObjectPath = cloned.expect("a path").body().deserialize().expect("o");
    let sent = client.send(&cloned, "and", short(3)).await;
    sent.expect("it runs").1.all();
    assert_eq!(
        client.count(&cloned, "Session", "MessageCount").await,
        before + 2
    );
    assert_eq!(
        client.count(&opened, "Session", "MessageCount").await,
        before
    );
    let sent = client.send(&opened, "and", short(3)).await;
    sent.expect("it runs").1.all();
    assert_eq!(
        client.count(&opened, "Session", "MessageCount").await,
        before + 2
    );
    let reply = client
        .call(&opened, "Session", "Messages", &())
        .await
        .expect("messages");
    let body = reply.body();
    let messages: Vec<super::private::Dictionary> = body.deserialize().expect("messages");
    // A text on the bus has no NUL.
    let told = <&str>::try_from(&messages[3]["content"]).expect("words");
    assert!(told == kept.replace('\0', "\u{fffd}"));
}
