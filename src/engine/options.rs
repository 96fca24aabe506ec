//! Where and how a model runs.

use std::path::PathBuf;

pub use ggml_kernels::cpu::Kind;
use ggml_kernels::quant::TensorType;

#[derive(Debug, Clone)]
pub struct Options {
    pub device: Device,
    /// CPU threads; `None` takes every core the process may use.
    pub threads: Option<usize>,
    /// Layers whose weights go to the device, counted from the first; `None` takes all. Nothing to a
    /// CPU.
    pub gpu_layers: Option<usize>,
    /// Who computes the routed experts, most of a model's bytes. Nothing to a CPU.
    pub experts: Experts,
    /// Element type of the MLA cache rows. KDA state is always f32.
    pub cache_type: CacheType,
    /// Longest sequence, in tokens; `None` takes the model's own `context_length`.
    pub context: Option<usize>,
    /// Rows of one pass, all lanes together; longer work is cut. `None`: what suits the device.
    pub chunk: Option<usize>,
    /// By whose kernels.
    pub runner: Runner,
    /// The file of kernels for NVIDIA's cards; `None`: beside the program.
    pub card_kernels: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            device: Device::Auto,
            threads: None,
            gpu_layers: None,
            experts: Experts::Auto,
            cache_type: CacheType::F16,
            context: None,
            chunk: None,
            runner: Runner::Own(None),
            card_kernels: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Auto,
    Cpu,
    Cuda,
    Metal,
    Vulkan,
}

/// Where routed experts are computed, and their matrices lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experts {
    /// On the device, or where it has no room for them on the CPU, if our own kernels run the device.
    Auto,
    Device,
    /// In the mapped file.
    Cpu,
}

/// Who runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// Kernels of our own where there are any: for the processor, of this tier (`None`: the best that it
    /// has), and for NVIDIA's cards. ggml's graph elsewhere.
    Own(Option<Kind>),
    /// ggml's graph.
    Stock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheType {
    F32,
    F16,
    Bf16,
    Q8_0,
}

impl CacheType {
    pub(super) fn tensor_type(self) -> TensorType {
        match self {
            CacheType::F32 => TensorType::F32,
            CacheType::F16 => TensorType::F16,
            CacheType::Bf16 => TensorType::Bf16,
            CacheType::Q8_0 => TensorType::Q8_0,
        }
    }
}
