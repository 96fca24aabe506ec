//! The flags of `deltad bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::engine::{CacheType, Device, Experts, Kind};

pub const EXAMPLES: &str = "\
Each figure is the median of the repeats, with the least and the most beside it. A repeat begins
with the same state, so that a deep figure costs one long reading, not one a repeat. The model may be
random: `deltad-quantize synth` writes one of a real shape. Close what else is busy: beside it, ratios
of one run are worth something and speeds are not.

Examples:
  deltad bench model.gguf
  deltad bench model.gguf --depths 0,8k --lanes 1,2,4,8 --threads 2
  deltad bench model.gguf --depths 0,8k,32k --markdown --svg speed.svg
  deltad bench model.gguf --profile           what the time goes to, and how far it is from what
                                              this machine can do
  deltad bench model.gguf --against llama.cpp on the same file, in turn; wants a program built with
                                              cargo build --release --features rival
  deltad bench model.gguf --depths 128k --laid  without reading 128k tokens first
  deltad bench model.gguf --doubling 1m       bytes and speed as a conversation doubles";

#[derive(Debug, Args)]
pub struct Bench {
    /// The model, GGUF.
    pub model: PathBuf,
    /// Tokens before the measured ones; `8k` is 8192 [default: 0,8k,32k as far as the model goes].
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = tokens)]
    pub depths: Vec<usize>,
    /// Lay depths instead of reading to them: the rows of some hundred tokens again and again, which cost
    /// as much to look at and are there at once.
    #[arg(long)]
    pub laid: bool,
    /// Sequences that decode in one pass.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub lanes: Vec<u16>,
    /// Tokens of a measured prefill.
    #[arg(long, value_name = "N", default_value = "512", value_parser = some_tokens)]
    pub prompt: usize,
    /// Tokens that each sequence decodes, after two that are not measured.
    #[arg(long, value_name = "N", default_value = "24", value_parser = some_tokens)]
    pub tokens: usize,
    /// Measurements of each figure, after one that warms up.
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeats: u16,
    /// Threads on the CPU [default: every core].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// What computes [default: a GPU that this build can use, else the CPU].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
    /// Layers whose weights go to the GPU, from the first on [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub gpu_layers: Option<u16>,
    /// Where routed experts are computed [default: on the device, or on the CPU where they have no room
    /// there].
    #[arg(long, value_name = "WHERE")]
    pub experts: Option<ExpertsName>,
    /// Tokens of one pass [default: what suits the device].
    #[arg(long, value_name = "N", value_parser = some_tokens)]
    pub chunk: Option<usize>,
    /// On the CPU, run ggml's graph, as a GPU would, in place of our own kernels.
    #[arg(long, conflicts_with = "tier")]
    pub stock: bool,
    /// Use these instructions of the processor and no better ones: scalar, avx2, avx512, amx, neon,
    /// neon-dot or neon-i8mm.
    #[arg(long, value_name = "TIER", conflicts_with = "device")]
    pub tier: Option<Kind>,
    /// The type of the cache's rows.
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub cache_type: CacheName,
    /// Measure what the time goes to, and what the machine can do at most; on a card with kernels of
    /// our own, by kernel and against its memory.
    #[arg(long)]
    pub profile: bool,
    /// Measure this one too, in turn.
    #[arg(long, value_name = "WHOM")]
    pub against: Option<Rival>,
    /// Instead of depths: read so many tokens, and at each doubling say the state's bytes and the
    /// speed.
    #[arg(long, value_name = "N", value_parser = some_tokens,
          conflicts_with_all = ["depths", "laid", "lanes", "against", "profile", "svg", "repeats", "prompt"])]
    pub doubling: Option<usize>,
    /// Print one JSON object.
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print Markdown tables.
    #[arg(long)]
    pub markdown: bool,
    /// Draw speed over depth into FILE.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// No progress on standard error.
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rival {
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    Auto,
    Cpu,
    Cuda,
    Metal,
    Vulkan,
}

impl From<DeviceName> for Device {
    fn from(name: DeviceName) -> Device {
        match name {
            DeviceName::Auto => Device::Auto,
            DeviceName::Cpu => Device::Cpu,
            DeviceName::Cuda => Device::Cuda,
            DeviceName::Metal => Device::Metal,
            DeviceName::Vulkan => Device::Vulkan,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExpertsName {
    Auto,
    Device,
    Cpu,
}

impl From<ExpertsName> for Experts {
    fn from(name: ExpertsName) -> Experts {
        match name {
            ExpertsName::Auto => Experts::Auto,
            ExpertsName::Device => Experts::Device,
            ExpertsName::Cpu => Experts::Cpu,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheName {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<CacheName> for CacheType {
    fn from(name: CacheName) -> CacheType {
        match name {
            CacheName::F32 => CacheType::F32,
            CacheName::F16 => CacheType::F16,
            CacheName::Bf16 => CacheType::Bf16,
            CacheName::Q8_0 => CacheType::Q8_0,
        }
    }
}

/// `512`, `8k`, `1m`: binary thousands, as contexts are counted.
fn tokens(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match lower.as_bytes().last() {
        Some(b'k') => (&lower[..lower.len() - 1], 1 << 10),
        Some(b'm') => (&lower[..lower.len() - 1], 1 << 20),
        _ => (lower.as_str(), 1),
    };
    let number = digits.parse::<usize>().ok();
    let number = number
        .and_then(|n| n.checked_mul(unit))
        .filter(|n| *n <= 1 << 30);
    number.ok_or_else(|| "wanted a number of tokens, such as 512, 8k or 1m".into())
}

fn some_tokens(text: &str) -> Result<usize, String> {
    match tokens(text)? {
        0 => Err("wanted at least one token".into()),
        n => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_tokens_have_binary_units() {
        assert_eq!(tokens("0"), Ok(0));
        assert_eq!(tokens("8k"), Ok(8192));
        assert_eq!(tokens("1M"), Ok(1 << 20));
        for wrong in ["", "k", "-1", "8 k", "1.5k", "9999999999m", "8kk"] {
            assert!(tokens(wrong).unwrap_err().contains("8k"), "{wrong}");
        }
        assert!(some_tokens("0").is_err());
    }
}
