//! The body of `/v1/messages`, to a chat. What this model cannot do is refused by name.

use std::time::Duration;

use serde_json::{Value, json};

use crate::door::chat::Asked;
use crate::door::fields::{Fields, refuse, wrong};
use crate::door::messages::{said, texts, unread};
use crate::request::{
    Format, Keep, Mark, Message, Prompt, Refusal, Request, Sampling, Stop, TemplateOptions,
    ToolCall, ToolChoice,
};

/// Blocks that are text.
const TEXT: [&str; 1] = ["text"];
/// Marks in one body, and how long what they mark stays.
const MARKS: usize = 4;
const SHORT: Duration = Duration::from_secs(300);
pub const LONG: Duration = Duration::from_secs(3600);

/// For a model whose thinking can be turned on and off, or not.
pub fn read(body: &Value, has_switch: bool) -> Result<Asked, Refusal> {
    let f = Fields::of(body, "")?;
    let thinking = thinking(&f, has_switch)?;
    for absent in ["container", "mcp_servers"] {
        if f.get(absent).is_some() {
            return refuse(absent, "is not served here");
        }
    }
    let Some(max_tokens) = f.count("max_tokens")?.filter(|&n| n > 0) else {
        return refuse("max_tokens", "is missing or 0; want at least 1");
    };
    let (tools, mut marks) = tools(&f)?;
    let mut messages = Vec::new();
    if let Some(system) = f.get("system") {
        let content = texts(system, "system", &TEXT)?;
        messages.push(said("system", content));
        for (i, block) in system.as_array().into_iter().flatten().enumerate() {
            let block = Fields::of(block, &format!("system[{i}]"))?;
            marks.extend(mark(&block, messages.len())?);
        }
    }
    let Some(given) = f.array("messages")?.filter(|given| !given.is_empty()) else {
        return refuse("messages", "is missing or empty; want an array of messages");
    };
    for (i, message) in given.iter().enumerate() {
        let at = format!("messages[{i}]");
        read_message(&at, message, &mut messages, &mut marks)?;
    }
    marks.extend(mark(&f, messages.len())?);
    if marks.len() > MARKS {
        let n = marks.len();
        return refuse(
            "cache_control",
            format!("got {n} of them, want at most {MARKS}"),
        );
    }
    let (tool_choice, parallel_tool_calls) = tool_choice(&f)?;
    let default = Sampling::default();
    let request = Request {
        prompt: Prompt::Chat {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls,
            options: TemplateOptions {
                thinking,
                ..TemplateOptions::default()
            },
        },
        sampling: Sampling {
            temperature: f.number("temperature")?.unwrap_or(default.temperature),
            top_p: f.number("top_p")?.unwrap_or(default.top_p),
            top_k: f.count("top_k")?.unwrap_or(default.top_k),
            ..default
        },
        stop: Stop {
            strings: strings(&f, "stop_sequences")?,
            ignore_eos: false,
        },
        max_tokens: Some(max_tokens),
        logprobs: None,
        echo: false,
        n: 1,
        format: Format::Text,
        keep: Keep {
            marks,
            ..Keep::default()
        },
    };
    Ok(Asked {
        requests: vec![request],
        stream: f.boolean("stream")?.unwrap_or(false),
        include_usage: true,
        token_ids: false,
        background: false,
        thread: None,
    })
}

/// Whether the end of what is read so far is to be kept: `messages` are up to it.
fn mark(f: &Fields, messages: usize) -> Result<Option<Mark>, Refusal> {
    let Some(control) = f.object("cache_control")? else {
        return Ok(None);
    };
    if control.string("type")? != Some("ephemeral") {
        return refuse(&control.path("type"), "want \"ephemeral\"");
    }
    let stays = match control.string("ttl")? {
        None | Some("5m") => SHORT,
        Some("1h") => LONG,
        Some(other) => {
            let why = format!("got {other:?}, want \"5m\" or \"1h\"");
            return refuse(&control.path("ttl"), why);
        }
    };
    Ok(Some(Mark { messages, stays }))
}

/// How long it may think is the model's own affair: a budget is not read.
fn thinking(f: &Fields, has_switch: bool) -> Result<Option<bool>, Refusal> {
    let thinking = f.object("thinking")?;
    match thinking.map(|t| t.string("type")).transpose()?.flatten() {
        None | Some("adaptive") => Ok(None),
        Some("disabled") => Ok(Some(false)),
        Some("enabled") if has_switch => Ok(Some(true)),
        Some("enabled") => {
            let why =
                "got \"enabled\", want \"disabled\" or \"adaptive\": this model decides by itself";
            refuse("thinking.type", why)
        }
        Some(kind) => {
            let why = format!("got {kind:?}, want \"enabled\", \"disabled\" or \"adaptive\"");
            refuse("thinking.type", why)
        }
    }
}

