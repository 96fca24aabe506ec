//! What it costs to keep conversations: turns, states, forks, suspending and resuming.
//! `cargo bench --bench sessions` writes states of the 48B's byte sizes to a store, takes them up in an
//! engine, then starts a daemon with the demo model; `cargo bench --bench sessions -- MODEL.gguf TOKENS`
//! with another one.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltad::engine::{BLOCK, Engine, Options, Want};
use deltad::sessions::store::{About, Digest, Id, Identity, Quota, State, Store, Turn};
use serde_json::{Value, json};

const MIB: f64 = (1 << 20) as f64;

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A state of so many tokens, in bytes: each block tells where it is from.
struct Large {
    tokens: usize,
    slot: usize,
}

const BLOCK_BYTES: usize = 7 * BLOCK * 576 * 2;
/// Of the whole 48B.
const SLOT_BYTES: usize = 43 << 20;

impl State for Large {
    fn blocks(&self) -> usize {
        self.tokens / BLOCK
    }
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }
    fn block(&self, at: usize) -> Bytes {
        vec![at as u8 & 0x3f; BLOCK_BYTES].into()
    }
    fn slot(&self) -> Bytes {
        vec![7; self.slot].into()
    }
    fn tail(&self) -> Bytes {
        vec![1; self.tokens % BLOCK * BLOCK_BYTES / BLOCK].into()
    }
    fn next(&self) -> Bytes {
        Bytes::new()
    }
}

fn identity() -> Identity {
    let digest = Digest([1; 32]);
    Identity {
        model: digest,
        tokenizer: digest,
        template: digest,
        cache: "f16".into(),
    }
}

fn turn(kept: usize, new: usize) -> Turn {
    Turn {
        response: "resp_0123456789abcdef0123456789abcdef".into(),
        messages: "x".repeat(new * 5),
        kept,
        tokens: vec![1; new],
        options: "{}".into(),
        at: 0,
    }
}

fn store(dir: &Path) -> Store {
    let quota = Quota {
        disk: 1 << 40,
        floor: 0,
    };
    Store::open(dir, 1, quota).expect("ours")
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// The store alone, with states of the 48B.
fn stored(tokens: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let large = |tokens| Large {
        tokens,
        slot: SLOT_BYTES,
    };
    let about = About {
        name: None,
        note: String::new(),
        identity: identity(),
    };
    println!("the store, states of the 48B's byte sizes, {tokens} tokens:");
    let id = store.create(&about).expect("room");
    store.turn(&id, &turn(0, tokens)).expect("room");
    let all: Vec<u32> = vec![1; tokens + 500];
    let start = Instant::now();
    let first = store
        .checkpoint(&id, &all[..tokens], &large(tokens))
        .expect("room");
    println!(
        "  first checkpoint    {:8.1} ms, {:.1} MiB",
        ms(start),
        first.bytes as f64 / MIB
    );
    let before = store.written();
    let start = Instant::now();
    store.turn(&id, &turn(tokens, 500)).expect("room");
    println!(
        "  a turn of 500       {:8.1} ms, {:.1} KiB",
        ms(start),
        (store.written() - before) as f64 / 1024.0
    );
    let start = Instant::now();
    let more = store
        .checkpoint(&id, &all, &large(tokens + 500))
        .expect("room");
    let fair = SLOT_BYTES + 500 * BLOCK_BYTES / BLOCK;
    println!(
        "  checkpoint after it {:8.1} ms, {:.1} MiB: {:.3} of state and new rows",
        ms(start),
        more.bytes as f64 / MIB,
        more.bytes as f64 / fair as f64
    );
    let loads: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let (state, wrong) = store.state(&id, &all).expect("it is whole");
            assert!(wrong.is_empty() && state.is_some_and(|s| s.tokens == all.len()));
            ms(start)
        })
        .collect();
    println!(
        "  read and verified   {:8.1} ms, page cache warm, median of 5",
        median(loads)
    );
    cold(&store, dir.path(), &id, &all);
    let start = Instant::now();
    for _ in 0..64 {
        store.fork(&id, 2, None).expect("room");
    }
    println!(
        "  a fork on disk      {:8.1} ms, mean of 64",
        ms(start) / 64.0
    );
}

/// The files below, and how large they are.
fn files(dir: &Path, all: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let about = entry.metadata().expect("a file");
        if about.is_dir() {
            files(&entry.path(), all);
        } else {
            all.push((entry.path(), about.len()));
        }
    }
}

/// Lets the kernel forget what it knows of them.
fn forget(files: &[(PathBuf, u64)]) {
    for (path, _) in files {
        let file = std::fs::File::open(path).expect("a file");
        file.sync_all().expect("it is written");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it is told");
    }
}

