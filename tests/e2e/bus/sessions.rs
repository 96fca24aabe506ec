//! Conversations on the bus: what they remember, how long they live, who may see them.

use super::private::{Client, Options, PATH, PrivateBus, endless, eventually, short, text};
use crate::traces::{Tally, Told, Trace};

#[tokio::test]
async fn a_session_remembers_what_was_said() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve_demo();
    let client = Client(bus.connect().await);
    let greedy = Options::from([("temperature", 0.0.into()), ("max_tokens", 64u32.into())]);
    let session = client.create(greedy).await;
    let mut last = String::new();
    for said in ["My name is Tessa.", "What is 3 + 4?", "What is my name?"] {
        let (_, reader) = client
            .send(&session, said, Options::new())
            .await
            .expect("it runs");
        last = text(&reader.all());
    }
    assert!(last.contains("Tessa"), "{last}");
    assert_eq!(client.count(&session, "Session", "MessageCount").await, 6);
    let reply = client.call(&session, "Session", "Messages", &()).await;
    let reply = reply.expect("messages");
    let body = reply.body();
    let messages: Vec<super::private::Dictionary> = body.deserialize().expect("messages");
    let says = |i: usize, field: &str| <&str>::try_from(&messages[i][field]).expect("text");
    assert_eq!(says(0, "role"), "user");
    assert_eq!(says(2, "content"), "What is 3 + 4?");
    assert_eq!(says(5, "content"), last);
}

#[tokio::test]
async fn a_session_answers_one_question_at_a_time_and_keeps_what_was_cut_short() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let session = client.create(Options::new()).await;
    let (path, mut reader) = client
        .send(&session, "go", endless())
        .await
        .expect("it runs");
    while reader.next().expect("an event")["event"] != "delta" {}
    let (name, _) = client
        .send(&session, "and", short(1))
        .await
        .err()
        .expect("it is busy");
    assert_eq!(name, "org.deltad.Inference1.Error.Busy");
    let cancelled = client.call(&path, "Generation", "Cancel", &()).await;
    cancelled.expect("cancelled");
    reader.all();
    assert_eq!(client.count(&session, "Session", "MessageCount").await, 2);
    let (_, reader) = client
        .send(&session, "and", short(3))
        .await
        .expect("free again");
    reader.all();
    assert_eq!(client.count(&session, "Session", "MessageCount").await, 4);
    // A refused question was never said.
    let wrong = Options::from([("temperature", 9.0.into())]);
    let (name, _) = client
        .send(&session, "x", wrong)
        .await
        .err()
        .expect("refused");
    assert_eq!(name, "org.deltad.Inference1.Error.InvalidArgument");
    assert_eq!(client.count(&session, "Session", "MessageCount").await, 4);
}

#[tokio::test]
async fn an_answer_of_unwritten_tokens_alone_is_still_a_turn() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let session = client.create(Options::new()).await;
    // `[BOS]` of the test model: a special token, which no client ever reads.
    let bias = std::collections::HashMap::from([(510u32, 100f64)]);
    let mut options = short(3);
    options.insert("logit_bias", bias.into());
    let (_, reader) = client.send(&session, "go", options).await.expect("it runs");
    let events = reader.all();
    assert_eq!(text(&events), "");
    assert_eq!(events.last().expect("an end")["reason"], "length");
    assert_eq!(client.count(&session, "Session", "MessageCount").await, 2);
}

#[tokio::test]
async fn a_session_ends_with_its_client_unless_it_persists() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let leaver = Client(bus.connect().await);
    let passing = leaver.create(Options::new()).await;
    let lasting = leaver
        .create(Options::from([("persist", true.into())]))
        .await;
    let begun = leaver.send(&passing, "go", endless()).await;
    let (_, reader) = begun.expect("it runs");
    leaver.0.close().await.expect("it leaves");
    eventually("the session's end", async || {
        !client.objects().await.contains(&passing.to_string())
    })
    .await;
    let last = reader.all().pop().expect("an end");
    assert_eq!(last["reason"], "cancelled", "its answer ended with it");
    assert!(client.objects().await.contains(&lasting.to_string()));
    let (_, reader) = client
        .send(&lasting, "still there?", short(2))
        .await
        .expect("it is");
    reader.all();
    let closed = client.call(&lasting, "Session", "Close", &()).await;
    closed.expect("it closes");
    let gone = client
        .send(&lasting, "now?", short(1))
        .await
        .err()
        .expect("it is gone");
    assert_eq!(gone.0, "org.freedesktop.DBus.Error.UnknownObject");
}

