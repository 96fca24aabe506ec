//! The list of types that a file may hold: ggml's numbers, the ecosystem's names, sizes of blocks.

use ggml_sys as sys;
use std::fmt;
use std::str::FromStr;

/// Every element type that a kimi-linear file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorType {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq1M,
    Iq2Xxs,
    Iq2Xs,
    Iq2S,
    Iq3Xxs,
    Iq3S,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
    /// Indices only, never weights.
    I32,
}

impl TensorType {
    pub const ALL: [TensorType; 23] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq1M,
        Self::Iq2Xxs,
        Self::Iq2Xs,
        Self::Iq2S,
        Self::Iq3Xxs,
        Self::Iq3S,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
        Self::I32,
    ];

    /// ggml's number, which is also the number in a GGUF tensor entry.
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => sys::GGML_TYPE_F32,
            Self::F16 => sys::GGML_TYPE_F16,
            Self::Bf16 => sys::GGML_TYPE_BF16,
            Self::Q4_0 => sys::GGML_TYPE_Q4_0,
            Self::Q4_1 => sys::GGML_TYPE_Q4_1,
            Self::Q5_0 => sys::GGML_TYPE_Q5_0,
            Self::Q5_1 => sys::GGML_TYPE_Q5_1,
            Self::Q8_0 => sys::GGML_TYPE_Q8_0,
            Self::Q2K => sys::GGML_TYPE_Q2_K,
            Self::Q3K => sys::GGML_TYPE_Q3_K,
            Self::Q4K => sys::GGML_TYPE_Q4_K,
            Self::Q5K => sys::GGML_TYPE_Q5_K,
            Self::Q6K => sys::GGML_TYPE_Q6_K,
            Self::Iq1M => sys::GGML_TYPE_IQ1_M,
            Self::Iq2Xxs => sys::GGML_TYPE_IQ2_XXS,
            Self::Iq2Xs => sys::GGML_TYPE_IQ2_XS,
            Self::Iq2S => sys::GGML_TYPE_IQ2_S,
            Self::Iq3Xxs => sys::GGML_TYPE_IQ3_XXS,
            Self::Iq3S => sys::GGML_TYPE_IQ3_S,
            Self::Iq4Nl => sys::GGML_TYPE_IQ4_NL,
            Self::Iq4Xs => sys::GGML_TYPE_IQ4_XS,
            Self::Mxfp4 => sys::GGML_TYPE_MXFP4,
            Self::I32 => sys::GGML_TYPE_I32,
        }
    }

    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|ty| ty.id() == id)
    }

    /// The ecosystem's name in lower case, as `--type` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q2K => "q2_k",
            Self::Q3K => "q3_k",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Iq1M => "iq1_m",
            Self::Iq2Xxs => "iq2_xxs",
            Self::Iq2Xs => "iq2_xs",
            Self::Iq2S => "iq2_s",
            Self::Iq3Xxs => "iq3_xxs",
            Self::Iq3S => "iq3_s",
            Self::Iq4Nl => "iq4_nl",
            Self::Iq4Xs => "iq4_xs",
            Self::Mxfp4 => "mxfp4",
            Self::I32 => "i32",
        }
    }

    /// Values per block; a row holds a whole number of blocks.
    pub fn block_size(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 | Self::I32 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Iq4Nl | Self::Mxfp4 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K | Self::Iq4Xs => 256,
            Self::Iq1M | Self::Iq2Xxs | Self::Iq2Xs | Self::Iq2S => 256,
            Self::Iq3Xxs | Self::Iq3S => 256,
        }
    }

    /// Bytes per block.
    pub fn type_size(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Iq1M => 56,
            Self::Iq2Xxs => 66,
            Self::Iq2Xs => 74,
            Self::Iq2S => 82,
            Self::Iq3Xxs => 98,
            Self::Iq3S => 110,
            Self::Iq4Xs => 136,
            Self::Mxfp4 => 17,
        }
    }

    /// Bytes of a row of `n` values, `None` when the row is not a whole number of blocks (or the
    /// size does not fit).
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block_size()) {
            return None;
        }
        (n / self.block_size()).checked_mul(self.type_size())
    }

    pub fn is_quantized(self) -> bool {
        self.block_size() > 1
    }

    /// Whether values are points of a grid, found by a search.
    pub(super) fn is_of_a_grid(self) -> bool {
        use TensorType::{Iq1M, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs};
        matches!(self, Iq1M | Iq2Xxs | Iq2Xs | Iq2S | Iq3Xxs | Iq3S)
    }

    /// Whether rows can become this type only by an importance of their columns: ggml stops the
    /// process without one for two of these, llama.cpp's quantizer refuses all five.
    pub fn needs_importance(self) -> bool {
        self.is_of_a_grid() && self != Self::Iq3S
    }

    /// Bits for each value, the block's scales among them.
    pub fn bits(self) -> f64 {
        8.0 * self.type_size() as f64 / self.block_size() as f64
    }

    /// Byte offsets, inside a block, of the 16-bit floats that scale it.
    pub(super) fn scale_offsets(self) -> &'static [usize] {
        match self {
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 | Self::Iq4Nl | Self::Iq4Xs => &[0],
            Self::Iq2Xxs | Self::Iq2Xs | Self::Iq2S | Self::Iq3Xxs | Self::Iq3S => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q2K => &[80, 82],
            Self::Q3K => &[108],
            Self::Q6K => &[208],
            Self::F32 | Self::F16 | Self::Bf16 | Self::I32 => &[],
            // Kept otherwise: see `first_broken_block`.
            Self::Mxfp4 | Self::Iq1M => &[],
        }
    }

    /// What ggml's block structs need: they begin with or contain 16-bit words, except mxfp4.
    pub(super) fn is_aligned(self, address: usize) -> bool {
        self == Self::Mxfp4 || address.is_multiple_of(2)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no element type.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("`{0}` is no tensor type")]
pub struct UnknownType(pub String);

impl FromStr for TensorType {
    type Err = UnknownType;
    fn from_str(name: &str) -> Result<Self, UnknownType> {
        Self::ALL
            .into_iter()
            .find(|ty| ty.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownType(name.to_owned()))
    }
}