/// Bytes that this process had the disk read.
fn fetched() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|l| l.strip_prefix("read_bytes: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Read back from files of which the kernel holds nothing, beside the disk reading the same files from one
/// end to the other. Aim: their bytes by 0.8 of the disk's speed, and 100 ms.
fn cold(store: &Store, dir: &Path, id: &Id, tokens: &[u32]) {
    let mut all = Vec::new();
    files(dir, &mut all);
    // The newest state alone is read.
    let newest = all
        .iter()
        .filter(|(p, _)| is_state(p))
        .map(|(p, _)| p)
        .max()
        .cloned();
    all.retain(|(p, _)| !is_state(p) || Some(p) == newest.as_ref());
    let bytes: u64 = all.iter().map(|(_, n)| n).sum();
    let (mut plain, mut loads, mut read) = (Vec::new(), Vec::new(), 0);
    for _ in 0..3 {
        forget(&all);
        let start = Instant::now();
        let mut piece = vec![0; 4 << 20];
        for (path, _) in &all {
            let mut file = std::fs::File::open(path).expect("a file");
            while file.read(&mut piece).expect("it is read") > 0 {}
        }
        plain.push(ms(start));
        forget(&all);
        let before = fetched();
        let start = Instant::now();
        let (state, wrong) = store.state(id, tokens).expect("it is whole");
        assert!(wrong.is_empty() && state.is_some());
        loads.push(ms(start));
        read = fetched() - before;
    }
    let (plain, load) = (median(plain), median(loads));
    println!(
        "  read and verified   {load:8.1} ms, nothing in the page cache ({:.0} of {:.0} MiB came from the disk); the \
         disk alone {plain:.1} ms, aim {:.1} ms; medians of 3",
        read as f64 / MIB,
        bytes as f64 / MIB,
        plain / 0.8 + 100.0
    );
}

fn is_state(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str());
    name.is_some_and(|n| n.starts_with("state."))
}

/// From the disk to the first token, in an engine whose states are the 48B's and whose weights are few.
fn resumed(model: &Path, tokens: usize) {
    let mut engine = Engine::open(model, &Options::default()).expect("the synthetic model");
    let slot = engine.snapshot(&engine.sequence().expect("room")).slot();
    let large = Large {
        tokens,
        slot: slot.len(),
    };
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let about = About {
        name: None,
        note: String::new(),
        identity: identity(),
    };
    let id = store.create(&about).expect("room");
    store.turn(&id, &turn(0, tokens)).expect("room");
    let all: Vec<u32> = vec![1; tokens];
    store.checkpoint(&id, &all, &large).expect("room");
    let (mut read, mut firsts, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        let (state, wrong) = store.state(&id, &all).expect("it is whole");
        assert!(wrong.is_empty());
        read.push(ms(start));
        let state = state.expect("a state").host();
        let snapshot = engine.adopt(&state).expect("its sizes are the engine's");
        let mut sequence = engine.restore(&snapshot).expect("it was adopted");
        engine
            .feed(&mut sequence, &[1], Want::Last)
            .expect("a pass");
        let first = ms(start);
        let start = Instant::now();
        engine
            .feed(&mut sequence, &[1], Want::Last)
            .expect("a pass");
        steps.push(ms(start));
        firsts.push(first - ms(start));
    }
    println!(
        "an engine with states of the 48B's byte sizes, {tokens} tokens: first token {:.1} ms and one \
         step of {:.1} ms after the session is asked for, of which {:.1} ms read and verify; medians of 5",
        median(firsts),
        median(steps),
        median(read)
    );
}

/// Few weights behind the 48B's states.
fn synthetic() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .args([
            "synth",
            "--shape",
            "48b-states",
            "--layers",
            "28",
            "--quiet",
        ])
        .arg(dir.path().join("states.gguf"))
        .status();
    assert!(made.is_ok_and(|s| s.success()), "the synthetic model");
    dir
}

