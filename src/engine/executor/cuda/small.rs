//! One token each for up to 16 sequences. The pass is recorded once for each of a few widths and played
//! from then on: what differs from pass to pass lies in `lanes`, and lanes that nobody needs write where
//! nobody reads.

use std::sync::Arc;

use ggml_kernels::cuda::attention::{MlaWeights, Rows, SmallMla, SmallPass};
use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Graph, Part, Pinned, Stream};
use ggml_kernels::cuda::mixers::{
    Chosen, KdaGate, KdaRows, KdaStep, MOST_ROWS, Routed, Router, Strided, To, kda_gate, kda_step,
    norm_rows, route_small, route_wide,
};
use ggml_kernels::cuda::products::{
    DownExperts, GateUp, GateUpExperts, Job, Tokens, down, embed, gate_up, h_len, products,
};
use ggml_kernels::cuda::weights::{Activations, Acts, Lane, Stack, WeightType};
use quantize::schema::Hparams;

use super::Model;
use super::aside::{Aside, Found};
use super::clock::Choices;
use super::head::Head;
use super::place::Place;
use super::shape::{Sizes, ffns, kda_layer, mla_shape, routing};
use crate::engine::layers::{FfnParts, GateParts, KdaParts, MixerParts, MlaParts, Mlp, QueryParts};

/// Rows for which a pass is recorded.
const WIDTHS: [usize; 5] = [1, 2, 4, 8, 16];

#[derive(Debug)]
pub(super) struct Small {
    room: Room,
    recorded: [Recorded; WIDTHS.len()],
}

#[derive(Debug, Default)]
enum Recorded {
    /// Never run: a kernel's code is loaded when it first runs, which no recording may do.
    #[default]
    Cold,
    Warm,
    Graph(Graph),
}

/// What passes work in, for 16 rows.
#[derive(Debug)]
struct Room {
    lanes_here: Pinned<Lane>,
    lanes: Buffer<Lane>,
    x: Buffer<f32>,
    normed: Activations,
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    decay: Buffer<f32>,
    open: Buffer<f32>,
    beta: Buffer<f32>,
    o: Buffer<f32>,
    low_q: Buffer<f32>,
    low_q_normed: Activations,
    mixed: Activations,
    mla: Option<SmallMla>,
    router: Router,
    routes: Routes,
    middle: Activations,
}

#[derive(Debug)]
struct Routes {
    logits: Buffer<f32>,
    ids: Buffer<u32>,
    weights: Buffer<f32>,
}

impl Small {
    pub fn new(device: &Device, h: &Hparams, experts: Place) -> Result<Small, CudaError> {
        let s = Sizes::of(h);
        let floats = |width: usize| device.zeroed::<f32>(MOST_ROWS * width.max(1));
        let acts = |width: usize| Activations::room(device, MOST_ROWS * width.max(32));
        let mla = mla_shape(h).map(|shape| {
            let (base, eps) = (h.mla.rope_base, h.norm_eps);
            SmallMla::new(device, shape, base, eps, MOST_ROWS as u32)
        });
        let most = ffns(h, experts).map(|(shared, used, ff)| h_len(MOST_ROWS, used, ff, shared));
        Ok(Small {
            room: Room {
                lanes_here: Pinned::zeroed(device, MOST_ROWS)?,
                lanes: device.zeroed(MOST_ROWS)?,
                x: floats(s.hidden)?,
                normed: acts(s.hidden)?,
                q: floats(s.query)?,
                k: floats(s.key)?,
                v: floats(s.inner)?,
                decay: floats(s.inner)?,
                open: floats(s.inner)?,
                beta: floats(s.heads)?,
                o: floats(s.inner)?,
                low_q: floats(s.low_q)?,
                low_q_normed: acts(s.low_q)?,
                mixed: acts(s.mixed)?,
                mla: mla.transpose()?,
                router: Router::new(device, s.experts.max(1))?,
                routes: Routes {
                    logits: floats(s.experts)?,
                    ids: device.zeroed(MOST_ROWS * s.used.max(1))?,
                    weights: floats(s.used)?,
                },
                middle: Activations::room(device, most.max().unwrap_or(32))?,
            },
            recorded: Default::default(),
        })
    }

