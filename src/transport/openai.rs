//! OpenAI's text completions, read into plain requests, and token ids. What would change the meaning and
//! is not done here is refused by name; what is merely unknown is ignored.

use serde_json::Value;

use crate::door::chat::{Asked, asked, format, sampling, stop};
use crate::door::fields::{Fields, refuse, whole, wrong};
use crate::request::{Keep, Prompt, Refusal, Request, Token};

/// Prompts in one body of `/v1/completions`.
const MAX_PROMPTS: usize = 64;
/// What OpenAI's `/v1/completions` takes for `max_tokens` when it is left out.
const COMPLETION_TOKENS: usize = 16;

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
