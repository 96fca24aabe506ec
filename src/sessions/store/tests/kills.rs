//! Real processes on a real file system, killed with SIGKILL: at random times, and before a random
//! operation on the disk, start-up and mending included. Page cache outlives a process, so this says
//! nothing about power; the simulated disk does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::sim::Dice;
use super::states::{Toy, is_of};
use super::*;

/// A real disk that ends its process before one of its operations.
#[derive(Debug)]
struct Deadly {
    files: Files,
    left: Arc<AtomicUsize>,
}

struct DeadlyFile {
    file: Box<dyn File>,
    left: Arc<AtomicUsize>,
}

fn count(left: &AtomicUsize) {
    if left.fetch_sub(1, Ordering::Relaxed) == 0 {
        let me = rustix::process::getpid();
        kill_process(me, Signal::KILL).expect("a process may kill itself");
    }
}

impl Disk for Deadly {
    fn dirs(&self) -> std::io::Result<Vec<String>> {
        self.files.dirs()
    }
    fn files(&self, dir: &str) -> std::io::Result<Vec<Entry>> {
        self.files.files(dir)
    }
    fn make_dir(&self, dir: &str) -> std::io::Result<()> {
        count(&self.left);
        self.files.make_dir(dir)
    }
    fn rename_dir(&self, from: &str, to: &str) -> std::io::Result<()> {
        count(&self.left);
        self.files.rename_dir(from, to)
    }
    fn remove_dir(&self, dir: &str) -> std::io::Result<()> {
        count(&self.left);
        self.files.remove_dir(dir)
    }
    fn sync_dir(&self, dir: Option<&str>) -> std::io::Result<()> {
        count(&self.left);
        self.files.sync_dir(dir)
    }
    fn open(&self, dir: &str, file: &str, how: How) -> std::io::Result<Box<dyn File>> {
        count(&self.left);
        let (file, left) = (self.files.open(dir, file, how)?, self.left.clone());
        Ok(Box::new(DeadlyFile { file, left }))
    }
    fn rename(&self, dir: &str, from: &str, to: &str) -> std::io::Result<()> {
        count(&self.left);
        self.files.rename(dir, from, to)
    }
    fn link(&self, from: &str, file: &str, to: &str) -> std::io::Result<()> {
        count(&self.left);
        self.files.link(from, file, to)
    }
    fn remove(&self, dir: &str, file: &str) -> std::io::Result<()> {
        count(&self.left);
        self.files.remove(dir, file)
    }
    fn free(&self) -> std::io::Result<u64> {
        self.files.free()
    }
    fn scratch(&self) -> std::io::Result<std::fs::File> {
        self.files.scratch()
    }
    fn number(&self) -> std::io::Result<[u8; 16]> {
        self.files.number()
    }
}

impl File for DeadlyFile {
    fn size(&self) -> std::io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> std::io::Result<usize> {
        self.file.read_at(at, into)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> std::io::Result<usize> {
        count(&self.left);
        // A write may be cut too.
        let half = bytes.len().div_ceil(2);
        self.file.write_at(at, &bytes[..half])
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        count(&self.left);
        self.file.set_len(len)
    }
    fn sync(&self) -> std::io::Result<()> {
        count(&self.left);
        self.file.sync()
    }
}

/// What the process says: what it is about to do, and that it is done. The n-th turn of every
/// session is [`turn`]`(n)`, so counting is enough.
fn worker(dir: &Path, seed: u64, operations: usize) {
    let disk = Deadly {
        files: Files::open(dir, 1000).unwrap(),
        left: Arc::new(AtomicUsize::new(operations)),
    };
    let store = Store::on(Box::new(disk), 1000, AMPLE).unwrap();
    let mut dice = Dice(seed);
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n#{line}")
            .and_then(|()| out.flush())
            .unwrap();
    };
    for _ in 0..1000 {
        let all = store.list();
        let pick = dice.below(all.len());
        let Some(one) = all.get(pick).filter(|_| all.len() > 1 + dice.below(3)) else {
            say("create".into());
            say(format!("made {} 0", store.create(&about("one")).unwrap()));
            continue;
        };
        let (id, turns) = (one.id, one.turns);
        match dice.below(10) {
            0..5 => {
                say(format!("turn {id}"));
                store.turn(&id, &turn(turns)).unwrap();
            }
            5..8 => {
                let tokens: Vec<u32> = (0..one.tokens as u32).collect();
                say(format!("checkpoint {id}"));
                store.checkpoint(&id, &tokens, &Toy::of(&tokens)).unwrap();
            }
            8 if all.len() < 5 => {
                say(format!("fork {turns}"));
                let called = Some((Some("fork".into()), String::new()));
                let made = store.fork(&id, turns, called).unwrap();
                say(format!("made {made} {turns}"));
                continue;
            }
            _ if all.len() > 3 => {
                say(format!("delete {id}"));
                store.delete(&id).unwrap();
            }
            _ => {
                store.partial(&id, &turn(turns), true).unwrap();
                continue;
            }
        }
        say("done".into());
    }
}

