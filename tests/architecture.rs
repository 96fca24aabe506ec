//! Holds every `crate::room` in `src/` against the table in `src/lib.rs`: arrows point one way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A room and the rooms that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("request", &[]),
    ("text", &["request"]),
    ("sampler", &["request"]),
    ("engine", &["request"]),
    ("sessions", &["engine", "request"]),
    ("measure", &["engine", "text", "request"]),
    (
        "scheduler",
        &["engine", "sampler", "sessions", "text", "request"],
    ),
    ("service", &["scheduler", "sessions", "text", "request"]),
    ("door", &["service", "request"]),
    ("transport", &["door", "service", "request"]),
    ("bus", &["door", "service", "request"]),
    // A stranger on the bus, as any other program there.
    ("desktop", &[]),
];

/// Crates below, and the rooms that may name them: whoever computes, reads a file's metadata or
/// measures. The scheduler and everything above it knows models through `engine` and `text` only.
const CRATES: &[(&str, &[&str])] = &[
    (
        "ggml_kernels",
        &["engine", "sampler", "text", "doctor", "bench", "bin"],
    ),
    ("quantize", &["engine", "measure", "doctor", "bin"]),
];

/// Rooms whose files, too, name each other one way.
const ONE_WAY: &[&str] = &["bus", "door", "service", "sessions", "transport"];

/// Wiring and commands: may name everything, and nothing above may name them.
const WIRING: &[&str] = &[
    "config",
    "daemon",
    "client",
    "doctor",
    "cli",
    "manual",
    "stdio",
    "systemd",
    "bench",
    "interrupt",
    "main",
    "lib",
    "bin",
];

