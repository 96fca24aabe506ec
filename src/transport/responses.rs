//! OpenAI's `/v1/responses` over the same requests and events: reads its body, writes its answer
//! and its stream, and an answer that was kept. Keeps nothing itself.

use serde_json::{Value, json};

use super::render::{Frame, Render};
use super::replies::{score_json, spelling};
use super::turn::{Block, Step, Turn};
use crate::door::chat::{self, Asked};
use crate::door::fields::{Fields, refuse, wrong};
use crate::door::messages;
use crate::request::{
    Event, Failure, FinishReason, Format, Message, Origin, Part, Prompt, Refusal, Request,
    Sampling, Stop, Thread, ToolCall, ToolChoice, Usage,
};
use crate::service::{self, Ending, Receipt, Service, fresh_id, now};

pub fn read(body: &Value) -> Result<Asked, Refusal> {
    let f = Fields::of(body, "")?;
    if f.get("prompt").is_some() {
        return refuse("prompt", "is not kept here; send its text");
    }
    let keep = f.boolean("store")?.unwrap_or(true);
    let origin = origin(&f, keep)?;
    let background = f.boolean("background")?.unwrap_or(false);
    if background && !keep {
        return refuse("background", "got true, which needs store");
    }
    if f.string("truncation")?.is_some_and(|t| t != "disabled") {
        return refuse("truncation", "want \"disabled\": nothing is cut silently");
    }
    let effort = f.object("reasoning")?;
    let effort = effort.map(|r| r.string("effort")).transpose()?.flatten();
    let mut messages = Vec::new();
    // Of this answer alone: they are not inherited.
    if let Some(text) = f.string("instructions")? {
        messages.push(said("system", text.to_owned()));
    }
    let apart = messages.len();
    let mut input = Vec::new();
    match f.get("input") {
        Some(Value::String(text)) => {
            messages.push(said("user", text.clone()));
            let part = json!({"type": "input_text", "text": text});
            input.push(json!({"type": "message", "role": "user", "content": [part]}));
        }
        Some(Value::Array(items)) => {
            let mut thought = None;
            for (i, item) in items.iter().enumerate() {
                let at = format!("input[{i}]");
                read_item(&at, item, apart, &mut thought, &mut messages)?;
            }
            input.clone_from(items);
        }
        Some(other) => return wrong("input", other, "a string or an array of items"),
        None => return refuse("input", "is missing; want a string or an array of items"),
    }
    let default = Sampling::default();
    let request = Request {
        prompt: Prompt::Chat {
            messages,
            tools: tools(&f)?,
            tool_choice: tool_choice(&f)?,
            parallel_tool_calls: f.boolean("parallel_tool_calls")?.unwrap_or(true),
            options: chat::effort(effort),
        },
        sampling: Sampling {
            temperature: f.number("temperature")?.unwrap_or(default.temperature),
            top_p: f.number("top_p")?.unwrap_or(default.top_p),
            ..default
        },
        stop: Stop::default(),
        max_tokens: f.count("max_output_tokens")?,
        logprobs: logprobs(&f)?,
        echo: false,
        n: 1,
        format: format(&f)?,
        keep: chat::keep(&f)?,
    };
    if request.max_tokens == Some(0) {
        return refuse("max_output_tokens", "got 0, want at least 1");
    }
    Ok(Asked {
        requests: vec![request],
        stream: f.boolean("stream")?.unwrap_or(false),
        include_usage: true,
        token_ids: false,
        background,
        thread: Some(Thread {
            id: fresh_id("resp_"),
            created: now(),
            origin,
            keep,
            answer: true,
            apart,
            face: json!({"echo": echo(body, keep), "input": input}),
        }),
    })
}

