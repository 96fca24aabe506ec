//! Conversations without a disk, which the service manager holds between two processes: a made-up manager
//! takes what it is sent and starts the next process with it, as systemd does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::daemon::{self, Daemon, demo, home_with};
use super::lasting::{post, say};

/// What it holds, by name. A descriptor that nothing is said of is closed, as a barrier's is.
struct Manager {
    socket: std::path::PathBuf,
    held: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
}

impl Manager {
    fn at(dir: &Path) -> Manager {
        let socket = dir.join("notify");
        let listens = UnixDatagram::bind(&socket).expect("a socket");
        let held = Arc::new(Mutex::new(BTreeMap::new()));
        let holds = held.clone();
        std::thread::spawn(move || {
            loop {
                hear(&listens, &holds);
            }
        });
        Manager { socket, held }
    }

    /// The next process, with all that is held, in place of a daemon that has ended.
    fn start(&self, home: &Path, socket: &Path) -> std::process::Child {
        let plain = daemon::command(home, socket);
        let held = self.held.lock().expect("one test");
        let (mut files, mut names) = (String::new(), Vec::new());
        for (at, (name, file)) in held.iter().enumerate() {
            let (ours, theirs) = (file.as_raw_fd(), at + 3);
            let pid = std::process::id();
            files += &format!("exec {theirs}<>/proc/{pid}/fd/{ours}; ");
            names.push(name.clone());
        }
        let script = format!("{files} export LISTEN_PID=$$; exec \"$0\" \"$@\"");
        let mut command = Command::new("bash");
        command.arg("-c").arg(script);
        command.arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .env("NOTIFY_SOCKET", &self.socket)
            .env("FDSTORE", "64")
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("TMPDIR", home)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon")
    }

    fn daemon(&self, home: tempfile::TempDir) -> Daemon {
        let mut daemon = Daemon::of(home, |home, socket| self.start(home, socket));
        daemon.wait_ready();
        daemon
    }

    fn again(&self, daemon: &mut Daemon, signal: Signal) {
        daemon.signal(signal);
        daemon.wait();
        daemon.child = self.start(daemon.home.path(), &daemon.socket);
        daemon.wait_ready();
    }
}

fn hear(listens: &UnixDatagram, holds: &Mutex<BTreeMap<String, OwnedFd>>) {
    let (mut text, mut space) = (
        [0; 4096],
        [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))],
    );
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut text)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(listens, &mut parts, &mut control, flags).expect("a word");
    let files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    });
    let files: Vec<OwnedFd> = files.collect();
    let text = String::from_utf8_lossy(&text[..got.bytes]).into_owned();
    let says = |what: &str| text.lines().any(|line| line == what);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME="));
    let mut held = holds.lock().expect("one test");
    if says("FDSTORE=1") {
        let name = name.expect("a name").to_owned();
        held.extend(files.into_iter().map(|file| (name.clone(), file)));
    } else if says("FDSTOREREMOVE=1") {
        held.remove(name.expect("a name"));
    }
}

/// Every file below a directory, with its size.
fn files(dir: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let about = entry.metadata().expect("it is there");
        if about.is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.insert(entry.path().display().to_string(), about.len());
        }
    }
    found
}

/// Files that a process may write to, and bytes that it had written to any disk.
fn writes(daemon: &Daemon) -> (Vec<String>, u64) {
    let proc = format!("/proc/{}", daemon.child.id());
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("{proc}/fd")).expect("descriptors") {
        let entry = entry.expect("an entry");
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let number = entry.file_name().into_string().expect("a number");
        let about = std::fs::read_to_string(format!("{proc}/fdinfo/{number}"));
        let about = about.unwrap_or_default();
        let flags = about.lines().find_map(|l| l.strip_prefix("flags:"));
        let flags = flags.and_then(|f| u32::from_str_radix(f.trim(), 8).ok());
        let is_file = std::fs::metadata(entry.path()).is_ok_and(|m| m.is_file());
        if is_file && flags.is_some_and(|flags| flags & 3 != 0) {
            open.push(target.display().to_string());
        }
    }
    let counts = std::fs::read_to_string(format!("{proc}/io")).unwrap_or_default();
    let written = counts.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    (open, written.map_or(0, |n| n.parse().expect("a number")))
}

