//! How soon the next turn of a long conversation begins, and what of it is not the engine reading what is new.

use std::path::Path;

use serde_json::{Value, json};

use crate::daemon::{Daemon, start};
use crate::median;

/// What came of a request, times in milliseconds.
struct Told {
    /// To the first token.
    first: f64,
    /// The engine's, reading what was new.
    reading: f64,
    text: String,
    /// Tokens of the prompt, and those that had been read before.
    prompt: u64,
    cached: u64,
}

impl Told {
    /// The socket, JSON, the template, the tokenizer, finding the state, waking up, choosing and telling the token.
    fn rest(&self) -> f64 {
        self.first - self.reading
    }
}

fn ask(daemon: &Daemon, messages: &[Value]) -> Told {
    // Words of one token each: the first token is the first that is heard.
    let body = json!({"messages": messages, "max_tokens": 24, "temperature": 0, "stream": true,
        "ignore_eos": true, "stream_options": {"include_usage": true}});
    let heard = daemon.events("/v1/chat/completions", &body);
    let (mut first, mut text, mut last) = (None, String::new(), Value::Null);
    for (at, chunk) in heard {
        if let Some(said) = chunk["choices"][0]["delta"]["content"].as_str() {
            text += said;
            if !said.is_empty() {
                first.get_or_insert(at);
            }
        }
        for field in ["usage", "timings"] {
            if chunk[field].is_object() {
                last[field] = chunk[field].clone();
            }
        }
    }
    let usage = &last["usage"];
    Told {
        first: first.expect("words"),
        reading: last["timings"]["prompt_ms"].as_f64().expect("a time"),
        text,
        prompt: usage["prompt_tokens"].as_u64().expect("a count"),
        cached: usage["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap_or(0),
    }
}

fn said(role: &str, text: &str) -> Value {
    json!({"role": role, "content": text})
}

const WORDS: [&str; 16] = [
    "about", "after", "again", "answer", "before", "between", "branch", "build", "cache", "change",
    "check", "client", "clock", "code", "column", "data",
];

/// Drawn by a seed, always the same.
fn words(n: usize, mut seed: u64) -> String {
    let mut draw = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        WORDS[(seed >> 33) as usize % WORDS.len()]
    };
    (0..n).map(|_| draw()).collect::<Vec<_>>().join(" ")
}

/// A conversation of about so many tokens that the daemon has answered in.
fn conversation(daemon: &Daemon, tokens: usize) -> Vec<Value> {
    let count = |talk: &[Value]| {
        let all: String = talk.iter().filter_map(|m| m["content"].as_str()).collect();
        let told = daemon.post("/tokenize", &json!({"content": all}));
        told["tokens"].as_array().expect("tokens").len()
    };
    let turn = |at: u64| {
        [
            said("user", &words(300, at)),
            said("assistant", &words(300, !at)),
        ]
    };
    let each = count(&turn(0)) + 8;
    let mut talk: Vec<Value> = (1..(tokens / each) as u64).flat_map(turn).collect();
    talk.push(said("user", &words(300, 0)));
    let answer = ask(daemon, &talk);
    talk.push(said("assistant", &answer.text));
    talk
}

/// A table of the next turns of conversations so long. Aim: 20 ms beyond reading what is new.
pub fn turns(model: Option<&Path>, lengths: &[usize]) {
    let daemon = start(model);
    let name = model.map_or("the demo model", |_| "an edge model of four layers");
    println!("the next turn, {name}, medians of seven in ms:");
    println!(
        "| history | new | next turn | of it reading | all else | at most | alone | of it reading | all else |"
    );
    println!("|{}", "---|".repeat(9));
    for &tokens in lengths {
        let talk = conversation(&daemon, tokens);
        let (mut warm, mut alone) = (Vec::new(), Vec::new());
        for turn in 0..7 {
            let question = said("user", &words(40, 1000 + turn));
            warm.push(ask(
                &daemon,
                &[&talk[..], std::slice::from_ref(&question)].concat(),
            ));
            alone.push(ask(&daemon, &[said("system", &turn.to_string()), question]));
        }
        let of = |all: &[Told], what: fn(&Told) -> f64| median(all.iter().map(what).collect());
        let three = |all: &[Told]| {
            [|t: &Told| t.first, |t: &Told| t.reading, Told::rest].map(|what| of(all, what))
        };
        let most = warm.iter().map(Told::rest).fold(0.0, f64::max);
        let [first, reading, rest] = three(&warm);
        let [a, b, c] = three(&alone);
        let last = &warm[6];
        println!(
            "| {} | {} | {first:.1} | {reading:.1} | {rest:.1} | {most:.1} | {a:.1} | {b:.1} | {c:.1} |",
            last.cached,
            last.prompt - last.cached
        );
    }
}