    /// One token of every lane; their logits and what is drawn of them are in `head` afterwards, row by row. With `choices` the
    /// pass is not played from its record, and keeps them there.
    pub fn run(
        &mut self,
        (model, head): (Model<'_>, &Head),
        stream: &Stream,
        lanes: &[Lane],
        nobody: Lane,
        aside: Option<&mut Aside>,
        choices: Option<&Choices>,
    ) -> Result<(), CudaError> {
        if aside.is_some() {
            // What the processor does in between, no graph can say.
            self.room.lanes_here.put(0, lanes)?;
            let (room, rows) = (&self.room, lanes.len());
            let pass = Pass {
                model,
                stream,
                room,
                rows,
                choices,
            };
            return pass.run(head, aside);
        }
        let at = WIDTHS.iter().position(|&width| width >= lanes.len());
        let at = at.expect("at most 16 lanes come here");
        let width = WIDTHS[at];
        let mut all = lanes.to_vec();
        all.resize(width, nobody);
        self.room.lanes_here.put(0, &all)?;
        let room = &self.room;
        let pass = |stream: &Stream| {
            Pass {
                model,
                stream,
                room,
                rows: width,
                choices,
            }
            .run(head, None)
        };
        match &self.recorded[at] {
            _ if choices.is_some() => pass(stream)?,
            Recorded::Cold => {
                pass(stream)?;
                self.recorded[at] = Recorded::Warm;
            }
            Recorded::Warm => {
                let graph = stream.record(pass)?;
                stream.run(&graph)?;
                self.recorded[at] = Recorded::Graph(graph);
            }
            Recorded::Graph(graph) => stream.run(graph)?,
        }
        Ok(())
    }
}

/// One pass of so many rows.
#[derive(Clone, Copy)]
struct Pass<'p> {
    model: Model<'p>,
    stream: &'p Stream,
    room: &'p Room,
    rows: usize,
    choices: Option<&'p Choices>,
}

type Done = Result<(), CudaError>;
type Held = Arc<Stack>;
type Feeding = FfnParts<Held, Buffer<f32>, Option<Mlp<Held>>>;

impl<'p> Pass<'p> {
    fn run(self, head: &Head, mut aside: Option<&mut Aside>) -> Done {
        let (room, parts) = (self.room, &self.model.weights.parts);
        self.stream
            .copy_in(&room.lanes_here, 0..self.rows, self.lanes()?)?;
        let tokens = Tokens::Lanes(self.lanes()?);
        embed(self.stream, &parts.token_embd, tokens, self.x()?)?;
        let (mut kda, mut mla) = (0, 0);
        for (at, layer) in parts.layers.iter().enumerate() {
            let normed = self.norm(&layer.attn_norm)?;
            match &layer.mixer {
                MixerParts::Kda(parts) => {
                    self.kda(parts, kda, normed)?;
                    kda += 1;
                }
                MixerParts::Mla(parts) => {
                    self.mla(parts, mla, normed)?;
                    mla += 1;
                }
            }
            let normed = self.norm(&layer.ffn_norm)?;
            self.ffn((at, &layer.ffn), normed, aside.as_deref_mut())?;
        }
        head.run(self.model, self.stream, self.x()?)?;
        head.draw(self.stream, self.rows)
    }

