//! The doors over a real socket, with a model that has no weights.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use std::io::{Read, Write};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::state::Http;
use super::{http, socket};
use crate::door::Door;
use crate::door::limits::CallLimits;
use crate::scheduler::fake::{BOMB, Fake, POISON};
use crate::scheduler::{self, Ended, Scheduler};
use crate::service::{self, Card, Service};
use crate::sessions::Sessions;
use crate::text::{ChatTemplate, Tokenizer, fixture};

mod background;
mod choices;
mod kept;
mod limits;
mod ling;
mod sessions;
mod translations;

struct Server {
    path: PathBuf,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
    door: Arc<Http>,
    _ended: Option<Ended>,
    _file: socket::SocketFile,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

struct Setup {
    model: Option<Fake>,
    allowed_uids: Vec<u32>,
    allowed_groups: Vec<u32>,
    max_queue: usize,
    max_tokens: Option<usize>,
    vocabulary: fixture::Metadata,
    /// Of a model that thinks aloud, instead of the model's own.
    thinks: Option<&'static str>,
    http: CallLimits,
    sessions: Sessions,
}

fn setup() -> Setup {
    Setup {
        model: Some(Fake::default()),
        allowed_uids: Vec::new(),
        allowed_groups: Vec::new(),
        max_queue: 16,
        max_tokens: None,
        vocabulary: fixture::metadata("tiny"),
        thinks: None,
        http: CallLimits::default(),
        sessions: Sessions::default(),
    }
}

fn serve(setup: Setup) -> Server {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let (listener, file) = socket::bind(&path, 0o600, None).expect("a socket");
    let door = Arc::new(Http::new(Arc::new(Door::new(setup.http))));
    let mut kept = None;
    if let Some(model) = setup.model {
        let meta = match setup.thinks {
            Some(_) => fixture::thinking("tiny"),
            None => setup.vocabulary,
        };
        let tokenizer = Arc::new(Tokenizer::from_metadata(&meta).expect("a tokenizer"));
        let template = match setup.thinks {
            Some(source) => ChatTemplate::new(source, &tokenizer),
            None => ChatTemplate::from_metadata(&meta, &tokenizer),
        };
        let template = template.expect("a template");
        let limits = scheduler::Limits {
            max_concurrent: 2,
            max_queue: setup.max_queue,
            chunk: 16,
            prefix_bytes: 1 << 20,
            request_memory: usize::MAX,
            patience: Duration::from_secs(20),
        };
        let started = Scheduler::start(model, tokenizer.clone(), limits);
        let (scheduler, ended) = started.expect("a thread");
        kept = Some(ended);
        let card = Card {
            id: "fake".into(),
            n_vocab: 256,
            context: 1000,
        };
        let limits = service::Admission {
            max_tokens: setup.max_tokens,
            allowed_uids: setup.allowed_uids,
            allowed_groups: setup.allowed_groups,
        };
        let sessions = setup.sessions;
        let service = Service::new(card, limits, tokenizer, template, scheduler, sessions);
        assert!(door.service.set(service).is_ok());
    }
    let stop = CancellationToken::new();
    let (at, until) = (door.clone(), stop.clone());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("a socket");
            let listener = tokio::net::UnixListener::from_std(listener).expect("a socket");
            http::serve(listener, at, until).await;
        });
    });
    Server {
        path,
        stop,
        thread: Some(thread),
        door,
        _ended: kept,
        _file: file,
        _dir: dir,
    }
}

impl Server {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("it listens");
        let limit = Some(Duration::from_secs(60));
        stream.set_read_timeout(limit).expect("a time limit");
        stream
    }

    /// Status, head and body of one exchange.
    fn exchange(&self, method: &str, path: &str, body: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        let n = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {n}\r\n\r\n{body}"
        );
        // A body over the limit may be answered before all of it is sent.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        // After such an answer the end may be a reset.
        let _ = stream.read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head[9..12].parse().expect("a status");
        (status, head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.exchange("GET", path, "");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let (status, _, body) = self.exchange("POST", path, &body.to_string());
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// The `data:` lines of a stream.
    fn stream(&self, path: &str, mut body: Value) -> Vec<String> {
        body["stream"] = json!(true);
        let (status, _, text) = self.exchange("POST", path, &body.to_string());
        assert_eq!(status, 200, "{text}");
        let data = text.lines().filter_map(|l| l.strip_prefix("data: "));
        data.map(str::to_owned).collect()
    }
}

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "temperature": 0})
}

