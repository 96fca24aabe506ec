//! The judgement: from what a machine has and a model needs to findings, each with at most one line
//! of advice. Pure; knows no file, no clock and no environment.

use serde::Serialize;

use super::catalog;
use super::gpu;
use super::machine::{Door, Machine, Needs, size};
use crate::config::{Bus, Config};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    /// It works, and could be better.
    Note,
    /// It does not work so.
    Bad,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub about: &'static str,
    pub verdict: Verdict,
    pub found: String,
    pub advice: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Whether the model and one whole conversation fit into memory, where a model was named.
    pub fits: Option<bool>,
    /// Memory's measured speed over what a token reads: what does not fit into caches comes no faster.
    pub tokens_per_second_at_most: Option<f64>,
}

impl Report {
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|f| f.verdict != Verdict::Bad)
    }
}

pub(super) fn good(about: &'static str, found: String) -> Finding {
    Finding {
        about,
        verdict: Verdict::Good,
        found,
        advice: None,
    }
}

pub(super) fn but(
    about: &'static str,
    verdict: Verdict,
    found: String,
    advice: impl Into<String>,
) -> Finding {
    Finding {
        about,
        verdict,
        found,
        advice: Some(advice.into()),
    }
}

/// `model` is what was named: its needs, or why it cannot be run.
pub fn judge(machine: &Machine, model: Option<Result<&Needs, &str>>, config: &Config) -> Report {
    let needs = model.and_then(Result::ok);
    let mut findings = vec![
        processor(machine, config),
        memory(machine, config, needs),
        gpu::gpu(machine, needs),
    ];
    let rate = machine.memory.speed.zip(needs);
    let rate = rate.map(|(speed, needs)| needs.rate(speed));
    let fits = needs.map(|n| room(machine, n) >= 0);
    match model {
        None => findings.push(none(machine)),
        Some(Err(why)) => findings.push(but(
            "model",
            Verdict::Bad,
            why.to_owned(),
            "deltad-quantize inspect FILE shows what it is; convert makes one that runs",
        )),
        Some(Ok(needs)) => {
            findings.push(fit(machine, needs));
            findings.extend(rate.map(|rate| pace(rate, needs)));
        }
    }
    findings.extend([
        units(machine),
        socket(machine),
        bus(machine, config),
        disk(machine, config),
    ]);
    Report {
        findings,
        fits,
        tokens_per_second_at_most: rate,
    }
}

/// What is left when the file and one whole conversation are in memory.
fn room(machine: &Machine, needs: &Needs) -> i128 {
    i128::from(machine.memory.for_us()) - i128::from(needs.whole())
}

fn processor(machine: &Machine, config: &Config) -> Finding {
    let p = &machine.processor;
    let found = format!("{}, {} of {} cores, {}", p.name, p.usable, p.cores, p.tier);
    if p.tier == "scalar" {
        let advice =
            "no vector instructions are used: a processor with AVX2 or NEON is many times faster";
        return but("processor", Verdict::Note, found, advice);
    }
    if let Some(asked) = config.model.threads.filter(|&t| t > p.usable) {
        let advice = format!(
            "model.threads = {asked} is more than the {} cores that may be used",
            p.usable
        );
        return but("processor", Verdict::Note, found, advice);
    }
    if p.usable < p.cores {
        let advice = "more cores are there than this process may use: see CPUQuota=, AllowedCPUs= or taskset";
        return but("processor", Verdict::Note, found, advice);
    }
    good("processor", found)
}

fn memory(machine: &Machine, config: &Config, needs: Option<&Needs>) -> Finding {
    let m = &machine.memory;
    let mut found = format!("{} of {} available", size(m.available), size(m.total));
    if let Some(limit) = m.limit {
        found += &format!(", {} allowed", size(limit));
    }
    if let Some(speed) = m.speed {
        found += &format!(", reads {}/s", size(speed as u64));
    }
    if m.limit.is_some_and(|limit| limit < m.available) {
        let advice = "the control group allows less than there is: see MemoryMax=";
        return but("memory", Verdict::Note, found, advice);
    }
    let left = needs.map_or(i128::from(m.for_us()), |n| room(machine, n));
    if left >= 0 && i128::from(config.sessions.memory) > left {
        let left = size(u64::try_from(left).unwrap_or(0));
        let advice = format!(
            "sessions.memory = \"{}\" is more than the {left} that are left: set it lower",
            crate::config::units::show_size(config.sessions.memory)
        );
        return but("memory", Verdict::Note, found, advice);
    }
    good("memory", found)
}

fn none(machine: &Machine) -> Finding {
    let m = &machine.memory;
    let advice = match catalog::offer(m.total.min(m.limit.unwrap_or(u64::MAX))) {
        Some(offer) => offer.advice(m.speed),
        None => {
            "no published model that this program reads fits; the demo's does: make demo".into()
        }
    };
    but("model", Verdict::Note, "none was named".into(), advice)
}

