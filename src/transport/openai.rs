//! OpenAI's request bodies, read into plain requests. What would change the meaning and is not
//! done here is refused by name; what is merely unknown is ignored.

use std::time::Duration;

use serde_json::{Value, json};

use super::fields::{Fields, kind, refuse, whole, wrong};
use crate::request::{
    Format, Keep, Line, Message, Origin, Prompt, Refusal, Request, Sampling, Stop, TemplateOptions,
    Thread, Token, ToolCall, ToolChoice,
};
use crate::service::{fresh_id, now};

/// Prompts in one body of `/v1/completions`.
const MAX_PROMPTS: usize = 64;
/// What OpenAI's `/v1/completions` takes for `max_tokens` when it is left out.
const COMPLETION_TOKENS: usize = 16;

const HOUR: Duration = Duration::from_secs(3600);

/// A body, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// One for each prompt, at least one.
    pub requests: Vec<Request>,
    pub stream: bool,
    pub include_usage: bool,
    /// Spell tokens `token_id:123` wherever a token is named.
    pub token_ids: bool,
    /// It goes on when its caller leaves.
    pub background: bool,
    /// The conversation that it goes on with, or is kept in.
    pub thread: Option<Thread>,
}

pub fn completion(body: &Value) -> Result<Asked, Refusal> {
    let f = Fields::of(body, "")?;
    if f.get("suffix").is_some_and(|s| s.as_str() != Some("")) {
        return refuse("suffix", "this model cannot fill in before a suffix");
    }
    let n = f.count("n")?.unwrap_or(1);
    if f.count("best_of")?.is_some_and(|best| best != n) {
        return refuse(
            "best_of",
            "got another number than n; answers are not ranked",
        );
    }
    let sampling = sampling(&f)?;
    let stop = stop(&f)?;
    let max_tokens = f.count("max_tokens")?.or(f.count("max_completion_tokens")?);
    let logprobs = match f.get("logprobs") {
        Some(Value::Bool(false)) => None,
        _ => f.count("logprobs")?,
    };
    let echo = f.boolean("echo")?.unwrap_or(false);
    let format = format(&f)?;
    let requests = prompts(&f)?.into_iter().map(|prompt| Request {
        prompt,
        sampling: sampling.clone(),
        stop: stop.clone(),
        max_tokens: Some(max_tokens.unwrap_or(COMPLETION_TOKENS)),
        logprobs,
        echo,
        n,
        format: format.clone(),
        keep: Keep::default(),
    });
    let requests = requests.collect();
    asked(&f, requests)
}

/// A conversation that is to outlive the daemon is kept turn by turn, although it is sent whole.
pub fn chat(body: &Value) -> Result<Asked, Refusal> {
    let asked = chat_of(&Fields::of(body, "")?)?;
    let lasts = |r: &Request| r.keep.lasting && r.n == 1;
    let thread = asked.requests.first().filter(|r| lasts(r)).map(|_| Thread {
        id: fresh_id("resp_"),
        created: now(),
        origin: Origin::Replayed,
        keep: true,
        answer: true,
        apart: 0,
        face: Value::Null,
    });
    Ok(Asked { thread, ..asked })
}

/// Leaves in `f` what it did not ask for, for doors that refuse unknown names.
pub fn chat_of(f: &Fields) -> Result<Asked, Refusal> {
    for old in ["functions", "function_call"] {
        if f.get(old).is_some() {
            return refuse(old, "is the old form; use tools and tool_choice");
        }
    }
    let Some(messages) = messages(f)? else {
        return refuse("messages", "is missing; want an array of messages");
    };
    let tools = f.array("tools")?.cloned().unwrap_or_default();
    for (i, tool) in tools.iter().enumerate() {
        let at = format!("tools[{i}]");
        let function = Fields::of(tool, &at)?.object("function")?;
        if function
            .map(|g| g.string("name"))
            .transpose()?
            .flatten()
            .is_none()
        {
            return refuse(&format!("{at}.function.name"), "is missing; want a string");
        }
    }
    let shows = f.boolean("logprobs")?.unwrap_or(false);
    let n_top = f.count("top_logprobs")?;
    if n_top.is_some_and(|n| n > 20) {
        return refuse("top_logprobs", "want 0 to 20");
    }
    if n_top.is_some_and(|n| n > 0) && !shows {
        return refuse("top_logprobs", "needs logprobs to be true");
    }
    let at_least_one = |name| match f.count(name)? {
        Some(0) => refuse(name, "got 0, want at least 1"),
        n => Ok(n),
    };
    let (new, old) = (
        at_least_one("max_completion_tokens")?,
        at_least_one("max_tokens")?,
    );
    let max_tokens = new.or(old);
    let request = Request {
        prompt: Prompt::Chat {
            messages,
            tools,
            tool_choice: tool_choice(f)?,
            parallel_tool_calls: f.boolean("parallel_tool_calls")?.unwrap_or(true),
            options: template_options(f)?,
        },
        sampling: sampling(f)?,
        stop: stop(f)?,
        max_tokens,
        logprobs: shows.then(|| n_top.unwrap_or(0)),
        echo: false,
        n: f.count("n")?.unwrap_or(1),
        format: format(f)?,
        keep: keep(f)?,
    };
    asked(f, vec![request])
}

