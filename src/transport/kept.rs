//! Answers that were kept, or are on their way in the background: shown, told from where a reader
//! was, cancelled, what they were asked, forgotten. Each user finds its own alone.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::answering::{Answer, Shared, off_thread, service, stream_from};
use super::responses;
use super::sessions::{Id, named};
use super::state::Http;
use crate::door::fields::refuse;
use crate::request::Caller;

/// How an answer is to be told.
#[derive(Debug, Deserialize)]
pub struct Told {
    stream: Option<bool>,
    starting_after: Option<usize>,
}

/// The answer as it stands; or its events, from where its reader was.
pub async fn show(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    told: Result<Query<Told>, QueryRejection>,
) -> Answer {
    let id = named(id)?;
    let at = service(&door, &caller)?;
    let Ok(Query(told)) = told else {
        let why = "want stream, true or false, and starting_after, an event's sequence_number";
        return Err(refuse::<()>("query", why).unwrap_err().into());
    };
    let running = door.background.find(caller.uid, &id);
    if told.stream != Some(true) {
        return match running {
            Some(running) => Ok(Json(running.response(at)).into_response()),
            None => stored(door, caller, id).await,
        };
    }
    let Some(running) = running else {
        // One that is not there at all is told first.
        stored(door, caller, id).await?;
        let why = "its events are not kept: it was not made in the background, or long ago";
        return Err(refuse::<()>("stream", why).unwrap_err().into());
    };
    let from = told.starting_after.map_or(0, |n| n.saturating_add(1));
    if !running.has(from) {
        let why = format!("event {from} is not kept any more");
        return Err(refuse::<()>("starting_after", why).unwrap_err().into());
    }
    Ok(stream_from(&door, running, from))
}

async fn stored(door: Arc<Http>, caller: Caller, id: String) -> Answer {
    off_thread(move || {
        let service = service(&door, &caller)?;
        let found = service.sessions().answer(caller.uid, &id)?;
        Ok(Json(responses::stored(service, &found.turn)).into_response())
    })
    .await
}

/// Stops an answer in the background; one that is over stays as it is.
pub async fn cancel(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    raw: Body,
) -> Answer {
    super::body::discard(&door.limits, raw).await;
    let id = named(id)?;
    let at = service(&door, &caller)?;
    if let Some(running) = door.background.find(caller.uid, &id) {
        running.cancel().await;
        return Ok(Json(running.response(at)).into_response());
    }
    let stored = stored(door.clone(), caller.clone(), id.clone()).await?;
    let found = at.sessions().answer(caller.uid, &id)?;
    if found.turn.face["echo"]["background"] == true {
        return Ok(stored);
    }
    let why = "it was not made in the background; it ends when its caller leaves";
    Err(refuse::<()>("id", why).unwrap_err().into())
}

pub async fn delete(State(door): Shared, Extension(caller): Extension<Caller>, id: Id) -> Answer {
    let id = named(id)?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        let running = door.background.find(caller.uid, &id);
        if running.is_some_and(|r| !r.is_over()) {
            let why = "it is still on its way; cancel it first";
            return Err(refuse::<()>("id", why).unwrap_err().into());
        }
        service.sessions().forget_answer(caller.uid, &id)?;
        door.background.forget(&id);
        Ok(Json(json!({"id": id, "object": "response", "deleted": true})).into_response())
    })
    .await
}

/// What part of a list is wanted.
#[derive(Debug, Deserialize)]
pub struct Page {
    after: Option<String>,
    limit: Option<usize>,
    order: Option<String>,
}

const PAGE: usize = 20;
const LARGEST_PAGE: usize = 100;

pub async fn input_items(
    State(door): Shared,
    Extension(caller): Extension<Caller>,
    id: Id,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer {
    let id = named(id)?;
    let found = off_thread(move || {
        let service = service(&door, &caller)?;
        Ok(service.sessions().answer(caller.uid, &id)?)
    });
    let found = found.await?;
    let Ok(Query(page)) = page else {
        let why = "want after, a string, limit, a whole number, and order, \"asc\" or \"desc\"";
        return Err(refuse::<()>("query", why).unwrap_err().into());
    };
    let mut items = responses::stored_input(&found.turn);
    match page.order.as_deref() {
        None | Some("desc") => items.reverse(),
        Some("asc") => {}
        Some(other) => {
            let why = format!("got {other:?}, want \"asc\" or \"desc\"");
            return Err(refuse::<()>("order", why).unwrap_err().into());
        }
    }
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let why = format!("got {limit}, want 1 to {LARGEST_PAGE}");
        return Err(refuse::<()>("limit", why).unwrap_err().into());
    }
    if let Some(after) = page.after {
        let Some(at) = items.iter().position(|item| item["id"] == after.as_str()) else {
            let why = format!("got {after:?}, which is no item of this answer");
            return Err(refuse::<()>("after", why).unwrap_err().into());
        };
        items.drain(..=at);
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let id = |item: Option<&serde_json::Value>| item.map(|item| item["id"].clone());
    Ok(Json(json!({
        "object": "list",
        "first_id": id(items.first()),
        "last_id": id(items.last()),
        "has_more": more,
        "data": items,
    }))
    .into_response())
}
