//! Prefill and decode beside llama.cpp: the same file, threads and process, repacking off on both
//! sides, in turn. Prints each side's best and the ratio (over 1 is ours faster).
//!
//! `deltad-quantize synth m.gguf --shape 48b --layers 4 --type q4_k`, then
//! `cargo bench --bench rival -- m.gguf [--depth 0,8192] [--threads N]`

use std::path::Path;
use std::time::Instant;

use deltad::engine::{CacheType, Device, Engine, Options, Want};
use ggml_kernels::rival::{Llama, RivalCache};

const PREFILL: usize = 512;
const DECODE: usize = 24;
const ROUNDS: usize = 3;

fn main() {
    // cargo passes `--bench` of its own.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let value = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1).cloned()
    };
    let Some(path) = args.first().filter(|a| !a.starts_with("--")) else {
        println!("usage: cargo bench --bench rival -- MODEL.gguf [--depth 0,8192] [--threads N]");
        return;
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = value("--threads").map_or(cores, |n| n.parse().expect("--threads N"));
    let depths = value("--depth").unwrap_or_else(|| "0".into());
    let depths = depths.split(',').map(|d| d.parse().expect("--depth N,N"));
    let path = Path::new(path);
    let options = Options {
        device: Device::Cpu,
        threads: Some(threads),
        cache_type: CacheType::F16,
        ..Options::default()
    };
    let start = Instant::now();
    let mut engine = Engine::open(path, &options).expect("the model opens");
    let model = engine.model();
    println!(
        "open: {:.0} ms, {threads} threads",
        start.elapsed().as_secs_f64() * 1e3
    );
    let n_vocab = model.n_vocab() as u32;
    println!("depth  what      deltad t/s  llama.cpp t/s  ratio");
    for depth in depths {
        let room = depth + PREFILL + DECODE + 8;
        let mut rival = Llama::open(path, threads, room, PREFILL, RivalCache::F16).expect("rival");
        let tokens: Vec<u32> = (0..room as u32)
            .map(|t| (t * 7919 + 13) % n_vocab)
            .collect();
        let (mut ours, mut theirs) = ([0f64; 2], [0f64; 2]);
        for _ in 0..ROUNDS {
            let mut sequence = engine.sequence().expect("a sequence");
            let mut feed = |tokens: &[u32]| {
                engine
                    .feed(&mut sequence, tokens, Want::Last)
                    .expect("a pass");
            };
            keep_best(&mut ours, &tokens, depth, &mut feed);
            rival.clear();
            let mut feed = |tokens: &[u32]| {
                rival.feed(tokens).expect("a pass");
            };
            keep_best(&mut theirs, &tokens, depth, &mut feed);
        }
        for (what, at) in [("prefill", 0), ("decode", 1)] {
            let (ours, theirs) = (ours[at], theirs[at]);
            println!(
                "{depth:5}  {what:8}  {ours:10.1}  {theirs:13.1}  {:5.2}",
                ours / theirs
            );
        }
    }
}

/// Feeds `depth` tokens untimed, then times a prefill and single tokens, in tokens a second.
fn keep_best(best: &mut [f64; 2], tokens: &[u32], depth: usize, feed: &mut dyn FnMut(&[u32])) {
    let (before, rest) = tokens.split_at(depth);
    if !before.is_empty() {
        feed(before);
    }
    let (prefill, decode) = rest.split_at(PREFILL);
    let start = Instant::now();
    feed(prefill);
    best[0] = best[0].max(PREFILL as f64 / start.elapsed().as_secs_f64());
    feed(&decode[..2]);
    let start = Instant::now();
    for token in &decode[2..2 + DECODE.min(decode.len() - 2)] {
        feed(std::slice::from_ref(token));
    }
    best[1] = best[1].max(DECODE as f64 / start.elapsed().as_secs_f64());
}
