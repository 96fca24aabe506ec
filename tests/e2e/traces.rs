//! What five kinds of clients send in the course of a conversation (`tests/traces`), against the real
//! daemon: every request may compute what is new in it, and next to nothing else.

use std::process::Command;

use serde_json::{Map, Value, json};

use super::daemon::{Daemon, demo, fixture, start_with};

/// Tokens computed of prompts, for each that was new, after the first request.
const MOST: f64 = 1.05;
/// A template's own tokens around a message.
const AROUND: usize = 12;

pub struct Trace(Value);

/// What came of a request.
#[derive(Debug, Clone, Default)]
pub struct Told {
    pub prompt: usize,
    pub cached: usize,
    pub completion: usize,
    /// Nothing of it was an answer: a thought that was cut off, which nobody sends back.
    pub is_blank: bool,
    /// The answer, as its door told it.
    pub body: Value,
}

impl Trace {
    pub fn read(name: &str) -> Trace {
        let path = format!("{}/tests/traces/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        Trace(serde_json::from_str(&text).expect("JSON"))
    }

    pub fn requests(&self) -> &[Value] {
        let requests = self.0["requests"].as_array().expect("requests");
        assert!(requests.len() >= 30, "only {} requests", requests.len());
        requests
    }

    /// The body of a request, with what was told before in its place.
    pub fn body(&self, request: &Value, told: &[Told]) -> Value {
        let mut body = self.0["bodies"][number(&request["body"])].clone();
        let items = numbers(&request["items"]);
        let items = items.flat_map(|i| self.item(i, told));
        let into = self.0["into"].as_str().expect("a name");
        body[into] = items.collect();
        body
    }

    /// One item of a pool; an answer may be several.
    pub fn item(&self, at: usize, told: &[Told]) -> Vec<Value> {
        let item = &self.0["pool"][at];
        match item.get("$answer") {
            Some(n) => sent_back(&told[number(n)].body, item),
            None => vec![filled(item, told)],
        }
    }

    fn path(&self) -> &str {
        self.0["path"].as_str().expect("a path")
    }

    /// At most so many tokens of the request are new.
    fn fresh(&self, daemon: &Daemon, request: &Value, told: &[Told], prompt: usize) -> usize {
        if let Some(items) = request.get("new") {
            let each = numbers(items).flat_map(|i| self.item(i, told));
            return each.map(|item| counted(daemon, &item) + AROUND).sum();
        }
        let before = request["after"].as_u64().map(|n| &told[n as usize]);
        let known = before.map_or(0, |b| b.prompt + if b.is_blank { 0 } else { b.completion });
        // A request that is sent again has nothing that is new.
        prompt.saturating_sub(known)
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().expect("a number") as usize
}

fn numbers(value: &Value) -> impl Iterator<Item = usize> {
    value.as_array().expect("numbers").iter().map(number)
}

/// With the ids of calls where they are asked for.
fn filled(item: &Value, told: &[Told]) -> Value {
    match item {
        Value::Object(map) => match map.get("$call") {
            Some(n) => call_id(&told[number(n)].body).into(),
            None => {
                let each = map.iter().map(|(k, v)| (k.clone(), filled(v, told)));
                Value::Object(each.collect())
            }
        },
        Value::Array(items) => items.iter().map(|v| filled(v, told)).collect(),
        other => other.clone(),
    }
}

fn call_id(body: &Value) -> String {
    let chat = &body["choices"][0]["message"]["tool_calls"][0]["id"];
    let items = [&body["output"], &body["content"]];
    let items = items.iter().filter_map(|i| i.as_array()).flatten();
    let named = items.filter_map(|i| {
        let is_call = i["type"] == "function_call" || i["type"] == "tool_use";
        is_call.then(|| i.get("call_id").unwrap_or(&i["id"]).as_str())?
    });
    let id = named.chain(chat.as_str()).next();
    id.unwrap_or_else(|| panic!("no call: {body}")).to_owned()
}

/// An answer as a client sends it back.
fn sent_back(body: &Value, manner: &Value) -> Vec<Value> {
    let thinks = |kind: &Value| kind == "reasoning" || kind == "thinking";
    let hides = manner["reasoning"] == "left out";
    if let Some(message) = body["choices"][0].get("message") {
        return vec![chat_back(message, manner)];
    }
    if let Some(output) = body["output"].as_array() {
        let kept = output.iter().filter(|i| !(hides && thinks(&i["type"])));
        return kept
            .map(|item| {
                if thinks(&item["type"]) {
                    json!({"type": "reasoning", "id": item["id"], "summary": [],
                        "content": null, "encrypted_content": null})
                } else {
                    item.clone()
                }
            })
            .collect();
    }
    let blocks = body["content"].as_array().expect("an answer");
    let kept = blocks.iter().filter(|b| !(hides && thinks(&b["type"])));
    vec![json!({"role": "assistant", "content": kept.collect::<Vec<_>>()})]
}

fn chat_back(message: &Value, manner: &Value) -> Value {
    let mut message = message.clone();
    let fields = message.as_object_mut().expect("a message");
    fields.shift_remove("refusal");
    if manner["reasoning"] == "left out" {
        fields.shift_remove("reasoning_content");
    }
    if manner["trim"] == true {
        let text = message["content"].as_str().expect("a text").trim();
        message["content"] = json!(text);
    }
    if manner["arguments"] == "turned" {
        for call in message["tool_calls"].as_array_mut().into_iter().flatten() {
            let text = call["function"]["arguments"].as_str().expect("a text");
            let given: Map<String, Value> = serde_json::from_str(text).expect("JSON");
            let turned: Map<String, Value> = given.into_iter().rev().collect();
            call["function"]["arguments"] =
                serde_json::to_string_pretty(&turned).expect("JSON").into();
        }
    }
    message
}

/// Tokens of all text in an item.
fn counted(daemon: &Daemon, item: &Value) -> usize {
    let mut text = String::new();
    fn gather(value: &Value, text: &mut String) {
        match value {
            Value::String(s) => *text += s,
            Value::Array(items) => items.iter().for_each(|v| gather(v, text)),
            Value::Object(map) => map.values().for_each(|v| gather(v, text)),
            _ => {}
        }
    }
    gather(item, &mut text);
    let (status, answer) = daemon.post("/tokenize", &json!({"content": text}));
    assert_eq!(status, 200, "{answer}");
    answer["tokens"].as_array().expect("tokens").len()
}

fn ask(daemon: &Daemon, path: &str, body: &Value) -> Told {
    let (status, answer) = daemon.post(path, body);
    assert_eq!(status, 200, "{answer}");
    let usage = &answer["usage"];
    let count = |at: &str| usage.pointer(at).map_or(0, number);
    let is_blank = |items: &Value| {
        let items = items.as_array().into_iter().flatten();
        items
            .into_iter()
            .all(|i| i["type"] == "reasoning" || i["type"] == "thinking")
    };
    if path == "/v1/chat/completions" {
        let message = &answer["choices"][0]["message"];
        return Told {
            prompt: count("/prompt_tokens"),
            cached: count("/prompt_tokens_details/cached_tokens"),
            completion: count("/completion_tokens"),
            is_blank: message["content"] == "" && message["tool_calls"].is_null(),
            body: answer,
        };
    }
    let own = count("/input_tokens");
    let read = count("/cache_read_input_tokens");
    let written = count("/cache_creation_input_tokens");
    Told {
        prompt: own + read + written,
        cached: read + count("/input_tokens_details/cached_tokens"),
        completion: count("/output_tokens"),
        is_blank: match answer.get("output") {
            Some(output) => is_blank(output),
            None => is_blank(&answer["content"]),
        },
        body: answer,
    }
}

/// What a trace came to.
#[derive(Debug, Default)]
pub struct Tally {
    pub name: String,
    requests: usize,
    prompt: usize,
    new: usize,
    computed: usize,
    /// Requests that computed more than was new in them: which, what, how much.
    over: Vec<String>,
}

impl Tally {
    pub fn of(name: &str) -> Tally {
        let name = name.to_owned();
        Tally {
            name,
            ..Tally::default()
        }
    }

    /// One request after the first.
    pub fn add(&mut self, at: usize, why: &Value, told: &Told, new: usize) {
        let computed = told.prompt - told.cached;
        self.requests += 1;
        self.prompt += told.prompt;
        self.new += new;
        self.computed += computed;
        // The last token of an answer is drawn and not fed.
        if computed > new + 1 && why != "once more" {
            let why = why.as_str().unwrap_or("goes on");
            self.over
                .push(format!("{at} ({why}): {computed} for {new}"));
        }
    }

    pub fn settle(self) {
        let ratio = self.computed as f64 / self.new as f64;
        println!(
            "| {} | {} | {} | {} | {} | {ratio:.3} |",
            self.name, self.requests, self.prompt, self.new, self.computed
        );
        assert!(ratio <= MOST, "{}: {ratio:.3}: {:?}", self.name, self.over);
    }
}

fn replay(daemon: &Daemon, model: &str, name: &str) {
    let trace = Trace::read(name);
    let mut told: Vec<Told> = Vec::new();
    let mut tally = Tally::of(&format!("{name}, {model}"));
    for (at, request) in trace.requests().iter().enumerate() {
        let came = ask(daemon, trace.path(), &trace.body(request, &told));
        if at > 0 {
            let new = trace.fresh(daemon, request, &told, came.prompt);
            tally.add(at, &request["why"], &came, new);
        }
        told.push(came);
    }
    tally.settle();
}

#[test]
fn the_traces_are_what_their_script_makes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traces/make.py");
    let checked = Command::new("python3").arg(script).arg("--check").output();
    match checked {
        Ok(out) => assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        ),
        Err(e) => eprintln!("SKIPPED: no python3 here: {e}"),
    }
}

#[test]
fn an_agent_of_codex_kind_reads_nothing_twice() {
    replay(&start_with(&demo("model"), "q4_k_m", ""), "demo", "codex");
}

#[test]
fn an_agent_of_claude_codes_kind_reads_nothing_twice() {
    let daemon = start_with(&demo("model"), "q4_k_m", "");
    replay(&daemon, "demo", "claude_code");
}

#[test]
fn two_agents_of_opencodes_kind_read_nothing_twice() {
    let daemon = start_with(&demo("model"), "q4_k_m", "");
    replay(&daemon, "demo", "opencode");
}

#[test]
fn a_window_that_sends_the_whole_chat_has_nothing_read_twice() {
    replay(&start_with(&demo("model"), "q4_k_m", ""), "demo", "plain");
}

#[test]
fn agents_of_a_model_that_thinks_read_nothing_twice() {
    let daemon = start_with(&fixture("ling_tiny"), "f32", "");
    for name in ["codex", "claude_code", "opencode", "plain"] {
        replay(&daemon, "ling", name);
    }
}
