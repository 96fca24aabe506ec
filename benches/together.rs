//! What many callers get together: decoded tokens a second of 1 to 16 sequences in one pass, beside
//! llama.cpp with as many in the same process, in turn; then how long a caller waits for its next
//! token while another's long prompt is read, through the scheduler. Prints medians of rounds; a
//! ratio over 1 is ours faster.
//!
//! `cargo bench --bench together -- [MODEL.gguf] [--threads N] [--depth N] [--prompt N]
//! [--neighbour]`; without a file it converts the demo model; the last one leaves the first part out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use deltad::engine::{Device, Engine, Lane, Options, Want};
use deltad::request::{Caller, Event, Sampling, Stop};
use deltad::scheduler::{Admitted, Limits, Scheduler, Style};
use deltad::text::Tokenizer;
use ggml_kernels::rival::{Llama, RivalCache};
use quantize::convert::{self, Conversion, Input, Silent};
use tokio::sync::mpsc;

const ROUNDS: usize = 5;
const DECODE: usize = 24;
/// Longest answer of the caller who decodes meanwhile: more than it has time for.
const ANSWER: usize = 8192;
/// Sequences that llama.cpp is opened for; its busy ones are the first, or as said.
const SLOTS: usize = 16;

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

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("model name"));
    let name = name.and_then(|l| l.split_once(':'));
    name.map_or_else(|| "unknown".into(), |(_, n)| n.trim().to_owned())
}

fn main() {
    // cargo passes `--bench` of its own.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let at = |name: &str| args.iter().position(|a| a == name);
    let number = |name: &str| {
        let value = args.get(at(name)? + 1).expect("a number follows");
        Some(value.parse::<usize>().expect("a number"))
    };
    let dir = tempfile::tempdir().expect("a directory");
    let given = args.first().filter(|a| !a.starts_with("--"));
    let path = given.map_or_else(|| demo(dir.path()), PathBuf::from);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number("--threads").unwrap_or(cores);
    let depth = number("--depth").unwrap_or(64);
    let prompt = number("--prompt").unwrap_or(20_000);
    println!("{}, {threads} threads, {}", processor(), path.display());
    let options = Options {
        device: Device::Cpu,
        threads: Some(threads),
        ..Options::default()
    };
    let mut engine = Engine::open(&path, &options).expect("the model opens");
    if at("--neighbour").is_none() {
        lanes(&mut engine, &path, threads, depth);
    }
    if prompt > 0 {
        let chunk = engine.chunk();
        neighbour(engine, chunk, prompt);
    }
}

