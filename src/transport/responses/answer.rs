//! An answer of `/v1/responses`: whole, as a stream of events, and one that was kept.

use serde_json::{Value, json};

use crate::door::chat::Asked;
use crate::request::{Event, Failure, FinishReason, Part, Usage};
use crate::service::{self, Block, Ending, Receipt, Service, Step, fresh_id, now};
use crate::transport::render::{Frame, Render};
use crate::transport::scores::{score_json, spelling};

/// The answer to one body.
pub struct Answer {
    id: String,
    created: u64,
    /// What the body asked, which the answer repeats.
    echo: Value,
    said: service::Answer,
    ids: Vec<String>,
    /// Each block's scores; of text alone.
    scores: Vec<Vec<Value>>,
    /// Scores of tokens whose text has not come yet.
    waiting: Vec<Value>,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
    /// When it was whole, in seconds since 1970.
    ended: Option<u64>,
    /// It has not begun.
    queued: bool,
    fate: Option<Fate>,
    sequence: usize,
}

/// Why an answer did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Cancelled,
    Failed(String),
}

/// One that was kept, as it was when it was given, without scores.
pub fn stored(service: &Service, kept: &service::Turn) -> Value {
    let mut answer = Answer::new(&kept.id, kept.created, &kept.face);
    answer.said = kept.answer.clone().unwrap_or_default();
    for index in 0..answer.said.blocks().len() {
        answer.open(index);
    }
    answer.usage = Some(kept.usage);
    answer.ended = kept.ended;
    answer.reason = match kept.ending {
        Ending::Whole(reason) => Some(reason),
        Ending::Cut => None,
        Ending::Cancelled => {
            answer.fate = Some(Fate::Cancelled);
            None
        }
    };
    answer.response(service)
}

/// Digits of an item's number.
pub(super) const INDEX: usize = 4;

/// The same each time that the answer is told.
pub(super) fn item_id(kind: &str, answer: &str, index: usize) -> String {
    let own = answer.trim_start_matches("resp_");
    format!("{kind}{own}{index:0INDEX$x}")
}

impl Answer {
    pub fn of(asked: &Asked) -> Answer {
        match &asked.thread {
            Some(thread) => Answer::new(&thread.id, thread.created, &thread.face),
            None => Answer::new(&fresh_id("resp_"), now(), &Value::Null),
        }
    }

    /// `face`: what [`read`] wanted back.
    pub fn new(id: &str, created: u64, face: &Value) -> Answer {
        Answer {
            id: id.to_owned(),
            created,
            echo: face["echo"].clone(),
            said: service::Answer::default(),
            ids: Vec::new(),
            scores: Vec::new(),
            waiting: Vec::new(),
            reason: None,
            usage: None,
            ended: None,
            queued: false,
            fate: None,
            sequence: 0,
        }
    }

