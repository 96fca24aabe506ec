//! Clients send a conversation back as text: without what the model thought, with a call's arguments
//! spelled anew, with tools in another order. Read as text again it would be other tokens than those
//! that were drawn, and their state of no use. This remembers, for the messages up to an answer's end,
//! the tokens that they had been; and an answer that called, by the ids of its calls, so that one is
//! known again of which only the calls came back. Never guesses: what its caller changed is other text.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::recent::Recent;
use crate::request::{Message, TemplateOptions, Token, ToolCall};

/// Bytes of tokens that are remembered.
const BUDGET: usize = 64 << 20;
/// Bytes of answers that called.
const CALLED: usize = 16 << 20;
/// Answers of other models.
const STRANGE: usize = 1 << 14;

/// Stands for tools and messages, in whatever spelling. Of two hashes with keys that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64, u64);

#[derive(Default)]
pub struct Replays {
    hashes: [RandomState; 2],
    known: Mutex<Known>,
}

struct Known {
    all: Recent<(u32, Key), Entry>,
    /// By their calls, with the ids.
    called: Recent<(u32, Key), Said>,
    /// Ends of answers of another model.
    strange: Recent<(u32, Key), ()>,
}

impl Default for Known {
    fn default() -> Known {
        Known {
            all: Recent::new(BUDGET),
            called: Recent::new(CALLED),
            strange: Recent::new(STRANGE * size_of::<Key>()),
        }
    }
}

struct Entry {
    tokens: Arc<[Token]>,
    /// The answer's id, where it is kept.
    answer: Option<String>,
}

/// What counts of an answer: its words, and its calls in their order, by name and arguments.
#[derive(Clone, Hash)]
struct Said {
    words: String,
    calls: Vec<(String, String)>,
}

impl Said {
    fn of(message: &Message) -> Said {
        // Some clients trim what the model said.
        let words = match message.role.as_str() {
            "assistant" => message.content.trim(),
            _ => &message.content,
        };
        Said {
            words: words.to_owned(),
            calls: message.tool_calls.iter().map(call).collect(),
        }
    }

    /// Whether `words` may stand for its own beside the same calls: they are left out, or what the
    /// model thought stands in front of them.
    fn is_told_by(&self, words: &str) -> bool {
        let behind = words.rsplit("</think>").next().unwrap_or(words);
        words.is_empty() || behind.trim() == self.words
    }

    fn bytes(&self) -> usize {
        let calls = self.calls.iter().map(|(n, a)| n.len() + a.len());
        self.words.len() + calls.sum::<usize>()
    }
}

/// By its name, and its arguments as the values that they are.
fn call(call: &ToolCall) -> (String, String) {
    let arguments = serde_json::from_str(&call.arguments);
    let arguments = arguments.map(|v| canonical(&v));
    let arguments = arguments.unwrap_or_else(|_| call.arguments.clone());
    (call.name.clone(), arguments)
}

impl Replays {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, of: impl Hash) -> Key {
        Key(self.hashes[0].hash_one(&of), self.hashes[1].hash_one(&of))
    }

    /// The first is of the tools and of what the template is told alone, each further one of one
    /// more message.
    pub fn keys(
        &self,
        uid: u32,
        options: &TemplateOptions,
        tools: &[Value],
        messages: &[Message],
    ) -> Vec<Key> {
        let mut tools: Vec<String> = tools.iter().map(canonical).collect();
        tools.sort_unstable();
        let variables = canonical(&Value::Object(options.variables.clone()));
        let mut keys = vec![self.key((tools, options.thinking, variables))];
        for message in messages {
            let said = self.meant(uid, message);
            keys.push(self.then(keys[keys.len() - 1], message, &said));
        }
        keys
    }

    /// Ids of calls are left out: some clients make up their own.
    fn then(&self, before: Key, message: &Message, said: &Said) -> Key {
        self.key((before, &message.role, &message.name, said))
    }

    /// The calls of an answer with their ids, in whatever order; `None` where there is none.
    fn ids(&self, message: &Message) -> Option<Key> {
        let calls = message.tool_calls.iter();
        let mut calls: Vec<_> = calls.map(|c| (&c.id, call(c))).collect();
        calls.sort_unstable();
        (!calls.is_empty()).then(|| self.key(("calls", calls)))
    }

    /// What a message says: of an answer whose every call came from here, under the ids that they
    /// had, what was said then.
    fn meant(&self, uid: u32, message: &Message) -> Said {
        let told = Said::of(message);
        let ids = Some(message).filter(|m| m.role == "assistant");
        let Some(ids) = ids.and_then(|m| self.ids(m)) else {
            return told;
        };
        let mut known = self.known();
        match known.called.find(&(uid, ids)) {
            Some(said) if said.is_told_by(&told.words) => said.clone(),
            _ => told,
        }
    }

    /// An answer to the messages of `before`, and the tokens that all of it had been. `id`: its own,
    /// where it is kept.
    pub fn keep(
        &self,
        uid: u32,
        before: Key,
        answer: &Message,
        tokens: Vec<Token>,
        id: Option<String>,
    ) {
        let said = Said::of(answer);
        let (key, ids) = (self.then(before, answer, &said), self.ids(answer));
        let mut known = self.known();
        if let Some(ids) = ids {
            let bytes = said.bytes();
            known.called.keep((uid, ids), said, bytes);
        }
        let bytes = size_of_val(&tokens[..]);
        let was = known.all.peek(&(uid, key)).and_then(|e| e.answer.clone());
        let entry = Entry {
            tokens: tokens.into(),
            answer: id.or(was),
        };
        known.all.keep((uid, key), entry, bytes);
    }

    /// As [`Replays::keep`], of an answer whose tokens mean nothing here.
    pub fn keep_strange(&self, uid: u32, before: Key, answer: &Message) {
        let key = self.then(before, answer, &Said::of(answer));
        let mut known = self.known();
        known.strange.keep((uid, key), (), size_of::<Key>());
    }

    /// Whether another model's answer ends there.
    pub fn is_strange(&self, uid: u32, key: Key) -> bool {
        self.known().strange.peek(&(uid, key)).is_some()
    }

    pub fn find(&self, uid: u32, key: Key) -> Option<Arc<[Token]>> {
        let mut known = self.known();
        known.all.find(&(uid, key)).map(|e| e.tokens.clone())
    }

    /// The id of the answer that ends there.
    pub fn answer(&self, uid: u32, key: Key) -> Option<String> {
        self.known().all.peek(&(uid, key))?.answer.clone()
    }
}

