//! A chat's messages in OpenAI's form, from JSON and back.

use serde_json::{Value, json};

use super::fields::{Fields, kind, refuse, wrong};
use crate::request::{Message, Refusal, ToolCall};

/// OpenAI's newer name for what templates call `system`.
pub fn role(role: &str) -> &str {
    match role {
        "developer" => "system",
        other => other,
    }
}

/// A message of that role, with nothing else to it.
pub fn said(role: &str, content: String) -> Message {
    Message {
        role: role.to_owned(),
        content,
        ..Message::default()
    }
}

/// A string, or parts of one, each with one of these kinds as its `type`.
pub fn texts(value: &Value, at: &str, kinds: &[&str]) -> Result<String, Refusal> {
    let parts = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        other => return wrong(at, other, "a string or an array of parts"),
    };
    let each = parts.iter().enumerate().map(|(i, part)| {
        let p = Fields::of(part, &format!("{at}[{i}]"))?;
        match (p.string("type")?, p.string("text")?) {
            (Some(kind), Some(text)) if kinds.contains(&kind) => Ok(text),
            (Some(kind), None) if kinds.contains(&kind) => {
                refuse(&p.path("text"), "is missing; want a string")
            }
            (kind, _) => unread(&p, kind),
        }
    });
    Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
}

/// A part of a message that is no text.
pub fn unread<T>(part: &Fields, kind: Option<&str>) -> Result<T, Refusal> {
    let got = kind.unwrap_or("nothing");
    let why = format!("got {got:?}; this model reads text only");
    refuse(&part.path("type"), why)
}

pub fn messages(f: &Fields) -> Result<Option<Vec<Message>>, Refusal> {
    let given = f.array("messages")?;
    let each = given.map(|all| all.iter().enumerate().map(|(i, m)| message(i, m)).collect());
    each.transpose()
}

/// A message as [`messages`] reads it.
pub fn message_json(message: &Message) -> Value {
    let mut json = json!({"role": message.role, "content": message.content});
    if let Some(reasoning) = &message.reasoning {
        json["reasoning_content"] = json!(reasoning);
    }
    if let Some(name) = &message.name {
        json["name"] = json!(name);
    }
    if let Some(id) = &message.tool_call_id {
        json["tool_call_id"] = json!(id);
    }
    if !message.tool_calls.is_empty() {
        json["tool_calls"] = message.tool_calls.iter().map(call_json).collect();
    }
    json
}

/// A call in OpenAI's form.
pub fn call_json(call: &ToolCall) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

fn message(i: usize, value: &Value) -> Result<Message, Refusal> {
    let at = format!("messages[{i}]");
    let f = Fields::of(value, &at)?;
    let Some(role) = f.string("role")? else {
        return refuse(&f.path("role"), "is missing; want a string");
    };
    let content = match f.get("content") {
        None => String::new(),
        Some(content) => texts(content, &f.path("content"), &["text"])?,
    };
    let calls = f.array("tool_calls")?.map_or(&[][..], Vec::as_slice);
    let calls = calls.iter().enumerate().map(|(j, call)| {
        let c = Fields::of(call, &format!("{at}.tool_calls[{j}]"))?;
        let Some(function) = c.object("function")? else {
            return refuse(&c.path("function"), "is missing; want an object");
        };
        let Some(name) = function.string("name")? else {
            return refuse(&function.path("name"), "is missing; want a string");
        };
        Ok(ToolCall {
            id: c.string("id")?.unwrap_or_default().to_owned(),
            name: name.to_owned(),
            arguments: match function.get("arguments") {
                None => "{}".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(object @ Value::Object(_)) => object.to_string(),
                Some(other) => {
                    let got = kind(other);
                    return refuse(
                        &function.path("arguments"),
                        format!("got {got}, want a string"),
                    );
                }
            },
        })
    });
    Ok(Message {
        role: self::role(role).to_owned(),
        content,
        reasoning: f
            .string("reasoning_content")?
            .or(f.get("reasoning").and_then(Value::as_str))
            .map(str::to_owned),
        name: f.string("name")?.map(str::to_owned),
        tool_calls: calls.collect::<Result<_, _>>()?,
        tool_call_id: f.string("tool_call_id")?.map(str::to_owned),
    })
}
