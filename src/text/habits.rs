//! What a template expects of its input, found out by rendering small conversations once: whether it
//! wants a call's arguments as text or as an object, prints reasoning, and has a switch for thinking.
//! Turns messages and options into what such a template reads.

use serde_json::{Map, Value, json};

use super::template::{ChatTemplate, TemplateError, refuse};
use crate::request::{Message, TemplateOptions, ToolCall};

#[derive(Default)]
pub(super) struct Habits {
    arguments: Arguments,
    /// It prints `reasoning_content`.
    reasoning: bool,
    /// The variable that turns thinking on and off.
    pub(super) thinking: Option<&'static str>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Arguments {
    /// Printed as they are.
    #[default]
    Text,
    /// Printed as JSON: an object where they are one.
    Json,
    /// Taken apart: nothing but an object will do.
    Object,
}

/// What a caller must not set: the template's own input.
const OWN: [&str; 5] = [
    "messages",
    "tools",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
];

/// Names of the switch in templates that have one.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

const PROBE: &str = r#"{"probe": 1}"#;

impl Habits {
    pub(super) fn of(template: &ChatTemplate) -> Habits {
        let source = template.source();
        let none = || json!({});
        let hello = json!({"role": "user", "content": "probe"});
        let called = |arguments: Value| {
            let function = json!({"name": "probe", "arguments": arguments});
            let call = json!({"id": "functions.probe:0", "type": "function", "function": function});
            let call = json!({"role": "assistant", "content": "", "tool_calls": [call]});
            template.run(json!([hello, call]), json!([]), false, none())
        };
        let arguments = match called(PROBE.into()) {
            Ok(text) if text.contains(r#"{\"probe\": 1}"#) => Arguments::Json,
            Err(_) if source.contains("arguments") && called(json!({"probe": 1})).is_ok() => {
                Arguments::Object
            }
            _ => Arguments::Text,
        };
        let thought = json!({"role": "assistant", "content": "a", "reasoning_content": "probing"});
        let reasoning = source.contains("reasoning_content")
            && template
                .run(json!([hello, thought]), json!([]), false, none())
                .is_ok_and(|text| text.contains("probing"));
        let opening = |name: &str, on: bool| {
            template
                .run(json!([hello]), json!([]), true, json!({name: on}))
                .ok()
        };
        let switches = |name: &&str| {
            let both = (opening(name, true), opening(name, false));
            source.contains(*name) && matches!(both, (Some(on), Some(off)) if on != off)
        };
        Habits {
            arguments,
            reasoning,
            thinking: SWITCHES.into_iter().find(switches),
        }
    }

    /// The caller's variables; its wish about thinking under the template's own name for it, unless
    /// a variable says that already.
    pub(super) fn variables(&self, options: &TemplateOptions) -> Result<Value, TemplateError> {
        let mut variables = options.variables.clone();
        if let Some(own) = OWN.iter().find(|name| variables.contains_key(**name)) {
            return refuse(format!(
                "the variable {own} is the template's own input, not a caller's"
            ));
        }
        if let Some((name, on)) = self.thinking.zip(options.thinking) {
            variables.entry(name).or_insert(on.into());
        }
        Ok(Value::Object(variables))
    }

    /// Messages as templates know them: absent fields are absent, not null.
    pub(super) fn messages(&self, messages: &[Message]) -> Result<Value, TemplateError> {
        let each = messages.iter().enumerate();
        each.map(|(i, m)| self.message(i, m)).collect()
    }

    fn message(&self, i: usize, m: &Message) -> Result<Value, TemplateError> {
        let (reasoning, content) = match &m.reasoning {
            None if self.reasoning && m.role == "assistant" => thought_aloud(&m.content),
            given => (given.as_deref(), m.content.as_str()),
        };
        let mut out = json!({"role": m.role, "content": content});
        if let Some(name) = &m.name {
            out["name"] = json!(name);
        }
        if let Some(id) = &m.tool_call_id {
            out["tool_call_id"] = json!(id);
        }
        if let Some(reasoning) = reasoning {
            out["reasoning_content"] = json!(reasoning);
        }
        if !m.tool_calls.is_empty() {
            let mut calls = Vec::with_capacity(m.tool_calls.len());
            for (j, call) in m.tool_calls.iter().enumerate() {
                let at = || format!("messages[{i}].tool_calls[{j}].function.arguments");
                let arguments = self.arguments(at, call)?;
                calls.push(json!({
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": arguments},
                }));
            }
            out["tool_calls"] = calls.into();
        }
        Ok(out)
    }

    fn arguments(&self, at: impl Fn() -> String, call: &ToolCall) -> Result<Value, TemplateError> {
        let text = || json!(call.arguments);
        match self.arguments {
            Arguments::Text => Ok(text()),
            Arguments::Json => Ok(serde_json::from_str(&call.arguments).unwrap_or_else(|_| text())),
            Arguments::Object if call.arguments.trim().is_empty() => Ok(json!({})),
            Arguments::Object => {
                match serde_json::from_str::<Map<String, Value>>(&call.arguments) {
                    Ok(object) => Ok(Value::Object(object)),
                    Err(e) => refuse(format!("{}: {e}; want a JSON object", at())),
                }
            }
        }
    }
}

/// An answer that came with its reasoning in it, taken apart as templates do it: they look for
/// markup in the content, where the guard leaves none.
fn thought_aloud(content: &str) -> (Option<&str>, &str) {
    let Some((before, _)) = content.split_once("</think>") else {
        return (None, content);
    };
    let reasoning = before.trim_end_matches('\n');
    let reasoning = reasoning.rsplit("<think>").next().unwrap_or(reasoning);
    let said = content.rsplit("</think>").next().unwrap_or(content);
    let break_ = |c| c == '\n';
    (
        Some(reasoning.trim_start_matches(break_)),
        said.trim_start_matches(break_),
    )
}
