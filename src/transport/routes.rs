//! The routes: read a body, ask the service, answer whole or as a stream of events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};

use super::answers::Answers;
use super::cached::Found;
use super::error::Error;
use super::openai;
use super::render::{Frame, Render};
use super::replies::{self, Replies};
use super::state::Http;
use super::{background, body, cached, carry, kept, messages, reading, responses, sessions};
use crate::door::chat::{self, Asked};
use crate::door::fields::{Fields, refuse};
use crate::request::{Caller, Failure, Refusal};
use crate::service::{Generation, Service, Specials};

pub fn router(door: Arc<Http>) -> Router {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/responses", post(responses))
        .route("/v1/responses/{id}", get(kept::show).delete(kept::delete))
        .route("/v1/responses/{id}/input_items", get(kept::input_items))
        .route("/v1/responses/{id}/cancel", post(kept::cancel))
        .route("/v1/messages", post(messages))
        .route("/v1/sessions", get(sessions::list).post(sessions::create))
        .route("/v1/sessions/estimate", post(sessions::estimate))
        .route("/v1/sessions/import", post(carry::import))
        .route(
            "/v1/sessions/{id}",
            get(sessions::show).delete(sessions::delete),
        )
        .route("/v1/sessions/{id}/send", post(sessions::send))
        .route("/v1/sessions/{id}/append", post(sessions::append))
        .route("/v1/sessions/{id}/fork", post(sessions::fork))
        .route("/v1/sessions/{id}/measure", post(sessions::measure))
        .route("/v1/sessions/{id}/suspend", post(sessions::suspend))
        .route("/v1/sessions/{id}/resume", post(sessions::resume))
        .route("/v1/sessions/{id}/export", get(carry::export))
        .route("/v1/sessions/{id}/rebuild", post(carry::rebuild))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(door)
}

pub(super) type Answer = Result<Response, Error>;

pub(super) fn service<'a>(door: &'a Http, caller: &Caller) -> Result<&'a Service, Refusal> {
    let service = door.service.get().ok_or(Refusal::Loading)?;
    service.permit(caller)?;
    Ok(service)
}

pub(super) async fn body(door: &Http, raw: Body) -> Result<body::Read, Error> {
    body::read(&door.bodies, &door.limits, raw).await
}

async fn no_route(State(door): Shared, uri: axum::http::Uri, raw: Body) -> Error {
    body::discard(&door.limits, raw).await;
    let why = match uri.path() {
        path if path.starts_with("/v1/messages/") => {
            format!("{path} is not served; POST /v1/messages, or count tokens by POST /tokenize")
        }
        path => format!("nothing is served at {path}"),
    };
    Error::new(StatusCode::NOT_FOUND, Some("unknown_url"), why)
}

async fn no_method(
    State(door): Shared,
    method: axum::http::Method,
    uri: axum::http::Uri,
    raw: Body,
) -> Error {
    body::discard(&door.limits, raw).await;
    let why = format!("{} does not take {method}", uri.path());
    Error::new(
        StatusCode::METHOD_NOT_ALLOWED,
        Some("method_not_allowed"),
        why,
    )
}

fn card(service: &Service) -> Value {
    let card = service.card();
    json!({
        "id": card.id,
        "object": "model",
        "created": service.created(),
        "owned_by": "deltad",
        "max_model_len": card.context,
        "thinking_switch": service.has_thinking_switch(),
        "meta": {"n_vocab": card.n_vocab, "n_ctx": card.context},
    })
}

pub(super) type Shared = State<Arc<Http>>;

async fn models(State(door): Shared, Extension(caller): Extension<Caller>) -> Answer {
    let service = service(&door, &caller)?;
    Ok(Json(json!({"object": "list", "data": [card(service)]})).into_response())
}

