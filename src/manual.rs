//! The manual pages: section 1 from the command lines as clap knows them, `deltad.toml(5)` from the
//! table of keys. Words of its own are few: what a page says of an option or a key stands there.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::config::{Config, KEYS, Key};

const RELEASE: &str = concat!("deltad ", env!("CARGO_PKG_VERSION"));
/// No date, so that a build can be repeated to the byte. Not empty: roff writes no empty argument,
/// and what follows would move into its place.
const NO_DATE: &str = " ";

/// Writes a page for `program` and one for each of its commands to `dir/man1`.
pub fn commands(program: Command, dir: &Path) -> io::Result<()> {
    let dir = dir.join("man1");
    std::fs::create_dir_all(&dir)?;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    each(&program, &dir)
}

fn each(command: &Command, dir: &Path) -> io::Result<()> {
    let man = Man::new(command.clone())
        .date(NO_DATE)
        .source(RELEASE)
        .manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    page.extend(unbroken().to_roff().into_bytes());
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = command.get_after_help() {
        page.extend(notes_section(&notes.to_string()).to_roff().into_bytes());
    }
    let file = man.get_filename();
    page.extend(see_also(&file).to_roff().into_bytes());
    std::fs::write(dir.join(file), page)?;
    command.get_subcommands().try_for_each(|c| each(c, dir))
}

/// Options and paths are there to be copied: no word is broken, no line stretched.
fn unbroken() -> Roff {
    let mut roff = Roff::new();
    roff.control("nh", []).control("ad", ["l"]);
    roff
}

/// The pages to begin with, but the one in `file`.
fn see_also(file: &str) -> Roff {
    let others = [("deltad", 1), ("deltad-quantize", 1), ("deltad.toml", 5)]
        .iter()
        .filter(|(name, section)| file != format!("{name}.{section}"))
        .map(|(name, section)| format!("{name}({section})"));
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.collect::<Vec<_>>().join(", "))]);
    roff
}

/// What stands below the options in `--help`. Its indented lines are examples: kept as they are.
fn notes_section(text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["NOTES"]);
    let mut example = false;
    for line in text.lines() {
        if line.starts_with(' ') != example {
            example = !example;
            roff.control(if example { "nf" } else { "fi" }, []);
        }
        if line.is_empty() {
            roff.control("PP", [])
        } else {
            roff.text([roman(line)])
        };
    }
    if example {
        roff.control("fi", []);
    }
    roff
}

/// Writes `dir/man5/deltad.toml.5`.
pub fn configuration(dir: &Path) -> io::Result<()> {
    let dir = dir.join("man5");
    std::fs::create_dir_all(&dir)?;
    let mut page = configuration_page();
    page.extend([see_also("deltad.toml.5")]);
    std::fs::write(dir.join("deltad.toml.5"), page.to_roff())
}

const GENERAL: [&str; 3] = [
    "The file is TOML. The user's is read where there is one, else the machine's, or the one that \
     deltad serve --config names; files are never merged. Flags of deltad serve win over it. A key \
     that is not set has its default. An unknown key or a wrong value is an error that names its line.",
    "deltad serve --check-config prints what is in force. A reload (SIGHUP, or systemctl reload \
     deltad) reads the file again; keys not marked as such below wait for a restart.",
    "A size is a number of bytes, or a text such as \"512MiB\" with the unit B, KiB, MiB, GiB, TiB \
     (powers of 1024), KB, MB, GB or TB (powers of 1000). A time is a text such as \"10min\" with \
     the unit ms, s, min, h or d.",
];

fn configuration_page() -> Roff {
    let mut roff = Roff::new();
    roff.control("TH", ["deltad.toml", "5", NO_DATE, RELEASE, "File Formats"]);
    roff.extend([unbroken()]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("deltad.toml - configuration of the daemon deltad")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([italic("$XDG_CONFIG_HOME/deltad/deltad.toml")]);
    roff.control("br", []);
    roff.text([italic("/etc/deltad/deltad.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    for (n, paragraph) in GENERAL.iter().enumerate() {
        if n > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*paragraph)]);
    }
    let defaults = Config::of_a_machine();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            roff.control("SH", [format!("[{section}]").as_str()]);
        }
        describe(key, &defaults, &mut roff);
    }
    roff.control("SH", ["EXAMPLE"]);
    roff.control("nf", []);
    roff.text([roman("[model]")]);
    roff.text([roman("path = \"/var/lib/deltad/models/model.gguf\"")]);
    roff.control("fi", []);
    roff
}

fn describe(key: &Key, defaults: &Config, roff: &mut Roff) {
    roff.control("TP", []);
    roff.text([bold(key.name)]);
    roff.text([roman(key.about)]);
    roff.control("br", []);
    let default = key.shown(defaults).unwrap_or_else(|| "not set".into());
    roff.text([roman(format!("Takes {}. Default: {default}.", key.wanted))]);
    if key.live {
        roff.text([roman("A reload puts it in force.")]);
    }
}