fn count(answer: &Value, at: &str) -> u64 {
    let count = answer["usage"].pointer(at).and_then(Value::as_u64);
    count.unwrap_or_else(|| panic!("{at}: {answer}"))
}

#[test]
fn without_a_disk_a_conversation_outlives_a_restart_and_a_kill_and_no_byte_is_on_any_file_system() {
    let home = home_with(&demo("model"), "f16", "[sessions]\ndisk = \"0B\"\n");
    let beside = tempfile::tempdir().expect("a directory");
    let manager = Manager::at(beside.path());
    let mut daemon = manager.daemon(home);
    let before = files(daemon.home.path());
    // Its socket has a name; and who runs the tests may have left files open.
    let (inherited, begun) = writes(&daemon);
    let made = post(&daemon, "/v1/sessions", json!({"name": "talk"}));
    assert_eq!(made["durable"], true, "{made}");
    let said = say(&daemon, "My locker code is 4827.");
    let input = json!({"input": "My name is Tessa.", "temperature": 0, "max_output_tokens": 48});
    let first = post(&daemon, "/v1/responses", input);
    let (open, written) = writes(&daemon);
    assert_eq!(written, begun, "bytes went to a disk");
    let memory = open
        .iter()
        .filter(|name| name.starts_with("/memfd:deltad-"));
    assert!(memory.count() >= 4, "{open:?}");
    // Told to stop, it leaves the state too: nothing is read again.
    manager.again(&mut daemon, Signal::TERM);
    let answer = say(&daemon, "What is my locker code?");
    assert!(answer.to_string().contains("4827"), "{answer}");
    let known = count(&said, "/prompt_tokens") + count(&said, "/completion_tokens");
    let cached = count(&answer, "/prompt_tokens_details/cached_tokens");
    assert!(cached >= known - 1, "{cached} of {known}");
    // Killed, it has lost no turn.
    manager.again(&mut daemon, Signal::KILL);
    let (_, begun) = writes(&daemon);
    let (_, shown) = daemon.get("/v1/sessions/talk");
    assert_eq!(shown["message_count"], 4, "{shown}");
    let on = json!({"input": "What is my name?", "previous_response_id": first["id"],
        "temperature": 0, "max_output_tokens": 48});
    let second = post(&daemon, "/v1/responses", on);
    assert!(second["output"].to_string().contains("Tessa"), "{second}");
    let (more, written) = writes(&daemon);
    assert_eq!(written, begun, "bytes went to a disk");
    for name in open.iter().chain(&more) {
        let is_memory = name.starts_with("/memfd:deltad-");
        assert!(
            is_memory || inherited.contains(name),
            "{name} is written to"
        );
    }
    assert_eq!(files(daemon.home.path()), before);
    // What is deleted is nowhere.
    let id = shown["id"].as_str().expect("an id");
    let (status, _) = daemon::exchange(
        daemon.connect(),
        "DELETE",
        &format!("/v1/sessions/{id}"),
        "",
    );
    assert_eq!(status, 200);
    manager.again(&mut daemon, Signal::KILL);
    assert_eq!(daemon.get("/v1/sessions/talk").0, 404);
    // The manager's own copy says the same.
    let held = manager.held.lock().expect("one test");
    for (name, file) in held.iter() {
        let mut file = File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect(name);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).expect("memory");
        // A word that no id and no hash spells by chance.
        let word = b"locker";
        let has = bytes.windows(word.len()).any(|part| part == word);
        assert!(!has, "{name} still has it");
    }
}

#[test]
fn with_a_disk_the_manager_holds_nothing() {
    let home = home_with(&demo("model"), "f16", "");
    let beside = tempfile::tempdir().expect("a directory");
    let manager = Manager::at(beside.path());
    let mut daemon = manager.daemon(home);
    post(&daemon, "/v1/sessions", json!({"name": "talk"}));
    assert_eq!(manager.held.lock().expect("one test").len(), 0);
    // What an earlier configuration left there goes.
    let left = File::open("/dev/null").expect("a file");
    let name = "deltad-file-7".to_owned();
    manager
        .held
        .lock()
        .expect("one test")
        .insert(name, left.into());
    manager.again(&mut daemon, Signal::TERM);
    daemon::until("given back", || {
        manager
            .held
            .lock()
            .expect("one test")
            .is_empty()
            .then_some(())
    });
}
