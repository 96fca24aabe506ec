//! Routed experts alone, by the same kernels, for an executor that computes everything else elsewhere.
//! Their matrices stay in the mapped file.

use std::sync::Arc;

use ggml_kernels::cpu::activations::Activations;
use ggml_kernels::cpu::experts::{ExpertScratch, Experts, Routes, experts};
use ggml_kernels::cpu::{Crew, Pool, Tier};
use ggml_kernels::gguf::GgufFile;

use super::hunger::{self, Hunger};
use super::weights::{self, Held};
use crate::engine::error::Unfit;
use crate::engine::layers::Mlp;
use crate::engine::model::Model;
use crate::engine::room;

#[derive(Debug)]
pub(in crate::engine) struct Routed {
    file: Arc<GgufFile>,
    /// By layer; dense ones have none.
    layers: Vec<Option<Mlp<Held>>>,
    /// What a layer's gated products are bounded by.
    limits: Vec<f32>,
    hidden: usize,
    pool: Pool,
    tier: Tier,
    hunger: Hunger,
    input: Activations,
    scratch: ExpertScratch,
}

impl Routed {
    pub fn new(model: &Model, tier: Tier, threads: usize) -> Result<Routed, Unfit> {
        let (h, map) = (model.hparams(), model.file.map());
        Ok(Routed {
            layers: weights::experts(model)?,
            limits: h.layers.iter().map(|l| l.limits.experts).collect(),
            hidden: h.hidden,
            file: model.file.clone(),
            pool: Pool::new(threads),
            tier,
            hunger: Hunger::of(map, room::has(map.len())),
            input: Activations::default(),
            scratch: ExpertScratch::default(),
        })
    }

    /// `sums`, of as many rows as `normed`, is overwritten with what the chosen experts of layer `at`
    /// make of them.
    pub fn run(&mut self, at: usize, normed: &[f32], routes: Routes<'_>, sums: &mut [f32]) {
        let crew = Crew {
            pool: &self.pool,
            tier: self.tier,
        };
        let (map, parts) = (self.file.map(), self.layers[at].as_ref());
        let parts = parts.expect("a layer that routes has experts");
        if self.hunger.is_felt() {
            hunger::experts(parts, map, routes.ids);
        }
        let types = [parts.gate.ty, parts.up.ty];
        self.input.fill(crew, normed, self.hidden, types);
        let all = stacks(parts, map, self.limits[at]);
        experts(crew, &self.input, &all, routes, &mut self.scratch, sums);
    }

    /// After each pass: whether weights had to come from the disk.
    pub fn look(&mut self) {
        self.hunger.look();
    }
}

/// Experts where the kernels find them.
pub(super) fn stacks<'m>(parts: &'m Mlp<Held>, map: &'m [u8], limit: f32) -> Experts<'m> {
    Experts {
        gate: parts.gate.stack(map),
        up: parts.up.stack(map),
        down: parts.down.stack(map),
        limit,
    }
}