#[test]
fn models_are_listed_and_an_unknown_one_is_not_found() {
    let server = serve(setup());
    let (status, list) = server.get("/v1/models");
    assert_eq!((status, &list["data"][0]["id"]), (200, &json!("fake")));
    assert_eq!(server.get("/v1/models/fake").0, 200);
    let (status, error) = server.get("/v1/models/other");
    let code = &error["error"]["code"];
    assert_eq!((status, code), (404, &json!("model_not_found")));
}

#[test]
fn an_answer_says_how_much_of_its_prompt_was_kept_and_why_not_more() {
    let server = serve(Setup {
        // However loaded the machine is, a stream's head waits for it.
        http: CallLimits {
            ping: Duration::from_secs(60),
            ..CallLimits::default()
        },
        ..setup()
    });
    let kept = |messages: Value, stream: bool| {
        let body = json!({"messages": messages, "max_tokens": 2, "stream": stream});
        let (status, head, body) =
            server.exchange("POST", "/v1/chat/completions", &body.to_string());
        assert_eq!(status, 200, "{body}");
        let line = head
            .lines()
            .find_map(|l| l.strip_prefix("x-deltad-cache: "));
        line.unwrap_or_else(|| panic!("{head}")).to_owned()
    };
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let (system, long) = (said("system", "be brief"), "why ".repeat(99));
    let first = json!([system, said("user", &long)]);
    assert_eq!(kept(first.clone(), false), "miss; empty");
    let again = kept(first, true);
    assert!(
        again.starts_with("hit; tokens=") && again.ends_with("; no-state"),
        "{again}"
    );
    let other = kept(json!([system, said("user", "who?")]), true);
    assert_eq!(other, "miss; diverged; message=1");
    let metrics = server.exchange("GET", "/metrics", "").2;
    for found in ["empty", "no_state", "diverged"] {
        let line = format!("deltad_looked_for_total{{found=\"{found}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn a_streamed_chat_says_what_a_plain_one_says() {
    let server = serve(setup());
    let (status, whole) = server.post("/v1/chat/completions", hello());
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 6);
    let mut body = hello();
    body["stream_options"] = json!({"include_usage": true});
    let lines = server.stream("/v1/chat/completions", body);
    assert_eq!(lines.last().expect("lines"), "[DONE]");
    let chunks = lines[..lines.len() - 1].iter();
    let chunks: Vec<Value> = chunks
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], json!(text));
    let last = chunks.last().expect("chunks");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 6);
    assert!(last["usage"]["prompt_tokens_details"]["cached_tokens"].is_u64());
}