    fn lanes(self) -> Result<Part<'p, Lane>, CudaError> {
        self.room.lanes.part(0..self.rows)
    }

    fn x(self) -> Result<Part<'p, f32>, CudaError> {
        self.part(&self.room.x, self.model.h.hidden)
    }

    /// This pass's rows of a buffer.
    fn part(self, of: &'p Buffer<f32>, width: usize) -> Result<Part<'p, f32>, CudaError> {
        of.part(0..self.rows * width)
    }

    fn project(self, input: Acts, jobs: &[Job<'_>]) -> Done {
        products(self.stream, &input, jobs)
    }

    /// x, normed, as products take it.
    fn norm(self, weight: &Buffer<f32>) -> Result<Acts, CudaError> {
        let acts = self.room.normed.acts(self.rows, self.model.h.hidden)?;
        self.norm_to(self.x()?, weight, acts)?;
        Ok(acts)
    }

    fn norm_to(self, x: Part<'_, f32>, weight: &Buffer<f32>, acts: Acts) -> Done {
        let to = To {
            acts: Some(acts),
            ..To::default()
        };
        norm_rows(self.stream, x, weight.all(), self.model.h.norm_eps, &to)
    }

    /// x += matrix * rows.
    fn add(self, rows: Acts, matrix: &Stack) -> Done {
        let hidden = self.model.h.hidden;
        let add = true;
        let out = self.x()?;
        self.project(
            rows,
            &[Job {
                matrix,
                out,
                stride: hidden,
                add,
            }],
        )
    }

    fn kda(self, parts: &KdaParts<Held, Buffer<f32>>, number: usize, normed: Acts) -> Done {
        let (h, room) = (self.model.h, self.room);
        let (inner, heads) = (h.kda.d_inner(), h.kda.heads);
        let (decay, f_b) = gate_of(&parts.decay);
        let (open, g_b) = gate_of(&parts.open);
        let (decay_width, open_width) = (decay.rows(), open.rows());
        let (q, k, v) = (
            self.part(&room.q, inner)?,
            self.part(&room.k, inner)?,
            self.part(&room.v, inner)?,
        );
        let decays = Strided {
            values: self.part(&room.decay, decay_width)?,
            stride: decay_width,
        };
        let opens = Strided {
            values: self.part(&room.open, open_width)?,
            stride: open_width,
        };
        let beta = Strided {
            values: self.part(&room.beta, heads)?,
            stride: heads,
        };
        self.project(
            normed,
            &[
                job(&parts.q, q, inner),
                job(&parts.k, k, inner),
                job(&parts.v, v, inner),
                job(decay, decays.values, decay_width),
                job(open, opens.values, open_width),
                job(&parts.beta, beta.values, heads),
            ],
        )?;
        let layer = kda_layer(h, parts, number, self.model.kda_values);
        let rows = KdaRows {
            q,
            k,
            v,
            stride: inner,
            decay: decays,
            beta,
        };
        let (lanes, o) = (self.lanes()?, self.part(&room.o, inner)?);
        let f_b = f_b.map(|b| b.matrix());
        kda_step(
            self.stream,
            &KdaStep {
                layer: &layer,
                rows,
                f_b,
                lanes,
                o,
            },
        )?;
        let out = room.mixed.acts(self.rows, inner)?;
        let g_b = g_b.map(|b| b.matrix());
        let gate = KdaGate {
            layer: &layer,
            rows,
            open: opens,
            g_b,
            lanes,
            o,
            out,
        };
        kda_gate(self.stream, &gate)?;
        self.add(out, &parts.output)
    }

    fn mla(self, parts: &MlaParts<Held, Buffer<f32>>, number: usize, normed: Acts) -> Done {
        let (h, room) = (self.model.h, self.room);
        let d = h.mla;
        let (width, latent) = (d.heads * d.qk(), d.latent());
        let (q, kv) = (self.part(&room.q, width)?, self.part(&room.k, latent)?);
        let gates = self.part(&room.beta, d.heads)?;
        let low_width = d.q_lora_rank.unwrap_or(0);
        let low = self.part(&room.low_q, low_width)?;
        let first = match &parts.q {
            QueryParts::Whole(w) => job(w, q, width),
            QueryParts::Narrow { a, .. } => job(a, low, low_width),
        };
        let mut jobs = vec![first, job(&parts.kv_a, kv, latent)];
        jobs.extend(parts.gate.as_ref().map(|w| job(w, gates, d.heads)));
        self.project(normed, &jobs)?;
        if let QueryParts::Narrow { norm, b, .. } = &parts.q {
            let acts = room.low_q_normed.acts(self.rows, low_width)?;
            self.norm_to(low, norm, acts)?;
            self.project(acts, &[job(b, q, width)])?;
        }
        let weights = MlaWeights {
            norm: parts.kv_a_norm.all(),
            k_b: parts.k_b.matrix(),
            v_b: parts.v_b.matrix(),
        };
        let rows = |values, stride: usize| Rows {
            values,
            stride: stride as u32,
        };
        let pass = SmallPass {
            layer: number as u32,
            lanes: self.lanes()?,
            q: rows(q, width),
            kv: Some(rows(kv, latent)),
            gate: parts.gate.as_ref().map(|_| rows(gates, d.heads)),
        };
        let out = room.mixed.acts(self.rows, d.heads * d.v)?;
        let mla = room.mla.as_ref().expect("made where a layer is MLA");
        mla.run(self.stream, &weights, &pass, out)?;
        self.add(out, &parts.output)
    }

    /// x += down(min(silu(gate x), limit) * clamp(up x)).
    fn dense(self, mlp: &Mlp<Held>, limit: f32, normed: Acts) -> Done {
        let pair = Some(gated(mlp, limit));
        let h = gate_up(self.stream, &normed, None, pair, &self.room.middle)?;
        down(self.stream, &h, None, Some(&mlp.down), self.x()?)
    }

    fn ffn(self, (at, ffn): (usize, &Feeding), normed: Acts, aside: Option<&mut Aside>) -> Done {
        let (h, room) = (self.model.h, self.room);
        let sparse = match ffn {
            FfnParts::Dense(mlp) => return self.dense(mlp, f32::INFINITY, normed),
            FfnParts::Sparse(sparse) => sparse,
        };
        let (limits, used, experts) = (h.layers[at].limits, h.moe.used, h.moe.experts);
        let ids = room.routes.ids.part(0..self.rows * used)?;
        let weights = self.part(&room.routes.weights, used)?;
        let routed = Routed { ids, weights };
        let choice = Chosen {
            bias: sparse.router_bias.all(),
            routing: routing(h),
        };
        let is_float = matches!(
            sparse.router.ty(),
            WeightType::F32 | WeightType::F16 | WeightType::Bf16
        );
        if is_float {
            let x = room.normed.x.part(0..self.rows * h.hidden)?;
            let router = sparse.router.matrix();
            route_small(self.stream, &room.router, &router, x, &choice, routed)?;
        } else {
            let logits = self.part(&room.routes.logits, experts)?;
            self.project(normed, &[job(&sparse.router, logits, experts)])?;
            route_wide(self.stream, logits, &choice, routed)?;
        }
        if let Some(choices) = self.choices {
            choices.keep(self.stream, at, ids)?;
        }
        let shared = sparse.shared.as_ref();
        let Some(experts) = &sparse.experts else {
            let x = room.normed.x.part(0..self.rows * h.hidden)?;
            let found = Found {
                normed: x,
                ids,
                weights,
            };
            let aside = aside.expect("made where experts are not on the card");
            return aside.add(self.stream, at, found, self.x()?, || match shared {
                Some(mlp) => self.dense(mlp, limits.shared, normed),
                None => Ok(()),
            });
        };
        let up = GateUpExperts {
            stacks: gated(experts, limits.experts),
            ids,
            used,
        };
        let shared_up = shared.map(|mlp| gated(mlp, limits.shared));
        let h = gate_up(self.stream, &normed, Some(up), shared_up, &room.middle)?;
        let back = DownExperts {
            stack: &experts.down,
            ids,
            weights,
            used,
        };
        let shared_down = shared.map(|mlp| &*mlp.down);
        down(self.stream, &h, Some(back), shared_down, self.x()?)
    }
}

fn job<'j>(matrix: &'j Stack, out: Part<'j, f32>, stride: usize) -> Job<'j> {
    Job {
        matrix,
        out,
        stride,
        add: false,
    }
}

fn gated(mlp: &Mlp<Held>, limit: f32) -> GateUp<'_> {
    GateUp {
        gate: &mlp.gate,
        up: &mlp.up,
        limit,
    }
}

/// What a gate's input meets first, and the second matrix of a narrow one.
fn gate_of(gate: &GateParts<Held>) -> (&Stack, Option<&Stack>) {
    match gate {
        GateParts::Whole(w) => (w, None),
        GateParts::Narrow { a, b } => (a, Some(b)),
    }
}
