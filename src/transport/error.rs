//! Refusals and failures as HTTP says them: a status, a code, OpenAI's envelope.

use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::messages;
use crate::request::{Failure, Refusal};

/// OpenAI's error envelope.
pub struct Error {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Error {
    pub fn new(status: StatusCode, code: Option<&'static str>, message: String) -> Error {
        let kind = match status {
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            s if s.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Error {
            status,
            kind,
            message,
            param: None,
            code,
        }
    }

    pub fn into_anthropic(self) -> Response {
        let body = messages::envelope(self.to_json());
        let mut response = self.into_response();
        *response.body_mut() = Body::from(body.to_string());
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response
    }

    pub fn to_json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let (status, code) = match &refusal {
            Refusal::Invalid { .. } => (StatusCode::BAD_REQUEST, None),
            Refusal::TooLong { .. } => (StatusCode::BAD_REQUEST, Some("context_length_exceeded")),
            Refusal::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, Some("state_too_large")),
            Refusal::NoSuchAnswer { .. } => {
                (StatusCode::NOT_FOUND, Some("previous_response_not_found"))
            }
            Refusal::NoSuchSession { .. } => (StatusCode::NOT_FOUND, Some("session_not_found")),
            Refusal::SessionBusy { .. } => (StatusCode::CONFLICT, Some("session_busy")),
            Refusal::NameTaken { .. } => (StatusCode::CONFLICT, Some("name_taken")),
            Refusal::TooManySessions { .. } => (StatusCode::CONFLICT, Some("too_many_sessions")),
            Refusal::SessionRefused { .. } => (StatusCode::BAD_REQUEST, Some("session_refused")),
            Refusal::Storage { .. } => (StatusCode::INSUFFICIENT_STORAGE, Some("storage_failed")),
            Refusal::TooManyInBackground { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                Some("too_many_in_background"),
            ),
            Refusal::Carrying => (StatusCode::TOO_MANY_REQUESTS, Some("carrying")),
            Refusal::NotPermitted { .. } => (StatusCode::FORBIDDEN, Some("not_permitted")),
            Refusal::QueueFull => (StatusCode::TOO_MANY_REQUESTS, Some("queue_full")),
            Refusal::MemoryShort => (StatusCode::SERVICE_UNAVAILABLE, Some("memory_short")),
            Refusal::Loading => (StatusCode::SERVICE_UNAVAILABLE, Some("loading")),
            Refusal::Stopping => (StatusCode::SERVICE_UNAVAILABLE, Some("stopping")),
            Refusal::Broken => (StatusCode::INTERNAL_SERVER_ERROR, Some("engine_failed")),
        };
        let mut error = Error::new(status, code, refusal.to_string());
        match refusal {
            Refusal::Invalid { param, .. } => error.param = Some(param),
            Refusal::NoSuchAnswer { .. } => error.param = Some("previous_response_id".into()),
            Refusal::TooLong { .. } => error.param = Some("prompt".into()),
            Refusal::TooLarge { .. } => error.param = Some("max_tokens".into()),
            _ => {}
        }
        error
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let (status, code) = match &failure {
            Failure::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            Failure::Engine(_) | Failure::Broken => {
                (StatusCode::INTERNAL_SERVER_ERROR, "engine_failed")
            }
        };
        Error::new(status, Some(code), failure.to_string())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.to_json())).into_response();
        let waits = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if waits.contains(&self.status) {
            let second = header::HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        response
    }
}
