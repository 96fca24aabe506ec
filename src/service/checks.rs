//! What a request asks for, held against what may be asked: ranges, stops, and the grammar that its form or
//! its tools make.

use super::house::{Service, invalid};
use crate::request::{Format, Prompt, Refusal, Request, Sampling, Stop, Token, ToolChoice};
use crate::text::{Constraint, constraint};

const MAX_STOPS: usize = 16;

impl Service {
    /// What begins a call, where tools are told of and must not be called.
    pub(super) fn forbidden(&self, raw: &Request) -> Option<(Token, f32)> {
        let Prompt::Chat {
            tools, tool_choice, ..
        } = &raw.prompt
        else {
            return None;
        };
        let must_not = *tool_choice == ToolChoice::None && !tools.is_empty();
        let markup = self.markup.as_ref().filter(|_| must_not);
        markup.map(|markup| (markup.opening(), f32::NEG_INFINITY))
    }

    pub(super) fn constraint(&self, raw: &Request) -> Result<Option<Constraint>, Refusal> {
        let chat = match &raw.prompt {
            Prompt::Chat {
                tools,
                tool_choice,
                parallel_tool_calls,
                ..
            } => Some((tools.as_slice(), tool_choice, *parallel_tool_calls)),
            _ => None,
        };
        let calls =
            chat.filter(|(tools, choice, _)| !tools.is_empty() && **choice != ToolChoice::None);
        let must = matches!(
            chat,
            Some((_, ToolChoice::Required | ToolChoice::Named(_), _))
        );
        if must && calls.is_none() {
            return invalid("tool_choice", "asks for a call, but no tools were given");
        }
        if must && raw.format != Format::Text {
            return invalid(
                "response_format",
                "cannot be met by an answer that must be a call",
            );
        }
        if calls.is_none() && raw.format == Format::Text {
            return Ok(None);
        }
        let Some(grammars) = &self.grammars else {
            return invalid(
                "response_format",
                "this model's answers cannot be constrained",
            );
        };
        let named = |param: &'static str| {
            move |e: constraint::ConstraintError| Refusal::Invalid {
                param: param.into(),
                message: e.to_string(),
            }
        };
        let made = match (&raw.format, calls) {
            (Format::JsonObject, _) => grammars.json_object().map_err(named("response_format"))?,
            (Format::JsonSchema(schema), _) => grammars
                .json_schema(schema)
                .map_err(named("response_format"))?,
            (Format::Text, Some((tools, choice, parallel))) => grammars
                .tool_calls(tools, choice, parallel)
                .map_err(named("tools"))?,
            (Format::Text, None) => return Ok(None),
        };
        Ok(Some(made))
    }
}

pub(super) fn sampling(s: &Sampling, n_vocab: usize) -> Result<(), Refusal> {
    let ranges = [
        ("temperature", s.temperature, 0.0, 2.0),
        ("top_p", s.top_p, 0.0, 1.0),
        ("min_p", s.min_p, 0.0, 1.0),
        ("presence_penalty", s.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", s.frequency_penalty, -2.0, 2.0),
        ("repetition_penalty", s.repetition_penalty, 0.01, 100.0),
    ];
    for (param, got, low, high) in ranges {
        if !(low..=high).contains(&got) {
            return invalid(param, format!("got {got}, want {low} to {high}"));
        }
    }
    for &(token, bias) in &s.logit_bias {
        if token as usize >= n_vocab {
            let why = format!("got token {token}, want less than {n_vocab}");
            return invalid("logit_bias", why);
        }
        if !(-100.0..=100.0).contains(&bias) {
            let why = format!("token {token}: got {bias}, want -100 to 100");
            return invalid("logit_bias", why);
        }
    }
    Ok(())
}

pub(super) fn stop(stop: &Stop) -> Result<(), Refusal> {
    let n = stop.strings.len();
    if n > MAX_STOPS {
        return invalid("stop", format!("got {n} strings, want at most {MAX_STOPS}"));
    }
    if stop.strings.iter().any(String::is_empty) {
        invalid("stop", "got an empty string, which would stop every answer")
    } else {
        Ok(())
    }
}
