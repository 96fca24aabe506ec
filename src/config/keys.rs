//! Every key of the file in one table: its section, what it takes, how it is read and shown. The
//! parser, `--check-config` and the manual page all walk this table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::units::{parse_size, parse_span, show_size, show_span};
use super::{Bus, Config};
use crate::engine::{CacheType, Device, Experts};

/// One key of the file.
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    /// What it decides, for people.
    pub about: &'static str,
    /// What a value must be, for people.
    pub wanted: &'static str,
    /// A reload puts it in force; else a restart does.
    pub live: bool,
    /// `None` when the value is not what `wanted` says.
    read: fn(&mut Config, &DeValue) -> Option<()>,
    /// The value as TOML; `None` where the default has no spelling (it is then left out).
    show: fn(&Config) -> Option<String>,
}

impl Key {
    /// As people name it: `section.name`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The value as TOML, where it has one.
    pub fn shown(&self, config: &Config) -> Option<String> {
        (self.show)(config)
    }
}

macro_rules! key {
    (live $section:ident . $name:ident, $($rest:tt)*) => {
        Key {
            live: true,
            ..key!($section.$name, $($rest)*)
        }
    };
    ($section:ident . $name:ident, $about:literal, $wanted:literal, $read:expr, $show:expr) => {
        Key {
            section: stringify!($section),
            name: stringify!($name),
            about: $about,
            wanted: $wanted,
            live: false,
            read: |config, value| {
                config.$section.$name = $read(value)?;
                Some(())
            },
            show: |config| $show(&config.$section.$name),
        }
    };
}