fn token(sequence: usize, at: usize, n_vocab: usize) -> u32 {
    ((sequence * 104_729 + at * 7919 + 13) % n_vocab) as u32
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn lanes(engine: &mut Engine, path: &Path, threads: usize, depth: usize) {
    let n_vocab = engine.model().n_vocab();
    let room = depth + DECODE + 8;
    let cache = RivalCache::F16;
    let mut rival =
        Llama::open_many(path, (threads, 0), room, 512, cache, SLOTS).expect("llama.cpp opens it");
    println!("\ndecoded tokens/s of all, {depth} tokens deep, median of {ROUNDS}");
    println!("busy      deltad  of one  llama.cpp  of one  ratio");
    let (mut one, mut rivals_one) = (1.0, 1.0);
    let first = |n: usize| (0..n).collect::<Vec<_>>();
    let busy = [
        first(1),
        first(2),
        vec![0, 2],
        first(4),
        first(8),
        first(16),
    ];
    for busy in busy {
        let prompts: Vec<Vec<u32>> = busy
            .iter()
            .map(|&s| (0..room).map(|at| token(s, at, n_vocab)).collect())
            .collect();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(our_rate(engine, &prompts, depth));
            theirs.push(rivals_rate(&mut rival, &busy, &prompts, depth));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        if busy.len() == 1 {
            (one, rivals_one) = (ours, theirs);
        }
        let name = if busy == [0, 2] {
            "0 and 2".into()
        } else {
            busy.len().to_string()
        };
        let (gain, rivals_gain) = (ours / one, theirs / rivals_one);
        let ratio = ours / theirs;
        println!("{name:7} {ours:8.1}  {gain:6.2}  {theirs:9.1}  {rivals_gain:6.2}  {ratio:5.2}");
    }
}

fn our_rate(engine: &mut Engine, prompts: &[Vec<u32>], depth: usize) -> f64 {
    let mut sequences: Vec<_> = prompts
        .iter()
        .map(|tokens| {
            let mut sequence = engine.sequence().expect("a sequence");
            let fed = engine.feed(&mut sequence, &tokens[..depth], Want::Last);
            fed.expect("a pass");
            sequence
        })
        .collect();
    let mut step = |at: usize| {
        let lanes = sequences.iter_mut().zip(prompts);
        let mut lanes: Vec<Lane<'_>> = lanes
            .map(|(sequence, tokens)| Lane {
                sequence,
                tokens: &tokens[at..=at],
                want: Want::Last,
            })
            .collect();
        engine.forward(&mut lanes).expect("a pass");
    };
    (0..2).for_each(|i| step(depth + i));
    let start = Instant::now();
    (2..2 + DECODE).for_each(|i| step(depth + i));
    (prompts.len() * DECODE) as f64 / start.elapsed().as_secs_f64()
}

fn rivals_rate(rival: &mut Llama, busy: &[usize], prompts: &[Vec<u32>], depth: usize) -> f64 {
    rival.clear();
    for (&sequence, tokens) in busy.iter().zip(prompts) {
        for piece in tokens[..depth].chunks(512) {
            rival.feed_many(&[(sequence, piece)]).expect("a pass");
        }
    }
    let mut step = |at: usize| {
        let lanes = busy.iter().zip(prompts);
        let lanes: Vec<_> = lanes.map(|(&s, tokens)| (s, &tokens[at..=at])).collect();
        rival.feed_many(&lanes).expect("a pass");
    };
    (0..2).for_each(|i| step(depth + i));
    let start = Instant::now();
    (2..2 + DECODE).for_each(|i| step(depth + i));
    (prompts.len() * DECODE) as f64 / start.elapsed().as_secs_f64()
}

fn ask(scheduler: &Scheduler, uid: u32, n: usize, max_tokens: usize) -> mpsc::Receiver<Event> {
    let (events, heard) = mpsc::channel(1024);
    let prompt = (0..n).map(|at| token(uid as usize, at, 256)).collect();
    let request = Admitted {
        caller: Caller {
            uid,
            pid: None,
            unit: None,
        },
        arrived: Instant::now(),
        prompt,
        style: Style::Raw,
        sampling: Sampling::default(),
        seed: 1,
        stop: Stop {
            ignore_eos: true,
            ..Stop::default()
        },
        max_tokens,
        n: 1,
        logprobs: Some(0),
        scores_prompt: false,
        reports: false,
        resume: None,
        is_strange: false,
        ends: Vec::new(),
        marks: Vec::new(),
        line: None,
        found: tokio::sync::oneshot::channel().0,
        constraints: Vec::new(),
        events,
    };
    scheduler.push(request).expect("room");
    heard
}

/// Until the first token of an answer to a prompt of `n` tokens.
fn first_token(scheduler: &Scheduler, uid: u32, n: usize) -> Duration {
    let start = Instant::now();
    let mut heard = ask(scheduler, uid, n, 1);
    let mut last = None;
    while let Some(event) = heard.blocking_recv() {
        if matches!(event, Event::Delta { .. }) {
            return start.elapsed();
        }
        last = Some(event);
    }
    panic!("no token came for user {uid}; the last word was {last:?}");
}

fn neighbour(engine: Engine, chunk: usize, prompt: usize) {
    let (room, limit) = (prompt + ANSWER, engine.model().context());
    assert!(
        room <= limit,
        "--prompt {prompt}: with the answer got {room} tokens, wanted at most {limit}, the context"
    );
    let tokenizer = Tokenizer::from_metadata(engine.model().metadata()).expect("a tokenizer");
    let limits = Limits {
        max_concurrent: 8,
        max_queue: 8,
        chunk,
        prefix_bytes: 0,
        request_memory: usize::MAX,
        patience: Duration::from_secs(60),
    };
    let started = Scheduler::start(engine, Arc::new(tokenizer), limits);
    let (scheduler, _ended) = started.expect("a thread");
    let alone = first_token(&scheduler, 1, prompt);
    let mut talker = ask(&scheduler, 2, 16, ANSWER);
    let listening = std::thread::spawn(move || {
        let mut times = Vec::new();
        while let Some(event) = talker.blocking_recv() {
            if matches!(event, Event::Delta { .. }) {
                times.push(Instant::now());
            }
        }
        times
    });
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    let (beside, short) = std::thread::scope(|scope| {
        let long = scope.spawn(|| first_token(&scheduler, 1, prompt));
        // While the long one is read.
        std::thread::sleep(alone / 4);
        let short = first_token(&scheduler, 3, 32);
        (long.join().expect("a time"), short)
    });
    let end = start + beside;
    scheduler.stop(Instant::now());
    let times = listening.join().expect("times");
    let gaps = |from: Option<Instant>, to: Instant| {
        let within = times.windows(2).filter(|w| w[1] <= to);
        let within = within.filter(|w| from.is_none_or(|from| w[0] >= from));
        let gaps = within.map(|w| (w[1] - w[0]).as_secs_f64() * 1e3);
        gaps.collect::<Vec<f64>>()
    };
    let sorted = |mut gaps: Vec<f64>| {
        gaps.sort_by(f64::total_cmp);
        gaps
    };
    let at = |gaps: &[f64], share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize];
    let (quiet, mixed) = (gaps(None, start), gaps(Some(start), end));
    // A mixed step takes longer the deeper the prompt is: the last ones are the longest that must be.
    let deepest = sorted(mixed[mixed.len() - mixed.len() / 10..].to_vec());
    let (quiet, mixed) = (sorted(quiet), sorted(mixed));
    println!("\na caller's gap between tokens, ms       p50      p99");
    for (name, gaps) in [("alone", &quiet), ("beside the prompt", &mixed)] {
        println!("{name:34} {:9.2}{:9.2}", at(gaps, 0.5), at(gaps, 0.99));
    }
    let step = at(&deepest, 0.5);
    println!(
        "a mixed step near the prompt's end: {step:.2} ms; the p99 beside the prompt is {:.2} of it",
        at(&mixed, 0.99) / step
    );
    let (alone, beside) = (alone.as_secs_f64(), beside.as_secs_f64());
    println!(
        "a prompt of {prompt} tokens: alone {alone:.2} s, beside a decoding caller {beside:.2} s ({:.2})",
        beside / alone
    );
    let steps = short.as_secs_f64() * 1e3 / at(&mixed, 0.5);
    println!(
        "32 tokens asked meanwhile: first token after {:.2} ms, {steps:.1} median gaps",
        short.as_secs_f64() * 1e3
    );
}