    pub fn response(&self, service: &Service) -> Value {
        let (status, why) = match (self.usage, self.reason) {
            _ if self.fate == Some(Fate::Cancelled) => ("cancelled", None),
            _ if self.fate.is_some() => ("failed", None),
            (None, _) if self.queued => ("queued", None),
            (None, _) => ("in_progress", None),
            (Some(_), None) => ("incomplete", Some("interrupted")),
            (Some(_), Some(FinishReason::Length)) => ("incomplete", Some("max_output_tokens")),
            (Some(_), Some(_)) => ("completed", None),
        };
        let items = 0..self.said.blocks().len();
        // An item knows fewer words.
        let item = match status {
            "queued" => "in_progress",
            "cancelled" | "failed" => "incomplete",
            same => same,
        };
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": self.ended.filter(|_| status == "completed"),
            "status": status,
            "error": match &self.fate {
                Some(Fate::Failed(why)) => json!({"code": "server_error", "message": why}),
                Some(Fate::Cancelled) | None => Value::Null,
            },
            "incomplete_details": why.map(|why| json!({"reason": why})),
            "model": service.card().id,
            "output": items.map(|i| self.item(i, item)).collect::<Vec<_>>(),
            "usage": self.usage.map(usage),
        });
        if let (Value::Object(all), Value::Object(echo)) = (&mut response, &self.echo) {
            all.extend(echo.clone());
        }
        response
    }

    /// It waits for its turn: how its stream begins.
    pub fn queue(&mut self, service: &Service) -> Vec<Frame> {
        self.queued = true;
        let told = json!({"response": self.response(service)});
        ["response.created", "response.queued"]
            .map(|name| self.event(name, told.clone()))
            .into()
    }

    /// It ends here: how its stream ends.
    pub fn cut(&mut self, service: &Service, fate: Fate) -> Vec<Frame> {
        let closed = self.said.close();
        let mut frames: Vec<Frame> = closed.into_iter().flat_map(|s| self.step(s)).collect();
        let name = match fate {
            Fate::Cancelled => "response.incomplete",
            Fate::Failed(_) => "response.failed",
        };
        self.fate = Some(fate);
        let told = json!({"response": self.response(service)});
        frames.push(self.event(name, told));
        frames
    }

    /// A block as an item of `output`.
    fn item(&self, index: usize, status: &str) -> Value {
        let id = &self.ids[index];
        match &self.said.blocks()[index] {
            Block::Text(text) => json!({"type": "message", "id": id, "status": status,
                "role": "assistant", "content": [part(text, &self.scores[index])]}),
            Block::Reasoning(text) => json!({"type": "reasoning", "id": id, "status": status,
                "summary": [], "content": [{"type": "reasoning_text", "text": text}]}),
            Block::Call(call) => json!({"type": "function_call", "id": id, "status": status,
                "call_id": call.id, "name": call.name, "arguments": call.arguments}),
        }
    }

    fn event(&mut self, name: &'static str, mut data: Value) -> Frame {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Frame::named(name, &data)
    }

    /// A place for what belongs to a new block.
    fn open(&mut self, index: usize) {
        let kind = match &self.said.blocks()[index] {
            Block::Text(_) => "msg_",
            Block::Reasoning(_) => "rs_",
            Block::Call(_) => "fc_",
        };
        self.scores.push(Vec::new());
        self.ids.push(item_id(kind, &self.id, index));
    }

    fn step(&mut self, step: Step) -> Vec<Frame> {
        let (Step::Opened(index) | Step::Grew(index, _) | Step::Closed(index)) = step;
        if matches!(step, Step::Opened(_)) {
            self.open(index);
        }
        let id = self.ids[index].clone();
        let at = json!({"item_id": id, "output_index": index});
        let with = |mut more: Value| {
            if let (Value::Object(all), Value::Object(at)) = (&mut more, &at) {
                all.extend(at.clone());
            }
            more
        };
        let block = self.said.blocks()[index].clone();
        match (step, block) {
            (Step::Opened(_), block) => {
                let mut item = self.item(index, "in_progress");
                // Whatever it has already comes as a delta.
                match block {
                    Block::Call(_) => item["arguments"] = json!(""),
                    _ => item["content"] = json!([]),
                }
                let added = json!({"output_index": index, "item": item});
                let mut frames = vec![self.event("response.output_item.added", added)];
                if matches!(block, Block::Text(_)) {
                    let data = with(json!({"content_index": 0, "part": part("", &[])}));
                    frames.push(self.event("response.content_part.added", data));
                }
                frames
            }
            (Step::Grew(_, delta), block) => {
                let (name, data) = match block {
                    Block::Text(_) => {
                        let new = std::mem::take(&mut self.waiting);
                        self.scores[index].extend_from_slice(&new);
                        (
                            "response.output_text.delta",
                            json!({"content_index": 0, "delta": delta, "logprobs": new}),
                        )
                    }
                    Block::Reasoning(_) => (
                        "response.reasoning_text.delta",
                        json!({"content_index": 0, "delta": delta}),
                    ),
                    Block::Call(_) => (
                        "response.function_call_arguments.delta",
                        json!({"delta": delta}),
                    ),
                };
                vec![self.event(name, with(data))]
            }
            (Step::Closed(_), block) => {
                let mut frames = Vec::new();
                match block {
                    Block::Text(text) => {
                        // The token that ended the turn, and what a stop string hid.
                        let rest = std::mem::take(&mut self.waiting);
                        self.scores[index].extend(rest);
                        let scores = self.scores[index].clone();
                        let part = part(&text, &scores);
                        let done = json!({"content_index": 0, "text": text, "logprobs": scores});
                        frames.push(self.event("response.output_text.done", with(done)));
                        let done = json!({"content_index": 0, "part": part});
                        frames.push(self.event("response.content_part.done", with(done)));
                    }
                    Block::Reasoning(text) => {
                        let done = json!({"content_index": 0, "text": text});
                        frames.push(self.event("response.reasoning_text.done", with(done)));
                    }
                    Block::Call(call) => {
                        let done = json!({"arguments": call.arguments, "name": call.name});
                        let name = "response.function_call_arguments.done";
                        frames.push(self.event(name, with(done)));
                    }
                }
                let item = self.item(index, "completed");
                let done = json!({"output_index": index, "item": item});
                frames.push(self.event("response.output_item.done", done));
                frames
            }
        }
    }
}

impl Render for Answer {
    fn take(&mut self, service: &Service, _: usize, told: Event) -> Result<Vec<Frame>, Failure> {
        let mut frames = Vec::new();
        let begins: &[&'static str] = match (self.sequence, self.queued) {
            (0, _) => &["response.created", "response.in_progress"],
            (_, true) => &["response.in_progress"],
            (_, false) => &[],
        };
        self.queued = false;
        for name in begins {
            let response = self.response(service);
            frames.push(self.event(name, json!({"response": response})));
        }
        match told {
            Event::Prompt(_) | Event::Read(_) => {}
            Event::Delta { parts, logprob, .. } => {
                let score = |s| score_json(service, &s, |token| spelling(service, token));
                self.waiting.extend(logprob.map(score));
                for part in parts {
                    if !matches!(part, Part::Text(_)) {
                        self.waiting.clear();
                    }
                    for step in self.said.add(part) {
                        frames.extend(self.step(step));
                    }
                }
            }
            Event::Finished { reason, .. } => {
                self.reason = Some(reason);
                let closed = self.said.close();
                frames.extend(closed.into_iter().flat_map(|s| self.step(s)));
            }
            Event::Done(usage, took) => {
                self.usage = Some(usage);
                self.ended = Some(took.until);
            }
            Event::Failed(failure) => return Err(failure),
        }
        Ok(frames)
    }

    fn last(&mut self, service: &Service, _: &[Receipt]) -> Vec<Frame> {
        let response = self.response(service);
        let name = match self.reason {
            Some(FinishReason::Length) => "response.incomplete",
            _ => "response.completed",
        };
        vec![self.event(name, json!({"response": response}))]
    }

    fn whole(&mut self, service: &Service, _: &[Receipt]) -> Value {
        self.response(service)
    }

    fn failed(&mut self, error: Value) -> Frame {
        let data = error["error"].clone();
        self.event("error", data)
    }
}

fn part(text: &str, scores: &[Value]) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": scores})
}

fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
