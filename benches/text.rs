//! What text costs per token, at the vocabulary of the demo (2,048) and of Kimi (163,840): loading,
//! encoding, sampling, and the masks of constrained decoding. `cargo bench --bench text`
//!
//! The vocabularies are made up: random syllables of Latin letters and Han characters, the markup of
//! Kimi at the end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use deltad::request::ToolChoice;
use deltad::request::{Sampling, Token};
use deltad::sampler::{Sampler, logprobs};
use deltad::text::{Grammars, Specials, Tokenizer, markup};
use ggml_kernels::gguf::{Array, Metadata, Value};
use serde_json::json;

const SPECIALS: [&str; 10] = [
    "[BOS]",
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
];

/// A small linear congruential stream: the same vocabulary in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

/// GPT-2's spelling of a byte.
fn spell(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    if printable(byte) {
        char::from(byte)
    } else {
        char::from_u32(256 + before).unwrap_or('?')
    }
}

fn vocabulary(n: usize) -> Metadata {
    let mut dice = Dice(7);
    let mut words: BTreeSet<(usize, String)> = BTreeSet::new();
    while words.len() < n - 256 - SPECIALS.len() {
        let mut word = String::from(["", " "][dice.roll(2)]);
        match dice.roll(8) {
            0 => word.extend(
                (0..1 + dice.roll(3))
                    .filter_map(|_| char::from_u32(0x4e00 + dice.roll(3000) as u32)),
            ),
            1 => word
                .extend((0..1 + dice.roll(3)).map(|_| b"{}[]\",:.()=-_/"[dice.roll(14)] as char)),
            _ => {
                for _ in 0..1 + dice.roll(3) {
                    word.push(b"bcdfghklmnprstvwz"[dice.roll(17)] as char);
                    word.push(b"aeiouy"[dice.roll(6)] as char);
                }
            }
        }
        if word.len() > 1 {
            words.insert((word.len(), word));
        }
    }
    let bytes = (0..=255).map(|b| spell(b).to_string());
    let words = words.iter().map(|(_, w)| w.bytes().map(spell).collect());
    let tokens: Vec<String> = bytes
        .chain(words)
        .chain(SPECIALS.map(String::from))
        .collect();
    let kinds = [vec![1; n - SPECIALS.len()], vec![3; SPECIALS.len()]].concat();
    let eos = (n - SPECIALS.len() + 1) as u32;
    let map = [
        ("model", Value::Str("gpt2".into())),
        ("pre", Value::Str("kimi-k2".into())),
        ("tokens", Value::Array(Array::Str(tokens))),
        ("token_type", Value::Array(Array::I32(kinds))),
        ("eos_token_id", Value::U32(eos)),
    ];
    Metadata {
        map: map.map(|(k, v)| (format!("tokenizer.ggml.{k}"), v)).into(),
    }
}

fn report(what: &str, n: usize, took: Duration) {
    let each = took.as_secs_f64() * 1e6 / n.max(1) as f64;
    println!("  {what:<44} {each:>10.1} us");
}

fn per_call(what: &str, n: usize, mut f: impl FnMut()) {
    f();
    let start = Instant::now();
    (0..n).for_each(|_| f());
    report(what, n, start.elapsed());
}

fn main() {
    for n in [2048, 163_840] {
        println!("vocabulary of {n}");
        let meta = vocabulary(n);
        let start = Instant::now();
        let tokenizer = Tokenizer::from_metadata(&meta).expect("a vocabulary");
        report("load the tokenizer", 1, start.elapsed());

        let mut dice = Dice(3);
        let text: String = (0..200_000)
            .map(|_| {
                String::from_utf8_lossy(tokenizer.token_bytes(256 + dice.roll(n - 300) as Token))
                    .into_owned()
            })
            .collect();
        let start = Instant::now();
        let tokens = tokenizer.encode(&text, Specials::Parse);
        let took = start.elapsed();
        let rate = text.len() as f64 / took.as_secs_f64() / 1e6;
        println!(
            "  encode {} bytes to {} tokens: {rate:.1} MB/s",
            text.len(),
            tokens.len()
        );

        let logits: Vec<f32> = (0..n).map(|_| dice.roll(10_000) as f32 / 700.0).collect();
        let with = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            Sampler::new(&sampling, 1, &[])
        };
        for (what, mut sampler) in [
            ("sample: greedy", with(|s| s.temperature = 0.0)),
            ("sample: temperature alone", with(|_| {})),
            ("sample: top_k 40", with(|s| s.top_k = 40)),
            ("sample: top_p 0.95", with(|s| s.top_p = 0.95)),
            (
                "sample: min_p 0.05, repetition 1.1",
                with(|s| {
                    s.min_p = 0.05;
                    s.repetition_penalty = 1.1;
                }),
            ),
        ] {
            per_call(what, 100, || {
                sampler.sample(&logits, None);
            });
        }
        per_call("log-probabilities, top 20", 100, || {
            logprobs(&logits, 5, 20);
        });

        let start = Instant::now();
        let grammars = Grammars::new(&tokenizer, markup::of(&tokenizer, "")).expect("grammars");
        report("prepare the vocabulary for grammars", 1, start.elapsed());
        constrained(&tokenizer, &grammars);
    }
}

/// Masks along given replies, as a model that writes them would ask for them.
fn constrained(tokenizer: &Tokenizer, grammars: &Grammars) {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "notes": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city", "days", "unit"], "additionalProperties": false,
    });
    let body = r#"{"city": "a rather long name of a city", "days": 12, "unit": "celsius", "notes": ["bring a coat", "and an umbrella, 今天天气很好"]}"#;
    let tools =
        [json!({"type": "function", "function": {"name": "get_weather", "parameters": schema}})];
    let call = format!(
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{body}<|tool_call_end|><|tool_calls_section_end|>"
    );
    for (what, text) in [
        ("json_object", body),
        ("json_schema", body),
        ("tool call", &call),
    ] {
        let tokens = tokenizer.encode(text, Specials::Parse);
        let (mut compiling, mut masking, mut accepting, mut worst) = Default::default();
        const ROUNDS: usize = 20;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let constraint = match what {
                "json_object" => grammars.json_object(),
                "json_schema" => grammars.json_schema(&schema),
                _ => grammars.tool_calls(&tools, &ToolChoice::Required, true),
            };
            let mut constraint = constraint.expect("a grammar");
            compiling += start.elapsed();
            for &token in &tokens {
                let start = Instant::now();
                let mask = constraint.mask().expect("a mask").expect("constrained");
                let took = start.elapsed();
                masking += took;
                worst = Duration::max(worst, took);
                assert!(mask.allows(token), "{what}: {token}");
                let start = Instant::now();
                constraint.accept(token).expect("a token of the mask");
                accepting += start.elapsed();
            }
        }
        report(&format!("{what}: compile"), ROUNDS, compiling);
        report(
            &format!("{what}: mask, per token"),
            ROUNDS * tokens.len(),
            masking,
        );
        report(&format!("{what}: mask, worst"), 1, worst);
        report(
            &format!("{what}: accept, per token"),
            ROUNDS * tokens.len(),
            accepting,
        );
    }
}