/// The rooms that a line of code names.
fn named(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or("");
    let ident = |s: &str| -> String {
        let s = s.trim_start();
        s.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let own = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = &code[at + "crate::".len()..];
        if !own {
            continue;
        }
        match rest.strip_prefix('{') {
            None => rooms.push(ident(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = 0;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            rooms.push(ident(&list[start..i]));
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            rooms.push(ident(&list[start..i]));
                            start = i + 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms.retain(|r| !r.is_empty());
    rooms
}

/// What is wrong with a source text that lies in `room`.
fn breaches(room: &str, source: &str) -> Vec<String> {
    if WIRING.contains(&room) {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{room}: a room that the table does not know")];
    };
    // Lists may go over several lines.
    let joined = source.replace("crate::{\n", "crate::{");
    let mut wrong = Vec::new();
    let is_test = |line: &str| line.starts_with("#[cfg(test)]");
    for line in joined
        .lines()
        .take_while(|l| !is_test(l) || !joined.contains("mod tests {"))
    {
        for used in named(line) {
            if used != room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{room} names {used}: {}", line.trim()));
            }
        }
    }
    wrong
}

fn walk(dir: &Path, room: Option<&str>, wrong: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().expect("a name").to_str().expect("UTF-8");
        // Test files stand in for whoever is above.
        let is_test = stem == "tests" || stem == "fake" || stem.ends_with("_tests");
        if path.is_dir() && !is_test {
            walk(&path, Some(room.unwrap_or(stem)), wrong);
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test {
            let source = std::fs::read_to_string(&path).expect("text");
            let found = breaches(room.unwrap_or(stem), &source);
            wrong.extend(
                found
                    .into_iter()
                    .map(|w| format!("{}: {w}", path.display())),
            );
        }
    }
}

#[test]
fn arrows_between_rooms_point_one_way() {
    let mut wrong = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    walk(&src, None, &mut wrong);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with the crates that a source text in `room` names.
fn foreign(room: &str, source: &str) -> Vec<String> {
    let code = source.lines().map(|l| l.split("//").next().unwrap_or(""));
    let names = |line: &&str, name: &str| {
        let path = format!("{name}::");
        line.match_indices(&path).any(|(at, _)| {
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
        })
    };
    let mut wrong = Vec::new();
    for line in code {
        for (name, rooms) in CRATES {
            if names(&line, name) && !rooms.contains(&room) {
                wrong.push(format!("{room} names {name}: {}", line.trim()));
            }
        }
    }
    wrong
}

#[test]
fn kernels_and_the_converter_are_named_by_those_who_need_them_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "{} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let inside = path.strip_prefix(&src).expect("below src");
        let room = inside
            .iter()
            .next()
            .expect("a name")
            .to_str()
            .expect("UTF-8");
        let source = std::fs::read_to_string(&path).expect("text");
        wrong.extend(foreign(room.trim_end_matches(".rs"), &source));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        foreign("scheduler", "use ggml_kernels::cpu::Pool;").len(),
        1
    );
    assert_eq!(foreign("engine", "use ggml_kernels::cpu::Pool;").len(), 0);
    assert_eq!(foreign("service", "// see quantize::schema").len(), 0);
}

#[test]
fn a_wrong_arrow_is_found_however_it_is_spelled() {
    for line in [
        "use crate::service::Service;",
        "use crate::{request::Token, service};",
        "use crate::{\n    request::{Token, Usage}, transport::http};",
        "let x = crate::daemon::run();",
    ] {
        assert_eq!(breaches("scheduler", line).len(), 1, "{line}");
    }
    assert_eq!(breaches("cellar", "").len(), 1, "an unknown room");
}

#[test]
fn right_arrows_and_mere_talk_of_wrong_ones_pass() {
    for line in [
        "use crate::request::Token;",
        "use crate::{engine, text::Tokenizer};",
        "//! Never a `crate::service`.",
        "use other_crate::service;",
    ] {
        assert_eq!(breaches("scheduler", line), Vec::<String>::new(), "{line}");
    }
}

fn sources(dir: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
}

/// Dependencies of a manifest that its code never names.
fn unused(manifest: &str, code: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let tables = ["dependencies", "dev-dependencies"];
    let tables = tables.iter().filter_map(|t| manifest.get(*t)?.as_table());
    let names = tables.flat_map(|t| t.keys());
    let named = |name: &&String| {
        let name = name.replace('-', "_");
        let uses = ["::", ";", "!", " as "].iter();
        uses.map(|end| format!("{name}{end}"))
            .any(|u| code.contains(&u))
    };
    names.filter(|name| !named(name)).cloned().collect()
}

#[test]
fn every_dependency_is_named_in_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for package in [".", "quantize", "ggml-kernels"] {
        let dir = root.join(package);
        let mut files = Vec::new();
        for part in ["src", "tests", "benches", "examples"] {
            sources(&dir.join(part), &mut files);
        }
        let read = |path: &PathBuf| std::fs::read_to_string(path).expect("text");
        let code: String = files.iter().map(read).collect();
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).expect("a manifest");
        assert_eq!(unused(&manifest, &code), [""; 0], "{package}");
    }
    let manifest = "[dependencies]\na-b = \"=1\"\nc = \"=1\"\n[dev-dependencies]\nd = \"=1\"\n";
    assert_eq!(unused(manifest, "use a_b::X; // c d"), ["c", "d"]);
}

/// The files of a room by their modules' paths below it, tests left out.
fn modules(dir: &Path, at: &[String], all: &mut Vec<(Vec<String>, String)>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().expect("a name").to_str().expect("UTF-8");
        if stem == "tests" || stem == "fake" || stem.ends_with("_tests") {
            continue;
        }
        let below = [at, &[stem.to_owned()]].concat();
        if path.is_dir() {
            modules(&path, &below, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let source = std::fs::read_to_string(&path).expect("text");
            let own = source.split("\nmod tests {").next();
            let name = if stem == "mod" { at.to_vec() } else { below };
            all.push((name, own.unwrap_or_default().to_owned()));
        }
    }
}

