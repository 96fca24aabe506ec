//! Decoding on a busy desktop: undisturbed, then beside one busy loop a core, in turn; and what
//! the pool costs while nothing is asked of it. A program, not a harness.
//!
//! `cargo bench --profile release --bench busy -- [MODEL.gguf] [--threads N] [--stock]`; without a
//! file it converts the demo model.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use deltad::engine::{Device, Engine, Options, Runner, Want};
use quantize::convert::{self, Conversion, Input, Silent};

const ROUNDS: usize = 5;
/// One measurement.
const SPAN: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(20);

fn demo(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    let input = Input::open(&source).expect("the demo model");
    let options = convert::Options {
        to: "q8_0".parse().expect("a type"),
        overrides: Vec::new(),
    };
    let path = dir.join("demo.gguf");
    let conversion = Conversion::plan(&input, &options).expect("a plan");
    let never = AtomicBool::new(false);
    let written = conversion.write(&path, false, None, &never, &mut Silent);
    written.expect("a model");
    path
}

/// Tokens a second over [`SPAN`], and the longest wait for one.
fn decode(engine: &mut Engine) -> (f64, Duration) {
    let mut sequence = engine.sequence().expect("room");
    let mut feed = || {
        engine
            .feed(&mut sequence, &[7], Want::Last)
            .expect("a pass")
    };
    feed();
    let (start, mut tokens, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while start.elapsed() < SPAN {
        let before = Instant::now();
        feed();
        longest = longest.max(before.elapsed());
        tokens += 1;
    }
    (f64::from(tokens) / start.elapsed().as_secs_f64(), longest)
}

/// Processor time of this process so far, in seconds.
fn spent() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit(") ").next().expect("a name").split(' ');
    // utime and stime, in hundredths.
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .map(|t| t.parse::<f64>().expect("ticks"))
        .sum();
    ticks / 100.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let at = |name: &str| args.iter().position(|a| a == name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = at("--threads").map_or(cores, |i| args[i + 1].parse().expect("--threads N"));
    let home = tempfile::tempdir().expect("a directory");
    let path = match args.first().filter(|a| a.ends_with(".gguf")) {
        Some(path) => PathBuf::from(path),
        None => demo(home.path()),
    };
    let options = Options {
        device: Device::Cpu,
        threads: Some(threads),
        runner: if at("--stock").is_some() {
            Runner::Stock
        } else {
            Runner::Own(None)
        },
        ..Options::default()
    };
    let mut engine = Engine::open(&path, &options).expect("a model");
    println!("{}, {threads} threads on {cores} cores", engine.device());
    decode(&mut engine);
    let (mut quiet, mut busy, mut worst) = (Vec::new(), Vec::new(), Duration::ZERO);
    for _ in 0..ROUNDS {
        quiet.push(decode(&mut engine).0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                // Work, without the hint that would make room for others.
                scope.spawn(|| {
                    let mut n = 0u64;
                    while !stop.load(Relaxed) {
                        n = std::hint::black_box(n.wrapping_add(1));
                    }
                });
            }
            let (speed, longest) = decode(&mut engine);
            stop.store(true, Relaxed);
            busy.push(speed);
            worst = worst.max(longest);
        });
    }
    let (quiet, busy) = (median(quiet), median(busy));
    println!(
        "undisturbed {quiet:.1} tokens/s, beside {cores} busy loops {busy:.1}: {:.0} %",
        100.0 * busy / quiet
    );
    println!(
        "the longest wait for a token beside them: {:.1} ms",
        worst.as_secs_f64() * 1e3
    );
    let before = spent();
    std::thread::sleep(IDLE);
    println!(
        "idle for {} s: {:.2} s of processor time",
        IDLE.as_secs(),
        spent() - before
    );
}
