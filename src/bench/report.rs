//! The figures as data; as JSON they are this very shape. Speeds are tokens a second, sizes bytes.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub setting: Setting,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceilings: Option<Ceilings>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doublings: Vec<Doubling>,
    pub memory: Memory,
}

/// What was measured, and on what.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    pub model: String,
    pub file_bytes: u64,
    pub processor: String,
    pub cores: usize,
    pub device: String,
    pub threads: usize,
    pub cache_type: String,
    pub prompt: usize,
    pub tokens: usize,
    pub repeats: usize,
    /// Depths were laid and not read.
    pub laid: bool,
}

/// What this machine can do at most with these threads, a second. Of a card: what copies within its
/// memory move, and nothing else.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ceilings {
    /// Bytes read from memory; of a card's, read and written.
    pub read: f64,
    /// Operations on 32-bit floats, and on 8-bit integers where the tier has an instruction for
    /// them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floats: Option<f64>,
    pub bytes: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Prefill,
    Decode,
}

#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub what: What,
    pub depth: usize,
    pub lanes: usize,
    pub deltad: Rate,
    #[serde(rename = "llama_cpp", skip_serializing_if = "Option::is_none")]
    pub rival: Option<Rate>,
    /// Over 1: we are faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Cores that other programs had meanwhile.
    pub others: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Vec<Share>>,
    /// Where a device times them one by one, the slowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<Kernel>,
    /// Bytes a second that memory was read at, the median of as many measurements in turn with the
    /// repeats: it is not the same from one minute to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<f64>,
    /// Decoded tokens a second if memory did nothing but bring each pass's bytes once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

/// A kind of work in a pass.
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    pub work: &'static str,
    /// `f32`, or `8 bit` where weights of 8 bits or fewer would be multiplied so.
    pub arithmetic: &'static str,
    /// Of one pass.
    pub milliseconds: f64,
    pub share: f64,
    /// The least that must be moved, by the time it took.
    pub bytes_per_second: Option<f64>,
    pub operations_per_second: Option<f64>,
}

/// A kernel of a device in a pass, all its runs together.
#[derive(Debug, Clone, Serialize)]
pub struct Kernel {
    pub kernel: &'static str,
    /// Of one pass, as the time is.
    pub runs: f64,
    pub microseconds: f64,
    pub share: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Doubling {
    pub tokens: usize,
    pub state_bytes: u64,
    /// What the process holds that is no file's.
    pub resident_bytes: u64,
    /// Tokens a second since the last doubling.
    pub read: f64,
    pub decode: f64,
}

/// Bytes beside the mapped model at the largest case, and of the whole process with the model.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Memory {
    pub deltad: u64,
    #[serde(rename = "llama_cpp", skip_serializing_if = "Option::is_none")]
    pub rival: Option<u64>,
    pub process: u64,
}

impl Report {
    pub fn new(setting: Setting) -> Report {
        Report {
            setting,
            ceilings: None,
            figures: Vec::new(),
            doublings: Vec::new(),
            memory: Memory::default(),
        }
    }

    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self);
        text.expect("numbers and text become JSON") + "\n"
    }
}

impl What {
    pub fn name(self) -> &'static str {
        match self {
            What::Prefill => "prefill",
            What::Decode => "decode",
        }
    }
}

impl Rate {
    /// Of at least one measurement.
    pub fn of(mut rates: Vec<f64>) -> Rate {
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        let median = if rates.len() % 2 == 1 {
            rates[middle]
        } else {
            (rates[middle - 1] + rates[middle]) / 2.0
        };
        Rate {
            median,
            least: rates[0],
            most: rates[rates.len() - 1],
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rate {
            median,
            least,
            most,
        } = self;
        write!(f, "{median:.1} ({least:.1} to {most:.1})")
    }
}

impl Figure {
    pub fn new(
        what: What,
        depth: usize,
        lanes: usize,
        deltad: Rate,
        rival: Option<Rate>,
    ) -> Figure {
        Figure {
            what,
            depth,
            lanes,
            deltad,
            rival,
            ratio: rival.map(|r| deltad.median / r.median),
            others: 0.0,
            profile: None,
            kernels: Vec::new(),
            read: None,
            memory_limit: None,
        }
    }

    /// Holds a profile of decoding against memory that moves so many bytes a second.
    pub fn hold_against(&mut self, read: f64) {
        let bytes: f64 = self.profile.iter().flatten().map(Share::bytes).sum();
        if self.what == What::Decode && bytes > 0.0 && read > 0.0 {
            self.memory_limit = Some(self.lanes as f64 * read / bytes);
        }
    }
}

impl Share {
    /// Of one pass.
    pub fn bytes(&self) -> f64 {
        self.bytes_per_second.unwrap_or(0.0) * self.milliseconds / 1e3
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, depth) = (self.what.name(), self.depth);
        write!(
            f,
            "{what} at {depth}, lanes {}: {}",
            self.lanes, self.deltad
        )?;
        if let (Some(rival), Some(ratio)) = (self.rival, self.ratio) {
            write!(f, ", llama.cpp {rival}, ratio {ratio:.2}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Doubling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (read, decode) = (self.read, self.decode);
        let tokens = self.tokens;
        write!(
            f,
            "{tokens} tokens: read at {read:.1}, decoded at {decode:.1} tokens/s"
        )
    }
}