#[test]
#[ignore = "a process for the other tests here to kill"]
fn a_worker() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    if let [seed, operations, dir] = words[..] {
        worker(
            Path::new(dir),
            seed.parse().unwrap(),
            operations.parse().unwrap(),
        );
    }
}

/// Turns and tokens of the newest acknowledged state, by session.
type Told = BTreeMap<Id, (usize, usize)>;

/// Lets a process live for a moment; what it said goes into `told`, what it had begun is returned.
fn live(dir: &Path, dice: &mut Dice, told: &mut Told) -> Option<String> {
    // Before its n-th operation, or after a while, which is about as long.
    let at = dice.below(120);
    let (operations, delay) = match dice.below(2) {
        0 => (at, 2000),
        _ => (usize::MAX, dice.below(60) as u64),
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sessions::store::tests::kills::a_worker"])
        .args(["--ignored", "--nocapture", "--test-threads", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let line = format!("{} {operations} {}\n", dice.next() >> 1, dir.display());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(line.as_bytes()).unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let pid = Pid::from_child(&child);
    let (dead, wait) = std::sync::mpsc::channel::<()>();
    let killer = std::thread::spawn(move || {
        let _ = wait.recv_timeout(Duration::from_millis(delay));
        // It may be dead already; it is not yet waited for, so the number is nobody else's.
        let _ = kill_process(pid, Signal::KILL);
    });
    let mut begun: Option<String> = None;
    for line in out.split(b'\n').map_while(Result::ok) {
        let Some(line) = std::str::from_utf8(&line)
            .ok()
            .and_then(|l| l.strip_prefix('#'))
        else {
            continue;
        };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["made", id, turns] => {
                told.insert(id.parse().unwrap(), (turns.parse().unwrap(), 0));
                begun = None;
            }
            ["done"] => {
                let did = begun.take().unwrap();
                let (what, id) = did.split_once(' ').unwrap();
                let id = id.parse().unwrap();
                match what {
                    "turn" => told.get_mut(&id).unwrap().0 += 1,
                    "checkpoint" => {
                        let told = told.get_mut(&id).unwrap();
                        told.1 = told.0 * 10;
                    }
                    _ => drop(told.remove(&id)),
                }
            }
            _ => begun = Some(line.to_owned()),
        }
    }
    drop(dead);
    killer.join().unwrap();
    child.wait().unwrap();
    begun
}

fn kills(n: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (mut dice, mut told) = (Dice(n as u64), Told::new());
    let (mut turns, mut states, mut slowest) = (0, 0, Duration::ZERO);
    for _ in 0..n {
        let begun = live(dir.path(), &mut dice, &mut told).unwrap_or_default();
        let start = Instant::now();
        let store = store(dir.path());
        slowest = slowest.max(start.elapsed());
        let mut found = Told::new();
        for listed in store.list() {
            let opened = store.load(&listed.id, &identity()).unwrap();
            // Never, not for a moment, is a fork called as its parent is.
            let named = listed.name.as_deref() == Some("fork");
            assert_eq!(listed.parent.is_some(), named, "{listed:?}");
            let count = opened.turns.len();
            assert!(opened.turns.iter().cloned().eq((0..count).map(turn)));
            let saved = opened.state.as_ref().map_or(0, |s| s.tokens);
            if let Some(state) = &opened.state {
                assert!(is_of(state, &Toy::of(&opened.tokens[..saved])));
                states += 1;
            }
            match told.get(&listed.id) {
                Some((acknowledged, state)) => {
                    let open = usize::from(begun == format!("turn {}", listed.id));
                    let range = *acknowledged..=acknowledged + open;
                    assert!(range.contains(&count), "{count} turns of {range:?}");
                    assert!(saved >= *state, "{saved} of {state}: {:?}", opened.wrong);
                }
                None => {
                    let new = begun == "create" && count == 0 || begun == format!("fork {count}");
                    assert!(new, "{} came from nowhere after {begun:?}", listed.id);
                }
            }
            turns += count;
            found.insert(listed.id, (count, saved));
        }
        for id in told.keys() {
            let going = begun == format!("delete {id}");
            assert!(
                found.contains_key(id) || going,
                "{id} is lost after {begun:?}"
            );
        }
        told = found;
    }
    println!("{n} kills: {turns} turns and {states} states compared, slowest start {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(
        turns > n && states > n / 2,
        "{turns} turns and {states} states"
    );
}

#[test]
fn killed_processes_lose_nothing_that_they_acknowledged() {
    kills(200);
}

#[test]
#[ignore = "minutes; `make crash` runs it"]
fn ten_thousand_killed_processes_lose_nothing_that_they_acknowledged() {
    kills(10_000);
}