fn fit(machine: &Machine, needs: &Needs) -> Finding {
    let found = format!(
        "{} of weights, {} for a conversation of {} tokens",
        size(needs.file),
        size(needs.conversation()),
        needs.context
    );
    let room = room(machine, needs);
    if room >= 0 {
        return good("model", format!("fits: {found}"));
    }
    let for_rows = i128::from(machine.memory.for_us()) - i128::from(needs.file + needs.state);
    let context = for_rows / i128::from(needs.per_token.max(1)) / 1024 * 1024;
    if context >= 1024 {
        let found = format!("fits, but not a whole conversation: {found}");
        let advice = format!("set model.context = {context}, or model.cache_type = \"q8_0\"");
        return but("model", Verdict::Note, found, advice);
    }
    let missing = size(u64::try_from(-room).unwrap_or(u64::MAX));
    but(
        "model",
        Verdict::Bad,
        format!("does not fit, {missing} are missing: {found}"),
        "convert it to a smaller type (deltad-quantize convert --help), or end what else uses memory",
    )
}

fn pace(rate: f64, needs: &Needs) -> Finding {
    let found = format!(
        "at that speed of memory at most {rate:.1} tokens a second, each reads {}",
        size(needs.read_per_token)
    );
    if rate >= 8.0 {
        return good("pace", found);
    }
    // A reader of prose takes some five words a second.
    let advice =
        "slower than people read: a smaller type reads less for each token, a GPU reads faster";
    but("pace", Verdict::Note, found, advice)
}

fn units(machine: &Machine) -> Finding {
    let u = &machine.units;
    let Some(version) = u.systemd else {
        let found = "no systemd runs here".into();
        let advice = "run the daemon in the foreground: deltad serve";
        return but("units", Verdict::Note, found, advice);
    };
    if u.user.is_none() && u.system.is_none() {
        let found = format!("systemd {version}, no units");
        return but(
            "units",
            Verdict::Note,
            found,
            "install them: sudo make install",
        );
    }
    let whose = match (&u.user, &u.system) {
        (Some(_), Some(_)) => "for users and the machine",
        (Some(_), None) => "for users",
        _ => "for the machine",
    };
    let found = format!("systemd {version}, units {whose}");
    if version < 253 {
        let advice = "systemd is older than 253: set Type=notify in a drop-in (docs/systemd.md)";
        return but("units", Verdict::Bad, found, advice);
    }
    good("units", found)
}

fn socket(machine: &Machine) -> Finding {
    let path = machine.socket.path.display();
    match machine.socket.state {
        Door::Open => good("socket", format!("{path}: a daemon listens")),
        Door::Absent => but(
            "socket",
            Verdict::Note,
            format!("{path}: nobody listens"),
            "deltad serve --model FILE.gguf, or systemctl --user enable --now deltad.socket",
        ),
        Door::Stale => but(
            "socket",
            Verdict::Note,
            format!("{path}: left behind by a daemon that ended"),
            "deltad serve takes its place; nothing need be removed",
        ),
        Door::Forbidden => but(
            "socket",
            Verdict::Bad,
            format!("{path}: may not be opened by this user"),
            "sudo usermod -aG deltad \"$USER\", then log in again; or see service.socket_group",
        ),
        Door::NoPlace => but(
            "socket",
            Verdict::Bad,
            format!("{path}: cannot be made by this user"),
            "set XDG_RUNTIME_DIR, as a login does, or service.socket",
        ),
    }
}

fn bus(machine: &Machine, config: &Config) -> Finding {
    let bus = machine.bus;
    let found = match (bus.user, bus.system) {
        (true, true) => "the user's and the system's",
        (true, false) => "the user's",
        (false, true) => "the system's",
        (false, false) => "none",
    };
    let found = found.to_owned();
    match config.service.bus {
        Bus::User if !bus.user => {
            let advice = "service.bus = \"user\" finds no bus of the user: log in with a session, or set it to \"none\"";
            but("bus", Verdict::Bad, found, advice)
        }
        Bus::System if !bus.system => {
            let advice =
                "service.bus = \"system\" finds no system bus: start dbus, or set it to \"none\"";
            but("bus", Verdict::Bad, found, advice)
        }
        Bus::System if !bus.policy => {
            let advice =
                "the system bus has no policy for org.deltad.Inference1: sudo make install";
            but("bus", Verdict::Bad, found, advice)
        }
        Bus::None if bus.user => {
            let advice = "programs of the desktop reach the daemon with service.bus = \"user\"";
            but("bus", Verdict::Note, found, advice)
        }
        _ => good("bus", found),
    }
}

fn disk(machine: &Machine, config: &Config) -> Finding {
    let disk = &machine.disk;
    let found = format!("{} free at {}", size(disk.free), disk.path.display());
    if disk.free < config.sessions.disk {
        let advice = format!(
            "sessions.disk = \"{}\" is more than that: set it lower, or sessions.dir elsewhere",
            crate::config::units::show_size(config.sessions.disk)
        );
        return but("disk", Verdict::Note, found, advice);
    }
    good("disk", found)
}