async fn model(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Answer {
    let service = service(&door, &caller)?;
    let Ok(Path(id)) = id else {
        return Err(refuse::<()>("id", "is no UTF-8").unwrap_err().into());
    };
    if id == service.card().id {
        Ok(Json(card(service)).into_response())
    } else {
        let why = format!(
            "there is no model {id:?}; this daemon serves {:?}",
            service.card().id
        );
        Err(Error::new(
            StatusCode::NOT_FOUND,
            Some("model_not_found"),
            why,
        ))
    }
}

async fn health(State(door): Shared) -> Response {
    match door.service.get() {
        None => Error::from(Refusal::Loading).into_response(),
        Some(service) => {
            let held = service.held();
            Json(json!({
                "status": "ok",
                "model": service.card().id,
                "active": service.stats().running.load(Relaxed),
                "queued": service.queued(),
                "pressure": service.pressure().name,
                "memory": {"states": held.states, "own": held.own, "files": held.files},
            }))
            .into_response()
        }
    }
}

/// What all of these take and give, for programs.
async fn openapi() -> Response {
    const TEXT: &str = include_str!("../../docs/openapi.json");
    ([(header::CONTENT_TYPE, "application/json")], TEXT).into_response()
}

async fn metrics(State(door): Shared, Extension(caller): Extension<Caller>) -> Answer {
    let text = super::metrics::text(service(&door, &caller)?);
    let text = text.map_err(|_| Error::from(Failure::Broken))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn tokenize(State(door): Shared, Extension(caller): Extension<Caller>, raw: Body) -> Answer {
    let body = body(&door, raw).await?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        let f = Fields::of(&body.value, "")?;
        let Some(text) = f.string("content")? else {
            return Err(refuse::<()>("content", "is missing; want a string")
                .unwrap_err()
                .into());
        };
        let specials = if f.boolean("parse_special")?.unwrap_or(true) {
            Specials::Parse
        } else {
            Specials::Plain
        };
        let add_special = f.boolean("add_special")?.unwrap_or(false);
        let tokens = service.tokenize(text, add_special, specials);
        Ok(Json(json!({"tokens": tokens})).into_response())
    })
    .await
}

async fn detokenize(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    raw: Body,
) -> Answer {
    let body = body(&door, raw).await?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        let f = Fields::of(&body.value, "")?;
        let Some(items) = f.array("tokens")? else {
            return Err(refuse::<()>("tokens", "is missing; want token ids")
                .unwrap_err()
                .into());
        };
        let content = service.detokenize(&openai::tokens(items, "tokens")?);
        Ok(Json(json!({"content": content})).into_response())
    })
    .await
}

/// Long texts take milliseconds to tokenize: the sockets' threads do not wait for that.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => {
            log::error!("a request's preparation failed: {e}");
            Err(Failure::Broken.into())
        }
    }
}

async fn chat(State(door): Shared, Extension(caller): Extension<Caller>, raw: Body) -> Answer {
    generate(door, caller, raw, Kind::Chat).await
}

async fn completions(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    raw: Body,
) -> Answer {
    generate(door, caller, raw, Kind::Completion).await
}

async fn responses(State(door): Shared, Extension(caller): Extension<Caller>, raw: Body) -> Answer {
    generate(door, caller, raw, Kind::Responses).await
}

/// Its errors, too, have Anthropic's form.
async fn messages(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    raw: Body,
) -> Response {
    match generate(door, caller, raw, Kind::Messages).await {
        Ok(response) => response,
        Err(error) => error.into_anthropic(),
    }
}

/// The bodies that ask for an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Chat,
    Completion,
    Responses,
    Messages,
    /// Nothing is answered; what was read belongs to this session.
    Reading(Value),
}

impl Kind {
    fn render(self, asked: &Asked, generations: &[Generation], found: &[Found]) -> Box<dyn Render> {
        let prompts: Vec<_> = generations.iter().map(|g| g.prompt.clone()).collect();
        let marks = || generations.iter().flat_map(|g| g.marks.clone()).collect();
        let n_tokens = || prompts.iter().map(Vec::len).sum();
        match self {
            Kind::Chat => Box::new(Replies::new(replies::Kind::Chat, asked, prompts)),
            Kind::Completion => Box::new(Replies::new(replies::Kind::Completion, asked, prompts)),
            Kind::Responses => Box::new(responses::Answer::of(asked)),
            Kind::Messages => {
                let found = found.first().cloned();
                Box::new(messages::Answer::new(n_tokens(), marks(), found))
            }
            Kind::Reading(session) => Box::new(reading::Reading::new(session, n_tokens())),
        }
    }
}

/// What a body came to.
pub(super) enum Prepared {
    Asks(Asked, Kind),
    /// Nothing has to run.
    Done(Value),
}

/// Where an answer is heard out.
enum How {
    Here(Box<dyn Render>),
    /// Whether somebody stays or not.
    Behind(background::Place, Box<responses::Answer>),
}

