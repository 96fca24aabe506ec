//! Daemons that are killed again and again, at any time, and a driver that holds each to what the
//! ones before it had acknowledged: every turn byte by byte, every deletion, every fork.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::daemon::{command, home};

/// Sessions that are kept at most.
const SESSIONS: usize = 8;

/// Numbers that look like chance and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % n
    }
}

/// What the driver was told of one session.
#[derive(Debug, Clone, Default)]
struct Kept {
    /// Questions and answers whose end was told.
    turns: Vec<(String, String)>,
    /// Ids of the last answers that were seen.
    ids: BTreeMap<usize, String>,
    /// A question whose answer had no end.
    open: Option<String>,
    /// It was being made, or deleted: nobody said that it was.
    unsure: bool,
}

#[derive(Debug, Default)]
struct Counts {
    kills: usize,
    in_start: usize,
    turns: usize,
    compared: usize,
    cut: usize,
    slowest: Duration,
}

struct Driver {
    home: tempfile::TempDir,
    dice: Dice,
    sessions: BTreeMap<String, Kept>,
    deleted: Vec<String>,
    named: usize,
    counts: Counts,
}

/// `None`: the daemon did not answer to the end.
fn ask(home: &std::path::Path, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(home.join("s")).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .ok()?;
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    std::io::Write::write_all(&mut stream, text.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1);
    let length = length.and_then(|l| l.split("\r\n").next()?.parse::<usize>().ok());
    // A body that is shorter than its head says was cut off.
    let is_whole = length.is_none_or(|n| n == body.len());
    is_whole.then(|| (head[9..12].parse().expect("a status"), body.to_owned()))
}

fn messages(turns: &[(String, String)]) -> Vec<(String, String)> {
    let said = |role: &str, text: &String| (role.to_owned(), text.clone());
    let pair = |(q, a): &(String, String)| [said("user", q), said("assistant", a)];
    turns.iter().flat_map(pair).collect()
}

