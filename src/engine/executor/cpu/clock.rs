//! Tells a meter what a pass spends its time on: whatever passed since the last word belongs to the
//! work that is named now. Costs nothing where nobody asked.

use std::collections::BTreeSet;
use std::time::Instant;

use ggml_kernels::cpu::kda::KdaShape;
use quantize::schema::Hparams;

use super::pass::{Asking, LaneRows};
use super::weights::Held;
use crate::engine::layers::Mlp;
use crate::engine::meter::{Meter, Spent, Work};

pub(super) struct Clock<'p>(Option<(&'p mut Meter, Instant)>);

/// Bytes moved and operations done.
pub(super) type Moved = (usize, usize);

impl<'p> Clock<'p> {
    pub fn new(meter: Option<&'p mut Meter>) -> Clock<'p> {
        Clock(meter.map(|meter| (meter, Instant::now())))
    }

    pub fn lap(&mut self, work: Work, moved: impl FnOnce() -> Moved) {
        if let Some((meter, since)) = &mut self.0 {
            let time = since.elapsed();
            let (bytes, operations) = moved();
            let spent = Spent {
                time,
                bytes: bytes as u64,
                operations: operations as u64,
            };
            meter.add(work, spent);
            *since = Instant::now();
        }
    }

    pub fn other(&mut self) {
        self.lap(Work::Other, || (0, 0));
    }

    /// Products of so many rows with each of some matrices.
    pub fn dense<'w>(&mut self, rows: usize, matrices: impl IntoIterator<Item = &'w Held>) {
        self.lap(Work::Dense, || products(rows, matrices));
    }

    pub fn head(&mut self, rows: usize, matrix: &Held) {
        self.lap(Work::Head, || products(rows, [matrix]));
    }

    /// An expert's matrices are read once, however many rows chose it.
    pub fn experts(&mut self, parts: &Mlp<Held>, ids: &[u32]) {
        self.lap(Work::Experts, || {
            let chosen = ids.iter().collect::<BTreeSet<_>>().len();
            let matrices = [&parts.gate, &parts.up, &parts.down];
            let bytes: usize = matrices.iter().map(|m| m.one_bytes()).sum();
            let values: usize = matrices.iter().map(|m| m.one_values()).sum();
            (chosen * bytes, 2 * ids.len() * values)
        });
    }

    /// Each lane's states are read and written; a token decays, reads and corrects each, and reads
    /// it once more.
    pub fn kda(&mut self, shape: &KdaShape, lanes: &[LaneRows<'_>]) {
        self.lap(Work::Kda, || {
            let state = shape.inner() * shape.head_dim;
            let tokens: usize = lanes.iter().map(|l| l.rows.len()).sum();
            let bytes = lanes.len() * 2 * state * size_of::<f32>();
            (bytes, tokens * 7 * state)
        });
    }

    /// Each lane's rows are read; every head of a token scores those before it and sums them up.
    pub fn mla(&mut self, h: &Hparams, row_bytes: usize, lanes: &[LaneRows<'_>], asking: Asking) {
        self.lap(Work::Mla, || {
            let d = &h.mla;
            let (mut rows, mut pairs) = (0, 0);
            for lane in lanes {
                let (asking, past) = lane.asking(asking);
                let n = asking.len();
                rows += past + n;
                pairs += n * past + n * (n + 1) / 2;
            }
            let pair = 2 * d.heads * (d.latent() + d.kv_lora_rank);
            (rows * row_bytes, pairs * pair)
        });
    }
}

fn products<'w>(rows: usize, matrices: impl IntoIterator<Item = &'w Held>) -> Moved {
    let each = matrices
        .into_iter()
        .map(|m| (m.all_bytes(), m.all_values()));
    let (bytes, values) = each.fold((0, 0), |sum, m| (sum.0 + m.0, sum.1 + m.1));
    (bytes, 2 * rows * values)
}
