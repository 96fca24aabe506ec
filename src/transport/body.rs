//! Reads a request's body as JSON: within its size, its time, and what all large bodies may hold
//! together, so that many clients that each send little less than the limit cost no more than a few.
//! Calls on the bus take their places in the same budget.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::Error;
use super::limits::HttpLimits;

/// Bodies up to here are read at once: with as many as there may be connections they are 256 MiB.
const SMALL: u64 = 64 << 10;

/// Large bodies of full size that are read at once; more wait, within their time.
const LARGE: usize = 4;

/// In bytes, taken by the kibibyte.
pub struct Budget(Arc<Semaphore>);

/// A place for a body or a call, free again when dropped.
pub struct Share {
    _places: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub fn new(limits: &HttpLimits) -> Budget {
        Budget(Arc::new(Semaphore::new(
            LARGE * kibibytes(limits.request_bytes),
        )))
    }

    /// A place for so many bytes, where it is free by `due`; small ones need none.
    pub async fn share(&self, limits: &HttpLimits, stated: u64, due: Instant) -> Option<Share> {
        if stated <= SMALL {
            return Some(Share { _places: None });
        }
        let bytes =
            usize::try_from(stated).map_or(limits.request_bytes, |n| n.min(limits.request_bytes));
        let places = self.0.clone().acquire_many_owned(kibibytes(bytes) as u32);
        let places = tokio::time::timeout_at(due, places).await.ok()?;
        // It is never closed.
        let _places = places.ok();
        Some(Share { _places })
    }
}

fn kibibytes(bytes: usize) -> usize {
    bytes.div_ceil(1 << 10).clamp(1, u32::MAX as usize / LARGE)
}

/// A body, and its part of the budget for as long as it lives.
pub struct Read {
    pub value: Value,
    _share: Share,
}

/// Takes in a body that nobody asked for, piece by piece: closing on a client that is still sending
/// would take the answer from it. As much and as long as of any other.
pub async fn discard(limits: &HttpLimits, mut raw: Body) {
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

pub async fn read(budget: &Budget, limits: &HttpLimits, raw: Body) -> Result<Read, Error> {
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
