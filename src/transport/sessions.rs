//! `/v1/sessions`: conversations by name. What is sent and answered has the form of chat completions;
//! whose a session is, the caller's user says.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::answering::{Answer, Kind, Prepared, Shared, answer, body, off_thread, service};
use crate::door::chat::{self, Asked};
use crate::door::fields::{Fields, refuse};
use crate::door::messages::{message_json, messages};
use crate::request::{Caller, Message, Origin, Refusal, Thread};
use crate::service::{About, Service, Summary, fresh_id, now};

pub type Id = Result<Path<String>, PathRejection>;

pub fn named(id: Id) -> Result<String, Refusal> {
    match id {
        Ok(Path(id)) => Ok(id),
        Err(_) => refuse("id", "is no UTF-8"),
    }
}

pub(super) fn session(summary: &Summary) -> Value {
    json!({
        "id": summary.id,
        "object": "session",
        "name": summary.about.name,
        "created_at": summary.created,
        "used_at": summary.used,
        "fixed": summary.about.fixed,
        "busy": summary.busy,
        "durable": summary.durable,
        "turns": summary.turns,
        "message_count": summary.messages,
        "last_response_id": summary.last,
    })
}

pub async fn list(State(door): Shared, Extension(caller): Extension<Caller>) -> Answer {
    off_thread(move || {
        let sessions = service(&door, &caller)?.sessions();
        let all: Vec<Value> = sessions.list(caller.uid).iter().map(session).collect();
        let untaken = sessions.untaken(caller.uid);
        let untaken = untaken.iter().map(|u| {
            json!({"id": u.id, "object": "session", "name": u.name, "turns": u.turns, "why": u.why})
        });
        let untaken: Vec<Value> = untaken.collect();
        let told = json!({"object": "list", "data": all, "unusable": untaken});
        Ok(Json(told).into_response())
    })
    .await
}

pub async fn show(State(door): Shared, Extension(caller): Extension<Caller>, id: Id) -> Answer {
    let id = named(id)?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        let summary = service.sessions().summary(caller.uid, &id)?;
        let mut shown = session(&summary);
        let messages = service.sessions().messages(caller.uid, &summary.id)?;
        shown["messages"] = messages.iter().map(message_json).collect();
        shown["options"] = summary.about.settings;
        shown["context"] = context(service, service.measure(caller.uid, &summary.id, &[])?);
        Ok(Json(shown).into_response())
    })
    .await
}

pub async fn delete(State(door): Shared, Extension(caller): Extension<Caller>, id: Id) -> Answer {
    let id = named(id)?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        let id = service.sessions().delete(caller.uid, &id)?;
        Ok(Json(json!({"id": id, "object": "session", "deleted": true})).into_response())
    })
    .await
}

/// So many tokens, and what their state takes: `a + b x tokens` bytes, those up to a whole block.
fn context(service: &Service, tokens: usize) -> Value {
    let size = service.state_size();
    json!({
        "tokens": tokens,
        "window": service.card().context,
        "bytes": size.of(tokens),
        "bytes_fixed": size.fixed,
        "bytes_per_token": size.per_token,
        "block_tokens": size.block,
    })
}

pub async fn estimate(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    raw: Body,
) -> Answer {
    let body = body(&door, raw).await?;
    let service = service(&door, &caller)?;
    let Some(tokens) = Fields::of(&body.value, "")?.count("tokens")? else {
        return Err(refuse::<()>("tokens", "is missing; want a number")
            .unwrap_err()
            .into());
    };
    Ok(Json(context(service, tokens)).into_response())
}

/// The fields that [`said`] reads.
const SAID: [&str; 2] = ["messages", "content"];

/// `messages`, or one message of the user by its `content`.
fn said(f: &Fields) -> Result<Vec<Message>, Refusal> {
    let content = f.string("content")?.map(|content| Message {
        role: "user".into(),
        content: content.to_owned(),
        ..Message::default()
    });
    match (messages(f)?, content) {
        (Some(_), Some(_)) => refuse("content", "got messages too; want one of both"),
        (Some(messages), None) => Ok(messages),
        (None, content) => Ok(content.into_iter().collect()),
    }
}

/// A chat in a session, of what was `said`: its options under those of the call.
fn chat(settings: &Value, more: &Fields, said: Vec<Message>) -> Result<Asked, Refusal> {
    let mut all = settings.as_object().cloned().unwrap_or_default();
    let more = more
        .entries()
        .filter(|(name, _)| !SAID.contains(&name.as_str()));
    all.extend(more.map(|(k, v)| (k.clone(), v.clone())));
    let asked = chat::chat_of(&Fields::of(&Value::Object(all), "")?, said)?;
    if asked.requests.iter().any(|r| r.n != 1) {
        return refuse("n", "a session holds one answer to each question");
    }
    Ok(asked)
}

fn in_session(id: &str, keep: bool, answer: bool) -> Thread {
    let who = id.to_owned();
    Thread {
        id: fresh_id("resp_"),
        created: now(),
        // Many may ask what stays as it is.
        origin: Origin::Session {
            who,
            alone: keep || !answer,
        },
        keep,
        answer,
        apart: 0,
        face: Value::Null,
    }
}

