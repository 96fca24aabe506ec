//! One HTTP exchange with the daemon over its Unix socket. Knows JSON and server-sent events; no
//! terminal, no command line.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers on {}", .0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" or "))]
    NoDaemon(Vec<PathBuf>),
    #[error("{}: this user may not connect", .0.display())]
    NotPermitted(PathBuf),
    #[error("the daemon is still loading its model")]
    Loading,
    #[error("the daemon refused ({status}): {message}")]
    Refused { status: u16, message: String },
    #[error("the daemon broke off: {0}")]
    Broken(String),
    #[error("{0}")]
    Input(String),
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

/// What came back from one streamed chat completion.
#[derive(Debug, Default)]
pub struct Answer {
    pub text: String,
    /// What the model thought before.
    pub reasoning: String,
    /// OpenAI's `tool_calls` deltas, put together by index.
    pub tool_calls: Vec<Value>,
    pub usage: Option<Value>,
    /// OpenAI's `finish_reason`.
    pub finish: Option<String>,
    /// From the request to the first piece of text or of a tool call.
    pub first: Option<Duration>,
    pub total: Duration,
}

/// A piece of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    Thought(&'a str),
    Text(&'a str),
}

impl Answer {
    /// As a whole answer would have held it.
    pub fn message(&self) -> Value {
        let mut message = json!({"role": "assistant", "content": self.text});
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = json!(self.reasoning);
        }
        if !self.tool_calls.is_empty() {
            if self.text.is_empty() {
                message["content"] = Value::Null;
            }
            let mut calls = self.tool_calls.clone();
            for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                // A number for joining deltas, of no use in a history.
                call.shift_remove("index");
            }
            message["tool_calls"] = Value::Array(calls);
        }
        message
    }
}

/// A daemon that accepted a connection at this socket a moment ago.
#[derive(Debug, Clone)]
pub struct Daemon {
    pub socket: PathBuf,
}

impl Daemon {
    /// The first of `candidates` on which something answers.
    pub async fn find(candidates: &[PathBuf]) -> Result<Daemon, ClientError> {
        let mut closed = None;
        for socket in candidates {
            match tokio::net::UnixStream::connect(socket).await {
                Ok(_) => {
                    let socket = socket.clone();
                    return Ok(Daemon { socket });
                }
                Err(e) if e.kind() == ErrorKind::PermissionDenied => closed = Some(socket),
                Err(_) => {}
            }
        }
        Err(match closed {
            Some(socket) => ClientError::NotPermitted(socket.clone()),
            None => ClientError::NoDaemon(candidates.to_vec()),
        })
    }

    /// Waits while the daemon loads its model, which takes as long as it takes; says so once.
    pub async fn wait_loaded(&self, say: impl Fn(&str)) -> Result<(), ClientError> {
        let mut said = false;
        loop {
            match self.get("/health").await {
                Err(ClientError::Loading) => {
                    if !std::mem::replace(&mut said, true) {
                        say("the model is still loading; waiting for it");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other.map(drop),
            }
        }
    }

    /// `GET path` as JSON.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let request = Request::get(path).body(Full::default());
        whole(send(&self.socket, request).await?).await
    }

    /// `POST path` as JSON, the answer in one piece.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        whole(self.send_json(path, body).await?).await
    }