fn strings(f: &Fields, name: &str) -> Result<Vec<String>, Refusal> {
    let items = f.array(name)?.map_or(&[][..], Vec::as_slice);
    let text = |v: &Value| match v {
        Value::String(s) => Ok(s.clone()),
        other => wrong(name, other, "strings in the array"),
    };
    items.iter().map(text).collect()
}

/// One of theirs may be several of ours: each tool's result is a message.
fn read_message(
    at: &str,
    value: &Value,
    out: &mut Vec<Message>,
    marks: &mut Vec<Mark>,
) -> Result<(), Refusal> {
    let f = Fields::of(value, at)?;
    let role = match f.string("role")? {
        Some(role @ ("user" | "assistant" | "system")) => role,
        Some(other) => {
            let why = format!("got {other:?}, want \"user\" or \"assistant\"");
            return refuse(&f.path("role"), why);
        }
        None => return refuse(&f.path("role"), "is missing; want a string"),
    };
    let content_at = f.path("content");
    let blocks = match f.get("content") {
        Some(Value::String(text)) => {
            out.push(said(role, text.clone()));
            return Ok(());
        }
        Some(Value::Array(blocks)) => blocks,
        Some(other) => return wrong(&content_at, other, "a string or an array of blocks"),
        None => return refuse(&content_at, "is missing; want a string or blocks"),
    };
    let mut own = said(role, String::new());
    let mut own_mark = None;
    for (i, block) in blocks.iter().enumerate() {
        let b = Fields::of(block, &format!("{content_at}[{i}]"))?;
        let need = |name: &str| match b.string(name)? {
            Some(text) => Ok(text.to_owned()),
            None => refuse(&b.path(name), "is missing; want a string"),
        };
        match b.string("type")? {
            Some("text") => own.content += &need("text")?,
            Some("thinking") if role == "assistant" => {
                let thought = own.reasoning.get_or_insert_default();
                thought.push_str(b.string("thinking")?.unwrap_or_default());
            }
            // Nobody here can read it.
            Some("redacted_thinking") if role == "assistant" => {}
            Some("tool_use") if role == "assistant" => own.tool_calls.push(ToolCall {
                id: need("id")?,
                name: need("name")?,
                arguments: b.get("input").map_or("{}".to_owned(), Value::to_string),
            }),
            Some("tool_result") if role == "user" => {
                let content = b.get("content");
                let content = content.map(|c| texts(c, &b.path("content"), &TEXT));
                out.push(Message {
                    tool_call_id: Some(need("tool_use_id")?),
                    ..said("tool", content.transpose()?.unwrap_or_default())
                });
                marks.extend(mark(&b, out.len())?);
                continue;
            }
            kind => return unread(&b, kind),
        }
        own_mark = mark(&b, 0)?.or(own_mark);
    }
    let only_results = role == "user" && own.content.is_empty() && !blocks.is_empty();
    if !only_results {
        out.push(own);
    }
    let messages = out.len();
    marks.extend(own_mark.map(|mark| Mark { messages, ..mark }));
    Ok(())
}

/// To OpenAI's form, which templates print; and whether they are to be kept.
fn tools(f: &Fields) -> Result<(Vec<Value>, Vec<Mark>), Refusal> {
    let items = f.array("tools")?.map_or(&[][..], Vec::as_slice);
    let mut marks = Vec::new();
    let each = items.iter().enumerate().map(|(i, tool)| {
        let t = Fields::of(tool, &format!("tools[{i}]"))?;
        if let Some(kind) = t.string("type")?.filter(|&k| k != "custom") {
            let why = format!("got {kind:?}; only tools of your own are served");
            return refuse(&t.path("type"), why);
        }
        let Some(name) = t.string("name")? else {
            return refuse(&t.path("name"), "is missing; want a string");
        };
        let mut function = json!({"name": name});
        if let Some(description) = t.string("description")? {
            function["description"] = json!(description);
        }
        if let Some(schema) = t.get("input_schema") {
            function["parameters"] = schema.clone();
        }
        marks.extend(mark(&t, 0)?);
        Ok(json!({"type": "function", "function": function}))
    });
    let tools = each.collect::<Result<_, _>>()?;
    Ok((tools, marks))
}

/// The choice, and whether several calls may come.
fn tool_choice(f: &Fields) -> Result<(ToolChoice, bool), Refusal> {
    let Some(choice) = f.object("tool_choice")? else {
        return Ok((ToolChoice::Auto, true));
    };
    let single = choice.boolean("disable_parallel_tool_use")?;
    let kind = match choice.string("type")? {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Required,
        Some("none") => ToolChoice::None,
        Some("tool") => match choice.string("name")? {
            Some(name) => ToolChoice::Named(name.to_owned()),
            None => return refuse("tool_choice.name", "is missing; want a tool's name"),
        },
        other => {
            let got = other.unwrap_or("nothing");
            let why = format!("got {got:?}, want \"auto\", \"any\", \"tool\" or \"none\"");
            return refuse("tool_choice.type", why);
        }
    };
    Ok((kind, !single.unwrap_or(false)))
}
