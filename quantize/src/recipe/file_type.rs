//! The mixes that a file can be made of: their names, and llama.cpp's numbers for them.

use ggml_kernels::quant::TensorType;
use std::fmt;
use std::str::FromStr;

/// A mix of types, under the ecosystem's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q6K,
    Q5KM,
    Q5KS,
    Q4KM,
    Q4KS,
    Q4_0,
    Q3KM,
    Q3KS,
    Q2K,
    Q2KS,
    Iq3S,
    Iq3Xxs,
    Iq2S,
    Iq2Xs,
    Iq2Xxs,
    Iq1M,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

impl FileType {
    pub const ALL: [FileType; 23] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5KM,
        Self::Q5KS,
        Self::Q4KM,
        Self::Q4KS,
        Self::Q4_0,
        Self::Q3KM,
        Self::Q3KS,
        Self::Q2K,
        Self::Q2KS,
        Self::Iq3S,
        Self::Iq3Xxs,
        Self::Iq2S,
        Self::Iq2Xs,
        Self::Iq2Xxs,
        Self::Iq1M,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6_k",
            Self::Q5KM => "q5_k_m",
            Self::Q5KS => "q5_k_s",
            Self::Q4KM => "q4_k_m",
            Self::Q4KS => "q4_k_s",
            Self::Q4_0 => "q4_0",
            Self::Q3KM => "q3_k_m",
            Self::Q3KS => "q3_k_s",
            Self::Q2K => "q2_k",
            Self::Q2KS => "q2_k_s",
            Self::Iq3S => "iq3_s",
            Self::Iq3Xxs => "iq3_xxs",
            Self::Iq2S => "iq2_s",
            Self::Iq2Xs => "iq2_xs",
            Self::Iq2Xxs => "iq2_xxs",
            Self::Iq1M => "iq1_m",
            Self::Iq4Nl => "iq4_nl",
            Self::Iq4Xs => "iq4_xs",
            Self::Mxfp4 => "mxfp4",
        }
    }

    /// `general.file_type`, the number of the nearest mix in llama.cpp's list.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q2K => 10,
            Self::Q3KS => 11,
            Self::Q3KM => 12,
            Self::Q4KS => 14,
            Self::Q4KM => 15,
            Self::Q5KS => 16,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::Iq2Xxs => 19,
            Self::Iq2Xs => 20,
            Self::Q2KS => 21,
            Self::Iq3Xxs => 23,
            Self::Iq4Nl => 25,
            Self::Iq3S => 26,
            Self::Iq2S => 28,
            Self::Iq4Xs => 30,
            Self::Iq1M => 31,
            Self::Bf16 => 32,
            Self::Mxfp4 => 38,
        }
    }

    /// Type of the bulk of the weights.
    pub(super) fn base(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q6K => TensorType::Q6K,
            Self::Q5KM | Self::Q5KS => TensorType::Q5K,
            Self::Q4KM | Self::Q4KS => TensorType::Q4K,
            Self::Q4_0 => TensorType::Q4_0,
            Self::Q3KM | Self::Q3KS => TensorType::Q3K,
            Self::Q2K | Self::Q2KS => TensorType::Q2K,
            Self::Iq3S => TensorType::Iq3S,
            Self::Iq3Xxs => TensorType::Iq3Xxs,
            Self::Iq2S => TensorType::Iq2S,
            Self::Iq2Xs => TensorType::Iq2Xs,
            Self::Iq2Xxs => TensorType::Iq2Xxs,
            Self::Iq1M => TensorType::Iq1M,
            Self::Iq4Nl => TensorType::Iq4Nl,
            Self::Iq4Xs => TensorType::Iq4Xs,
            Self::Mxfp4 => TensorType::Mxfp4,
        }
    }

    /// What was lost when the demo model was made into it: the mean divergence (KL, nats) from its
    /// F16 file on `demo/eval.txt`, with an importance matrix where one is needed and without
    /// elsewhere (docs/quantization.md). `None` where nobody measured it.
    pub fn divergence(self) -> Option<f64> {
        Some(match self {
            Self::F32 | Self::F16 => 0.0,
            Self::Q8_0 => 0.0003,
            Self::Q6K => 0.0009,
            Self::Q5KM => 0.0015,
            Self::Q4KM => 0.0063,
            Self::Q3KM => 0.0180,
            Self::Q3KS => 0.0286,
            Self::Iq3S => 0.0278,
            Self::Iq3Xxs => 0.0332,
            Self::Q2K => 0.0751,
            Self::Iq2S => 0.0524,
            Self::Q2KS => 0.0874,
            Self::Iq2Xs => 0.0841,
            Self::Iq2Xxs => 0.1324,
            Self::Iq1M => 0.2860,
            _ => return None,
        })
    }

    /// Every mix that was measured, the one that lost least first; of equals the smaller.
    pub fn by_divergence() -> Vec<Self> {
        let known = |to: &Self| to.divergence().is_some();
        let mut all: Vec<Self> = Self::ALL.into_iter().filter(known).collect();
        let key = |to: &Self| (to.divergence().unwrap_or(f64::INFINITY), to.base().bits());
        all.sort_by(|a, b| key(a).partial_cmp(&key(b)).expect("numbers"));
        all
    }

    /// Whether files of it are made with an importance matrix alone, as by llama.cpp's quantizer.
    pub fn needs_importance(self) -> bool {
        self.base().needs_importance() || self == Self::Q2KS
    }

    /// Mixes whose bulk has so few bits that everything else needs more.
    pub(super) fn is_low(self) -> bool {
        let low = [TensorType::Q2K, TensorType::Iq3S];
        self.base().needs_importance() || low.contains(&self.base()) || self == Self::Q3KS
    }

    /// Mixes that spend more bits where they matter more.
    pub(super) fn is_medium(self) -> bool {
        matches!(self, Self::Q5KM | Self::Q4KM | Self::Q3KM)
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FileType {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        let full = match lower.as_str() {
            "q5_k" => "q5_k_m",
            "q4_k" => "q4_k_m",
            "q3_k" => "q3_k_m",
            other => other,
        };
        let found = Self::ALL.into_iter().find(|ty| ty.name() == full);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.map(Self::name).into();
            format!(
                "`{name}` is no file type; wanted one of {}",
                names.join(" ")
            )
        })
    }
}
