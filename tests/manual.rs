//! The manual pages as both programs write them: whole, and fit to be rendered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use deltad::config::KEYS;

const PROGRAMS: [&str; 2] = [
    env!("CARGO_BIN_EXE_deltad"),
    env!("CARGO_BIN_EXE_deltad-quantize"),
];

fn output(program: &str, args: &[&str]) -> Output {
    let done = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "80")
        .output();
    done.unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn said(program: &str, args: &[&str]) -> String {
    let done = output(program, args);
    assert!(done.status.success(), "{program} {args:?}: {done:?}");
    String::from_utf8(done.stdout).expect("UTF-8")
}

/// Every page by its file's name, as text without roff's escapes; and the directory.
fn pages() -> (tempfile::TempDir, BTreeMap<String, String>) {
    let dir = tempfile::tempdir().expect("a directory");
    for program in PROGRAMS {
        said(program, &["manual", dir.path().to_str().expect("UTF-8")]);
    }
    let mut pages = BTreeMap::new();
    for section in ["man1", "man5"] {
        for entry in fs::read_dir(dir.path().join(section)).expect("a section") {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("a page");
            let plain = ["\\fB", "\\fI", "\\fR"]
                .iter()
                .fold(text.replace("\\-", "-"), |t, font| t.replace(font, ""));
            let name = path.file_name().and_then(|n| n.to_str()).expect("UTF-8");
            pages.insert(name.to_owned(), plain);
        }
    }
    (dir, pages)
}

/// The commands that a program's help lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).expect("commands");
    let lines = list.lines().take_while(|l| !l.is_empty());
    lines
        .filter(|l| l.starts_with("  ") && !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

/// The long options that a help lists, each at the head of its line.
fn options(help: &str) -> BTreeSet<String> {
    let heads = help.lines().map(str::trim_start);
    let long = heads.filter_map(|l| l.get(l.find("--")?..).filter(|_| l.starts_with('-')));
    long.map(|l| {
        let name = l[2..].split(|c: char| c != '-' && !c.is_ascii_alphanumeric());
        format!("--{}", name.into_iter().next().unwrap_or_default())
    })
    .collect()
}

/// What of `wanted` has no entry of its own in a page: a line that begins with it, or follows a
/// short option.
fn missing(wanted: impl IntoIterator<Item = String>, page: &str) -> Vec<String> {
    let entries: BTreeSet<&str> = page
        .split("\n.TP\n")
        .skip(1)
        .filter_map(|e| e.lines().next())
        .flat_map(|head| head.split([' ', ',']))
        .collect();
    let lacks = |name: &String| !entries.contains(name.as_str());
    wanted.into_iter().filter(lacks).collect()
}

/// The first of man, groff and mandoc that is here and works, as a command line that a page's path
/// completes.
fn renderer() -> Option<Vec<&'static str>> {
    // Where documentation was stripped, `man` is a script that says so and succeeds.
    let says = |program: &str, start: &str| {
        let done = Command::new(program).arg("--version").output();
        done.is_ok_and(|d| d.stdout.starts_with(start.as_bytes()))
    };
    let has_groff = says("groff", "GNU groff");
    let has_mandoc = || Command::new("mandoc").arg("/dev/null").output().is_ok();
    if has_groff && says("man", "man ") {
        Some(vec!["man", "--warnings=w", "-l"])
    } else if has_groff {
        Some(vec!["groff", "-man", "-ww", "-Tutf8"])
    } else if has_mandoc() {
        // Warnings there are of style: that a page has no date, an empty line too many.
        Some(vec!["mandoc", "-T", "lint", "-W", "error"])
    } else {
        None
    }
}

/// What a renderer has to say of a page; nothing if all is well.
fn complaints(renderer: &[&str], page: &Path) -> String {
    let args = [&renderer[1..], &[page.to_str().expect("UTF-8")]].concat();
    let done = output(renderer[0], &args);
    let mut said = String::from_utf8_lossy(&done.stderr).into_owned();
    if renderer[0] == "mandoc" {
        said += &String::from_utf8_lossy(&done.stdout);
    }
    if !done.status.success() {
        said += &format!("{}", done.status);
    }
    said
}

#[test]
fn every_command_has_a_page_and_every_option_an_entry_in_it() {
    let (_dir, pages) = pages();
    let mut known = BTreeSet::from(["deltad.toml.5".to_owned()]);
    for program in PROGRAMS {
        let name = Path::new(program).file_name().and_then(|n| n.to_str());
        let name = name.expect("a name");
        let help = said(program, &["--help"]);
        let subcommands = commands(&help);
        assert!(subcommands.len() >= 5, "{subcommands:?}");
        let mut check = |file: String, help: &str| {
            let page = pages.get(&file).unwrap_or_else(|| panic!("no {file}"));
            let options = options(help);
            assert!(options.contains("--help"), "{file}: {options:?}");
            assert_eq!(missing(options, page), Vec::<String>::new(), "{file}");
            known.insert(file);
        };
        check(format!("{name}.1"), &help);
        for command in subcommands {
            let help = said(program, &[&command, "--help"]);
            check(format!("{name}-{command}.1"), &help);
            if help.contains("\nCommands:\n") {
                for below in commands(&help) {
                    let help = said(program, &[&command, &below, "--help"]);
                    check(format!("{name}-{command}-{below}.1"), &help);
                }
            }
        }
    }
    let written: BTreeSet<String> = pages.into_keys().collect();
    assert_eq!(written, known);
}

#[test]
fn every_key_of_the_configuration_is_told_with_what_it_takes_and_its_default() {
    let (_dir, pages) = pages();
    let page = &pages["deltad.toml.5"];
    for key in KEYS {
        let section = page
            .split("\n.SH ")
            .find(|s| s.starts_with(&format!("[{}]\n", key.section)))
            .unwrap_or_else(|| panic!("no section {}", key.section));
        let name = vec![key.name.to_owned()];
        assert_eq!(missing(name, section), Vec::<String>::new());
        let takes = format!("Takes {}. Default: ", key.wanted);
        assert!(section.contains(key.about), "{}: {section}", key.name);
        assert!(section.contains(&takes), "{}: {section}", key.name);
    }
    assert!(page.contains("Default: \"/run/deltad/deltad.sock\"."));
}

#[test]
fn an_option_that_has_no_entry_is_missed_even_where_others_speak_of_it() {
    let help = "Options:\n  -q, --quiet   As --silent\n      --dry-run\n          Not --wet-run\n";
    assert_eq!(
        options(help),
        BTreeSet::from(["--quiet".into(), "--dry-run".into()])
    );
    let page = ".SH OPTIONS\n.TP\n-q, --quiet\nNot --dry-run\n";
    assert_eq!(missing(options(help), page), ["--dry-run"]);
}

#[test]
fn every_page_renders_without_a_warning() {
    let Some(renderer) = renderer() else {
        eprintln!("skipped: neither man with groff, nor groff, nor mandoc is here");
        return;
    };
    let (dir, pages) = pages();
    for name in pages.keys() {
        let section = format!("man{}", &name[name.len() - 1..]);
        let said = complaints(&renderer, &dir.path().join(section).join(name));
        assert_eq!(said, "", "{renderer:?} {name}");
    }
    // That silence means something.
    let broken = dir.path().join("broken.1");
    fs::write(&broken, ".TH broken 1\n.SH NAME\n.NOSUCH\nx \\*[no-such]\n").expect("a page");
    assert_ne!(complaints(&renderer, &broken), "", "{renderer:?}");
}