/// All keys, in the order in which they are printed.
pub const KEYS: &[Key] = &[
    key!(
        model.path,
        "The model to serve. Without it the daemon does not start.",
        "the path of a GGUF file",
        |v| path(v).map(Some),
        |p: &Option<PathBuf>| p.as_ref().and_then(show_path)
    ),
    key!(
        model.device,
        "What computes: \"auto\" takes an NVIDIA card for which there are kernels, or a GPU that this build can use, else the CPU.",
        "\"auto\", \"cpu\", \"cuda\", \"metal\" or \"vulkan\"",
        |v| word(v, DEVICES),
        |d| quoted(name_of(DEVICES, d))
    ),
    key!(
        model.gpu_layers,
        "Layers whose weights go to the GPU, from the first on; 0 is the same as device = \"cpu\". A number leaves an NVIDIA card to ggml.",
        "\"all\" or 0 to 4096 layers",
        gpu_layers,
        |n: &Option<u32>| Some(n.map_or("\"all\"".into(), |n| n.to_string()))
    ),
    key!(
        model.experts,
        "Where the routed experts, most of a model's bytes, are computed: \"auto\" is \"device\" where the card has room for them, else \"cpu\".",
        "\"auto\", \"device\" or \"cpu\"",
        |v| word(v, EXPERTS),
        |e| quoted(name_of(EXPERTS, e))
    ),
    key!(
        model.threads,
        "Threads on the CPU; \"auto\" is every core, or one for a very small model.",
        "\"auto\" or 1 to 1024",
        |v| or_word(v, "auto", 1, 1024),
        |n| show_or(n, "auto")
    ),
    key!(
        model.context,
        "Longest conversation; \"model\" is what the model was trained for.",
        "\"model\" or 16 to 16777216 tokens",
        |v| or_word(v, "model", 16, 1 << 24),
        |n| show_or(n, "model")
    ),
    key!(
        model.chunk,
        "How much of a prompt is read in one pass; \"auto\" is 2048 on a GPU, else 512.",
        "\"auto\" or 1 to 8192 tokens",
        |v| or_word(v, "auto", 1, 8192),
        |n| show_or(n, "auto")
    ),
    key!(
        model.cache_type,
        "How the attention layers keep what they read. KDA state is always f32.",
        "\"f16\", \"f32\", \"bf16\" or \"q8_0\"",
        |v| word(v, CACHE_TYPES),
        |t| quoted(name_of(CACHE_TYPES, t))
    ),
    key!(
        live limits.max_concurrent,
        "How many generations run side by side.",
        "1 to 1024 generations",
        |v| integer(v, 1, 1024).map(|n| n as usize),
        |n: &usize| Some(n.to_string())
    ),
    key!(
        live limits.max_queue,
        "How many requests may wait; one more is refused.",
        "0 to 65536 requests",
        |v| integer(v, 0, 65536).map(|n| n as usize),
        |n: &usize| Some(n.to_string())
    ),
    key!(
        live limits.max_tokens,
        "Longest answer; \"context\" is what the context leaves.",
        "\"context\" or 1 to 16777216 tokens",
        |v| or_word(v, "context", 1, 1 << 24),
        |n| show_or(n, "context")
    ),
    key!(
        limits.request_bytes,
        "Largest body of a request.",
        "a size from \"1KiB\" to \"1GiB\"",
        |v| size(v, 1 << 10, 1 << 30),
        |n: &u64| quoted(show_size(*n))
    ),
    key!(
        limits.request_memory,
        "What the states of one request may take; \"auto\" is three quarters of the memory available at the start.",
        "\"auto\" or a size from \"1MiB\" to \"64TiB\"",
        |v| match text(v).as_deref() {
            Some("auto") => Some(None),
            _ => size(v, 1 << 20, 64 << 40).map(Some),
        },
        |n: &Option<u64>| quoted(n.map_or("auto".into(), show_size))
    ),
    key!(
        sessions.dir,
        "Where conversations outlive the daemon: what was said, and their states.",
        "the path of a directory",
        path,
        show_path
    ),
    key!(
        live sessions.memory,
        "Memory for conversations, so that the next turn need not read them again.",
        "a size from \"0B\" to \"64TiB\"",
        |v| size(v, 0, 64 << 40),
        |n: &u64| quoted(show_size(*n))
    ),
    key!(
        sessions.disk,
        "Disk for conversations of each user; \"0B\" keeps them in memory alone, which systemd may hold for the next daemon.",
        "a size from \"0B\" to \"64TiB\"",
        |v| size(v, 0, 64 << 40),
        |n: &u64| quoted(show_size(*n))
    ),
    key!(
        sessions.idle_suspend,
        "When an unused conversation leaves memory for the disk.",
        "\"never\" or a time from \"1s\" to \"365d\"",
        or_never,
        show_or_never
    ),
    key!(
        live service.idle_exit,
        "The daemon ends when unused for this long; a socket unit starts it again.",
        "\"never\" or a time from \"1s\" to \"365d\"",
        or_never,
        show_or_never
    ),
    key!(
        service.socket,
        "Where the daemon listens, unless systemd hands it a socket. Where XDG_RUNTIME_DIR is set, the default is deltad/deltad.sock below it.",
        "the path of the socket",
        path,
        show_path
    ),
    key!(
        service.socket_mode,
        "Permission bits of the socket.",
        "permission bits as text, \"0000\" to \"0777\"",
        mode,
        |m: &u32| quoted(format!("{m:04o}"))
    ),
    key!(
        service.socket_group,
        "The group that owns the socket; the daemon's own where not set.",
        "the name of a group",
        |v| text(v).map(Some),
        |g: &Option<String>| g.as_ref().and_then(quoted)
    ),
    key!(
        service.bus,
        "The D-Bus on which the service is offered.",
        "\"user\", \"system\" or \"none\"",
        |v| word(v, BUSES),
        |b| quoted(name_of(BUSES, b))
    ),
    key!(
        live service.allowed_uids,
        "Users who may ask. With allowed_groups empty too, whoever can open the socket.",
        "a list of user ids, empty for everyone",
        uids,
        |u: &Vec<u32>| Some(format!("{u:?}"))
    ),
    key!(
        live service.allowed_groups,
        "Groups whose members may ask, beside allowed_uids.",
        "a list of groups, by name or id; empty for everyone",
        groups,
        |g: &Vec<String>| show_groups(g)
    ),
    key!(
        live service.drain,
        "How long running answers may take to end when the daemon stops.",
        "a time from \"0s\" to \"1h\"",
        |v| span(v).filter(|d| *d <= Duration::from_secs(3600)),
        |d: &Duration| quoted(show_span(*d))
    ),
    key!(
        desktop.word,
        "What a query in a desktop's search field begins with that is a question to the model.",
        "one word",
        |v| text(v).filter(|w| !w.contains(char::is_whitespace)),
        quoted
    ),
];

