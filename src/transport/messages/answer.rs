//! An answer of `/v1/messages`: whole, and as a stream of events.

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::read::LONG;
use crate::request::{Event, Failure, FinishReason, ToolCall, Usage};
use crate::service::{self, Block, Receipt, Service, Step, fresh_id};
use crate::transport::cached::Found;
use crate::transport::render::{Frame, Render};

/// The answer to one body.
pub struct Answer {
    id: String,
    said: service::Answer,
    reason: Option<FinishReason>,
    stopped_by: Option<String>,
    usage: Usage,
    /// Told with the end.
    done: Option<Usage>,
    begun: bool,
    /// What its caller wanted kept: after so many tokens, for so long.
    marks: Vec<(usize, Duration)>,
    found: Option<Found>,
}

impl Answer {
    /// To a prompt of so many tokens, which the stream's first event tells, and how many of them were
    /// `found`.
    pub fn new(
        prompt_tokens: usize,
        marks: Vec<(usize, Duration)>,
        found: Option<Found>,
    ) -> Answer {
        Answer {
            id: fresh_id("msg_"),
            said: service::Answer::default(),
            reason: None,
            stopped_by: None,
            usage: Usage {
                prompt_tokens,
                ..Usage::default()
            },
            done: None,
            begun: false,
            marks,
            found,
        }
    }

    fn stop(&self) -> (Option<&'static str>, Option<&str>) {
        match self.reason {
            None => (None, None),
            Some(FinishReason::Stop) => match self.stopped_by.as_deref() {
                Some(sequence) => (Some("stop_sequence"), Some(sequence)),
                None => (Some("end_turn"), None),
            },
            Some(FinishReason::Length) => (Some("max_tokens"), None),
            Some(FinishReason::ToolCalls) => (Some("tool_use"), None),
        }
    }

    fn usage(&self) -> Value {
        let Usage {
            prompt_tokens,
            cached_tokens,
            completion_tokens,
        } = self.usage;
        // What was computed up to the last mark is written; theirs counts neither that nor what was
        // read from a cache among the input.
        let written = |marks: &mut dyn Iterator<Item = &(usize, Duration)>| {
            let last = marks.map(|(at, _)| *at).max().unwrap_or(0);
            last.saturating_sub(cached_tokens)
        };
        let all = written(&mut self.marks.iter());
        let long = written(&mut self.marks.iter().filter(|(_, stays)| *stays == LONG));
        json!({
            "input_tokens": prompt_tokens - cached_tokens - all,
            "cache_read_input_tokens": cached_tokens,
            "cache_creation_input_tokens": all,
            "cache_creation": {
                "ephemeral_5m_input_tokens": all - long,
                "ephemeral_1h_input_tokens": long,
            },
            "output_tokens": completion_tokens,
        })
    }

    fn message(&self, service: &Service, content: Vec<Value>) -> Value {
        let (reason, sequence) = self.stop();
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": service.card().id,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": self.usage(),
        })
    }

    fn frame(&self, step: Step) -> Frame {
        match step {
            Step::Opened(index) => {
                let empty = match &self.said.blocks()[index] {
                    Block::Text(_) => Block::Text(String::new()),
                    Block::Reasoning(_) => Block::Reasoning(String::new()),
                    Block::Call(call) => Block::Call(ToolCall {
                        arguments: String::new(),
                        ..call.clone()
                    }),
                };
                let block = block_json(&empty);
                event(
                    "content_block_start",
                    json!({"index": index, "content_block": block}),
                )
            }
            Step::Grew(index, text) => {
                let delta = match &self.said.blocks()[index] {
                    Block::Text(_) => json!({"type": "text_delta", "text": text}),
                    Block::Reasoning(_) => json!({"type": "thinking_delta", "thinking": text}),
                    Block::Call(_) => json!({"type": "input_json_delta", "partial_json": text}),
                };
                event(
                    "content_block_delta",
                    json!({"index": index, "delta": delta}),
                )
            }
            Step::Closed(index) => event("content_block_stop", json!({"index": index})),
        }
    }
}

impl Render for Answer {
    fn take(&mut self, service: &Service, _: usize, told: Event) -> Result<Vec<Frame>, Failure> {
        let mut frames = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            // The reading is over, and what it began with was told before.
            let found = self.found.take().and_then(FutureExt::now_or_never);
            self.usage.cached_tokens = found.flatten().map_or(0, |found| found.tokens);
            let message = self.message(service, Vec::new());
            frames.push(event("message_start", json!({"message": message})));
        }
        match told {
            Event::Prompt(_) | Event::Read(_) => {}
            Event::Delta { parts, .. } => {
                for part in parts {
                    let steps = self.said.add(part);
                    frames.extend(steps.into_iter().map(|s| self.frame(s)));
                }
            }
            Event::Finished { reason, stop, .. } => {
                self.reason = Some(reason);
                self.stopped_by = stop;
                let closed = self.said.close();
                frames.extend(closed.map(|s| self.frame(s)));
            }
            Event::Done(usage, _) => self.done = Some(usage),
            Event::Failed(failure) => return Err(failure),
        }
        Ok(frames)
    }

    fn last(&mut self, _: &Service, _: &[Receipt]) -> Vec<Frame> {
        let Some(usage) = self.done.take() else {
            return Vec::new();
        };
        self.usage = usage;
        let (reason, sequence) = self.stop();
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let last = json!({"delta": delta, "usage": self.usage()});
        vec![
            event("message_delta", last),
            event("message_stop", json!({})),
        ]
    }

    fn whole(&mut self, service: &Service, _: &[Receipt]) -> Value {
        self.usage = self.done.take().unwrap_or_default();
        let content = self.said.blocks().iter().map(block_json).collect();
        self.message(service, content)
    }

    fn failed(&mut self, error: Value) -> Frame {
        Frame::named("error", &envelope(error))
    }
}

/// Anthropic's envelope from OpenAI's: a `type` beside the error, and names of its own for kinds.
pub fn envelope(mut error: Value) -> Value {
    let inner = &mut error["error"];
    let kind = match (inner["type"].as_str(), inner["code"].as_str()) {
        (_, Some("loading" | "stopping" | "memory_short")) => "overloaded_error",
        (_, Some("too_large")) => "request_too_large",
        (Some("server_error"), _) => "api_error",
        (Some(other), _) => other,
        (None, _) => "api_error",
    };
    inner["type"] = json!(kind.to_owned());
    error["type"] = json!("error");
    error
}

fn event(name: &'static str, mut data: Value) -> Frame {
    data["type"] = json!(name);
    Frame::named(name, &data)
}

fn block_json(block: &Block) -> Value {
    match block {
        Block::Text(text) => json!({"type": "text", "text": text}),
        Block::Reasoning(text) => json!({"type": "thinking", "thinking": text, "signature": ""}),
        Block::Call(call) => {
            // A call cut short has no whole arguments.
            let input = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
        }
    }
}
