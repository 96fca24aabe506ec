//! What desktops have: busctl, gdbus, Python. And the installed description of it all.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::super::venv;
use super::private::{Client, NAME, Options, PATH, PrivateBus, endless, eventually};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[tokio::test]
async fn busctl_asks_reads_and_cancels() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve_demo();
    let address = format!("--address={}", bus.address);
    let busctl = |args: &[&str]| {
        let (succeeded, said) = bus.tool("busctl", &[&[address.as_str()], args].concat());
        assert!(succeeded, "{said}");
        said
    };
    let manager = "org.deltad.Inference1.Manager";
    let ask = ["call", NAME, PATH, manager, "Ask", "sa{sv}"];
    let question = ["What is 3 + 4?", "1", "temperature", "d", "0"];
    let said = busctl(&[&ask[..], &question].concat());
    assert!(said.contains("= 7"), "{said}");
    let state = busctl(&["get-property", NAME, PATH, manager, "State"]);
    assert_eq!(state.trim(), "u 2");
    let client = Client(bus.connect().await);
    let (path, _reader) = client.chat("hello", endless()).await;
    let generation = "org.deltad.Inference1.Generation";
    busctl(&["call", NAME, &path, generation, "Cancel"]);
    eventually("cancelled", async || {
        client.count(&path, "Generation", "State").await == 4
    })
    .await;
    let tree = busctl(&["tree", NAME]);
    assert!(tree.contains(path.as_str()), "{tree}");
}

#[test]
fn gdbus_asks_and_is_told_what_is_wrong() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve_demo();
    let ask = |options: &str| {
        let call = ["call", "--session", "-d", NAME, "-o", PATH, "-m"];
        let method = "org.deltad.Inference1.Manager.Ask";
        let rest = [method, "What is 3 + 4?", options];
        bus.tool("gdbus", &[&call[..], &rest].concat())
    };
    let (succeeded, said) = ask("{'temperature': <0.0>, 'stop': <['.']>, 'seed': <1>}");
    assert!(succeeded && said.contains("= 7"), "{said}");
    let (succeeded, said) = ask("{'max_token': <3>}");
    assert!(!succeeded);
    assert!(
        said.contains("org.deltad.Inference1.Error.UnknownOption"),
        "{said}"
    );
    assert!(said.contains("did you mean max_tokens?"), "{said}");
}

/// Our interfaces in a description: each with its members, sorted, arguments in order.
fn interfaces(xml: &str) -> Vec<(String, Vec<String>)> {
    let mut plain = xml.to_owned();
    while let Some(at) = plain.find("<!--") {
        let end = plain[at..].find("-->").expect("a comment's end") + 3;
        plain.replace_range(at..at + end, "");
    }
    let mut found = Vec::new();
    for block in plain.split("<interface name=\"").skip(1) {
        let (name, rest) = block.split_once("\">").expect("a name");
        if !name.starts_with("org.deltad.") {
            continue;
        }
        let body = rest.split("</interface>").next().expect("a body");
        let mut members = vec![String::new()];
        for line in body.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let opens = ["<method", "<signal", "<property"];
            if opens.iter().any(|o| line.starts_with(o)) {
                members.push(String::new());
            }
            members.last_mut().expect("one").push_str(line);
        }
        members.sort();
        found.push((name.to_owned(), members));
    }
    found.sort();
    found
}

#[tokio::test]
async fn the_installed_description_is_the_served_one() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    client.create(Options::new()).await;
    let (_, _reader) = client.chat("hello", endless()).await;
    let introspectable = "org.freedesktop.DBus.Introspectable";
    let mut served = Vec::new();
    for path in [&[PATH.to_owned()][..], &client.objects().await].concat() {
        let reply = client.call(&path, introspectable, "Introspect", &()).await;
        let xml: String = reply
            .expect("a description")
            .body()
            .deserialize()
            .expect("text");
        served.extend(interfaces(&xml));
    }
    served.sort();
    served.dedup();
    let file = root("systemd/dbus/org.deltad.Inference1.xml");
    let installed = interfaces(&std::fs::read_to_string(file).expect("the description"));
    assert_eq!(installed.len(), 3);
    assert_eq!(served, installed);
}