#[test]
fn an_echoed_prompt_has_a_score_for_each_token_but_the_first() {
    let server = serve(setup());
    let prompt: Vec<u32> = (0..150).map(|i| i % 120).collect();
    let body = json!({"prompt": prompt, "echo": true, "max_tokens": 0, "logprobs": 3,
        "return_tokens_as_token_ids": true});
    let (status, whole) = server.post("/v1/completions", body);
    assert_eq!(status, 200, "{whole}");
    let scores = &whole["choices"][0]["logprobs"];
    let names: Vec<String> = prompt.iter().map(|t| format!("token_id:{t}")).collect();
    assert_eq!(scores["tokens"], json!(names));
    let values = scores["token_logprobs"].as_array().expect("values");
    assert!(values[0].is_null() && values[1..].iter().all(Value::is_f64));
    for (i, top) in scores["top_logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .skip(1)
    {
        let top = top.as_object().expect("a table");
        assert!(top.len() == 3 || top.len() == 4);
        assert_eq!(top[&names[i]], values[i]);
    }
    assert_eq!(whole["usage"]["completion_tokens"], 0);
}

#[test]
fn the_token_that_ends_a_turn_has_a_score_and_no_text() {
    let end = fixture::tokenizer("tiny").end_tokens()[0];
    // The model's vocabulary here is smaller than the tokenizer's: any token may end by id.
    assert!(end >= 256);
    let server = serve(setup());
    let body = json!({"prompt": [1, 2, 3], "max_tokens": 1, "logprobs": 20, "temperature": 0});
    let (_, whole) = server.post("/v1/completions", body);
    let scores = &whole["choices"][0]["logprobs"];
    assert_eq!(scores["tokens"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        scores["top_logprobs"][0].as_object().map(|t| t.len()),
        Some(20)
    );
}

#[test]
fn text_goes_to_tokens_and_back() {
    let server = serve(setup());
    let (_, tokens) = server.post("/tokenize", json!({"content": "hello, wörld"}));
    let (_, text) = server.post("/detokenize", tokens);
    assert_eq!(text, json!({"content": "hello, wörld"}));
}

#[test]
fn a_wrong_field_is_named_with_what_it_is_and_should_be() {
    let server = serve(setup());
    let completions = "/v1/completions";
    let chat = "/v1/chat/completions";
    let message = json!([{"role": "user", "content": "x"}]);
    let cases = [
        (completions, json!({}), "prompt"),
        (completions, json!({"prompt": {"a": 1}}), "prompt"),
        (completions, json!({"prompt": []}), "prompt"),
        (completions, json!({"prompt": [1, "x"]}), "prompt[1]"),
        (completions, json!({"prompt": [99999]}), "prompt"),
        (
            completions,
            json!({"prompt": "x", "temperature": "hot"}),
            "temperature",
        ),
        (
            completions,
            json!({"prompt": "x", "temperature": -1}),
            "temperature",
        ),
        (
            completions,
            json!({"prompt": "x", "temperature": 1e300}),
            "temperature",
        ),
        (
            completions,
            json!({"prompt": "x", "logprobs": 21}),
            "logprobs",
        ),
        (completions, json!({"prompt": "x", "n": 0}), "n"),
        (completions, json!({"prompt": "x", "suffix": "y"}), "suffix"),
        (completions, json!({"prompt": "x", "best_of": 3}), "best_of"),
        (
            completions,
            json!({"prompt": "x", "max_tokens": -1}),
            "max_tokens",
        ),
        (completions, json!({"prompt": "x", "stop": [1]}), "stop"),
        (
            completions,
            json!({"prompt": "x", "logit_bias": {"a": 1}}),
            "logit_bias",
        ),
        (completions, json!({"prompt": vec![1; 1001]}), "prompt"),
        (completions, json!([1]), "body"),
        (chat, json!({}), "messages"),
        (chat, json!({"messages": []}), "messages"),
        (
            chat,
            json!({"messages": [{"content": "x"}]}),
            "messages[0].role",
        ),
        (
            chat,
            json!({"messages": message, "functions": []}),
            "functions",
        ),
        (
            chat,
            json!({"messages": message, "top_logprobs": 2}),
            "top_logprobs",
        ),
        (
            chat,
            json!({"messages": message, "response_format": {"type": "xml"}}),
            "response_format.type",
        ),
        (
            chat,
            json!({"messages": message, "tool_choice": "required"}),
            "tool_choice",
        ),
        (
            chat,
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].type",
        ),
    ];
    for (path, body, param) in cases {
        let (status, answer) = server.post(path, body.clone());
        let error = &answer["error"];
        assert_eq!(
            (status, &error["param"]),
            (400, &json!(param)),
            "{body}: {answer}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
    }
}

#[test]
fn a_prompt_that_is_too_long_is_refused_before_its_grammar_is_compiled() {
    let server = serve(setup());
    let mut body = hello();
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "a",
        "schema": {"type": "nonsense"}}});
    let (status, answer) = server.post("/v1/chat/completions", body.clone());
    assert_eq!(
        (status, &answer["error"]["param"]),
        (400, &json!("response_format"))
    );
    body["messages"][0]["content"] = json!("x ".repeat(4000));
    let (status, answer) = server.post("/v1/chat/completions", body);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
}

#[test]
fn unknown_routes_methods_and_bodies_get_an_envelope_too() {
    let server = serve(setup());
    assert_eq!(server.get("/nothing").0, 404);
    assert_eq!(server.get("/v1/completions").0, 405);
    let (status, _, body) = server.exchange("POST", "/v1/completions", "{not json");
    assert_eq!(status, 400);
    assert!(body.starts_with("{\"error\":"), "{body}");
    let deep = "[".repeat(100_000);
    assert_eq!(server.exchange("POST", "/v1/completions", &deep).0, 400);
}

