//! Answers over the bus: by descriptor, by signals, whole; stopped, unread, refused.

use std::collections::HashMap;

use serde_json::json;
use tokio_stream::StreamExt;
use zbus::{MessageStream, OwnedObjectPath};

use super::private::{
    Client, Dictionary, Options, PATH, PrivateBus, endless, eventually, message, short, text,
};

#[tokio::test]
async fn a_descriptor_carries_the_answer_from_start_to_end() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let (path, reader) = client.chat("hello", short(8)).await;
    let events = reader.all();
    assert_eq!(events[0]["event"], "start");
    assert_eq!(events[0]["version"], 1);
    assert_eq!(events[0]["generation"], path.as_str());
    let end = events.last().expect("an end");
    assert_eq!(end["event"], "end");
    assert_eq!(end["reason"], "length");
    assert_eq!(end["usage"]["completion_tokens"], 8);
    assert_eq!(end["usage"]["prompt_tokens"], events[0]["prompt_tokens"]);
    // Whoever saw the end sees the end in the properties too.
    assert_eq!(client.count(&path, "Generation", "State").await, 3);
    let counted = client.count(&path, "Generation", "CompletionTokens").await;
    assert_eq!(counted, 8);
}

#[tokio::test]
async fn the_same_seed_says_the_same_over_the_bus_and_over_http() {
    let bus = PrivateBus::start();
    let daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let mut options = short(12);
    options.insert("seed", 7u32.into());
    options.insert("temperature", 0.7.into());
    options.insert("n", 2u32.into());
    let events = client.chat("hello", options).await.1.all();
    let body = json!({"messages": [{"role": "user", "content": "hello"}], "ignore_eos": true,
        "max_tokens": 12, "seed": 7, "temperature": 0.7, "n": 2});
    let (status, answer) = daemon.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    let content = answer["choices"][0]["message"]["content"].as_str();
    assert_eq!(Some(text(&events).as_str()), content);
    let reasons = &events.last().expect("an end")["reasons"];
    assert_eq!(*reasons, json!(["length", "length"]));
}

#[tokio::test]
async fn cancel_ends_an_answer_and_says_so() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let (path, mut reader) = client.chat("hello", endless()).await;
    while reader.next().expect("an event")["event"] != "delta" {}
    let cancelled = client.call(&path, "Generation", "Cancel", &()).await;
    cancelled.expect("it may be cancelled");
    let rest = reader.all();
    assert_eq!(rest.last().expect("an end")["reason"], "cancelled");
    assert_eq!(client.count(&path, "Generation", "State").await, 4);
    idle(&client).await;
}

async fn idle(client: &Client) {
    eventually("idle", async || {
        client.count(PATH, "Manager", "ActiveGenerations").await == 0
            && client.count(PATH, "Manager", "QueueLength").await == 0
    })
    .await;
}

#[tokio::test]
async fn closing_the_descriptor_cancels() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let (path, mut reader) = client.chat("hello", endless()).await;
    assert!(reader.next().is_some());
    drop(reader);
    idle(&client).await;
    eventually("cancelled", async || {
        client.count(&path, "Generation", "State").await == 4
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_parked_and_others_are_answered() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("[limits]\nmax_concurrent = 1\n");
    let client = Client(bus.connect().await);
    let (path, mut reader) = client.chat("hello", endless()).await;
    assert!(reader.next().is_some());
    let mut before = 0;
    eventually("parked", async || {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let now = client.count(&path, "Generation", "CompletionTokens").await;
        now > 0 && std::mem::replace(&mut before, now) == now
    })
    .await;
    let asked = client
        .call(PATH, "Manager", "Ask", &("hello", short(4)))
        .await;
    asked.expect("another is answered");
    // It lost nothing, and goes on where it was.
    let mut seen = 0;
    while seen <= before {
        let event = reader.next().expect("an event");
        assert_ne!(event["event"], "end");
        seen += u32::from(event["event"] == "delta");
    }
}

#[tokio::test]
async fn an_answer_with_a_nul_does_not_cost_the_daemon_its_bus() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    // Token 0 of the test model is the byte 0.
    let nothing_else = || {
        let mut options = short(3);
        options.insert("logit_bias", HashMap::from([(0u32, 100f64)]).into());
        options
    };
    let body = ("hello", nothing_else());
    let reply = client.call(PATH, "Manager", "Ask", &body).await;
    let reply = reply.expect("an answer");
    let body = reply.body();
    let (text, _): (String, Dictionary) = body.deserialize().expect("a text");
    assert_eq!(text, "\u{fffd}\u{fffd}\u{fffd}");
    let mut stream = MessageStream::from(&client.0);
    let body = (vec![message("hello")], nothing_else());
    let begun = client.call(PATH, "Manager", "ChatBySignals", &body).await;
    begun.expect("it runs");
    loop {
        let message = stream.next().await.expect("a message").expect("a message");
        let header = message.header();
        let member = header.member().map(|m| m.to_string()).unwrap_or_default();
        assert_ne!(member, "NameOwnerChanged", "the daemon left the bus");
        if member == "Finished" {
            break;
        }
    }
}