/// What it goes on from. A session is named by `conversation`, by itself or in an object.
fn origin(f: &Fields, keep: bool) -> Result<Origin, Refusal> {
    let previous = f.string("previous_response_id")?;
    let session = match f.get("conversation") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(object @ Value::Object(_)) => {
            let object = Fields::of(object, "conversation")?;
            match object.string("id")? {
                Some(id) => Some(id),
                None => return refuse("conversation.id", "is missing; want a session's id"),
            }
        }
        Some(other) => return wrong("conversation", other, "a session's id"),
    };
    match (previous, session) {
        (None, None) => Ok(Origin::New),
        (Some(id), None) => Ok(Origin::Answer(id.to_owned())),
        (None, Some(who)) => Ok(Origin::Session {
            who: who.to_owned(),
            alone: keep,
        }),
        (Some(_), Some(_)) => refuse("conversation", "got previous_response_id too; want one"),
    }
}

/// What the answer repeats of its body.
fn echo(body: &Value, keep: bool) -> Value {
    let given = |name: &str, or: Value| match body.get(name) {
        Some(value) if !value.is_null() => value.clone(),
        _ => or,
    };
    json!({
        "background": given("background", json!(false)),
        "conversation": match given("conversation", Value::Null) {
            Value::String(id) => json!({"id": id}),
            other => other,
        },
        "instructions": given("instructions", Value::Null),
        "max_output_tokens": given("max_output_tokens", Value::Null),
        "metadata": given("metadata", json!({})),
        "parallel_tool_calls": given("parallel_tool_calls", json!(true)),
        "previous_response_id": given("previous_response_id", Value::Null),
        "prompt_cache_key": given("prompt_cache_key", Value::Null),
        "temperature": given("temperature", json!(1.0)),
        "text": given("text", json!({"format": {"type": "text"}})),
        "tool_choice": given("tool_choice", json!("auto")),
        "tools": given("tools", json!([])),
        "top_p": given("top_p", json!(1.0)),
        "top_logprobs": given("top_logprobs", json!(0)),
        "truncation": "disabled",
        "store": keep,
    })
}

fn said(role: &str, content: String) -> Message {
    Message {
        role: role.to_owned(),
        content,
        ..Message::default()
    }
}

fn texts(value: &Value, at: &str) -> Result<String, Refusal> {
    let parts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        other => return wrong(at, other, "a string or an array of parts"),
    };
    let each = parts.iter().enumerate().map(|(i, part)| {
        let p = Fields::of(part, &format!("{at}[{i}]"))?;
        match (p.string("type")?, p.string("text")?) {
            (Some("input_text" | "output_text" | "text"), Some(text)) => Ok(text),
            (kind, _) => {
                let got = kind.unwrap_or("nothing");
                let why = format!("got {got:?}; this model reads text only");
                refuse(&p.path("type"), why)
            }
        }
    });
    Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
}

/// `apart`: so many of `out` are no part of the conversation. `thought` goes from an item of
/// reasoning to the assistant's words after it.
fn read_item(
    at: &str,
    value: &Value,
    apart: usize,
    thought: &mut Option<String>,
    out: &mut Vec<Message>,
) -> Result<(), Refusal> {
    let f = Fields::of(value, at)?;
    let need = |name: &str| match f.string(name)? {
        Some(text) => Ok(text.to_owned()),
        None => refuse(&f.path(name), "is missing; want a string"),
    };
    let content = |name: &str| match f.get(name) {
        Some(value) => texts(value, &f.path(name)),
        None => Ok(String::new()),
    };
    match f.string("type")? {
        None | Some("message") => {
            let role = need("role")?;
            let mut message = said(messages::role(&role), content("content")?);
            if role == "assistant" {
                message.reasoning = thought.take();
            }
            out.push(message);
        }
        Some("function_call") => {
            let call = ToolCall {
                id: need("call_id")?,
                name: need("name")?,
                arguments: need("arguments")?,
            };
            // Calls made side by side, and the words before them, are one turn.
            match out[apart..].last_mut().filter(|m| m.role == "assistant") {
                Some(turn) => turn.tool_calls.push(call),
                None => out.push(Message {
                    tool_calls: vec![call],
                    reasoning: thought.take(),
                    ..said("assistant", String::new())
                }),
            }
        }
        Some("function_call_output") => out.push(Message {
            tool_call_id: Some(need("call_id")?),
            ..said("tool", content("output")?)
        }),
        Some("reasoning") => {
            let parts = f.array("content")?.map_or(&[][..], Vec::as_slice);
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            *thought = Some(texts.collect()).filter(|text: &String| !text.is_empty());
        }
        Some(other) => {
            let why = format!(
                "got {other:?}, want \"message\", \"function_call\" or \"function_call_output\""
            );
            return refuse(&f.path("type"), why);
        }
    }
    Ok(())
}