async fn generate(door: Arc<Http>, caller: Caller, raw: Body, kind: Kind) -> Answer {
    let prepare = move |service: &Service, caller: &Caller, value: &Value| {
        let find = |id: &str| responses::stored_item(service, caller.uid, id);
        let asked = match kind {
            Kind::Completion => openai::completion(value)?,
            Kind::Responses => responses::read(value, &find)?,
            Kind::Messages => messages::read(value, service.has_thinking_switch())?,
            Kind::Chat | Kind::Reading(_) => chat::chat(value)?,
        };
        Ok(Prepared::Asks(asked, kind))
    };
    answer(door, caller, raw, prepare).await
}

/// Reads a body, and answers what `prepare` makes of it.
pub(super) async fn answer(
    door: Arc<Http>,
    caller: Caller,
    raw: Body,
    prepare: impl FnOnce(&Service, &Caller, &Value) -> Result<Prepared, Refusal> + Send + 'static,
) -> Answer {
    // Read before anything is refused: a client that is still sending would not see the answer.
    let body = body(&door, raw).await;
    service(&door, &caller)?;
    let body = body?;
    let at = door.clone();
    let begun = off_thread(move || {
        let service = service(&at, &caller)?;
        let (asked, kind) = match prepare(service, &caller, &body.value)? {
            Prepared::Asks(asked, kind) => (asked, kind),
            Prepared::Done(answer) => return Ok(Err(answer)),
        };
        let place = asked.background.then_some(asked.thread.as_ref()).flatten();
        let place = place.map(|thread| at.background.place(caller.uid, &thread.id));
        let place = place.transpose()?;
        // One that is refused drops, and so cancels, those before it.
        let thread = || asked.thread.clone();
        let submit = |r: &_| service.submit_in(caller.clone(), Clone::clone(r), thread());
        let generations = asked.requests.iter().map(submit);
        let mut generations = generations.collect::<Result<Vec<Generation>, _>>()?;
        let found: Vec<Found> = generations.iter_mut().map(cached::of).collect();
        let render = match place {
            Some(place) => How::Behind(place, Box::new(responses::Answer::of(&asked))),
            None => How::Here(kind.render(&asked, &generations, &found)),
        };
        Ok(Ok((asked.stream, render, generations, found)))
    });
    let (stream, how, generations, found) = match begun.await? {
        Ok(begun) => begun,
        Err(answer) => return Ok(Json(answer).into_response()),
    };
    let mut answers = Answers::of(generations);
    let service = service_of(&door)?;
    let mut render = match how {
        How::Behind(place, answer) => {
            let running = place.begin(&door, service, *answer, answers);
            if stream {
                return Ok(kept::stream_from(&door, running, 0));
            }
            return Ok(Json(running.response(service)).into_response());
        }
        How::Here(render) => render,
    };
    let patience = door.limits.ping;
    let mut response = if stream {
        stream_out(door, render, answers)
    } else {
        while let Some((prompt, event)) = answers.next().await {
            render.take(service, prompt, event)?;
        }
        Json(render.whole(service, &answers.settle().await)).into_response()
    };
    cached::tell(&found, patience, &mut response).await;
    Ok(response)
}

fn service_of(door: &Http) -> Result<&Service, Refusal> {
    door.service.get().ok_or(Refusal::Loading)
}

fn stream_out(door: Arc<Http>, render: Box<dyn Render>, answers: Answers) -> Response {
    let at = door.clone();
    let frames = stream::unfold(Some((render, answers)), move |state| {
        let door = at.clone();
        async move {
            let (mut render, mut answers) = state?;
            let service = door.service.get()?;
            match answers.next().await {
                Some((prompt, event)) => match render.take(service, prompt, event) {
                    Ok(frames) => Some((frames, Some((render, answers)))),
                    Err(failure) => {
                        let error = Error::from(failure).to_json();
                        Some((vec![render.failed(error)], None))
                    }
                },
                None => Some((render.last(service, &answers.settle().await), None)),
            }
        }
    });
    events_of(&door, frames)
}

/// Frames as they come, and a sign of life where they do not.
pub(super) fn events_of(
    door: &Http,
    frames: impl Stream<Item = Vec<Frame>> + Send + 'static,
) -> Response {
    let ping = KeepAlive::new().interval(door.limits.ping).text("ping");
    let lines = frames.flat_map(|frames: Vec<Frame>| {
        let events = frames.into_iter().map(Frame::into_event);
        stream::iter(events.map(Ok::<_, Infallible>))
    });
    let mut response = Sse::new(lines).keep_alive(ping).into_response();
    let uncached = header::HeaderValue::from_static("no-cache");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, uncached);
    response
}
