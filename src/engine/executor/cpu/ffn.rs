//! Feed-forward layers: dense, or experts of which the router chooses a few for each token.

use ggml_kernels::cpu::activations::Activations;
use ggml_kernels::cpu::experts::{Routes, experts};
use ggml_kernels::cpu::products::{Product, gate_up, products};
use ggml_kernels::cpu::route::{Routing, route};
use quantize::schema::Role;

use super::hunger;
use super::pass::Pass;
use super::routed::stacks;
use super::scratch::{Rows, Scratch};
use super::weights::Held;
use crate::engine::layers::{Mlp, SparseParts};

/// The roles of a gated pair and what comes down.
type Roles = [Role; 3];
const DENSE: Roles = [Role::FfnGate, Role::FfnUp, Role::FfnDown];
const SHARED: Roles = [Role::GateShexp, Role::UpShexp, Role::DownShexp];

impl Pass<'_> {
    /// `delta = down(silu(gate x) * up x)` of the normed rows. Dense layers have no bounds.
    pub fn dense(&mut self, at: usize, parts: &Mlp<Held>, s: &mut Scratch, rows: usize) {
        let hidden = self.model.h.hidden;
        let normed = s.normed.of(rows * hidden);
        let types = [parts.gate.ty, parts.up.ty];
        s.input.fill(self.crew, normed, hidden, types);
        self.ears.input(Some(at), Role::FfnGate, 0, normed);
        self.ears.input(Some(at), Role::FfnUp, 0, normed);
        let (wide, middle) = (&mut s.ffn.wide, &mut s.ffn.middle);
        let delta = s.delta.of(rows * hidden);
        let limit = f32::INFINITY;
        self.gated((at, DENSE, limit), parts, &s.input, wide, middle, delta);
        self.clock
            .dense(rows, [&parts.gate, &parts.up, &parts.down]);
    }

    /// `delta`: the chosen experts' weighted sum, and the shared expert.
    pub fn sparse(
        &mut self,
        at: usize,
        parts: &SparseParts<Held, Vec<f32>>,
        s: &mut Scratch,
        rows: usize,
    ) {
        let (hidden, moe) = (self.model.h.hidden, self.model.h.moe);
        let limits = self.model.h.layers[at].limits;
        let normed = s.normed.of(rows * hidden);
        let mut types = vec![parts.router.ty, parts.experts.gate.ty, parts.experts.up.ty];
        if let Some(shared) = &parts.shared {
            types.extend([shared.gate.ty, shared.up.ty]);
        }
        s.input.fill(self.crew, normed, hidden, types);
        self.ears.input(Some(at), Role::Router, 0, normed);
        let logits = s.ffn.logits.of(rows * moe.experts);
        self.project(&s.input, &parts.router, logits);
        self.clock.dense(rows, [&parts.router]);
        let routing = Routing {
            used: moe.used,
            groups: moe.groups,
            groups_used: moe.groups_used,
            scale: moe.scale,
        };
        s.ffn.ids.resize(rows * moe.used, 0);
        let weights = s.ffn.weights.of(rows * moe.used);
        route(
            self.crew,
            logits,
            &parts.router_bias,
            &routing,
            &mut s.ffn.ids,
            weights,
        );
        self.clock.other();
        let routes = Routes {
            ids: &s.ffn.ids,
            weights,
            used: moe.used,
        };
        if self.model.is_hungry {
            hunger::experts(&parts.experts, self.model.map, routes.ids);
        }
        let delta = s.delta.of(rows * hidden);
        if self.ears.are_open() {
            self.experts_aloud(at, &parts.experts, normed, routes, delta);
        } else {
            let all = stacks(&parts.experts, self.model.map, limits.experts);
            let scratch = &mut s.ffn.experts;
            experts(self.crew, &s.input, &all, routes, scratch, delta);
        }
        self.clock.experts(&parts.experts, routes.ids);
        if let Some(shared) = &parts.shared {
            self.ears.input(Some(at), Role::GateShexp, 0, normed);
            self.ears.input(Some(at), Role::UpShexp, 0, normed);
            let (wide, middle) = (&mut s.ffn.wide, &mut s.ffn.middle);
            let out = s.ffn.narrow.of(rows * hidden);
            let how = (at, SHARED, limits.shared);
            self.gated(how, shared, &s.input, wide, middle, out);
            self.add(delta, out);
            self.clock
                .dense(rows, [&shared.gate, &shared.up, &shared.down]);
        }
    }

    fn gated(
        &mut self,
        (at, [_, _, down], limit): (usize, Roles, f32),
        parts: &Mlp<Held>,
        input: &Activations,
        wide: &mut Rows,
        middle: &mut Activations,
        out: &mut [f32],
    ) {
        let map = self.model.map;
        let (gate, up) = (parts.gate.matrix(map), parts.up.matrix(map));
        let wide = wide.of(input.rows() * gate.rows());
        gate_up(self.crew, input, gate, up, limit, wide);
        self.ears.input(Some(at), down, 0, wide);
        middle.fill(self.crew, wide, gate.rows(), [parts.down.ty]);
        self.project(middle, &parts.down, out);
    }

    /// As [`experts`], one expert of one token at a time, telling what meets each.
    fn experts_aloud(
        &mut self,
        at: usize,
        parts: &Mlp<Held>,
        normed: &[f32],
        routes: Routes<'_>,
        delta: &mut [f32],
    ) {
        let (hidden, ff, map) = (self.model.h.hidden, self.model.h.moe.ff, self.model.map);
        let limit = self.model.h.layers[at].limits.experts;
        let (mut input, mut middle) = (Activations::default(), Activations::default());
        let (mut wide, mut one) = (vec![0.0; ff], vec![0.0; hidden]);
        let chosen = routes.ids.chunks_exact(routes.used);
        let chosen = chosen.zip(routes.weights.chunks_exact(routes.used));
        let rows = normed
            .chunks_exact(hidden)
            .zip(delta.chunks_exact_mut(hidden));
        for ((x, delta), (ids, weights)) in rows.zip(chosen) {
            input.fill(self.crew, x, hidden, [parts.gate.ty, parts.up.ty]);
            delta.fill(0.0);
            for (&id, &weight) in ids.iter().zip(weights) {
                let id = id as usize;
                self.ears.input(Some(at), Role::GateExps, id, x);
                self.ears.input(Some(at), Role::UpExps, id, x);
                let (gate, up) = (parts.gate.stack(map).get(id), parts.up.stack(map).get(id));
                gate_up(self.crew, &input, gate, up, limit, &mut wide);
                self.ears.input(Some(at), Role::DownExps, id, &wide);
                middle.fill(self.crew, &wide, ff, [parts.down.ty]);
                let down = parts.down.stack(map).get(id);
                let product = Product {
                    matrix: down,
                    out: &mut one,
                };
                products(self.crew, &middle, &mut [product]);
                for (sum, &y) in delta.iter_mut().zip(&one) {
                    *sum += weight * y;
                }
            }
        }
    }
}