#[tokio::test]
async fn a_sessions_options_are_checked_when_it_is_made() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    for (name, value, error) in [
        ("tempratur", 0.5.into(), "UnknownOption"),
        ("top_k", "many".into(), "InvalidArgument"),
        ("persist", 1u32.into(), "InvalidArgument"),
        ("messages", "none".into(), "InvalidArgument"),
    ] {
        let options = (Options::from([(name, value)]),);
        let refused = client
            .call(PATH, "Manager", "CreateSession", &options)
            .await;
        let refused = refused.expect_err("a refusal").0;
        assert_eq!(
            refused,
            format!("org.deltad.Inference1.Error.{error}"),
            "{name}"
        );
    }
    assert!(client.objects().await.is_empty());
}

#[tokio::test]
async fn one_user_has_so_many_sessions_and_no_more_until_one_is_closed() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let mut last = client.create(Options::new()).await;
    for _ in 1..256 {
        last = client.create(Options::new()).await;
    }
    let one_more = (Options::new(),);
    let refused = client.call(PATH, "Manager", "CreateSession", &one_more);
    let refused = refused.await.expect_err("a refusal").0;
    assert_eq!(refused, "org.deltad.Inference1.Error.TooManySessions");
    let closed = client.call(&last, "Session", "Close", &()).await;
    closed.expect("it closes");
    client.create(Options::new()).await;
}

#[tokio::test]
async fn a_session_that_persists_outlives_a_killed_daemon_and_is_the_same_by_every_door() {
    let bus = PrivateBus::start();
    let mut daemon = bus.serve_demo();
    let client = Client(bus.connect().await);
    let named = Options::from([
        ("persist", true.into()),
        ("name", "talk".into()),
        ("temperature", 0.0.into()),
        ("max_tokens", 48u32.into()),
    ]);
    let session = client.create(named).await;
    let code = "My locker code is 4827.";
    let (_, reader) = client
        .send(&session, code, Options::new())
        .await
        .expect("it runs");
    reader.all();
    let measured = client
        .call(&session, "Session", "Measure", &("What is it?",))
        .await;
    let measured: u64 = measured.expect("a count").body().deserialize().expect("t");
    let usage = client.count(&session, "Session", "ContextUsage").await;
    assert!(measured > u64::from(usage), "{measured} {usage}");
    assert_eq!(client.count(&session, "Session", "State").await, 1);
    let suspended = client.call(&session, "Session", "Suspend", &()).await;
    suspended.expect("it is on disk");
    assert_eq!(client.count(&session, "Session", "State").await, 2);
    daemon.signal(rustix::process::Signal::KILL);
    bus.again(&mut daemon);
    assert!(client.objects().await.contains(&session.to_string()));
    let opened = client
        .call(PATH, "Manager", "OpenSession", &("talk",))
        .await;
    let opened: zbus::OwnedObjectPath = opened.expect("a path").body().deserialize().expect("o");
    assert_eq!(opened.to_string(), session.to_string());
    let cloned = client
        .call(&session, "Session", "Clone", &(Options::new(),))
        .await;
    let cloned: zbus::OwnedObjectPath = cloned.expect("a path").body().deserialize().expect("o");
    for place in [&session, &cloned] {
        let question = "What is my locker code?";
        let (_, reader) = client
            .send(place, question, Options::new())
            .await
            .expect("it runs");
        let events = reader.all();
        assert!(text(&events).contains("4827"), "{events:?}");
        let cached = events.last().expect("an end")["usage"]["cached_tokens"].as_u64();
        assert!(
            cached >= Some(u64::from(usage) - 1),
            "{cached:?} of {usage}"
        );
    }
    let (status, shown) = daemon.get("/v1/sessions/talk");
    assert_eq!(
        (status, &shown["message_count"]),
        (200, &serde_json::json!(4))
    );
}

/// A regular file of ours, as an argument.
fn descriptor(file: &std::fs::File) -> zbus::OwnedFd {
    let file = file.try_clone().expect("a descriptor");
    std::os::fd::OwnedFd::from(file).into()
}