/// A line of requests is what OpenAI's clients name by a cache key.
pub fn keep(f: &Fields) -> Result<Keep, Refusal> {
    let lasting = match f.string("prompt_cache_retention")? {
        None | Some("in_memory" | "in-memory") => false,
        Some("24h") => true,
        Some(other) => {
            let why = format!("got {other:?}, want \"in_memory\" or \"24h\"");
            return refuse("prompt_cache_retention", why);
        }
    };
    let stays = if lasting { 24 * HOUR } else { HOUR };
    let name = f.string("prompt_cache_key")?.map(str::to_owned);
    Ok(Keep {
        lasting,
        line: name.map(|name| Line { name, stays }),
        marks: Vec::new(),
    })
}

/// `chat_template_kwargs` go before `enable_thinking`, and that before `reasoning_effort`.
fn template_options(f: &Fields) -> Result<TemplateOptions, Refusal> {
    let given = f.object("chat_template_kwargs")?;
    let mut options = effort(f.string("reasoning_effort")?);
    for (name, value) in given.iter().flat_map(Fields::entries) {
        options.variables.insert(name.clone(), value.clone());
    }
    options.thinking = f.boolean("enable_thinking")?.or(options.thinking);
    Ok(options)
}

/// Any effort but none is thinking; how much is for templates that tell efforts apart.
pub fn effort(effort: Option<&str>) -> TemplateOptions {
    let named = effort.filter(|&effort| effort != "none");
    let named = named.map(|effort| ("reasoning_effort".to_owned(), effort.into()));
    TemplateOptions {
        thinking: effort.map(|effort| effort != "none"),
        variables: named.into_iter().collect(),
    }
}

fn asked(f: &Fields, requests: Vec<Request>) -> Result<Asked, Refusal> {
    let options = f.object("stream_options")?;
    let include_usage = options.map(|o| o.boolean("include_usage")).transpose()?;
    Ok(Asked {
        requests,
        stream: f.boolean("stream")?.unwrap_or(false),
        include_usage: include_usage.flatten().unwrap_or(false),
        token_ids: f.boolean("return_tokens_as_token_ids")?.unwrap_or(false),
        background: false,
        thread: None,
    })
}

fn prompts(f: &Fields) -> Result<Vec<Prompt>, Refusal> {
    let want = "a string, an array of token ids, or an array of those";
    let Some(value) = f.get("prompt") else {
        return refuse("prompt", format!("is missing; want {want}"));
    };
    let items = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(items) => items,
        other => return wrong("prompt", other, want),
    };
    match items.first() {
        None => refuse("prompt", format!("got an empty array, want {want}")),
        Some(Value::Number(_)) => Ok(vec![Prompt::Tokens(tokens(items, "prompt")?)]),
        Some(_) if items.len() > MAX_PROMPTS => {
            let n = items.len();
            refuse(
                "prompt",
                format!("got {n} prompts, want at most {MAX_PROMPTS}"),
            )
        }
        Some(_) => {
            let each = items.iter().enumerate().map(|(i, item)| match item {
                Value::String(text) => Ok(Prompt::Text(text.clone())),
                Value::Array(ids) => Ok(Prompt::Tokens(tokens(ids, &format!("prompt[{i}]"))?)),
                other => wrong(&format!("prompt[{i}]"), other, "a string or token ids"),
            });
            each.collect()
        }
    }
}

