//! Clients send a conversation back as text: without what the model thought, with a call's arguments
//! spelled anew, with tools in another order. Read as text again it would be other tokens than those
//! that were drawn, and their state of no use. This remembers, for the messages up to an answer's end,
//! the tokens that they had been.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::request::{Message, TemplateOptions, Token};

/// Bytes of tokens that are remembered.
const BUDGET: usize = 64 << 20;

/// Stands for tools and messages, in whatever spelling. Of two hashes with keys that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64, u64);

#[derive(Default)]
pub struct Replays {
    hashes: [RandomState; 2],
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    all: HashMap<(u32, Key), Entry>,
    bytes: usize,
    clock: u64,
}

struct Entry {
    tokens: Arc<[Token]>,
    /// The answer's id, where it is kept.
    answer: Option<String>,
    used: u64,
}

impl Replays {
    fn key(&self, of: impl Hash) -> Key {
        Key(self.hashes[0].hash_one(&of), self.hashes[1].hash_one(&of))
    }

    /// The first is of the tools and of what the template is told alone, each further one of one
    /// more message.
    pub fn keys(
        &self,
        options: &TemplateOptions,
        tools: &[Value],
        messages: &[Message],
    ) -> Vec<Key> {
        let mut tools: Vec<String> = tools.iter().map(canonical).collect();
        tools.sort_unstable();
        let variables = canonical(&Value::Object(options.variables.clone()));
        let mut keys = vec![self.key((tools, options.thinking, variables))];
        for message in messages {
            keys.push(self.then(keys[keys.len() - 1], message));
        }
        keys
    }

    /// Ids of calls are left out: clients make up their own.
    pub fn then(&self, before: Key, message: &Message) -> Key {
        let calls = message.tool_calls.iter().map(|call| {
            let arguments = serde_json::from_str(&call.arguments);
            let arguments = arguments.map(|v| canonical(&v));
            (
                &call.name,
                arguments.unwrap_or_else(|_| call.arguments.clone()),
            )
        });
        let calls: Vec<_> = calls.collect();
        // Some clients trim what the model said.
        let content = match message.role.as_str() {
            "assistant" => message.content.trim(),
            _ => &message.content,
        };
        self.key((before, &message.role, content, &message.name, calls))
    }

    /// `answer`: its id, where the last message is one that is kept.
    pub fn keep(&self, uid: u32, key: Key, tokens: Vec<Token>, answer: Option<String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clock += 1;
        let entry = Entry {
            tokens: tokens.into(),
            answer: answer.or_else(|| known.all.get(&(uid, key))?.answer.clone()),
            used: known.clock,
        };
        known.bytes += size_of_val(&*entry.tokens);
        if let Some(old) = known.all.insert((uid, key), entry) {
            known.bytes -= size_of_val(&*old.tokens);
        }
        known.shrink();
    }

    pub fn find(&self, uid: u32, key: Key) -> Option<Arc<[Token]>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clock += 1;
        let clock = known.clock;
        let entry = known.all.get_mut(&(uid, key))?;
        entry.used = clock;
        Some(entry.tokens.clone())
    }
}

impl Replays {
    /// The id of the answer that ends there.
    pub fn answer(&self, uid: u32, key: Key) -> Option<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.all.get(&(uid, key))?.answer.clone()
    }
}

impl Known {
    /// By a quarter at once, so that a full one is not searched at every turn.
    fn shrink(&mut self) {
        if self.bytes <= BUDGET {
            return;
        }
        let mut by_use: Vec<_> = self.all.iter().map(|(k, e)| (e.used, *k)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= BUDGET / 4 * 3 {
                return;
            }
            if let Some(old) = self.all.remove(&key) {
                self.bytes -= size_of_val(&*old.tokens);
            }
        }
    }
}

/// JSON in one spelling: keys in order, no blanks.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let each = keys
                .iter()
                .map(|k| format!("{:?}:{}", k, canonical(&map[*k])));
            format!("{{{}}}", each.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let each = items.iter().map(canonical);
            format!("[{}]", each.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ToolCall;
    use serde_json::json;

    fn said(role: &str, content: &str, arguments: Option<&str>) -> Message {
        let call = arguments.map(|arguments| ToolCall {
            id: format!("id of {arguments}"),
            name: "f".into(),
            arguments: arguments.into(),
        });
        Message {
            role: role.into(),
            content: content.into(),
            tool_calls: call.into_iter().collect(),
            ..Message::default()
        }
    }

    #[test]
    fn a_replay_in_another_spelling_is_the_same_and_another_content_is_not() {
        let replays = Replays::default();
        let tools = |a: &str, b: &str| [json!({"x": 1, "name": a}), json!({"name": b, "x": 1})];
        let keys = |tools: &[Value], content: &str, arguments: &str| {
            let messages = [
                said("user", "q", None),
                said("assistant", content, Some(arguments)),
            ];
            replays.keys(&TemplateOptions::default(), tools, &messages)[2]
        };
        let first = keys(&tools("a", "b"), "yes", r#"{"a":1,"b":[2]}"#);
        replays.keep(1, first, vec![1, 2, 3], Some("a".into()));
        let again = keys(&tools("b", "a"), "yes\n", r#"{ "b": [2], "a": 1 }"#);
        assert_eq!(replays.find(1, again).as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(replays.find(2, again), None);
        let named = [1, 2].map(|uid| replays.answer(uid, again));
        assert_eq!(named, [Some("a".into()), None]);
        let other = keys(&tools("a", "b"), "yes", r#"{"a":1,"b":[3]}"#);
        assert_eq!(replays.find(1, other), None);
        let other = keys(&tools("a", "c"), "yes", r#"{"a":1,"b":[2]}"#);
        assert_eq!(replays.find(1, other), None);
        let told = TemplateOptions {
            thinking: Some(false),
            ..TemplateOptions::default()
        };
        let plain = TemplateOptions::default();
        let of = |options| replays.keys(options, &[], &[said("user", "q", None)])[1];
        assert_ne!(of(&told), of(&plain));
    }

    #[test]
    fn what_was_used_last_outlives_a_full_memory() {
        let replays = Replays::default();
        let key = |n: u32| replays.key(n);
        let large = BUDGET / 4 / size_of::<Token>();
        for n in 0..4 {
            replays.keep(1, key(n), vec![n; large], None);
        }
        replays.find(1, key(0));
        replays.keep(1, key(4), vec![4; 1], None);
        assert!(replays.find(1, key(0)).is_some());
        assert!(replays.find(1, key(1)).is_none());
        assert!(replays.find(1, key(4)).is_some());
    }
}
