//! Memory that passes share: grown to the widest pass so far, never given back while the model
//! lives, nothing allocated for a token.

use ggml_kernels::cpu::activations::Activations;
use ggml_kernels::cpu::experts::ExpertScratch;
use ggml_kernels::cpu::heads::Turns;
use ggml_kernels::cpu::kda::KdaScratch;
use ggml_kernels::cpu::mla::MlaScratch;

/// Rows of floats, all passes' longest.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<f32>);

impl Rows {
    /// `len` floats of any value.
    pub fn of(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            self.0.resize(len, 0.0);
        }
        &mut self.0[..len]
    }
}

#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The hidden rows, what a layer adds to them, and their norm: `[rows, hidden]`.
    pub x: Rows,
    pub delta: Rows,
    pub normed: Rows,
    /// `normed` as products take it.
    pub input: Activations,
    /// Of the rows' positions, for rotated columns.
    pub turns: Turns,
    pub mixer: MixerScratch,
    pub ffn: FfnScratch,
}

#[derive(Debug, Default)]
pub(super) struct MixerScratch {
    /// What comes out of a product and goes into another.
    pub middle: Activations,
    pub q: Rows,
    pub k: Rows,
    pub v: Rows,
    pub gate: Rows,
    pub open: Rows,
    pub beta: Rows,
    pub low_f: Rows,
    pub low_g: Rows,
    /// Queries on their way through a low rank.
    pub low_q: Rows,
    pub low_q_normed: Rows,
    pub head_gates: Rows,
    pub mixed: Rows,
    pub kda: KdaScratch,
    pub mla: MlaScratch,
}

#[derive(Debug, Default)]
pub(super) struct FfnScratch {
    pub middle: Activations,
    pub wide: Rows,
    pub narrow: Rows,
    pub logits: Rows,
    pub ids: Vec<u32>,
    pub weights: Rows,
    pub experts: ExpertScratch,
}
