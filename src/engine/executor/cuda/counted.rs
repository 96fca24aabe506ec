//! What a pass must move by each kind of work, counted where its kernels do it: a small pass multiplies
//! the narrow gates' second matrices inside of KDA, what heads are absorbed by inside of attention, and
//! the shared expert beside the others.

use std::sync::Arc;

use ggml_kernels::cuda::weights::Stack;
use quantize::schema::Hparams;

use super::Model;
use super::kinds::Manner;
use super::shape::kda_shape;
use super::weights::Expanding;
use crate::engine::executor::moved::{self, Looking, Moved, Weighed};
use crate::engine::layers::{FfnParts, GateParts, KdaParts, MixerParts, MlaParts, Mlp, QueryParts};
use crate::engine::meter::Work;

type Held = Arc<Stack>;

impl Weighed for Stack {
    fn count(&self) -> usize {
        Stack::count(self)
    }
    fn values(&self) -> usize {
        self.rows() * self.cols()
    }
    fn bytes(&self) -> usize {
        self.rows() * self.row_bytes()
    }
}

/// One lane of a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneRows {
    pub looking: Looking,
    /// Rows whose logits are wanted.
    pub wanted: usize,
}

#[derive(Debug)]
pub(super) struct Counted<'p> {
    manner: Manner,
    lanes: &'p [LaneRows],
    /// Rows under way.
    rows: usize,
    moved: [Moved; Work::ALL.len()],
}

impl<'p> Counted<'p> {
    /// `chosen`: the experts of a layer's rows.
    pub fn of(
        model: Model<'_>,
        manner: Manner,
        lanes: &'p [LaneRows],
        chosen: impl Fn(usize) -> &'p [u32],
    ) -> Counted<'p> {
        let rows = lanes.iter().map(|lane| lane.looking.rows).sum();
        let mut counted = Counted {
            manner,
            lanes,
            rows,
            moved: Default::default(),
        };
        let (h, parts) = (model.h, &model.weights.parts);
        let mut expanding = model.weights.expanding.iter();
        for (at, layer) in parts.layers.iter().enumerate() {
            match &layer.mixer {
                MixerParts::Kda(parts) => counted.kda(h, parts),
                MixerParts::Mla(parts) => {
                    let by = expanding.next().expect("one for each MLA layer");
                    counted.mla(h, parts, by);
                }
            }
            if at + 1 == parts.layers.len() && manner == Manner::Wide {
                counted.rows = lanes.iter().map(|lane| lane.wanted).sum();
            }
            counted.ffn(&layer.ffn, chosen(at));
        }
        counted.add(Work::Head, moved::products(counted.rows, [&*parts.output]));
        counted
    }

    pub fn moved(&self, work: Work) -> Moved {
        self.moved[work as usize]
    }

    fn add(&mut self, work: Work, more: Moved) {
        self.moved[work as usize] += more;
    }

    fn dense<'w>(&mut self, matrices: impl IntoIterator<Item = &'w Held>) {
        self.add(Work::Dense, moved::products(self.rows, matrices));
    }

    fn kda<V>(&mut self, h: &Hparams, parts: &KdaParts<Held, V>) {
        self.dense([&parts.q, &parts.k, &parts.v, &parts.beta, &parts.output]);
        for gate in [&parts.decay, &parts.open] {
            let (first, second) = match gate {
                GateParts::Whole(w) => (w, None),
                GateParts::Narrow { a, b } => (a, Some(b)),
            };
            self.dense([first]);
            let work = match self.manner {
                Manner::Small => Work::Kda,
                Manner::Wide => Work::Dense,
            };
            self.add(work, moved::products(self.rows, second));
        }
        let shape = kda_shape(h);
        self.add(Work::Kda, moved::kda(&shape, self.lanes.len(), self.rows));
    }

    fn mla<V>(&mut self, h: &Hparams, parts: &MlaParts<Held, V>, by: &Expanding) {
        self.dense([&parts.kv_a, &parts.output]);
        self.dense(&parts.gate);
        match &parts.q {
            QueryParts::Whole(w) => self.dense([w]),
            QueryParts::Narrow { a, b, .. } => self.dense([a, b]),
        }
        let row_bytes = h.mla.latent() * size_of::<half::f16>();
        let lanes = self.lanes.iter().map(|lane| lane.looking);
        let is_expanded = self.manner == Manner::Wide && self.rows > super::expanded::FEW;
        if is_expanded {
            let rows = lanes.clone().map(|lane| lane.seen()).sum();
            self.add(Work::Mla, moved::products(rows, [&by.k, &by.v]));
            self.add(Work::Mla, moved::mla_expanded(&h.mla, row_bytes, lanes));
        } else {
            let absorbing = moved::products(self.rows, [&parts.k_b, &parts.v_b]);
            self.add(Work::Mla, absorbing);
            self.add(Work::Mla, moved::mla(&h.mla, row_bytes, lanes));
        }
    }

    /// Experts that are not on the card move nothing of its memory.
    fn ffn<V>(&mut self, parts: &FfnParts<Held, V, Option<Mlp<Held>>>, chosen: &[u32]) {
        let sparse = match parts {
            FfnParts::Dense(mlp) => return self.dense([&mlp.gate, &mlp.up, &mlp.down]),
            FfnParts::Sparse(sparse) => sparse,
        };
        self.dense([&sparse.router]);
        if let Some(experts) = &sparse.experts {
            self.add(Work::Experts, moved::experts(experts, chosen));
        }
        if let Some(mlp) = &sparse.shared {
            let work = match self.manner {
                Manner::Small => Work::Experts,
                Manner::Wide => Work::Dense,
            };
            let shared = moved::products(self.rows, [&mlp.gate, &mlp.up, &mlp.down]);
            self.add(work, shared);
        }
    }
}
