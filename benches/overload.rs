//! What a crowd costs: memory and the waiting time of somebody else, for each kind of bad company.
//! `cargo bench --bench overload` starts a daemon with the demo model and prints a table.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

const LARGE: usize = 8 << 20;

struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(dir: &Path) -> Daemon {
    let model = dir.join("demo.gguf");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    let converted = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .arg("convert")
        .args([&source, &model])
        .args(["--type", "q8_0", "--quiet"])
        .status();
    assert!(converted.is_ok_and(|s| s.success()), "the demo model");
    let socket = dir.join("run/deltad.sock");
    let child = Command::new(env!("CARGO_BIN_EXE_deltad"))
        .args(["serve", "--threads", "1", "--model"])
        .args([&model, Path::new("--socket"), &socket])
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon");
    let daemon = Daemon { child, socket };
    while UnixStream::connect(&daemon.socket).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon
}

impl Daemon {
    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).expect("it listens");
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).expect("a time limit");
        stream
    }

    /// A question of somebody else: 16 tokens.
    fn asks(&self) -> Duration {
        let start = Instant::now();
        let mut stream = self.connect();
        let body = r#"{"prompt": "The", "max_tokens": 16, "ignore_eos": true}"#;
        stream.write_all(&post(body)).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        start.elapsed()
    }

    /// In MiB.
    fn resident(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("a live process");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
        kib.expect("a size") / 1024.0
    }
}

fn post(body: &str) -> Vec<u8> {
    let n = body.len();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    format!("{head}Content-Length: {n}\r\n\r\n{body}").into_bytes()
}

fn endless() -> Vec<u8> {
    post(
        r#"{"prompt": "x", "max_tokens": 100000, "ignore_eos": true, "stream": true, "logprobs": 20}"#,
    )
}

/// Writes until it is not taken any more.
fn push(mut stream: UnixStream, bytes: &[u8]) -> UnixStream {
    stream.set_nonblocking(true).expect("a flag");
    let (mut sent, mut idle) = (0, 0);
    while sent < bytes.len() && idle < 20 {
        match stream.write(&bytes[sent..]) {
            Ok(n) => (sent, idle) = (sent + n, 0),
            Err(_) => {
                idle += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    stream
}

fn idle(daemon: &Daemon) -> Vec<UnixStream> {
    (0..1000).map(|_| daemon.connect()).collect()
}

fn slow_heads(daemon: &Daemon) -> Vec<UnixStream> {
    let slow = |_| push(daemon.connect(), b"POST /v1/completions HTTP/1.1\r\nHo");
    (0..1000).map(slow).collect()
}

fn held_bodies(daemon: &Daemon) -> Vec<UnixStream> {
    let head = format!("POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGE}\r\n\r\n");
    let part = [head.into_bytes(), vec![b' '; LARGE - 1]].concat();
    (0..60).map(|_| push(daemon.connect(), &part)).collect()
}

/// More would fill the queue, and the other would be told to come again.
fn deaf(daemon: &Daemon) -> Vec<UnixStream> {
    (0..12)
        .map(|_| push(daemon.connect(), &endless()))
        .collect()
}

fn leaving(daemon: &Daemon) -> Vec<UnixStream> {
    let whole = endless();
    for cut in 0..600 {
        let mut stream = daemon.connect();
        stream
            .write_all(&whole[..cut % (whole.len() + 1)])
            .expect("it reads");
        if cut % 3 == 0 && cut % (whole.len() + 1) == whole.len() {
            let _ = stream.read(&mut [0; 100]);
        }
    }
    Vec::new()
}

type Crowd = (&'static str, fn(&Daemon) -> Vec<UnixStream>);

const CROWDS: [Crowd; 6] = [
    ("nobody else", |_| Vec::new()),
    ("1,000 idle connections", idle),
    ("1,000 that stop in the middle of a head", slow_heads),
    ("60 that hold back the last byte of 8 MiB", held_bodies),
    ("12 endless answers that nobody reads", deaf),
    ("600 that leave, a byte later each", leaving),
];

fn main() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more descriptors");
    println!("| company | memory, MiB | more, MiB | another's answer, median ms | worst ms |");
    println!("|---|---|---|---|---|");
    for (name, crowd) in CROWDS {
        let dir = tempfile::tempdir().expect("a directory");
        let daemon = start(dir.path());
        for _ in 0..5 {
            daemon.asks();
        }
        let before = daemon.resident();
        let held = crowd(&daemon);
        std::thread::sleep(Duration::from_millis(500));
        let mut times: Vec<Duration> = (0..40).map(|_| daemon.asks()).collect();
        let after = daemon.resident();
        times.sort();
        let ms = |t: Duration| t.as_secs_f64() * 1e3;
        println!(
            "| {name} | {after:.1} | {:.1} | {:.1} | {:.1} |",
            after - before,
            ms(times[times.len() / 2]),
            ms(times[times.len() - 1])
        );
        drop(held);
    }
}