pub fn tokens(items: &[Value], at: &str) -> Result<Vec<Token>, Refusal> {
    let each = items.iter().enumerate().map(|(i, item)| {
        let token = whole(item).and_then(|t| Token::try_from(t).ok());
        token.map_or_else(|| wrong(&format!("{at}[{i}]"), item, "a token id"), Ok)
    });
    each.collect()
}

fn sampling(f: &Fields) -> Result<Sampling, Refusal> {
    let default = Sampling::default();
    let mut logit_bias = Vec::new();
    if let Some(biases) = f.object("logit_bias")? {
        for (token, _) in biases.entries() {
            let Ok(id) = token.parse::<Token>() else {
                return refuse("logit_bias", format!("got key {token:?}, want a token id"));
            };
            logit_bias.extend(biases.number(token)?.map(|bias| (id, bias)));
        }
    }
    let or = |name, value| f.number(name).map(|n| n.unwrap_or(value));
    // Some clients write -1 for "all".
    let top_k = match f.get("top_k").and_then(Value::as_i64) {
        Some(-1) => 0,
        _ => f.count("top_k")?.unwrap_or(default.top_k),
    };
    Ok(Sampling {
        temperature: or("temperature", default.temperature)?,
        top_k,
        top_p: or("top_p", default.top_p)?,
        min_p: or("min_p", default.min_p)?,
        presence_penalty: or("presence_penalty", default.presence_penalty)?,
        frequency_penalty: or("frequency_penalty", default.frequency_penalty)?,
        repetition_penalty: or("repetition_penalty", default.repetition_penalty)?,
        logit_bias,
        seed: f.integer("seed")?.map(|seed| seed as u64),
    })
}

fn stop(f: &Fields) -> Result<Stop, Refusal> {
    let strings = match f.get("stop") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(items)) => {
            let text = |v: &Value| match v {
                Value::String(s) => Ok(s.clone()),
                other => wrong("stop", other, "strings in the array"),
            };
            items.iter().map(text).collect::<Result<_, _>>()?
        }
        Some(other) => return wrong("stop", other, "a string or an array of strings"),
    };
    Ok(Stop {
        strings,
        ignore_eos: f.boolean("ignore_eos")?.unwrap_or(false),
    })
}

fn format(f: &Fields) -> Result<Format, Refusal> {
    for other in ["grammar", "json_schema"] {
        if f.get(other).is_some() {
            return refuse(
                other,
                "is not read here; use response_format with a JSON schema",
            );
        }
    }
    let Some(format) = f.object("response_format")? else {
        return Ok(Format::Text);
    };
    match format.string("type")? {
        Some("text") => Ok(Format::Text),
        // With a schema of its own, as llama.cpp and its kin have it.
        Some("json_object") => Ok(match format.get("schema") {
            Some(schema) => Format::JsonSchema(schema.clone()),
            None => Format::JsonObject,
        }),
        Some("json_schema") => {
            let schema = format.object("json_schema")?;
            match schema.as_ref().and_then(|s| s.get("schema")) {
                Some(schema) => Ok(Format::JsonSchema(schema.clone())),
                None => refuse(
                    "response_format.json_schema.schema",
                    "is missing; want a schema",
                ),
            }
        }
        other => {
            let got = other.map_or("nothing".into(), |t| format!("{t:?}"));
            let why = format!("got {got}, want \"text\", \"json_object\" or \"json_schema\"");
            refuse("response_format.type", why)
        }
    }
}

pub fn tool_choice(f: &Fields) -> Result<ToolChoice, Refusal> {
    let want =
        "\"auto\", \"none\", \"required\" or {\"type\":\"function\",\"function\":{\"name\":...}}";
    match f.get("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(s)) => match s.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            other => refuse("tool_choice", format!("got {other:?}, want {want}")),
        },
        Some(value @ Value::Object(_)) => {
            let function = Fields::of(value, "tool_choice")?.object("function")?;
            match function.map(|g| g.string("name")).transpose()?.flatten() {
                Some(name) => Ok(ToolChoice::Named(name.to_owned())),
                None => refuse("tool_choice", format!("got no function name, want {want}")),
            }
        }
        Some(other) => wrong("tool_choice", other, want),
    }
}

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
        let calls = message.tool_calls.iter().map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        });
        json["tool_calls"] = calls.collect();
    }
    json
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