/// To the form of chat completions, which templates print.
fn tools(f: &Fields) -> Result<Vec<Value>, Refusal> {
    let items = f.array("tools")?.map_or(&[][..], Vec::as_slice);
    let each = items.iter().enumerate().map(|(i, tool)| {
        let t = Fields::of(tool, &format!("tools[{i}]"))?;
        let kind = t.string("type")?.unwrap_or("nothing");
        if kind != "function" {
            let why = format!("got {kind:?}, want \"function\": other tools are not served");
            return refuse(&t.path("type"), why);
        }
        if t.string("name")?.is_none() {
            return refuse(&t.path("name"), "is missing; want a string");
        }
        let function = t.entries().filter(|(name, _)| *name != "type");
        let function: Value = function.map(|(n, v)| (n.clone(), v.clone())).collect();
        Ok(json!({"type": "function", "function": function}))
    });
    each.collect()
}

fn tool_choice(f: &Fields) -> Result<ToolChoice, Refusal> {
    let named = match f.get("tool_choice") {
        Some(Value::Object(choice)) => choice.get("name").and_then(Value::as_str),
        _ => None,
    };
    match named {
        Some(name) => Ok(ToolChoice::Named(name.to_owned())),
        None => chat::tool_choice(f),
    }
}

/// Scores are given where alternatives are asked for, or the scores themselves by `include`. Other
/// things to include are of tools that are not served: nothing of them is there to include.
fn logprobs(f: &Fields) -> Result<Option<usize>, Refusal> {
    let n_top = f.count("top_logprobs")?;
    if n_top.is_some_and(|n| n > 20) {
        return refuse("top_logprobs", "want 0 to 20");
    }
    let include = f.array("include")?.map_or(&[][..], Vec::as_slice);
    let named = include.iter().any(|v| v == "message.output_text.logprobs");
    Ok(n_top.filter(|&n| n > 0).or(named.then_some(0)))
}

/// `text.format` has the schema one level higher than chat's `response_format`.
fn format(f: &Fields) -> Result<Format, Refusal> {
    let Some(format) = f.object("text")?.map(|t| t.object("format")).transpose()? else {
        return Ok(Format::Text);
    };
    let Some(format) = format else {
        return Ok(Format::Text);
    };
    match format.string("type")? {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::JsonObject),
        Some("json_schema") => match format.get("schema") {
            Some(schema) => Ok(Format::JsonSchema(schema.clone())),
            None => refuse("text.format.schema", "is missing; want a schema"),
        },
        other => {
            let got = other.unwrap_or("nothing");
            let why = format!("got {got:?}, want \"text\", \"json_object\" or \"json_schema\"");
            refuse("text.format.type", why)
        }
    }
}