/// JSON in one spelling: keys in order, no blanks, whole numbers without a point.
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
        Value::Number(number) => whole(number).unwrap_or_else(|| number.to_string()),
        other => other.to_string(),
    }
}

/// `1.0` is `1` to a client that has one kind of number. Beyond 2^53 it is not to be told apart.
fn whole(number: &serde_json::Number) -> Option<String> {
    let value = number.as_f64().filter(|_| number.is_f64())?;
    let is_whole = value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0;
    is_whole.then(|| format!("{}", value as i64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// With calls of ids and arguments.
    fn said(role: &str, content: &str, calls: &[(&str, &str)]) -> Message {
        let call = |(id, arguments): &(&str, &str)| ToolCall {
            id: (*id).into(),
            name: "f".into(),
            arguments: (*arguments).into(),
        };
        Message {
            role: role.into(),
            content: content.into(),
            tool_calls: calls.iter().map(call).collect(),
            ..Message::default()
        }
    }

    /// Of a question and that answer.
    fn key(replays: &Replays, tools: &[Value], answer: Message) -> Key {
        let messages = [said("user", "q", &[]), answer];
        replays.keys(1, &TemplateOptions::default(), tools, &messages)[2]
    }

    fn keep(replays: &Replays, tools: &[Value], answer: &Message, tokens: Vec<Token>) {
        let question = [said("user", "q", &[])];
        let before = replays.keys(1, &TemplateOptions::default(), tools, &question)[1];
        replays.keep(1, before, answer, tokens, Some("a".into()));
    }

    #[test]
    fn a_replay_in_another_spelling_is_the_same_and_another_content_is_not() {
        let replays = Replays::default();
        let tools = |a: &str, b: &str| [json!({"x": 1, "name": a}), json!({"name": b, "x": 1})];
        let answer = said("assistant", "yes", &[("1", r#"{"a":1.0,"b":[2]}"#)]);
        keep(&replays, &tools("a", "b"), &answer, vec![1, 2, 3]);
        let of = |tools: &[Value], content: &str, arguments: &str| {
            let calls = [(arguments, arguments)];
            key(&replays, tools, said("assistant", content, &calls))
        };
        let again = of(&tools("b", "a"), "yes\n", r#"{ "b": [2], "a": 1 }"#);
        assert_eq!(replays.find(1, again).as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(replays.find(2, again), None);
        let named = [1, 2].map(|uid| replays.answer(uid, again));
        assert_eq!(named, [Some("a".into()), None]);
        let other = of(&tools("a", "b"), "yes", r#"{"a":1,"b":[3]}"#);
        assert_eq!(replays.find(1, other), None);
        let other = of(&tools("a", "c"), "yes", r#"{"a":1,"b":[2]}"#);
        assert_eq!(replays.find(1, other), None);
        let told = TemplateOptions {
            thinking: Some(false),
            ..TemplateOptions::default()
        };
        let plain = TemplateOptions::default();
        let of = |options| replays.keys(1, options, &[], &[said("user", "q", &[])])[1];
        assert_ne!(of(&told), of(&plain));
    }

    #[test]
    fn calls_under_the_ids_that_they_had_tell_what_was_said_beside_them() {
        let replays = Replays::default();
        let calls = [("c1", r#"{"a":1}"#), ("c2", "{}")];
        let answer = said("assistant", "Let me look.", &calls);
        keep(&replays, &[], &answer, vec![1, 2, 3]);
        let found = |content: &str, calls: &[(&str, &str)]| {
            let again = key(&replays, &[], said("assistant", content, calls));
            replays.find(1, again).is_some()
        };
        let turned = [("c2", "{ }"), ("c1", r#"{"a": 1.0}"#)];
        assert!(found("", &calls), "its words are left out");
        assert!(found("", &turned), "its calls come in another order");
        assert!(found("<think>hm</think>\nLet me look.", &calls));
        assert!(!found("I looked.", &calls), "words that it did not say");
        assert!(!found("", &calls[..1]), "a call is missing");
        assert!(!found("", &[("c1", r#"{"a":2}"#), ("c2", "{}")]));
        assert!(
            !found("", &[("x", r#"{"a":1}"#), ("y", "{}")]),
            "ids of others"
        );
        // Nobody else is told by them, and nothing before it may differ.
        let other = [said("user", "q", &[]), said("assistant", "", &calls)];
        let of_another = replays.keys(2, &TemplateOptions::default(), &[], &other)[2];
        assert_eq!(replays.find(1, of_another), None);
        let changed = [said("user", "Q", &[]), said("assistant", "", &calls)];
        let changed = replays.keys(1, &TemplateOptions::default(), &[], &changed)[2];
        assert_eq!(replays.find(1, changed), None);
    }
}
