//! How much of a prompt was kept from before, and why not more: for whoever writes an answer, and as a
//! header.

use std::time::Duration;

use axum::http::HeaderValue;
use axum::response::Response;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use crate::request::{Cached, Miss};
use crate::service::Generation;

/// What was found of a request's prompt, once its turn has come; always before its first event.
pub type Found = Shared<BoxFuture<'static, Option<Cached>>>;

pub fn of(generation: &mut Generation) -> Found {
    let found = std::mem::replace(&mut generation.found, oneshot::channel().1);
    found.map(Result::ok).boxed().shared()
}

const NAME: &str = "x-deltad-cache";

fn value(cached: Cached) -> String {
    let hit = match cached.tokens {
        0 => "miss".to_owned(),
        n => format!("hit; tokens={n}"),
    };
    match cached.miss {
        None => hit,
        Some(Miss::Empty) => hit + "; empty",
        Some(Miss::Diverged { message, .. }) => format!("{hit}; diverged; message={message}"),
        Some(Miss::Evicted) => hit + "; evicted",
        Some(Miss::NoState) => hit + "; no-state",
        Some(Miss::OtherModel) => hit + "; other-model",
    }
}

/// Waits for the answer's turn, `patience` at most. Of a body of many prompts nothing is told.
pub async fn tell(found: &[Found], patience: Duration, response: &mut Response) {
    let [found] = found else { return };
    let Ok(Some(cached)) = tokio::time::timeout(patience, found.clone()).await else {
        return;
    };
    if let Ok(value) = HeaderValue::try_from(value(cached)) {
        response.headers_mut().insert(NAME, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_and_every_reason_have_their_words() {
        let said = |tokens, miss| value(Cached { tokens, miss });
        assert_eq!(said(12, None), "hit; tokens=12");
        assert_eq!(said(0, Some(Miss::Empty)), "miss; empty");
        let parted = Miss::Diverged { at: 7, message: 3 };
        assert_eq!(said(5, Some(parted)), "hit; tokens=5; diverged; message=3");
        assert_eq!(said(0, Some(parted)), "miss; diverged; message=3");
        assert_eq!(said(0, Some(Miss::Evicted)), "miss; evicted");
        assert_eq!(said(0, Some(Miss::NoState)), "miss; no-state");
        assert_eq!(said(0, Some(Miss::OtherModel)), "miss; other-model");
    }
}
