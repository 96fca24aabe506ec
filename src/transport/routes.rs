//! The routes, and those of them that ask for little: which model, which tokens, how it goes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};

use super::answering::{Answer, Kind, Prepared, Shared, answer, body, off_thread, service};
use super::body::discard;
use super::error::Error;
use super::openai;
use super::state::Http;
use super::{carry, kept, messages, responses, sessions};
use crate::door::chat;
use crate::door::fields::{Fields, refuse};
use crate::request::{Caller, Failure, Refusal};
use crate::service::{Service, Specials};

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

async fn no_route(State(door): Shared, uri: axum::http::Uri, raw: Body) -> Error {
    discard(&door.limits, raw).await;
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
    discard(&door.limits, raw).await;
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