const DEVICES: &[(&str, Device)] = &[
    ("auto", Device::Auto),
    ("cpu", Device::Cpu),
    ("cuda", Device::Cuda),
    ("metal", Device::Metal),
    ("vulkan", Device::Vulkan),
];
const EXPERTS: &[(&str, Experts)] = &[
    ("auto", Experts::Auto),
    ("device", Experts::Device),
    ("cpu", Experts::Cpu),
];
const CACHE_TYPES: &[(&str, CacheType)] = &[
    ("f16", CacheType::F16),
    ("f32", CacheType::F32),
    ("bf16", CacheType::Bf16),
    ("q8_0", CacheType::Q8_0),
];
const BUSES: &[(&str, Bus)] = &[
    ("user", Bus::User),
    ("system", Bus::System),
    ("none", Bus::None),
];

/// Reads `text` over `config`. The error holds the line, counted from 1, and what is wrong there.
pub fn parse(text: &str, mut config: Config) -> Result<Config, (Option<usize>, String)> {
    let line = |at: usize| Some(1 + text[..at.min(text.len())].matches('\n').count());
    let document = DeTable::parse(text)
        .map_err(|e| (e.span().and_then(|s| line(s.start)), e.message().to_owned()))?;
    for (section, body) in document.get_ref() {
        let at = line(section.span().start);
        let section: &str = section.get_ref();
        if !KEYS.iter().any(|k| k.section == section) {
            return Err((at, unknown_section(section)));
        }
        let DeValue::Table(body) = body.get_ref() else {
            return Err((at, format!("{section} is a section: write [{section}]")));
        };
        for (name, value) in body {
            let name_at = line(name.span().start);
            let name: &str = name.get_ref();
            let key = KEYS
                .iter()
                .find(|k| k.section == section && k.name == name)
                .ok_or_else(|| (name_at, unknown_key(section, name)))?;
            (key.read)(&mut config, value.get_ref()).ok_or_else(|| {
                let got = &text[value.span()];
                let what = format!("{section}.{name}: got {got}, wanted {}", key.wanted);
                (line(value.span().start), what)
            })?;
        }
    }
    Ok(config)
}

/// The configuration as TOML, every key with a value.
pub fn print(config: &Config) -> String {
    let mut out = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let gap = if out.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{gap}[{section}]\n"));
        }
        match key.shown(config) {
            Some(value) => out.push_str(&format!("{} = {value}\n", key.name)),
            None => out.push_str(&format!("# {} is not set: {}\n", key.name, key.wanted)),
        }
    }
    out
}

fn unknown_key(section: &str, name: &str) -> String {
    // A key in the wrong section is a commoner mistake than a misspelt one.
    if let Some(k) = KEYS.iter().find(|k| k.name == name) {
        return format!(
            "[{section}] has no key {name}: it belongs in [{}]",
            k.section
        );
    }
    let here = KEYS.iter().filter(|k| k.section == section).map(|k| k.name);
    let hint = nearest(name, here.clone()).unwrap_or_else(|| {
        let all: Vec<_> = here.collect();
        format!("it has {}", all.join(", "))
    });
    format!("[{section}] has no key {name}: {hint}")
}

fn unknown_section(name: &str) -> String {
    if let Some(k) = KEYS.iter().find(|k| k.name == name) {
        return format!(
            "{name} stands outside a section: it belongs in [{}]",
            k.section
        );
    }
    let hint = nearest(name, KEYS.iter().map(|k| k.section))
        .unwrap_or_else(|| "there are model, limits, sessions, service and desktop".into());
    format!("no section [{name}]: {hint}")
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<String> {
    known
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7)
        .map(|(_, k)| format!("did you mean {k}?"))
}

