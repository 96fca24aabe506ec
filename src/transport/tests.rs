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

mod answers;
mod background;
mod choices;
mod kept;
mod limits;
mod ling;
mod refusals;
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
