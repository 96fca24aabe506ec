//! Answers that were kept: shown, what they were asked, forgotten. Each user finds its own alone.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::fields::refuse;
use super::responses;
use super::routes::{Answer, Shared, off_thread, service};
use super::sessions::{Id, named};
use crate::request::Caller;

pub async fn show(State(door): Shared, Extension(caller): Extension<Caller>, id: Id) -> Answer {
    let id = named(id)?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        let found = service.sessions().answer(caller.uid, &id)?;
        Ok(Json(responses::stored(service, &found.turn)).into_response())
    })
    .await
}

pub async fn delete(State(door): Shared, Extension(caller): Extension<Caller>, id: Id) -> Answer {
    let id = named(id)?;
    off_thread(move || {
        let service = service(&door, &caller)?;
        service.sessions().forget_answer(caller.uid, &id)?;
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