struct Daemon {
    child: Child,
    socket: PathBuf,
    home: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(model: Option<&Path>) -> Daemon {
    let home = tempfile::tempdir().expect("a directory");
    let demo = home.path().join("demo.gguf");
    let model = model.map_or_else(
        || {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
            let converted = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
                .arg("convert")
                .args([&source, &demo])
                .args(["--type", "q8_0", "--quiet"])
                .status();
            assert!(converted.is_ok_and(|s| s.success()), "the demo model");
            demo.clone()
        },
        Path::to_owned,
    );
    let config = home.path().join("deltad.toml");
    std::fs::write(&config, "[sessions]\nidle_suspend = \"1h\"\n").expect("a file");
    let socket = home.path().join("s");
    let child = Command::new(env!("CARGO_BIN_EXE_deltad"))
        .args(["serve", "--config"])
        .args([
            &config,
            Path::new("--model"),
            &model,
            Path::new("--socket"),
            &socket,
        ])
        .env("XDG_STATE_HOME", home.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon");
    let daemon = Daemon {
        child,
        socket,
        home,
    };
    while !daemon
        .exchange("GET", "/health", "")
        .starts_with("HTTP/1.1 200")
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon
}

impl Daemon {
    fn send(&self, method: &str, path: &str, body: &str) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        let n = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Length: {n}\r\n\r\n{body}").ok()?;
        Some(stream)
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> String {
        let mut answer = String::new();
        if let Some(mut stream) = self.send(method, path, body) {
            // A daemon that is not there yet says nothing.
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.exchange("POST", path, &body.to_string());
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str(body).expect("JSON")
    }

    /// Until the first words of an answer in that session, which is heard to its end.
    fn first(&self, session: &str) -> f64 {
        let body = json!({"content": "And?", "stream": true, "max_tokens": 4, "temperature": 0,
            "ignore_eos": true});
        let start = Instant::now();
        let path = format!("/v1/sessions/{session}/send");
        let stream = self
            .send("POST", &path, &body.to_string())
            .expect("it listens");
        let mut first = None;
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line.contains("\"content\":\"") && !line.contains("\"role\"") {
                first.get_or_insert(ms(start));
            }
        }
        first.expect("words")
    }

    /// Bytes below its directory of sessions.
    fn bytes(&self) -> u64 {
        fn of(dir: &Path) -> u64 {
            let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
            all.map(|e| match e.metadata() {
                Ok(about) if about.is_dir() => of(&e.path()),
                Ok(about) => about.len(),
                Err(_) => 0,
            })
            .sum()
        }
        of(&self.home.path().join("deltad"))
    }
}

/// A daemon with a text of so many tokens.
fn served(model: Option<&Path>, tokens: usize) {
    let daemon = start(model);
    let name = model.map_or("the demo model".into(), |m| m.display().to_string());
    // A word or two a token; what it came to is told.
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(tokens / 11);
    let start = Instant::now();
    let made = json!({"name": "manual", "content": text, "fixed": true, "read": true});
    daemon.post("/v1/sessions", &made);
    let read = ms(start);
    let context = daemon.post("/v1/sessions/manual/measure", &json!({}));
    println!(
        "{name}, {} tokens of {}, {:.1} MiB of state; read in {read:.0} ms:",
        context["tokens"],
        context["window"],
        context["bytes"].as_f64().unwrap_or(0.0) / MIB
    );
    let firsts: Vec<f64> = (0..5).map(|_| daemon.first("manual")).collect();
    println!(
        "  question to the text: first token {:8.1} ms, median of 5",
        median(firsts)
    );
    let start = Instant::now();
    for n in 0..8 {
        let fork = json!({"name": format!("fork-{n}")});
        daemon.post("/v1/sessions/manual/fork", &fork);
    }
    println!(
        "  a fork                 {:8.1} ms, mean of 8",
        ms(start) / 8.0
    );
    let talk = "fork-0";
    daemon.first(talk);
    let before = daemon.bytes();
    println!("  next turn: first token {:8.1} ms", daemon.first(talk));
    println!(
        "  bytes of that turn     {:8.1} KiB",
        (daemon.bytes() - before) as f64 / 1024.0
    );
    let start = Instant::now();
    let told = daemon.post(&format!("/v1/sessions/{talk}/suspend"), &json!({}));
    println!(
        "  suspend                {:8.1} ms, {:.1} MiB",
        ms(start),
        told["written"].as_f64().unwrap_or(0.0) / MIB
    );
    println!(
        "  resumed by a turn: first token {:8.1} ms",
        daemon.first(talk)
    );
    daemon.post(&format!("/v1/sessions/{talk}/suspend"), &json!({}));
    let start = Instant::now();
    daemon.post(&format!("/v1/sessions/{talk}/resume"), &json!({}));
    println!("  resume                 {:8.1} ms", ms(start));
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    if let [model, tokens, ..] = &args[..] {
        let tokens = tokens.parse().expect("a number of tokens");
        return served(Some(Path::new(model)), tokens);
    }
    for tokens in [32 << 10, 256 << 10] {
        stored(tokens);
    }
    let model = synthetic();
    for tokens in [32 << 10, 256 << 10] {
        resumed(&model.path().join("states.gguf"), tokens);
    }
    served(None, 2000);
}