    /// `GET path` as bytes; `on_bytes` sees them as they come. What is broken off is an error.
    pub async fn bytes(
        &self,
        path: &str,
        mut on_bytes: impl FnMut(&[u8]) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let request = Request::get(path).body(Full::default());
        let response = good(send(&self.socket, request).await?).await?;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(broken)?;
            on_bytes(frame.data_ref().map_or(&[][..], |d| d))?;
        }
        Ok(())
    }

    /// `POST path` with bytes as they come.
    pub async fn pour(
        &self,
        path: &str,
        bytes: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Value, ClientError> {
        let frames = bytes.map(|piece| piece.map(hyper::body::Frame::data));
        let request = Request::post(path)
            .header("content-type", "application/octet-stream")
            .body(StreamBody::new(Box::pin(frames)));
        whole(send(&self.socket, request).await?).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        let request = Request::delete(path).body(Full::default());
        whole(send(&self.socket, request).await?).await
    }

    /// `POST path`, streamed: `on_event` sees what comes before the last event, which is returned.
    pub async fn events(
        &self,
        path: &str,
        body: &Value,
        mut on_event: impl FnMut(&Value),
    ) -> Result<Value, ClientError> {
        let response = self.send_json(path, body).await?;
        let kind = response.headers().get(hyper::header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind == "application/json") {
            // There was nothing to tell of on the way.
            return whole(response).await;
        }
        let mut lines = Lines::of(response);
        let mut last = None;
        while let Some(line) = lines.next().await? {
            let Some(data) = event_data(&line) else {
                continue;
            };
            let data: Value = serde_json::from_str(data).map_err(broken)?;
            if let Some(message) = data["error"]["message"].as_str() {
                return Err(ClientError::Broken(message.to_owned()));
            }
            if let Some(before) = last.replace(data) {
                on_event(&before);
            }
        }
        last.ok_or_else(|| ClientError::Broken("the stream ended without an event".into()))
    }

    /// A streamed chat completion by `path`; `on_piece` sees each piece as it
    /// comes. Dropping the
    /// future closes the connection, which cancels the generation.
    pub async fn chat(
        &self,
        path: &str,
        body: &Value,
        mut on_piece: impl FnMut(Said<'_>) -> Result<(), ClientError>,
    ) -> Result<Answer, ClientError> {
        let started = Instant::now();
        let mut body = body.clone();
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        let mut lines = Lines::of(self.send_json(path, &body).await?);
        let mut answer = Answer::default();
        while let Some(line) = lines.next().await? {
            let Some(data) = event_data(&line) else {
                continue;
            };
            if data == "[DONE]" {
                answer.total = started.elapsed();
                return Ok(answer);
            }
            let chunk: Value = serde_json::from_str(data).map_err(broken)?;
            let said = take_chunk(&chunk, &mut answer)?;
            if said.is_some() || !answer.tool_calls.is_empty() {
                answer.first.get_or_insert_with(|| started.elapsed());
            }
            if let Some(said) = said {
                on_piece(said)?;
            }
        }
        Err(ClientError::Broken(
            "the stream ended without [DONE]".into(),
        ))
    }

    async fn send_json(&self, path: &str, body: &Value) -> Result<Response<Incoming>, ClientError> {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(Full::from(body.to_string()));
        good(send(&self.socket, request).await?).await
    }
}

/// The answer, or why there is none.
async fn good(response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let refused = whole(response).await.err();
    Err(refused.unwrap_or(ClientError::Broken("no reason".into())))
}

/// A body, line by line as it comes.
struct Lines {
    body: Incoming,
    pending: Vec<u8>,
}

impl Lines {
    fn of(response: Response<Incoming>) -> Lines {
        Lines {
            body: response.into_body(),
            pending: Vec::new(),
        }
    }

    /// What is left behind the last line's end is none.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                return Ok(Some(self.pending.drain(..=end).collect()));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(broken)?;
            let data = frame.data_ref().map_or(&[][..], |d| d);
            self.pending.extend_from_slice(data);
        }
    }
}

async fn send<B>(
    socket: &Path,
    request: hyper::http::Result<Request<B>>,
) -> Result<Response<Incoming>, ClientError>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut request = request.map_err(broken)?;
    let host = hyper::header::HeaderValue::from_static("deltad");
    request.headers_mut().insert(hyper::header::HOST, host);
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|_| ClientError::NoDaemon(vec![socket.to_owned()]))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(broken)
}

async fn whole(response: Response<Incoming>) -> Result<Value, ClientError> {
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(broken)?
        .to_bytes();
    let value: Option<Value> = serde_json::from_slice(&bytes).ok();
    if status.is_success() {
        return value.ok_or_else(|| ClientError::Broken("the answer is not JSON".into()));
    }
    let said = |name| value.as_ref().and_then(|v| v["error"][name].as_str());
    if said("code") == Some("loading") {
        return Err(ClientError::Loading);
    }
    let message = said("message");
    Err(ClientError::Refused {
        status: status.as_u16(),
        message: message.map_or_else(
            || String::from_utf8_lossy(&bytes).into_owned(),
            str::to_owned,
        ),
    })
}

fn event_data(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    Some(line.strip_prefix("data:")?.trim_start())
}