/// The answer to one body.
pub struct Answer {
    id: String,
    created: u64,
    /// What the body asked, which the answer repeats.
    echo: Value,
    turn: Turn,
    ids: Vec<String>,
    /// Each block's scores; of text alone.
    scores: Vec<Vec<Value>>,
    /// Scores of tokens whose text has not come yet.
    waiting: Vec<Value>,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
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
    let said = kept.answer.clone().unwrap_or_default();
    let mut parts = Vec::new();
    if !said.reasoning.is_empty() {
        parts.push(Part::Reasoning(said.reasoning.clone()));
    }
    if !said.text.is_empty() {
        parts.push(Part::Text(said.text.clone()));
    }
    for (index, call) in said.calls.iter().enumerate() {
        let (id, name, text) = (call.id.clone(), call.name.clone(), call.arguments.clone());
        parts.push(Part::Call { index, id, name });
        parts.push(Part::Arguments { index, text });
    }
    for part in parts {
        for step in answer.turn.push(part) {
            answer.open(&step);
        }
    }
    answer.usage = Some(kept.usage);
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

/// What a kept answer was asked, each with an id.
pub fn stored_input(kept: &service::Turn) -> Vec<Value> {
    let items = kept.face["input"].as_array().into_iter().flatten();
    let named = items.enumerate().map(|(i, item)| {
        let mut item = item.clone();
        if let Value::Object(fields) = &mut item {
            fields.entry("type").or_insert(json!("message"));
            fields
                .entry("id")
                .or_insert(json!(item_id("in_", &kept.id, i)));
        }
        item
    });
    named.collect()
}

/// The same each time that the answer is told.
fn item_id(kind: &str, answer: &str, index: usize) -> String {
    let own = answer.trim_start_matches("resp_");
    format!("{kind}{own}{index:04x}")
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
            turn: Turn::default(),
            ids: Vec::new(),
            scores: Vec::new(),
            waiting: Vec::new(),
            reason: None,
            usage: None,
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
        let items = 0..self.turn.blocks.len();
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
        let closed = self.turn.close();
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
        match &self.turn.blocks[index] {
            Block::Text(text) => json!({"type": "message", "id": id, "status": status,
                "role": "assistant", "content": [part(text, &self.scores[index])]}),
            Block::Reasoning(text) => json!({"type": "reasoning", "id": id, "status": status,
                "summary": [], "content": [{"type": "reasoning_text", "text": text}]}),
            Block::Call {
                id: call_id,
                name,
                arguments,
            } => json!({"type": "function_call", "id": id, "status": status,
                "call_id": call_id, "name": name, "arguments": arguments}),
        }
    }

    fn event(&mut self, name: &'static str, mut data: Value) -> Frame {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        Frame::named(name, &data)
    }

    /// A place for what belongs to a new block.
    fn open(&mut self, step: &Step) {
        let Step::Opened(index) = *step else { return };
        let kind = match &self.turn.blocks[index] {
            Block::Text(_) => "msg_",
            Block::Reasoning(_) => "rs_",
            Block::Call { .. } => "fc_",
        };
        self.scores.push(Vec::new());
        self.ids.push(item_id(kind, &self.id, index));
    }

    fn step(&mut self, step: Step) -> Vec<Frame> {
        let (Step::Opened(index) | Step::Grew(index, _) | Step::Closed(index)) = step;
        self.open(&step);
        let id = self.ids[index].clone();
        let at = json!({"item_id": id, "output_index": index});
        let with = |mut more: Value| {
            if let (Value::Object(all), Value::Object(at)) = (&mut more, &at) {
                all.extend(at.clone());
            }
            more
        };
        let block = self.turn.blocks[index].clone();
        match (step, block) {
            (Step::Opened(_), block) => {
                let mut item = self.item(index, "in_progress");
                // Whatever it has already comes as a delta.
                match block {
                    Block::Call { .. } => item["arguments"] = json!(""),
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
                    Block::Call { .. } => (
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
                    Block::Call {
                        arguments, name, ..
                    } => {
                        let done = json!({"arguments": arguments, "name": name});
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
                    for step in self.turn.push(part) {
                        frames.extend(self.step(step));
                    }
                }
            }
            Event::Finished { reason, .. } => {
                self.reason = Some(reason);
                let closed = self.turn.close();
                frames.extend(closed.into_iter().flat_map(|s| self.step(s)));
            }
            Event::Done(usage) => self.usage = Some(usage),
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
