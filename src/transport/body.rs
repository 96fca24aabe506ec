//! Reads a request's body as JSON: within its size, its time, and what all large ones may hold together.

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::Instant;

use super::error::Error;
use crate::door::budget::{Budget, Share};
use crate::door::limits::CallLimits;

/// A body, and its part of the budget for as long as it lives.
pub struct Read {
    pub value: Value,
    _share: Share,
}

/// Takes in a body that nobody asked for, piece by piece: closing on a client that is still sending
/// would take the answer from it. As much and as long as of any other.
pub async fn discard(limits: &CallLimits, mut raw: Body) {
    let mut room = limits.request_bytes;
    let all = async {
        while let Some(Ok(frame)) = raw.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len());
            let Some(left) = room.checked_sub(length) else {
                break;
            };
            room = left;
        }
    };
    // Whoever does not end in time is answered as he is.
    let _ = tokio::time::timeout(limits.body, all).await;
}

pub async fn read(budget: &Budget, limits: &CallLimits, raw: Body) -> Result<Read, Error> {
    let max = limits.request_bytes;
    let due = Instant::now() + limits.body;
    // Without a length it may become as large as any.
    let stated = raw.size_hint().upper().unwrap_or(u64::MAX);
    let Some(share) = budget.share(limits, stated, due).await else {
        let why = "too many large requests are being read; ask again in a moment".to_owned();
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Error::new(status, Some("busy"), why));
    };
    let bytes = match tokio::time::timeout_at(due, axum::body::to_bytes(raw, max)).await {
        Err(_) => {
            let why = "the request's body did not come in time".to_owned();
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(Error::new(status, Some("timeout"), why));
        }
        Ok(Err(e)) if is_too_large(&e) => {
            let why = format!("the request's body is larger than {max} bytes");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Err(Error::new(status, Some("too_large"), why));
        }
        Ok(Err(e)) => {
            let why = format!("the request's body cannot be read: {e}");
            return Err(Error::new(StatusCode::BAD_REQUEST, None, why));
        }
        Ok(Ok(bytes)) => bytes,
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Ok(Read {
            value,
            _share: share,
        }),
        Err(e) => {
            let why = format!("the body is no JSON: {e}");
            Err(Error::new(StatusCode::BAD_REQUEST, None, why))
        }
    }
}

fn is_too_large(e: &axum::Error) -> bool {
    let mut source = std::error::Error::source(e);
    while let Some(e) = source {
        if e.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = e.source();
    }
    false
}
