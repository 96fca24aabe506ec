//! A chat's options in OpenAI's words, which every door takes, to plain requests. What would change the
//! meaning and is not done here is refused by name.

use std::time::Duration;

use serde_json::Value;

use super::fields::{Fields, refuse, wrong};
use super::messages::messages;
use crate::request::{
    Format, Keep, Line, Message, Origin, Prompt, Refusal, Request, Sampling, Stop, TemplateOptions,
    Thread, Token, ToolChoice,
};
use crate::service::{fresh_id, now};

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

/// A conversation that is to outlive the daemon is kept turn by turn, although it is sent whole.
pub fn chat(body: &Value) -> Result<Asked, Refusal> {
    let f = Fields::of(body, "")?;
    let Some(messages) = messages(&f)? else {
        return refuse("messages", "is missing; want an array of messages");
    };
    let asked = chat_of(&f, messages)?;
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

/// The same of messages that were read before, and are no field of `f`; for its caller alone, who knows
/// where it belongs. Leaves in `f` what it did not ask for, for doors that refuse unknown names.
pub fn chat_of(f: &Fields, messages: Vec<Message>) -> Result<Asked, Refusal> {
    for old in ["functions", "function_call"] {
        if f.get(old).is_some() {
            return refuse(old, "is the old form; use tools and tool_choice");
        }
    }
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

pub fn asked(f: &Fields, requests: Vec<Request>) -> Result<Asked, Refusal> {
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

pub fn sampling(f: &Fields) -> Result<Sampling, Refusal> {
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

pub fn stop(f: &Fields) -> Result<Stop, Refusal> {
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

pub fn format(f: &Fields) -> Result<Format, Refusal> {
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
