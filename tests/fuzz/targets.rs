//! What is fuzzed, and what must hold whatever comes in. A target that does not hold panics.

mod doors;
mod files;
mod sessions;
mod words;

use std::path::Path;

use clap::ValueEnum;

use super::dice::Dice;

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Model files: opened, bound, and run where they are taken
    Gguf,
    /// Configuration files
    Config,
    /// Texts to tokens and back
    Tokenizer,
    /// Tokens to replies: content, reasoning, calls, stop strings
    Reply,
    /// Conversations through chat templates: no content becomes markup
    Chat,
    /// Chat templates that a hostile model file brings
    Template,
    /// JSON schemas and tools: whatever is taken can be met and is met
    Schema,
    /// JSON bodies through the service, to the end of their answers
    Request,
    /// Arguments of D-Bus calls
    Bus,
    /// Bytes on the socket
    Http,
    /// Sessions on disk: refused, or what was said
    Session,
    /// Exported sessions that strangers send
    Import,
}

pub type Run = Box<dyn FnMut(&mut Dice)>;

impl Target {
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |v| v.get_name().to_owned())
    }

    pub fn prepare(self, dir: &Path) -> Run {
        match self {
            Target::Gguf => files::gguf(dir),
            Target::Config => files::config(),
            Target::Tokenizer => words::tokenizer(dir),
            Target::Reply => words::reply(dir),
            Target::Chat => words::chat(dir),
            Target::Template => words::template(dir),
            Target::Schema => words::schema(dir),
            Target::Request => doors::request(dir),
            Target::Bus => doors::bus(),
            Target::Http => doors::http(dir),
            Target::Session => sessions::session(dir),
            Target::Import => sessions::import(dir),
        }
    }
}

/// The parts of a seed file, between lines of `----`.
fn parts(file: &'static str) -> Vec<&'static str> {
    file.split("\n----\n").map(str::trim_end).collect()
}

fn jsons(file: &'static str) -> Vec<serde_json::Value> {
    let parse = |text: &str| serde_json::from_str(text).expect(text);
    parts(file).into_iter().map(parse).collect()
}

/// Well-formed, whatever its numbers: `1e999` is JSON, though no double.
fn is_json(text: &[u8]) -> bool {
    let formed: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(text);
    let read: Result<serde_json::Value, _> = serde_json::from_slice(text);
    formed.is_ok()
        && read.map_or_else(
            |e| e.to_string().starts_with("number out of range"),
            |_| true,
        )
}
