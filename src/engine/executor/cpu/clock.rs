//! Tells a meter what a pass spends its time on: whatever passed since the last word belongs to the
//! work that is named now. Costs nothing where nobody asked.

use std::time::Instant;

use ggml_kernels::cpu::kda::KdaShape;
use quantize::schema::Hparams;

use super::pass::{Asking, LaneRows};
use super::weights::Held;
use crate::engine::executor::moved::{self, Looking, Moved, Weighed};
use crate::engine::layers::Mlp;
use crate::engine::meter::{Meter, Spent, Work};

pub(super) struct Clock<'p>(Option<(&'p mut Meter, Instant)>);

impl<'p> Clock<'p> {
    pub fn new(meter: Option<&'p mut Meter>) -> Clock<'p> {
        Clock(meter.map(|meter| (meter, Instant::now())))
    }

    pub fn lap(&mut self, work: Work, moved: impl FnOnce() -> Moved) {
        if let Some((meter, since)) = &mut self.0 {
            let time = since.elapsed();
            let Moved { bytes, operations } = moved();
            let spent = Spent {
                time,
                bytes,
                operations,
            };
            meter.add(work, spent);
            *since = Instant::now();
        }
    }

    pub fn other(&mut self) {
        self.lap(Work::Other, Moved::default);
    }

    /// Products of so many rows with each of some matrices.
    pub fn dense<'w>(&mut self, rows: usize, matrices: impl IntoIterator<Item = &'w Held>) {
        self.lap(Work::Dense, || moved::products(rows, matrices));
    }

    pub fn head(&mut self, rows: usize, matrix: &Held) {
        self.lap(Work::Head, || moved::products(rows, [matrix]));
    }

    pub fn experts(&mut self, parts: &Mlp<Held>, ids: &[u32]) {
        self.lap(Work::Experts, || moved::experts(parts, ids));
    }

    pub fn kda(&mut self, shape: &KdaShape, lanes: &[LaneRows<'_>]) {
        self.lap(Work::Kda, || {
            let tokens = lanes.iter().map(|l| l.rows.len()).sum();
            moved::kda(shape, lanes.len(), tokens)
        });
    }

    pub fn mla(&mut self, h: &Hparams, row_bytes: usize, lanes: &[LaneRows<'_>], asking: Asking) {
        let looking = |lane: &LaneRows<'_>| {
            let (asking, past) = lane.asking(asking);
            let rows = asking.len();
            Looking { past, rows }
        };
        let lanes = lanes.iter().map(looking);
        self.lap(Work::Mla, || moved::mla(&h.mla, row_bytes, lanes));
    }
}

impl Weighed for Held {
    fn count(&self) -> usize {
        self.count()
    }
    fn values(&self) -> usize {
        self.one_values()
    }
    fn bytes(&self) -> usize {
        self.one_bytes()
    }
}