fn text(value: &DeValue) -> Option<String> {
    match value {
        DeValue::String(s) if !s.is_empty() => Some(s.to_string()),
        _ => None,
    }
}

fn path(value: &DeValue) -> Option<PathBuf> {
    text(value).map(PathBuf::from)
}

fn integer(value: &DeValue, least: u64, most: u64) -> Option<u64> {
    let DeValue::Integer(n) = value else {
        return None;
    };
    let n = u64::from_str_radix(n.as_str(), n.radix()).ok()?;
    (least..=most).contains(&n).then_some(n)
}

fn or_word(value: &DeValue, word: &str, least: u64, most: u64) -> Option<Option<usize>> {
    match text(value) {
        Some(w) => (w == word).then_some(None),
        None => integer(value, least, most).map(|n| Some(n as usize)),
    }
}

fn gpu_layers(value: &DeValue) -> Option<Option<u32>> {
    or_word(value, "all", 0, 4096).map(|n| n.map(|n| n as u32))
}

fn size(value: &DeValue, least: u64, most: u64) -> Option<u64> {
    let n = match value {
        DeValue::Integer(_) => integer(value, 0, u64::MAX)?,
        _ => parse_size(&text(value)?)?,
    };
    (least..=most).contains(&n).then_some(n)
}

fn span(value: &DeValue) -> Option<Duration> {
    parse_span(&text(value)?)
}

fn or_never(value: &DeValue) -> Option<Option<Duration>> {
    if text(value)? == "never" {
        return Some(None);
    }
    let bounds = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);
    span(value).filter(|d| bounds.contains(d)).map(Some)
}

fn mode(value: &DeValue) -> Option<u32> {
    // Text, because 600 and 0o600 look alike and mean different bits.
    let text = text(value)?;
    let digits = text.strip_prefix("0o").unwrap_or(&text);
    let bits = u32::from_str_radix(digits, 8).ok()?;
    (digits.len() >= 3 && bits <= 0o777).then_some(bits)
}

fn uids(value: &DeValue) -> Option<Vec<u32>> {
    let DeValue::Array(items) = value else {
        return None;
    };
    let one = |v: &toml::Spanned<DeValue>| integer(v.get_ref(), 0, u64::from(u32::MAX) - 1);
    items.iter().map(|v| Some(one(v)? as u32)).collect()
}

/// Names and ids; that the names exist is seen when the daemon starts.
fn groups(value: &DeValue) -> Option<Vec<String>> {
    let DeValue::Array(items) = value else {
        return None;
    };
    let one = |v: &toml::Spanned<DeValue>| match v.get_ref() {
        DeValue::String(name) => Some(name.to_string()).filter(|n| !n.is_empty()),
        other => integer(other, 0, u64::from(u32::MAX) - 1).map(|id| id.to_string()),
    };
    items.iter().map(one).collect()
}

fn show_groups(groups: &[String]) -> Option<String> {
    let each: Option<Vec<String>> = groups.iter().map(quoted).collect();
    Some(format!("[{}]", each?.join(", ")))
}

fn word<T: Copy>(value: &DeValue, words: &[(&str, T)]) -> Option<T> {
    let text = text(value)?;
    words.iter().find(|(w, _)| *w == text).map(|(_, t)| *t)
}

/// The configuration's word for a value.
fn name_of<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words
        .iter()
        .find(|(_, t)| t == value)
        .map_or("", |(w, _)| w)
}

fn quoted(text: impl AsRef<str>) -> Option<String> {
    Some(toml::Value::from(text.as_ref()).to_string())
}

fn show_path(path: impl AsRef<Path>) -> Option<String> {
    quoted(path.as_ref().to_string_lossy())
}

fn show_or(n: &Option<usize>, word: &str) -> Option<String> {
    Some(n.map_or_else(|| format!("{word:?}"), |n| n.to_string()))
}

fn show_or_never(span: &Option<Duration>) -> Option<String> {
    quoted(span.map_or("never".into(), show_span))
}
