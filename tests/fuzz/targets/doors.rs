//! Requests, from the body or from the socket, through a daemon inside this process.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deltad::bus;
use deltad::door::Door;
use deltad::door::chat;
use deltad::door::limits::CallLimits;
use deltad::door::messages::message_json;
use deltad::engine::Engine;
use deltad::request::{Caller, Event, FinishReason, Format, Part, Refusal, Request};
use deltad::scheduler::{self, Scheduler};
use deltad::service::{self, Card, Service};
use deltad::sessions::Sessions;
use deltad::text::{ChatTemplate, Tokenizer};
use deltad::transport::state::Http;
use deltad::transport::{http, messages, openai, responses};
use serde_json::{Value, json};

use super::words::WORDS;
use super::{Run, jsons};
use crate::dice::Dice;
use crate::fixtures;

fn daemon(dir: &Path) -> Service {
    let options = fixtures::options();
    let engine = Engine::open(&fixtures::tiny(dir), &options).expect("a model");
    let model = engine.model();
    let tokenizer = Tokenizer::from_metadata(model.metadata()).expect("a tokenizer");
    let template = ChatTemplate::from_metadata(model.metadata(), &tokenizer).expect("a template");
    let card = Card {
        id: "tiny".into(),
        n_vocab: model.n_vocab(),
        context: model.context(),
    };
    let tokenizer = Arc::new(tokenizer);
    let limits = scheduler::Limits {
        max_concurrent: 4,
        max_queue: 256,
        chunk: engine.chunk(),
        prefix_bytes: 1 << 20,
        request_memory: usize::MAX,
        patience: Duration::from_secs(5),
    };
    let started = Scheduler::start(engine, tokenizer.clone(), limits);
    let (scheduler, _ended) = started.expect("a thread");
    let limits = service::Admission {
        max_tokens: Some(12),
        ..service::Admission::default()
    };
    let sessions = Sessions::default();
    Service::new(card, limits, tokenizer, template, scheduler, sessions)
}

fn bodies() -> Vec<Value> {
    let mut all = jsons(include_str!("../seeds/chats.json"));
    all.extend(jsons(include_str!("../seeds/completions.json")));
    all.extend(jsons(include_str!("../seeds/responses.json")));
    all.extend(jsons(include_str!("../seeds/messages.json")));
    all
}

fn words() -> Vec<&'static str> {
    let mut words = WORDS.to_vec();
    words.extend([
        "messages",
        "prompt",
        "tools",
        "tool_choice",
        "response_format",
        "json_schema",
        "logit_bias",
        "stop",
        "n",
        "logprobs",
        "top_logprobs",
        "max_tokens",
        "echo",
        "stream",
        "seed",
        "function",
        "parameters",
        "arguments",
        "required",
        "input",
        "instructions",
        "max_output_tokens",
        "text",
        "system",
        "stop_sequences",
        "tool_use",
        "tool_result",
        "function_call",
        "input_schema",
        "call_id",
    ]);
    words
}

fn body(dice: &mut Dice, seeds: &[Value], words: &[&str]) -> Value {
    let mut value = dice.pick(seeds).clone();
    for _ in 0..1 + dice.below(4) {
        let other = dice.pick(seeds);
        dice.json(&mut value, other, words);
    }
    dice.made(value.to_string());
    value
}

/// For a model with a switch, which takes more than one without.
fn thinking_message(body: &Value) -> Result<chat::Asked, Refusal> {
    messages::read(body, true)
}

/// As if every item that is named were kept.
fn response(body: &Value) -> Result<chat::Asked, Refusal> {
    responses::read(body, &|id| Some(json!({"role": "user", "content": id})))
}

/// What is taken comes to its end, and says what it promised.
pub fn request(dir: &Path) -> Run {
    let service = daemon(dir);
    let (seeds, words) = (bodies(), words());
    Box::new(move |dice| {
        let value = body(dice, &seeds, &words);
        for read in [chat::chat, openai::completion, response, thinking_message] {
            let Ok(asked) = read(&value) else {
                continue;
            };
            for mut request in asked.requests.into_iter().take(3) {
                // Many answers take long and show nothing that three do not.
                request.n = if request.n > 128 {
                    request.n
                } else {
                    request.n.min(3)
                };
                run(&service, dice.below(3) as u32, request);
            }
        }
    })
}

