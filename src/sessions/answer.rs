//! One answer, put together from the parts that came of it.

use serde::{Deserialize, Serialize};

use crate::request::{Message, Part, ToolCall};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub text: String,
    pub reasoning: String,
    pub calls: Vec<ToolCall>,
}

impl Answer {
    pub fn add(&mut self, part: &Part) {
        match part {
            Part::Text(text) => self.text += text,
            Part::Reasoning(text) => self.reasoning += text,
            Part::Call { id, name, .. } => self.calls.push(ToolCall {
                id: id.clone(),
                name: name.clone(),
                arguments: String::new(),
            }),
            // Arguments follow their call.
            Part::Arguments { text, .. } => {
                if let Some(call) = self.calls.last_mut() {
                    call.arguments += text;
                }
            }
        }
    }

    /// Nothing that a conversation would repeat.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.calls.is_empty()
    }

    /// As a message of the conversation. Whether its reasoning is told to the model again is its
    /// template's affair.
    pub fn message(&self) -> Message {
        Message {
            role: "assistant".into(),
            content: self.text.clone(),
            reasoning: Some(self.reasoning.clone()).filter(|r| !r.is_empty()),
            tool_calls: self.calls.clone(),
            ..Message::default()
        }
    }
}
