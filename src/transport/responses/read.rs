//! The body of `/v1/responses`, to a chat and where it belongs.

use serde_json::{Value, json};

use super::echo::echo;
use crate::door::chat::{self, Asked};
use crate::door::fields::{Fields, refuse, wrong};
use crate::door::messages::{self, said, texts};
use crate::request::{
    Format, Message, Origin, Prompt, Refusal, Request, Sampling, Stop, Thread, ToolCall, ToolChoice,
};
use crate::service::{fresh_id, now};

/// Parts that are text, said or answered.
const TEXT: [&str; 3] = ["input_text", "output_text", "text"];

/// `find`: an item that was told before, by the id that it had.
pub fn read(body: &Value, find: &dyn Fn(&str) -> Option<Value>) -> Result<Asked, Refusal> {
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
                let item = in_its_place(&at, item, find)?;
                read_item(&at, &item, apart, &mut thought, &mut messages)?;
                input.push(item);
            }
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

/// An item, or the one that it names.
fn in_its_place(
    at: &str,
    item: &Value,
    find: &dyn Fn(&str) -> Option<Value>,
) -> Result<Value, Refusal> {
    let f = Fields::of(item, at)?;
    let refers = match f.string("type")? {
        Some(kind) => kind == "item_reference",
        None => f.get("role").is_none() && f.get("id").is_some(),
    };
    if !refers {
        return Ok(item.clone());
    }
    let Some(id) = f.string("id")? else {
        return refuse(&f.path("id"), "is missing; want an item's id");
    };
    match find(id) {
        Some(found) => Ok(found),
        None => {
            let why = format!("got {id:?}, want the id of an item of an answer that is kept");
            refuse(&f.path("id"), why)
        }
    }
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
        Some(value) => texts(value, &f.path(name), &TEXT),
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
                "got {other:?}, want \"message\", \"function_call\", \"function_call_output\", \
                 \"reasoning\" or \"item_reference\""
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
