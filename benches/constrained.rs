//! What a schema costs while decoding: the next mask is computed beside the pass, so the answer
//! waits only for what the pass does not cover. `constrained MODEL.gguf [TOKENS]` prints the share;
//! without a file it converts the demo model.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use deltad::engine::{Engine, Options, Want};
use deltad::request::{Sampling, Token};
use deltad::sampler::Sampler;
use deltad::scheduler::beside::Beside;
use deltad::text::{Grammars, Tokenizer, markup};
use quantize::convert::{self, Conversion, Input, Silent};
use serde_json::json;

fn demo(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    let target = dir.join("demo.gguf");
    let input = Input::open(&source).expect("the demo model");
    let options = convert::Options {
        to: "q8_0".parse().expect("a type"),
        overrides: Vec::new(),
    };
    let conversion = Conversion::plan(&input, &options).expect("a plan");
    let never = AtomicBool::new(false);
    let written = conversion.write(&target, false, None, &never, &mut Silent);
    written.expect("a model");
    target
}

#[derive(Default)]
struct Times {
    steps: usize,
    /// Passes alone.
    pass: Duration,
    /// Passes with the mask beside them, to the moment when both are there.
    both: Duration,
    /// Masks alone, one after the other with the passes.
    mask: Duration,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let dir = tempfile::tempdir().expect("a directory");
    let path = arguments
        .next()
        .map_or_else(|| demo(dir.path()), PathBuf::from);
    let n: usize = arguments
        .next()
        .map_or(2000, |n| n.parse().expect("a number"));
    let options = Options::default();
    let mut engine = Engine::open(&path, &options).expect("a model");
    let model = engine.model();
    let tokenizer = Tokenizer::from_metadata(model.metadata()).expect("a tokenizer");
    let grammars = Grammars::new(&tokenizer, markup::of(&tokenizer, "")).expect("grammars");
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 40},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 6},
        "when": {"type": "string", "format": "date"},
        "size": {"type": "number"}},
        "required": ["name", "tags", "when", "size"], "additionalProperties": false});
    let mut times = Times::default();
    let mut beside = Beside::default();
    let mut seed = 0;
    while times.steps < n {
        seed += 1;
        reply(
            &mut engine,
            &tokenizer,
            &grammars,
            &schema,
            &mut beside,
            seed,
            &mut times,
        );
    }
    let each = |d: Duration| d.as_secs_f64() * 1e6 / times.steps as f64;
    let (pass, both, mask) = (each(times.pass), each(times.both), each(times.mask));
    println!("{} constrained steps; per step:", times.steps);
    println!("pass alone          {pass:9.1} us");
    println!(
        "mask alone          {mask:9.1} us  {:5.2}% of a pass",
        100.0 * mask / pass
    );
    println!(
        "pass, mask beside   {both:9.1} us  {:+5.2}%",
        100.0 * (both / pass - 1.0)
    );
}

/// The same steps in turn: a pass alone and a mask alone, then both together.
fn reply(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    grammars: &Grammars,
    schema: &serde_json::Value,
    beside: &mut Beside,
    seed: u64,
    times: &mut Times,
) {
    let mut constraint = grammars.json_schema(schema).expect("a schema");
    let mut twin = grammars.json_schema(schema).expect("a schema");
    let mut sampler = Sampler::new(&Sampling::default(), seed, &[]);
    let (mut alone, mut together) = (
        engine.sequence().expect("room"),
        engine.sequence().expect("room"),
    );
    let mut last: Token = tokenizer.bos().unwrap_or(0);
    for _ in 0..200 {
        let began = Instant::now();
        engine
            .feed(&mut alone, &[last], Want::Last)
            .expect("a pass");
        times.pass += began.elapsed();
        let began = Instant::now();
        twin.mask().expect("a mask");
        times.mask += began.elapsed();
        let began = Instant::now();
        let pass = || engine.feed(&mut together, &[last], Want::Last);
        let (logits, mut masked) = beside.run(vec![constraint], pass);
        times.both += began.elapsed();
        times.steps += 1;
        let logits = logits.expect("a pass");
        let (own, mask) = masked.pop().expect("what was lent");
        constraint = own;
        let mask = mask.expect("a mask");
        let row = logits.last().expect("a row");
        let token = sampler.sample(row, mask.as_ref()).expect("a token");
        twin.accept(token).expect("it was allowed");
        constraint.accept(token).expect("it was allowed");
        if twin.is_complete() || tokenizer.is_end(token) {
            return;
        }
        last = token;
    }
}