/// A Python with dbus-fast, kept between runs; or why there is none.
fn python() -> Result<PathBuf, String> {
    venv::python("dbus-venv", "dbus_fast", &["dbus-fast==5.2.0"])
}

/// An example at its prompt, and what it has printed so far.
struct Assistant {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Assistant {
    fn start(bus: &PrivateBus, python: &Path, example: &str) -> Assistant {
        let mut child = Command::new(python)
            .arg(root("examples").join(example))
            .env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        Assistant { child, said }
    }

    fn tell(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("open");
        stdin.write_all(text.as_bytes()).expect("it reads");
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.said.read_until(b'\n', &mut line).expect("a line");
        // What was read before may have been half a character.
        String::from_utf8_lossy(&line).into_owned()
    }

    /// The rest, once nobody types any more.
    fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).expect("text");
        assert!(self.child.wait().expect("an end").success());
        rest
    }
}

fn holds_a_conversation(python: &Path, example: &str) {
    let bus = PrivateBus::start();
    let _daemon = bus.serve_demo();
    let mut assistant = Assistant::start(&bus, python, example);
    assistant.tell("My name is Tessa.\nWhat is 3 + 4?\nWhat is my name?\n");
    let said = assistant.end();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[2].contains('7'), "{said}");
    assert!(lines[3].contains("Tessa"), "{said}");
}

/// The tiny model says noise for a long while.
fn stops_at_ctrl_c(python: &Path, example: &str) {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let mut assistant = Assistant::start(&bus, python, example);
    assert!(assistant.line().contains("tokens"));
    for _ in 0..2 {
        assistant.tell("go on for ever\n");
        let mut first = [0];
        assistant.said.read_exact(&mut first).expect("an answer");
        let pid = rustix::process::Pid::from_child(&assistant.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
        let mut answer = assistant.line();
        while !answer.ends_with(" [cancelled]\n") {
            assert!(!answer.contains("[length]"), "it was not stopped: {answer}");
            let more = assistant.line();
            assert!(!more.is_empty(), "it ended: {answer}");
            answer += &more;
        }
    }
    assert_eq!(assistant.end(), "");
}

#[test]
fn the_example_assistant_holds_a_conversation_and_stops_at_ctrl_c() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return eprintln!("SKIPPED: no dbus-fast for Python here: {why}"),
    };
    holds_a_conversation(&python, "assistant.py");
    stops_at_ctrl_c(&python, "assistant.py");
}

#[test]
fn the_example_assistant_with_glib_does_the_same() {
    let python = Path::new("/usr/bin/python3");
    let has_gi = Command::new(python).args(["-c", "import gi"]).output();
    if !has_gi.is_ok_and(|o| o.status.success()) {
        return eprintln!("SKIPPED: no gi (python3-gi) for {}", python.display());
    }
    holds_a_conversation(python, "assistant_gio.py");
    stops_at_ctrl_c(python, "assistant_gio.py");
}

fn runs_through(python: &Path, script: &str) {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let script = root("tests/python").join(script);
    let script = script.to_str().expect("UTF-8");
    let (succeeded, said) = bus.tool(python.to_str().expect("UTF-8"), &[script]);
    assert!(succeeded, "{said}");
}

#[test]
fn a_python_program_reads_cancels_and_is_signalled() {
    match python() {
        Ok(python) => runs_through(&python, "dbus_client.py"),
        Err(why) => eprintln!("SKIPPED: no dbus-fast for Python here: {why}"),
    }
}

#[test]
fn a_program_that_writes_the_bus_by_hand_is_answered_too() {
    match venv::python("jeepney-venv", "jeepney", &["jeepney==0.9.0"]) {
        Ok(python) => runs_through(&python, "jeepney_client.py"),
        Err(why) => eprintln!("SKIPPED: no jeepney for Python here: {why}"),
    }
}