impl Driver {
    fn new(seed: u64) -> Driver {
        Driver {
            home: home("[sessions]\nidle_suspend = \"1s\"\n"),
            dice: Dice(seed),
            sessions: BTreeMap::new(),
            deleted: Vec::new(),
            named: 0,
            counts: Counts::default(),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let (status, body) = ask(self.home.path(), method, path, &body.to_string())?;
        Some((status, serde_json::from_str(&body).ok()?))
    }

    /// One daemon from its start to its death.
    fn life(&mut self) {
        let socket = self.home.path().join("s");
        let mut child = command(self.home.path(), &socket)
            .spawn()
            .expect("the daemon");
        let pid = Pid::from_child(&child);
        // One in four dies before it serves.
        let early = self.dice.below(4) == 0;
        let delay = if early { 80 } else { 900 };
        let delay = Duration::from_millis(self.dice.below(delay));
        let start = Instant::now();
        let kill = move || {
            std::thread::sleep(delay);
            kill_process(pid, Signal::KILL).expect("it is not waited for yet");
        };
        let ready = if early {
            kill();
            self.counts.in_start += 1;
            false
        } else {
            self.ready(&mut child, start)
        };
        if ready {
            // The time is for work, however long a start takes.
            let killer = std::thread::spawn(kill);
            self.check();
            while self.step().is_some() {}
            killer.join().expect("it kills");
        }
        child.wait().expect("a child");
        self.counts.kills += 1;
    }

    fn ready(&mut self, child: &mut Child, start: Instant) -> bool {
        loop {
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "the daemon ended by itself: {ended:?}");
            if let Some((200, _)) = self.ask("GET", "/health", &json!({})) {
                self.counts.slowest = self.counts.slowest.max(start.elapsed());
                return true;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it never serves");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Holds it to everything. It may die on the way.
    fn check(&mut self) -> Option<()> {
        let names: Vec<String> = self.sessions.keys().cloned().collect();
        for name in names {
            let (status, shown) = self.ask("GET", &format!("/v1/sessions/{name}"), &json!({}))?;
            let kept = self.sessions.get_mut(&name).expect("it is listed");
            if status == 404 && kept.unsure {
                self.sessions.remove(&name);
                continue;
            }
            assert_eq!(status, 200, "{name} is lost: {shown}");
            let said = shown["messages"].as_array().expect("messages").iter();
            let word = |m: &Value, field: &str| m[field].as_str().unwrap_or_default().to_owned();
            let said: Vec<_> = said
                .map(|m| (word(m, "role"), word(m, "content")))
                .collect();
            let want = messages(&kept.turns);
            assert!(said.starts_with(&want), "{name}: {said:?}, want {want:?}");
            self.counts.compared += kept.turns.len();
            match (&said[want.len()..], kept.open.take()) {
                ([], _) => {}
                // Nobody was told of its end, and it may be there.
                ([(_, question), (_, answer)], Some(open)) if *question == open => {
                    self.counts.cut += 1;
                    kept.turns.push((open, answer.clone()));
                }
                (more, open) => panic!("{name}: {more:?} after {open:?}"),
            }
            kept.unsure = false;
            if let Some(id) = shown["last_response_id"].as_str() {
                kept.ids.insert(kept.turns.len(), id.to_owned());
            }
        }
        for name in self.deleted.clone() {
            let (status, _) = self.ask("GET", &format!("/v1/sessions/{name}"), &json!({}))?;
            assert_eq!(status, 404, "{name} came back");
        }
        Some(())
    }

    fn any(&mut self) -> Option<String> {
        let n = self.sessions.len() as u64;
        let at = if n == 0 {
            return None;
        } else {
            self.dice.below(n)
        };
        self.sessions.keys().nth(at as usize).cloned()
    }

    /// One thing that a client does. `None`: the daemon is dead.
    fn step(&mut self) -> Option<()> {
        let full = self.sessions.len() >= SESSIONS;
        match (self.any(), self.dice.below(12)) {
            (None, _) => self.create(),
            (Some(name), 0) if full => self.delete(&name),
            (Some(_), 0) => self.create(),
            (Some(name), 1..=2) if !full => self.fork(&name),
            (Some(name), 3) => self.state(&name, "suspend"),
            (Some(name), 4) => self.state(&name, "resume"),
            (Some(name), 5) => self.delete(&name),
            (Some(name), _) => self.send(&name),
        }
    }

    fn fresh(&mut self) -> String {
        self.named += 1;
        format!("s{}", self.named)
    }

    fn create(&mut self) -> Option<()> {
        let name = self.fresh();
        let unsure = Kept {
            unsure: true,
            ..Kept::default()
        };
        self.sessions.insert(name.clone(), unsure);
        let (status, made) = self.ask("POST", "/v1/sessions", &json!({"name": name}))?;
        assert_eq!((status, &made["durable"]), (200, &json!(true)), "{made}");
        self.sessions.get_mut(&name)?.unsure = false;
        Some(())
    }

    fn fork(&mut self, from: &str) -> Option<()> {
        let new = self.fresh();
        let kept = self.sessions.get(from)?.clone();
        let ids: Vec<_> = kept.ids.iter().collect();
        let mut body = json!({"name": new});
        let mut turns = kept.turns.clone();
        if !ids.is_empty() && self.dice.below(2) == 0 {
            let (n, id) = ids[self.dice.below(ids.len() as u64) as usize];
            body["response_id"] = json!(id);
            turns.truncate(*n);
        }
        let unsure = Kept {
            turns,
            unsure: true,
            ..Kept::default()
        };
        self.sessions.insert(new.clone(), unsure);
        let path = format!("/v1/sessions/{from}/fork");
        let (status, made) = self.ask("POST", &path, &body)?;
        assert_eq!((status, &made["durable"]), (200, &json!(true)), "{made}");
        self.sessions.get_mut(&new)?.unsure = false;
        Some(())
    }

    fn delete(&mut self, name: &str) -> Option<()> {
        self.sessions.get_mut(name)?.unsure = true;
        let (status, gone) = self.ask("DELETE", &format!("/v1/sessions/{name}"), &json!({}))?;
        assert_eq!(status, 200, "{gone}");
        self.sessions.remove(name);
        self.deleted.push(name.to_owned());
        // The newest are the ones that could come back.
        let old = self.deleted.len().saturating_sub(SESSIONS);
        self.deleted.drain(..old);
        Some(())
    }

    fn state(&mut self, name: &str, what: &str) -> Option<()> {
        let path = format!("/v1/sessions/{name}/{what}");
        let (status, told) = self.ask("POST", &path, &json!({}))?;
        assert_eq!(status, 200, "{what}: {told}");
        Some(())
    }

    fn send(&mut self, name: &str) -> Option<()> {
        let question = format!("question {}", self.dice.below(1 << 30));
        let streams = self.dice.below(2) == 0;
        self.sessions.get_mut(name)?.open = Some(question.clone());
        let body = json!({"content": question, "stream": streams, "ignore_eos": true,
            "logit_bias": {"510": -100}, "max_tokens": 1 + self.dice.below(12)});
        let path = format!("/v1/sessions/{name}/send");
        let (status, text) = ask(self.home.path(), "POST", &path, &body.to_string())?;
        let answer = if streams {
            streamed(&text)?
        } else {
            let whole: Value = serde_json::from_str(&text).ok()?;
            let content = whole["choices"][0]["message"]["content"].as_str();
            content
                .unwrap_or_else(|| panic!("{status}: {whole}"))
                .to_owned()
        };
        assert_eq!(status, 200, "{text}");
        let kept = self.sessions.get_mut(name)?;
        kept.open = None;
        kept.turns.push((question, answer));
        self.counts.turns += 1;
        Some(())
    }
}

/// The words of a stream whose end was told.
fn streamed(text: &str) -> Option<String> {
    let mut words = String::new();
    for data in text.lines().filter_map(|l| l.strip_prefix("data: ")) {
        if data == "[DONE]" {
            return Some(words);
        }
        let chunk: Value = serde_json::from_str(data).ok()?;
        words += chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default();
    }
    None
}

fn kill(times: usize, seed: u64) {
    let mut driver = Driver::new(seed);
    for _ in 0..times {
        driver.life();
    }
    let counts = &driver.counts;
    println!(
        "{} kills ({} before it served), {} turns acknowledged, {} compared, {} of unknown end \
         found again, slowest start {} ms",
        counts.kills,
        counts.in_start,
        counts.turns,
        counts.compared,
        counts.cut,
        counts.slowest.as_millis()
    );
    assert!(counts.turns > times, "{counts:?}");
}

#[test]
fn a_daemon_that_is_killed_a_few_times_has_kept_all_that_it_acknowledged() {
    kill(12, 1);
}

#[test]
#[ignore = "minutes: part of `make crash`"]
fn a_daemon_that_is_killed_a_thousand_times_has_kept_all_that_it_acknowledged() {
    kill(1000, 2);
}