#[tokio::test]
async fn signals_reach_the_caller_alone_after_the_reply() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let stranger = bus.connect().await;
    let rule = "type='signal',interface='org.deltad.Inference1.Generation'";
    let overheard = MessageStream::for_match_rule(rule, &stranger, None);
    let mut overheard = overheard.await.expect("a stream");
    let mut stream = MessageStream::from(&client.0);
    let body = (vec![message("hello")], short(6));
    let reply = client.call(PATH, "Manager", "ChatBySignals", &body).await;
    let path: OwnedObjectPath = reply.expect("a path").body().deserialize().expect("a path");
    let (mut replied, mut said, mut deltas) = (false, String::new(), 0);
    let (reason, usage) = loop {
        let message = stream.next().await.expect("a message").expect("a message");
        let header = message.header();
        let member = header.member().map(|m| m.to_string()).unwrap_or_default();
        if message.message_type() == zbus::message::Type::MethodReturn {
            let body = message.body();
            replied |= body
                .deserialize::<OwnedObjectPath>()
                .is_ok_and(|p| p == path);
        }
        if header.path().is_none_or(|p| p.as_str() != path.as_str()) {
            continue;
        }
        match member.as_str() {
            "Delta" => {
                assert!(replied, "a signal came before the reply");
                let body = message.body();
                let (choice, kind, text, _): (u32, String, String, Dictionary) =
                    body.deserialize().expect("a delta");
                assert_eq!((choice, kind.as_str()), (0, "text"));
                said += &text;
                deltas += 1;
            }
            "Finished" => {
                let body = message.body();
                break body
                    .deserialize::<(String, Dictionary)>()
                    .expect("a finish");
            }
            _ => {}
        }
    };
    assert_eq!(reason, "length");
    assert!(deltas > 0 && !said.is_empty());
    assert_eq!(i64::try_from(&usage["completion_tokens"]), Ok(6));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), overheard.next());
    assert!(waited.await.is_err(), "a stranger hears nothing");
}

#[tokio::test]
async fn a_caller_by_signals_that_leaves_the_bus_frees_its_place() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let leaver = Client(bus.connect().await);
    let body = (vec![message("hello")], endless());
    let begun = leaver.call(PATH, "Manager", "ChatBySignals", &body).await;
    begun.expect("it begins");
    eventually("running", async || {
        client.count(PATH, "Manager", "ActiveGenerations").await == 1
    })
    .await;
    leaver.0.close().await.expect("it leaves");
    idle(&client).await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_name() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("[limits]\nrequest_bytes = \"4KiB\"\n");
    let client = Client(bus.connect().await);
    let refused = async |prompt: &str, options: Options| {
        let reply = client
            .call(PATH, "Manager", "Ask", &(prompt, options))
            .await;
        let (name, text) = reply.expect_err("a refusal");
        let name = name.strip_prefix("org.deltad.Inference1.Error.");
        (name.expect("one of ours").to_owned(), text)
    };
    let (name, text) = refused("x", Options::from([("temprature", 0.5.into())])).await;
    assert_eq!(name, "UnknownOption");
    assert!(text.contains("did you mean temperature?"), "{text}");
    let (name, text) = refused("x", Options::from([("temperature", 7.0.into())])).await;
    assert_eq!(name, "InvalidArgument");
    assert!(text.starts_with("temperature: got 7"), "{text}");
    let (name, text) = refused("x", Options::from([("seed", "one".into())])).await;
    assert_eq!(name, "InvalidArgument");
    assert!(text.starts_with("seed: got a string"), "{text}");
    assert_eq!(
        refused("x", Options::from([("stream", true.into())]))
            .await
            .0,
        "UnknownOption"
    );
    assert_eq!(
        refused("x", Options::from([("n", 2u32.into())])).await.0,
        "InvalidArgument"
    );
    assert_eq!(
        refused(&"x".repeat(5000), Options::new()).await.0,
        "TooLarge"
    );
    let asked = client.call(PATH, "Manager", "Ask", &("x", short(1))).await;
    asked.expect("and right calls are answered");
}

#[tokio::test]
async fn the_queue_is_as_long_for_the_bus_as_for_the_socket() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("[limits]\nmax_concurrent = 1\nmax_queue = 1\n");
    let client = Client(bus.connect().await);
    let mut readers = Vec::new();
    let body = (vec![message("hello")], endless());
    let refused = loop {
        assert!(readers.len() < 20, "the queue has no end");
        match client.call(PATH, "Manager", "Chat", &body).await {
            Ok(reply) => readers.push(reply),
            Err((name, _)) => break name,
        }
    };
    assert_eq!(refused, "org.deltad.Inference1.Error.QueueFull");
}

#[tokio::test]
async fn large_calls_wait_for_large_bodies_and_small_ones_for_nobody() {
    use std::io::Write;

    let bus = PrivateBus::start();
    let daemon = bus.serve("[limits]\nrequest_bytes = \"256KiB\"\n");
    // Four hold all the places that there are, without ever sending.
    let held: Vec<_> = (0..4)
        .map(|_| {
            let socket = std::os::unix::net::UnixStream::connect(&daemon.socket);
            let mut socket = socket.expect("a connection");
            let head = "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 262144\r\n\r\n{";
            socket.write_all(head.as_bytes()).expect("it listens");
            socket
        })
        .collect();
    let client = Client(bus.connect().await);
    let small = client.call(PATH, "Manager", "Ask", &("x", short(1))).await;
    small.expect("an answer");
    // Refused as soon as it is read.
    let wrong = Options::from([("temperature", 7.0.into())]);
    let large = ("x".repeat(100_000), wrong);
    // The first may come before the bodies have taken their places.
    let mut tries = 0;
    let call = loop {
        let mut call = Box::pin(client.call(PATH, "Manager", "Ask", &large));
        match tokio::time::timeout(std::time::Duration::from_secs(1), &mut call).await {
            Err(_) => break call,
            Ok(answered) => assert!(answered.is_err() && tries < 20, "{answered:?}"),
        }
        tries += 1;
    };
    drop(held);
    let (name, _) = call.await.expect_err("it is wrong");
    assert_eq!(name, "org.deltad.Inference1.Error.InvalidArgument");
}
