//! What was said, and how it ended, in OpenAI's words: a whole message, or what a chunk adds to one.

use serde_json::{Value, json};

use crate::door::messages::call_json;
use crate::request::{FinishReason, Part};
use crate::service::Answer;

pub fn message(said: &Answer) -> Value {
    let calls: Vec<Value> = said.calls().map(call_json).collect();
    let text = Some(said.text()).filter(|text| !text.is_empty() || calls.is_empty());
    let mut message = json!({"role": "assistant", "content": text, "refusal": null});
    let thought = said.reasoning();
    if !thought.is_empty() {
        message["reasoning_content"] = Value::String(thought);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    message
}

/// What a chunk adds, in both spellings.
pub struct Delta {
    pub text: String,
    pub chat: Value,
}

impl Default for Delta {
    fn default() -> Delta {
        Delta {
            text: String::new(),
            chat: json!({}),
        }
    }
}

pub fn delta(part: &Part) -> Delta {
    match part {
        Part::Text(text) => Delta {
            text: text.clone(),
            chat: json!({"content": text}),
        },
        Part::Reasoning(text) => Delta {
            text: String::new(),
            chat: json!({"reasoning_content": text}),
        },
        Part::Call { index, id, name } => Delta {
            text: String::new(),
            chat: json!({"tool_calls": [{
                "index": index,
                "id": id,
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }]}),
        },
        Part::Arguments { index, text } => Delta {
            text: String::new(),
            chat: json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}),
        },
    }
}

pub fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}