#[tokio::test]
async fn a_session_leaves_by_a_descriptor_and_comes_in_by_one() {
    let bus = PrivateBus::start();
    let daemon = bus.serve_demo();
    let client = Client(bus.connect().await);
    let named = Options::from([
        ("persist", true.into()),
        ("name", "talk".into()),
        ("temperature", 0.0.into()),
        ("max_tokens", 48u32.into()),
    ]);
    let session = client.create(named).await;
    let code = "My locker code is 4827.";
    let sent = client.send(&session, code, Options::new()).await;
    sent.expect("it runs").1.all();
    let path = daemon.home.path().join("talk.safetensors");
    let file = std::fs::File::create_new(&path).expect("a file");
    let written = client
        .call(&session, "Session", "Export", &(descriptor(&file),))
        .await;
    written.expect("it is written");
    let rebuilt = client.call(PATH, "Manager", "Rebuild", &("talk",)).await;
    let rebuilt: zbus::OwnedObjectPath = rebuilt.expect("a path").body().deserialize().expect("o");
    assert_eq!(rebuilt.to_string(), session.to_string());
    assert_eq!(client.count(&session, "Session", "State").await, 3);
    let file = std::fs::File::open(&path).expect("it is there");
    let import = (descriptor(&file),);
    let made = client.call(PATH, "Manager", "Import", &import).await;
    let made: zbus::OwnedObjectPath = made.expect("a path").body().deserialize().expect("o");
    assert_ne!(made.to_string(), session.to_string());
    let (_, reader) = client
        .send(&made, "What is my locker code?", Options::new())
        .await
        .expect("it runs");
    let events = reader.all();
    assert!(text(&events).contains("4827"), "{events:?}");
    let usage = &events.last().expect("an end")["usage"];
    assert!(usage["cached_tokens"].as_u64() > Some(9), "{usage}");
    // Its end was reached: nothing is left to read there.
    let import = (descriptor(&file),);
    let refused = client.call(PATH, "Manager", "Import", &import).await;
    let (name, why) = refused.expect_err("nothing");
    assert_eq!(name, "org.deltad.Inference1.Error.SessionRefused");
    assert!(why.contains("too short"), "{why}");
}

#[tokio::test]
async fn a_question_that_does_not_fit_is_signalled_to_its_asker() {
    use futures_util::StreamExt;
    let bus = PrivateBus::start();
    let _daemon = bus.serve("context = 64\n");
    let client = Client(bus.connect().await);
    let session = client.create(Options::new()).await;
    let mut told = zbus::MessageStream::from(&client.0);
    let long = "word ".repeat(100);
    let refused = client.send(&session, &long, Options::new()).await;
    let (name, _) = refused.err().expect("a refusal");
    assert_eq!(name, "org.deltad.Inference1.Error.TooLong");
    let overflow = async {
        while let Some(Ok(message)) = told.next().await {
            let header = message.header();
            if header.member().is_some_and(|m| m == "ContextOverflow") {
                return header.path().map(ToString::to_string);
            }
        }
        None
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(60), overflow).await;
    assert_eq!(told, Ok(Some(session.to_string())));
}

/// What an assistant says, of `tests/traces`.
#[tokio::test]
async fn an_assistants_session_reads_nothing_twice() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve_demo();
    let client = Client(bus.connect().await);
    let greedy = Options::from([("temperature", 0.0.into()), ("max_tokens", 48u32.into())]);
    let session = client.create(greedy).await;
    let trace = Trace::read("assistant");
    let mut tally = Tally::of("assistant, demo");
    let mut known = 0;
    for (at, request) in trace.requests().iter().enumerate() {
        let item = request["items"][0].as_u64().expect("a number") as usize;
        let said = trace.item(item, &[]);
        let said = said[0].as_str().expect("text");
        let (_, reader) = client
            .send(&session, said, Options::new())
            .await
            .expect("it runs");
        let events = reader.all();
        let usage = &events.last().expect("an end")["usage"];
        let count = |name: &str| usage[name].as_u64().expect("a count") as usize;
        let told = Told {
            prompt: count("prompt_tokens"),
            cached: count("cached_tokens"),
            completion: count("completion_tokens"),
            ..Told::default()
        };
        if at > 0 {
            tally.add(at, &request["why"], &told, told.prompt - known);
        }
        known = told.prompt + told.completion;
    }
    tally.settle();
}
