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
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let each = parts.iter().enumerate().map(|(j, part)| {
                let p = Fields::of(part, &format!("{at}.content[{j}]"))?;
                match (p.string("type")?, p.string("text")?) {
                    (Some("text"), Some(text)) => Ok(text),
                    (Some("text"), None) => refuse(&p.path("text"), "is missing; want a string"),
                    (kind, _) => {
                        let got = kind.unwrap_or("nothing");
                        refuse(
                            &p.path("type"),
                            format!("got {got:?}; this model reads text only"),
                        )
                    }
                }
            });
            each.collect::<Result<Vec<_>, _>>()?.concat()
        }
        Some(other) => return wrong(&f.path("content"), other, "a string or an array of parts"),
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
