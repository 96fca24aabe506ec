//! A daemon for one test, on a socket of its own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub struct Daemon {
    pub child: Child,
    pub socket: PathBuf,
    pub home: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already, which is fine here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures").join(name)
}

/// A file or directory of the demo model.
pub fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("demo")
        .join(name)
}

/// A home with the tiny checkpoint, converted exactly, and a configuration.
pub fn home(extra: &str) -> tempfile::TempDir {
    home_with(&fixture("tiny"), "f32", extra)
}

/// A home with a checkpoint, converted, and a configuration. The file is `model.gguf`.
pub fn home_with(checkpoint: &Path, file_type: &str, extra: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a directory");
    let converted = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .arg("convert")
        .arg(checkpoint)
        .arg(home.path().join("model.gguf"))
        .args(["--type", file_type, "--quiet"])
        .status()
        .expect("the converter");
    assert!(converted.success());
    // One thread: the tests of this file run side by side.
    let config = format!("[model]\ncache_type = \"f32\"\nthreads = 1\n{extra}");
    std::fs::write(home.path().join("deltad.toml"), config).expect("a file");
    home
}

pub fn command(home: &Path, socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deltad"));
    command
        .arg("serve")
        .arg("--config")
        .arg(home.join("deltad.toml"))
        .arg("--model")
        .arg(home.join("model.gguf"))
        .arg("--socket")
        .arg(socket)
        // What outlives it lies beside its model.
        .env("XDG_STATE_HOME", home)
        .env_remove("STATE_DIRECTORY")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Fails the test if something takes longer than any loaded machine would need.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn start(extra: &str) -> Daemon {
    run(home(extra))
}

pub fn start_with(checkpoint: &Path, file_type: &str, extra: &str) -> Daemon {
    run(home_with(checkpoint, file_type, extra))
}

/// Over the `model.gguf` that lies in `home` already.
pub fn at_home(home: tempfile::TempDir, config: &str) -> Daemon {
    std::fs::write(home.path().join("deltad.toml"), config).expect("a file");
    run(home)
}

fn run(home: tempfile::TempDir) -> Daemon {
    run_with(home, |_| {})
}

/// A daemon that is started somewhat otherwise.
pub fn run_with(home: tempfile::TempDir, how: impl FnOnce(&mut Command)) -> Daemon {
    let mut daemon = Daemon::of(home, |home, socket| {
        let mut command = command(home, socket);
        how(&mut command);
        command.spawn().expect("the daemon")
    });
    daemon.wait_ready();
    daemon
}

impl Daemon {
    /// What `start` starts, by its home and its socket there; not ready yet.
    pub fn of(home: tempfile::TempDir, start: impl FnOnce(&Path, &Path) -> Child) -> Daemon {
        let socket = home.path().join("run/deltad.sock");
        let child = start(home.path(), &socket);
        Daemon {
            child,
            socket,
            home,
        }
    }

    pub fn wait_ready(&mut self) {
        until("ready", || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the daemon ended: {ended:?}");
            let stream = UnixStream::connect(&self.socket).ok()?;
            let (status, _) = exchange(stream, "GET", "/health", "");
            (status == 200).then_some(())
        });
    }

    /// Another one in its place, once it has ended.
    pub fn again(&mut self) {
        self.wait();
        self.child = command(self.home.path(), &self.socket)
            .spawn()
            .expect("the daemon");
        self.wait_ready();
    }

    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).expect("it listens")
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = exchange(self.connect(), "GET", path, "");
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = exchange(self.connect(), "POST", path, &body.to_string());
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it lives");
    }

    pub fn wait(&mut self) -> ExitStatus {
        until("the end", || self.child.try_wait().expect("a child"))
    }
}

pub fn send(stream: &mut UnixStream, method: &str, path: &str, body: &str) {
    let n = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: any.host:99\r\nConnection: close\r\n");
    write!(stream, "{head}Content-Length: {n}\r\n\r\n{body}").expect("it reads");
}

pub fn exchange(mut stream: UnixStream, method: &str, path: &str, body: &str) -> (u16, String) {
    let limit = Some(Duration::from_secs(120));
    stream.set_read_timeout(limit).expect("a time limit");
    send(&mut stream, method, path, body);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), body.to_owned())
}