/// Adds one chunk to the answer; returns what it says, which is one thing at a time.
fn take_chunk<'a>(chunk: &'a Value, answer: &mut Answer) -> Result<Option<Said<'a>>, ClientError> {
    if let Some(message) = chunk["error"]["message"].as_str() {
        return Err(ClientError::Broken(message.to_owned()));
    }
    if chunk["usage"].is_object() {
        answer.usage = Some(chunk["usage"].clone());
    }
    if let Some(reason) = chunk["choices"][0]["finish_reason"].as_str() {
        answer.finish = Some(reason.to_owned());
    }
    let delta = &chunk["choices"][0]["delta"];
    for call in delta["tool_calls"].as_array().into_iter().flatten() {
        join_call(&mut answer.tool_calls, call);
    }
    let given = |name: &str| delta[name].as_str().filter(|t| !t.is_empty());
    let thought = given("reasoning_content");
    let text = given("content");
    answer.reasoning.push_str(thought.unwrap_or_default());
    answer.text.push_str(text.unwrap_or_default());
    Ok(text.map(Said::Text).or(thought.map(Said::Thought)))
}

/// A call's first delta brings its id and name, the later ones more of its arguments.
fn join_call(calls: &mut Vec<Value>, delta: &Value) {
    match calls.iter_mut().find(|c| c["index"] == delta["index"]) {
        None => calls.push(delta.clone()),
        Some(call) => {
            let had = call["function"]["arguments"].as_str().unwrap_or_default();
            let more = delta["function"]["arguments"].as_str().unwrap_or_default();
            call["function"]["arguments"] = json!(format!("{had}{more}"));
        }
    }
}

fn broken(e: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A daemon that reads one request and writes `reply`, a few bytes at a time.
    async fn answers(reply: &'static str) -> (tempfile::TempDir, Daemon) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await.unwrap();
            for piece in reply.as_bytes().chunks(5) {
                stream.write_all(piece).await.unwrap();
            }
        });
        (dir, Daemon { socket })
    }

    #[tokio::test]
    async fn an_answer_comes_in_pieces_with_usage_and_tool_calls() {
        let (_dir, daemon) = answers(concat!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n",
            ": ping\n\n",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"gr\u{fc}\"}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"content\":\"n\",\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"}\"}}]}}]}\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
        ))
        .await;
        let mut pieces = Vec::new();
        let answer = daemon
            .chat("/", &json!({}), |said| {
                pieces.push(format!("{said:?}"));
                Ok(())
            })
            .await
            .unwrap();
        let want = ["Thought(\"hm\")", "Text(\"gr\u{fc}\")", "Text(\"n\")"];
        assert_eq!(pieces, want);
        assert_eq!(answer.text, "gr\u{fc}n");
        assert_eq!(answer.message()["reasoning_content"], "hm");
        assert_eq!(answer.tool_calls[0]["function"]["arguments"], "{}");
        assert_eq!(answer.finish.as_deref(), Some("tool_calls"));
        let kept = &answer.message()["tool_calls"][0];
        assert_eq!((&kept["id"], kept.get("index")), (&json!("a"), None));
        assert_eq!(answer.usage.unwrap()["completion_tokens"], 2);
        assert!(answer.first.unwrap() <= answer.total);
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_not_an_answer() {
        let (_dir, daemon) = answers(
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        )
        .await;
        let e = daemon.chat("/", &json!({}), |_| Ok(())).await.unwrap_err();
        assert!(matches!(e, ClientError::Broken(_)), "{e}");
    }

    #[tokio::test]
    async fn a_refusal_carries_the_daemons_reason() {
        let (_dir, daemon) = answers(
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 33\r\n\r\n{\"error\":{\"message\":\"too much\"}} ",
        )
        .await;
        let e = daemon.chat("/", &json!({}), |_| Ok(())).await.unwrap_err();
        assert_eq!(e.to_string(), "the daemon refused (400): too much");
    }

    #[tokio::test]
    async fn a_daemon_that_loads_is_told_from_one_that_refuses() {
        let (_dir, daemon) = answers(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 28\r\n\r\n{\"error\":{\"code\":\"loading\"}}",
        )
        .await;
        let e = daemon.get("/health").await.unwrap_err();
        assert!(matches!(e, ClientError::Loading), "{e}");
    }

    #[tokio::test]
    async fn a_socket_nobody_serves_is_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let e = Daemon::find(&[dir.path().join("none")]).await.unwrap_err();
        assert!(matches!(e, ClientError::NoDaemon(_)), "{e}");
    }
}
