//! What a descriptor carries: one JSON object a line, each with an `event`. docs/dbus.md is the
//! format's reference; a change that old readers would misread raises [`VERSION`].

use serde_json::{Value, json};

use super::error::Error;
use crate::request::{FinishReason, Part, TokenLogprob, Usage};
use crate::service::Service;

pub const VERSION: u32 = 1;

pub fn start(generation: &str, service: &Service, prompt_tokens: usize) -> Value {
    json!({
        "event": "start",
        "version": VERSION,
        "generation": generation,
        "model": service.card().id,
        "prompt_tokens": prompt_tokens,
    })
}

/// One token's parts, at least one event. Its scores go with the first.
pub fn deltas(
    service: &Service,
    choice: usize,
    parts: Vec<Part>,
    logprob: Option<&TokenLogprob>,
) -> Vec<Value> {
    let mut events: Vec<Value> = parts.into_iter().map(|p| delta(choice, p)).collect();
    if let Some(scored) = logprob {
        if events.is_empty() {
            events.push(delta(choice, Part::Text(String::new())));
        }
        events[0]["logprob"] = score(service, scored);
    }
    events
}

fn delta(choice: usize, part: Part) -> Value {
    let (kind, text) = match &part {
        Part::Text(text) => ("text", text.as_str()),
        Part::Reasoning(text) => ("reasoning", text.as_str()),
        Part::Call { .. } => ("call", ""),
        Part::Arguments { text, .. } => ("arguments", text.as_str()),
    };
    let mut event = json!({"event": "delta", "choice": choice, "kind": kind, "text": text});
    match part {
        Part::Text(_) | Part::Reasoning(_) => {}
        Part::Call { index, id, name } => {
            event["call"] = index.into();
            event["id"] = id.into();
            event["name"] = name.into();
        }
        Part::Arguments { index, .. } => event["call"] = index.into(),
    }
    event
}

fn score(service: &Service, scored: &TokenLogprob) -> Value {
    let one = |token: u32, logprob: Option<f32>| {
        json!({
            "token": token,
            "bytes": service.token_bytes(token),
            "logprob": logprob,
        })
    };
    let mut event = one(scored.token, scored.logprob);
    event["top"] = scored.top.iter().map(|&(t, l)| one(t, Some(l))).collect();
    event
}

pub fn finished(choice: usize, reason: FinishReason) -> Value {
    json!({"event": "finished", "choice": choice, "reason": spelled(reason)})
}

pub fn spelled(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

/// The last event of all. `reason` is the first choice's, or why there was none.
pub fn end(reason: &str, usage: Usage) -> Value {
    json!({"event": "end", "reason": reason, "usage": used(usage)})
}

pub fn failed(error: &Error, usage: Usage) -> Value {
    let mut event = end("failed", usage);
    event["error"] = zbus::DBusError::name(error).as_str().into();
    event["message"] = zbus::DBusError::description(error).into();
    event
}

pub fn used(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_announced_then_filled_in() {
        let parts = [
            Part::Text("Let me look.".into()),
            Part::Call {
                index: 0,
                id: "c1".into(),
                name: "find".into(),
            },
            Part::Arguments {
                index: 0,
                text: "{\"a\":".into(),
            },
            Part::Arguments {
                index: 0,
                text: "1}".into(),
            },
        ];
        let events: Vec<Value> = parts.iter().map(|p| delta(0, p.clone())).collect();
        assert_eq!(
            events[1],
            json!({"event": "delta", "choice": 0, "kind": "call", "text": "", "call": 0,
                "id": "c1", "name": "find"})
        );
        assert_eq!(events[3]["text"], "1}");
    }

    #[test]
    fn a_failure_names_its_error_as_a_method_would() {
        let event = failed(&Error::Stopping("soon".into()), Usage::default());
        assert_eq!(event["reason"], "failed");
        assert_eq!(event["error"], "org.deltad.Inference1.Error.Stopping");
        assert_eq!(event["message"], "soon");
    }
}
