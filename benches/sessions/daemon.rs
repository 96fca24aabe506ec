//! A daemon, as a program on the same machine sees it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ms;

pub struct Daemon {
    child: Child,
    pub socket: PathBuf,
    home: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn start(model: Option<&Path>) -> Daemon {
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
    pub fn send(&self, method: &str, path: &str, body: &str) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        let n = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Length: {n}\r\n\r\n{body}").ok()?;
        Some(stream)
    }

    pub fn exchange(&self, method: &str, path: &str, body: &str) -> String {
        let mut answer = String::new();
        if let Some(mut stream) = self.send(method, path, body) {
            // A daemon that is not there yet says nothing.
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.exchange("POST", path, &body.to_string());
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str(body).expect("JSON")
    }

    /// Every event of an answer, and when it came, in milliseconds after it was asked for.
    pub fn events(&self, path: &str, body: &Value) -> Vec<(f64, Value)> {
        let start = Instant::now();
        let stream = self.send("POST", path, &body.to_string());
        let lines = BufReader::new(stream.expect("it listens")).lines();
        let lines = lines.map_while(Result::ok).map(|line| (ms(start), line));
        lines
            .filter_map(|(at, line)| {
                Some((at, serde_json::from_str(line.strip_prefix("data: ")?).ok()?))
            })
            .collect()
    }

    /// Until the first words of an answer in that session, which is heard to its end.
    pub fn first(&self, session: &str) -> f64 {
        let body = json!({"content": "And?", "stream": true, "max_tokens": 4, "temperature": 0,
            "ignore_eos": true});
        let heard = self.events(&format!("/v1/sessions/{session}/send"), &body);
        let said = |chunk: &Value| {
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .is_some_and(|s| !s.is_empty())
        };
        let first = heard.iter().find(|(_, chunk)| said(chunk));
        first.expect("words").0
    }

    /// Bytes below its directory of sessions.
    pub fn bytes(&self) -> u64 {
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