/// Reads a session up to its end, so that the next answer begins at once.
pub(super) fn reading(summary: &Summary, stream: bool) -> Result<Prepared, Refusal> {
    let mut asked = chat(
        &summary.about.settings,
        &Fields::of(&json!({}), "")?,
        Vec::new(),
    )?;
    asked.stream = stream;
    asked.thread = Some(in_session(&summary.id, false, false));
    Ok(Prepared::Asks(asked, Kind::Reading(session(summary))))
}

pub async fn create(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    raw: Body,
) -> Answer {
    let prepare = |service: &Service, caller: &Caller, value: &Value| {
        let f = Fields::of(value, "")?;
        let settings = f.object("options")?;
        let settings = match settings {
            None => json!({}),
            Some(all) => all.entries().map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        // Read as a question would be, so that a wrong one is known now.
        chat(&settings, &Fields::of(&json!({}), "")?, Vec::new())?;
        let about = About {
            name: f.string("name")?.map(str::to_owned),
            held: true,
            lasting: f.boolean("lasting")?.unwrap_or(true),
            fixed: f.boolean("fixed")?.unwrap_or(false),
            settings,
        };
        let (read, stream) = (f.boolean("read")?, f.boolean("stream")?);
        let messages = said(&f)?;
        let has_text = !messages.is_empty();
        let summary = service.sessions().create(caller.uid, about, messages)?;
        if read == Some(true) && has_text {
            reading(&summary, stream == Some(true))
        } else {
            Ok(Prepared::Done(session(&summary)))
        }
    };
    answer(door, caller, raw, prepare).await
}

pub async fn append(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    let id = named(id)?;
    let prepare = move |service: &Service, caller: &Caller, value: &Value| {
        let f = Fields::of(value, "")?;
        let (read, stream) = (f.boolean("read")?, f.boolean("stream")?);
        let messages = said(&f)?;
        if messages.is_empty() {
            return refuse("messages", "got none, want at least one");
        }
        service.sessions().append(caller.uid, &id, messages)?;
        let summary = service.sessions().summary(caller.uid, &id)?;
        if read == Some(true) {
            reading(&summary, stream == Some(true))
        } else {
            Ok(Prepared::Done(session(&summary)))
        }
    };
    answer(door, caller, raw, prepare).await
}

pub async fn send(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    let id = named(id)?;
    let prepare = move |service: &Service, caller: &Caller, value: &Value| {
        let f = Fields::of(value, "")?;
        let summary = service.sessions().summary(caller.uid, &id)?;
        let mut asked = chat(&summary.about.settings, &f, said(&f)?)?;
        asked.thread = Some(in_session(&summary.id, !summary.about.fixed, true));
        Ok(Prepared::Asks(asked, Kind::Chat))
    };
    answer(door, caller, raw, prepare).await
}

pub async fn fork(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    let id = named(id)?;
    let prepare = move |service: &Service, caller: &Caller, value: &Value| {
        let f = Fields::of(value, "")?;
        let before = service.sessions().summary(caller.uid, &id)?;
        let about = About {
            name: f.string("name")?.map(str::to_owned),
            held: true,
            lasting: before.about.lasting,
            fixed: f.boolean("fixed")?.unwrap_or(false),
            settings: before.about.settings,
        };
        let at = f.string("response_id")?;
        let made = service.sessions().fork(caller.uid, &before.id, at, about)?;
        Ok(Prepared::Done(session(&made)))
    };
    answer(door, caller, raw, prepare).await
}

/// Its state goes to the disk, and from memory.
pub async fn suspend(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    super::body::discard(&door.limits, raw).await;
    let id = named(id)?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        let written = service.suspend(caller.uid, &id)?;
        let summary = service.sessions().summary(caller.uid, &id)?;
        let mut told = session(&summary);
        told["written"] = json!(written);
        Ok(Json(told).into_response())
    })
    .await
}

/// Its state comes back from the disk, and what that has not seen is read.
pub async fn resume(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    let id = named(id)?;
    let prepare = move |service: &Service, caller: &Caller, value: &Value| {
        let stream = Fields::of(value, "")?.boolean("stream")?;
        let summary = service.sessions().summary(caller.uid, &id)?;
        if summary.messages == 0 {
            Ok(Prepared::Done(session(&summary)))
        } else {
            reading(&summary, stream == Some(true))
        }
    };
    answer(door, caller, raw, prepare).await
}

pub async fn measure(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    let id = named(id)?;
    let prepare = move |service: &Service, caller: &Caller, value: &Value| {
        let more = said(&Fields::of(value, "")?)?;
        let before = service.measure(caller.uid, &id, &[])?;
        let mut all = context(service, service.measure(caller.uid, &id, &more)?);
        all["added"] = json!(
            all["tokens"]
                .as_u64()
                .unwrap_or(0)
                .saturating_sub(before as u64)
        );
        Ok(Prepared::Done(all))
    };
    answer(door, caller, raw, prepare).await
}