#[test]
fn before_the_model_is_loaded_the_answer_is_503() {
    let mut setup = setup();
    setup.model = None;
    let server = serve(setup);
    assert_eq!(server.get("/health").0, 503);
    let (status, head, _) = server.exchange("POST", "/v1/chat/completions", &hello().to_string());
    assert_eq!(status, 503);
    assert!(head.to_lowercase().contains("retry-after: 1"), "{head}");
}

#[test]
fn a_failure_in_a_stream_is_told_in_the_stream() {
    let server = serve(setup());
    let lines = server.stream("/v1/completions", json!({"prompt": [1, POISON]}));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("poisoned"), "{lines:?}");
    let (status, _) = server.post("/v1/completions", json!({"prompt": [1, POISON]}));
    assert_eq!(status, 500);
    // Greedy, so that it does not poison itself.
    let sober = json!({"prompt": [1, 2], "temperature": 0});
    assert_eq!(server.post("/v1/completions", sober).0, 200);
}

#[test]
fn a_dead_engine_is_an_error_and_not_a_silence() {
    let server = serve(setup());
    let (status, error) = server.post("/v1/completions", json!({"prompt": [1, BOMB]}));
    assert_eq!(
        (status, &error["error"]["code"]),
        (500, &json!("engine_failed"))
    );
    assert_eq!(
        server.post("/v1/completions", json!({"prompt": [1]})).0,
        500
    );
}

#[test]
fn a_long_prefill_is_not_silent() {
    let mut setup = setup();
    setup.http.ping = Duration::from_millis(5);
    setup.model = Some(Fake {
        pause: Duration::from_millis(30),
        ..Fake::default()
    });
    let server = serve(setup);
    let body = json!({"prompt": vec![1; 160], "max_tokens": 1, "stream": true});
    let (_, _, text) = server.exchange("POST", "/v1/completions", &body.to_string());
    let ping = text.find(": ping").expect("a ping");
    assert!(ping < text.find("data: ").expect("data"));
}

#[test]
fn a_client_that_hangs_up_frees_its_sequence() {
    for stream in [true, false] {
        let mut setup = setup();
        let model = Fake {
            pause: Duration::from_millis(5),
            ..Fake::default()
        };
        let (alive, fed) = (model.alive.clone(), model.fed.clone());
        setup.model = Some(model);
        let server = serve(setup);
        let mut client = server.connect();
        let body = json!({"prompt": "x", "max_tokens": 900, "ignore_eos": true, "stream": stream});
        let (n, body) = (body.to_string().len(), body);
        write!(
            client,
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n{body}"
        )
        .unwrap();
        let alive = || alive.load(std::sync::atomic::Ordering::Relaxed);
        while alive() == 0 {
            std::thread::yield_now();
        }
        drop(client);
        while alive() > 0 {
            std::thread::yield_now();
        }
        let fed = fed.load(std::sync::atomic::Ordering::Relaxed);
        assert!(fed < 900, "it ran to its end, stream: {stream}");
    }
}

#[test]
fn counters_are_told_to_prometheus() {
    let server = serve(setup());
    server.post("/v1/chat/completions", hello());
    let (status, _, text) = server.exchange("GET", "/metrics", "");
    assert_eq!(status, 200);
    let uid = rustix::process::getuid().as_raw();
    let wanted = [
        "deltad_completion_tokens_total 6".to_owned(),
        "deltad_first_token_seconds_count 1".to_owned(),
        "deltad_between_tokens_seconds_count 5".to_owned(),
        format!("deltad_caller_requests_total{{uid=\"{uid}\"}} 1"),
        format!("deltad_caller_completion_tokens_total{{uid=\"{uid}\"}} 6"),
    ];
    for line in wanted {
        assert!(text.contains(&line), "no {line} in {text}");
    }
}

#[test]
fn constrained_answers_and_forced_calls_are_what_was_asked_for() {
    let server = serve(Setup {
        model: Some(Fake::default()),
        ..setup()
    });
    assert!(server.door.service.get().is_some());
    let mut body = hello();
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "a",
        "schema": {"type": "object", "properties": {"a": {"type": "boolean"}},
            "required": ["a"], "additionalProperties": false}}});
    body["max_tokens"] = json!(200);
    let (status, whole) = server.post("/v1/chat/completions", body);
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["message"]["content"]
        .as_str()
        .expect("text");
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert!(value["a"].is_boolean(), "{text}");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
}