/// The paths that begin at `rest`: more than one where it ends in a list.
fn paths(rest: &str, so_far: &[String], all: &mut Vec<Vec<String>>) {
    let rest = rest.trim_start();
    if let Some(list) = rest.strip_prefix('{') {
        let (mut depth, mut start) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    paths(&list[start..i], so_far, all);
                    start = i + 1;
                    if c == '}' {
                        return;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
        return;
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (name, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let path = [so_far, &[name.to_owned()]].concat();
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => paths(rest, &path, all),
        _ => all.push(path),
    }
}

/// The files of the same room that a file names, each by its number.
fn arrows(room: &str, files: &[(Vec<String>, String)], from: usize) -> BTreeSet<usize> {
    let (own, source) = &files[from];
    let code = source.lines().map(|l| l.split("//").next().unwrap_or(""));
    let code: String = code
        .filter(|l| !l.trim().is_empty())
        .flat_map(|l| [l, "\n"])
        .collect();
    let is_module = |path: &[String]| files.iter().position(|(at, _)| at == path);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let begin = code[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_');
        let begin = begin.map_or(0, |b| b + 1);
        if code[..begin].ends_with("::") {
            continue;
        }
        let first = &code[begin..at];
        let child = [&own[..], &[first.to_owned()]].concat();
        let base = match first {
            "crate" => Vec::new(),
            "super" => [&[room.to_owned()], &own[..own.len().saturating_sub(1)]].concat(),
            "self" => [&[room.to_owned()], &own[..]].concat(),
            _ if is_module(&child).is_some() => [&[room.to_owned()], &child[..]].concat(),
            _ => continue,
        };
        paths(&code[at + 2..], &base, &mut found);
    }
    let mut named = BTreeSet::new();
    for path in found {
        let Some(path) = path.strip_prefix(&[room.to_owned()][..]) else {
            continue;
        };
        let mut below: Vec<String> = Vec::new();
        for step in path {
            match step.as_str() {
                "super" => drop(below.pop()),
                _ => below.push(step.clone()),
            }
        }
        // The longest beginning that is a file: what is behind it lies in there.
        let file = (0..=below.len()).rev().find_map(|n| is_module(&below[..n]));
        named.extend(file.filter(|&file| file != from));
    }
    named
}

/// Files of a room that come back to themselves by what they name.
fn circles(room: &str, files: &[(Vec<String>, String)]) -> Vec<String> {
    let next: Vec<BTreeSet<usize>> = (0..files.len()).map(|i| arrows(room, files, i)).collect();
    let comes_back = |&start: &usize| {
        let (mut seen, mut todo) = (BTreeSet::new(), next[start].clone());
        while let Some(at) = todo.pop_first() {
            if seen.insert(at) {
                todo.extend(&next[at]);
            }
        }
        seen.contains(&start)
    };
    let around = (0..files.len()).filter(comes_back);
    let spelled = |i: usize| [&[room.to_owned()], &files[i].0[..]].concat().join("::");
    around.map(spelled).collect()
}

#[test]
fn the_files_of_a_room_name_each_other_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for room in ONE_WAY {
        let mut files = Vec::new();
        modules(&src.join(room), &[], &mut files);
        assert_eq!(circles(room, &files), [""; 0], "{room}");
    }
    let file = |at: &str, source: &str| {
        let at = at.split("::").filter(|s| !s.is_empty()).map(str::to_owned);
        (at.collect::<Vec<_>>(), source.to_owned())
    };
    for (a, b) in [
        ("use super::b::X;", "use super::a;"),
        (
            "use super::{c, b::{X, Y}};",
            "use crate::bus::{\n    a::Z,\n};",
        ),
        ("fn f() { super::b::g() }", "fn g() { super::a::f() }"),
    ] {
        let two = [file("", "mod a;\nmod b;"), file("a", a), file("b", b)];
        assert_eq!(circles("bus", &two), ["bus::a", "bus::b"], "{a} {b}");
        let one = [file("", "mod a;"), file("a", a), file("b", "// super::a")];
        assert_eq!(circles("bus", &one), [""; 0], "{a}");
    }
    let above = [file("", "use a::X;"), file("a", "use super::Bus;")];
    assert_eq!(circles("bus", &above), ["bus", "bus::a"]);
}