fn run(service: &Service, uid: u32, request: Request) {
    let caller = Caller {
        uid,
        pid: None,
        unit: None,
    };
    let (n, format) = (request.n, request.format.clone());
    let Ok(mut generation) = service.submit(caller, request) else {
        return;
    };
    let mut texts = vec![String::new(); n];
    while let Some(event) = generation.events.blocking_next() {
        match event {
            Event::Delta { choice, parts, .. } => {
                for part in parts {
                    if let Part::Text(text) = part {
                        texts[choice] += &text;
                    }
                }
            }
            Event::Finished { choice, reason, .. } => {
                let is_json = super::is_json(texts[choice].as_bytes());
                assert!(
                    format == Format::Text || reason != FinishReason::Stop || is_json,
                    "{:?}",
                    texts[choice]
                );
            }
            Event::Done(..) => return,
            Event::Failed(why) => panic!("a request that was taken failed: {why}"),
            Event::Prompt(_) | Event::Read(_) => {}
        }
    }
    panic!("no end was told");
}

/// Arguments as they come over D-Bus: they are read as a body of the same content is, or refused.
pub fn bus() -> Run {
    let (seeds, words) = (bodies(), words());
    Box::new(move |dice| {
        // A call has a dictionary of options, whatever is in it.
        let Value::Object(mut map) = body(dice, &seeds, &words) else {
            return;
        };
        let messages = map.shift_remove("messages").unwrap_or_default();
        let each = messages.as_array().into_iter().flatten();
        let messages: Vec<_> = each.map(bus::value::dictionary).collect();
        for name in ["prompt", "stream", "stream_options"] {
            if !dice.one_in(8) {
                map.shift_remove(name);
            }
        }
        let value = Value::Object(map);
        let (Ok(options), Ok(messages)) = (
            bus::options::named(&bus::value::dictionary(&value)),
            bus::options::messages(&messages),
        ) else {
            return;
        };
        let mut same = Value::Object(options.clone());
        same["messages"] = messages.iter().map(message_json).collect();
        let _ = bus::options::one_text(&options);
        if let Ok(asked) = bus::options::chat(messages, options, 1 << 20) {
            assert_eq!(chat::chat(&same).as_ref(), Ok(&asked), "{same}");
        }
    })
}

/// Every connection comes to an end, and the next one is served.
pub fn http(dir: &Path) -> Run {
    let second = Duration::from_secs(1);
    let limits = CallLimits {
        request_bytes: 1 << 20,
        head: second,
        body: second,
        patience: second,
        ..CallLimits::default()
    };
    let door = Arc::new(Door::new(limits));
    assert!(door.service.set(daemon(dir)).is_ok());
    let door = Arc::new(Http::new(door));
    let socket = dir.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("a flag");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.spawn(async move {
        let listener = tokio::net::UnixListener::from_std(listener).expect("a listener");
        http::serve(listener, door, Default::default()).await;
    });
    let (seeds, words) = (bodies(), words());
    Box::new(move |dice| {
        // The runtime lives as long as this closure.
        let _guard = runtime.enter();
        let mut client = UnixStream::connect(&socket).expect("it listens");
        client
            .set_read_timeout(Some(Duration::from_secs(15)))
            .expect("a limit");
        let bytes = exchange(dice, &seeds, &words);
        dice.made(&bytes);
        // It may close while we still write.
        let _ = client.write_all(&bytes);
        if dice.one_in(8) {
            return;
        }
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match client.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("no end: {e}"),
        }
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{answer:?}"
        );
    })
}

fn exchange(dice: &mut Dice, seeds: &[Value], words: &[&str]) -> Vec<u8> {
    const PATHS: [&str; 12] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/tokenize",
        "/detokenize",
        "/v1/models",
        "/v1/models/tiny",
        "/health",
        "/metrics",
        "/",
        "/%00/..//?a=b#c",
    ];
    const HEADS: [&str; 10] = [
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: -1\r\n",
        "Expect: 100-continue\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
        "Host: \r\n",
        "Content-Type: text/plain\r\n",
        "X: \0\r\n",
        " folded\r\n",
        "Content-Encoding: gzip\r\n",
    ];
    let mut out = Vec::new();
    for _ in 0..=dice.below(3) {
        let path = if dice.one_in(2) {
            PATHS[dice.below(4)]
        } else {
            *dice.pick(&PATHS)
        };
        let mut text = body(dice, seeds, words).to_string();
        if dice.one_in(4) {
            dice.text(&mut text, words);
        }
        let method = *dice.pick(&[
            "POST", "POST", "POST", "POST", "GET", "HEAD", "OPTIONS", "PRI",
        ]);
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n");
        if dice.one_in(6) {
            head += *dice.pick(&HEADS);
        }
        head += &format!("Content-Length: {}\r\n\r\n", text.len());
        let mut head = head.into_bytes();
        if dice.one_in(6) {
            dice.bytes(&mut head);
        }
        out.extend(head);
        out.extend(text.as_bytes());
    }
    if dice.one_in(8) {
        out.truncate(dice.below(out.len()));
    }
    out
}
