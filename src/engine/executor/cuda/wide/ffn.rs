//! Feed-forward layers of wide passes: dense, or experts of which the router chooses a few for each row.

use ggml_kernels::cuda::driver::{Buffer, CudaError};
use ggml_kernels::cuda::mixers::{Chosen, Routed, route_wide};
use ggml_kernels::cuda::weights::Stack;
use ggml_kernels::cuda::wide::{
    Combined, ExpertDown, ExpertGateUp, WideGateUp, WideRows, combine, expert_down, expert_gate_up,
    group_rows, wide_gate_up, wide_products,
};

use super::{Aside, Done, Held, Pass, Sparse, routing, store};
use crate::engine::executor::cuda::aside::Found;
use crate::engine::layers::Mlp;

impl<'p> Pass<'p> {
    pub(super) fn dense(self, norm: &Buffer<f32>, mlp: &Mlp<Held>) -> Done {
        let input = self.norm(norm, &[&mlp.gate, &mlp.up])?;
        let middle = self.gated(&input, mlp, f32::INFINITY)?;
        self.add(&middle, &mlp.down)
    }

    /// `min(silu(gate x), limit) * clamp(up x)`, in the forms that `down` takes.
    fn gated(
        self,
        input: &WideRows<'_>,
        mlp: &'p Mlp<Held>,
        limit: f32,
    ) -> Result<WideRows<'p>, CudaError> {
        let width = mlp.gate.rows();
        let middle = self.room.middle.rows(self.rows, width, &[&mlp.down])?;
        let to = WideGateUp {
            gate: (&*mlp.gate).into(),
            up: (&*mlp.up).into(),
            limit,
            f16: middle.f16,
            f32: middle.f32,
            stride: width,
        };
        wide_gate_up(self.stream, input, &to)?;
        Ok(middle)
    }

    pub(super) fn sparse(
        self,
        norm: &Buffer<f32>,
        (at, parts): (usize, &Sparse),
        aside: Option<&mut Aside>,
    ) -> Done {
        let (h, room, stream) = (self.model.h, self.room, self.stream);
        let (hidden, used, experts) = (h.hidden, h.moe.used, h.moe.experts);
        let limits = h.layers[at].limits;
        let mut matrices: Vec<&Stack> = vec![&parts.router];
        if let Some(experts) = &parts.experts {
            matrices.extend([&*experts.gate, &*experts.up]);
        }
        if let Some(shared) = &parts.shared {
            matrices.extend([&*shared.gate, &*shared.up]);
        }
        let mut to = self.normed(&matrices)?;
        if aside.is_some() {
            to.f32 = Some(self.part(&room.normed.f32, hidden)?);
        }
        let input = self.norm_to(norm, to)?;
        let logits = self.part(&room.logits, experts)?;
        wide_products(stream, &input, &[store(&parts.router, logits)])?;
        let ids = room.ids.part(0..self.rows * used)?;
        let weights = self.part(&room.weights, used)?;
        let choice = Chosen {
            bias: parts.router_bias.all(),
            routing: routing(h),
        };
        route_wide(stream, logits, &choice, Routed { ids, weights })?;
        let Some(of) = &parts.experts else {
            let found = Found {
                normed: self.part(&room.normed.f32, hidden)?,
                ids,
                weights,
            };
            let aside = aside.expect("made where experts are not on the card");
            return aside.add(stream, at, found, self.x, || match &parts.shared {
                Some(mlp) => {
                    let middle = self.gated(&input, mlp, limits.shared)?;
                    self.add(&middle, &mlp.down)
                }
                None => Ok(()),
            });
        };
        if let Some(choices) = self.choices {
            choices.keep(stream, at, ids)?;
        }
        // The shared expert first: its middle rows share room with the others'.
        let shared = match &parts.shared {
            Some(mlp) => {
                let middle = self.gated(&input, mlp, limits.shared)?;
                let to = self.part(&room.shared, hidden)?;
                wide_products(stream, &middle, &[store(&mlp.down, to)])?;
                Some(to)
            }
            None => None,
        };
        let groups = room
            .groups
            .as_ref()
            .expect("made where a layer has experts");
        let grouped = group_rows(stream, ids, used, groups)?;
        let middle = room.middle.rows(grouped.pairs(), h.moe.ff, &[&of.down])?;
        let to = ExpertGateUp {
            gate: &of.gate,
            up: &of.up,
            limit: limits.experts,
            f16: middle.f16,
            f32: middle.f32,
        };
        expert_gate_up(stream, &grouped, &input, &to)?;
        let rows = self.part(&room.routed, used * hidden)?;
        expert_down(
            stream,
            &grouped,
            &middle,
            &ExpertDown {
                down: &of.down,
                to: rows,
            },
        )?;
        let all = Combined {
            x: self.x,
            rows,
            weights,
            shared,
            used,
            hidden,
        };
        combine(stream, &all)
    }
}
