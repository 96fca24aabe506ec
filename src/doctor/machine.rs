//! What a machine has and what a model needs, as plain facts: found by `probe` and `needs`, made up by
//! tests. Sizes are bytes.

use std::path::PathBuf;

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    pub processor: Processor,
    pub memory: Memory,
    pub gpus: Vec<Gpu>,
    pub card: Card,
    /// What this build can compute on beside the CPU: `cuda`, `metal`, `vulkan`.
    pub built_for: Vec<&'static str>,
    pub units: Units,
    pub socket: Socket,
    pub bus: Bus,
    /// Where conversations are kept.
    pub disk: Disk,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Processor {
    pub name: String,
    /// The best instructions that this build's kernels use here.
    pub tier: &'static str,
    pub cores: usize,
    /// Of these, what this process may use.
    pub usable: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Memory {
    pub total: u64,
    /// What can be had without pushing out what others use; caches count as free.
    pub available: u64,
    /// What the control group allows.
    pub limit: Option<u64>,
    /// Measured: bytes that all usable cores together read in a second.
    pub speed: Option<f64>,
}

impl Memory {
    /// What a daemon could have now.
    pub fn for_us(&self) -> u64 {
        self.available.min(self.limit.unwrap_or(u64::MAX))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    pub name: String,
    /// Which of `cuda`, `metal` and `vulkan` may reach it, best first.
    pub by: Vec<&'static str>,
    pub memory: Option<u64>,
}

/// The way to an NVIDIA card by kernels of our own, as far as it goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Card {
    /// The first card that NVIDIA's driver has.
    pub name: Option<String>,
    /// The file of kernels that was found.
    pub kernels: Option<PathBuf>,
    /// The card's memory, once it has taken the kernels.
    pub memory: Option<u64>,
    /// The first step that was not made.
    pub why_not: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Units {
    /// The version of the systemd that runs this machine.
    pub systemd: Option<u32>,
    /// Where `deltad.socket` is installed for each user, and for the machine.
    pub user: Option<PathBuf>,
    pub system: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Socket {
    pub path: PathBuf,
    pub state: Door,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// Somebody listens.
    Open,
    /// We may not knock.
    Forbidden,
    /// A file that a daemon left behind.
    Stale,
    /// No file, and we may make one.
    Absent,
    /// No file, and we may make none there.
    NoPlace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bus {
    pub user: bool,
    pub system: bool,
    /// The system's bus knows who may own the service's name.
    pub policy: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disk {
    pub path: PathBuf,
    pub free: u64,
}

/// What a model asks of a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Needs {
    pub path: PathBuf,
    pub file: u64,
    /// Of the file, what one token of an answer reads.
    pub read_per_token: u64,
    /// A conversation's state that does not grow.
    pub state: u64,
    /// What each token of a conversation adds.
    pub per_token: u64,
    /// The longest conversation, as configured, in tokens.
    pub context: u64,
}

impl Needs {
    pub fn conversation(&self) -> u64 {
        let rows = self.per_token.saturating_mul(self.context);
        self.state.saturating_add(rows)
    }

    /// The weights and one conversation.
    pub fn whole(&self) -> u64 {
        self.file.saturating_add(self.conversation())
    }

    /// Tokens a second at most, where memory reads `speed` bytes in one.
    pub fn rate(&self, speed: f64) -> f64 {
        speed / self.read_per_token.max(1) as f64
    }
}

/// For people.
pub fn size(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib >= 1.0 {
        format!("{gib:.1} GiB")
    } else {
        format!("{:.1} MiB", gib * 1024.0)
    }
}
