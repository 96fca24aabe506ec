//! Passes of any number of rows: products on tensor cores, KDA from sixteen tokens to sixteen, attention over
//! keys and values that the cache's rows are expanded to. Rows of a lane are neighbours; lanes come in
//! the order in which they were given.

mod ffn;

use std::sync::Arc;

use ggml_kernels::cuda::attention::{MlaWeights, WideMla};
use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Part, Stream};
use ggml_kernels::cuda::mixers::{
    KdaFinish, KdaRows, KdaWide, Strided, To, chunks_len, kda_finish, kda_prepare, kda_scan,
    norm_rows, quantize_rows,
};
use ggml_kernels::cuda::products::{Tokens, embed};
use ggml_kernels::cuda::weights::{Stack, WeightType, WideLane};
use ggml_kernels::cuda::wide::{Groups, WideJob, WideRows, WideTo, wide_products};
use half::f16;
use quantize::schema::Hparams;

use super::Model;
use super::aside::Aside;
use super::clock::Choices;
use super::expanded::Expanded;
use super::place::Place;
use super::shape::{Sizes, ffns, kda_layer, kda_shape, mla_shape, routing};
use crate::engine::layers::{
    FfnParts, GateParts, KdaParts, MixerParts, MlaParts, Mlp, QueryParts, SparseParts,
};

type Done = Result<(), CudaError>;
type Held = Arc<Stack>;
type Sparse = SparseParts<Held, Buffer<f32>, Option<Mlp<Held>>>;

/// What passes of up to so many rows work in.
#[derive(Debug)]
pub(super) struct Wide {
    rows: usize,
    lanes: Buffer<WideLane>,
    tokens: Buffer<u32>,
    x: Buffer<f32>,
    /// Rows whose logits are wanted, in the last layer.
    asking: Buffer<f32>,
    normed: Both,
    q: Buffer<f32>,
    k: Buffer<f32>,
    v: Buffer<f32>,
    decay: Buffer<f32>,
    open: Buffer<f32>,
    beta: Buffer<f32>,
    low: Both,
    low_open: Both,
    chunks: Buffer<f32>,
    o: Buffer<f32>,
    mixed: Both,
    mla: Option<WideMla>,
    expanded: Expanded,
    logits: Buffer<f32>,
    ids: Buffer<u32>,
    weights: Buffer<f32>,
    groups: Option<Groups>,
    middle: Both,
    routed: Buffer<f32>,
    shared: Buffer<f32>,
}

/// Rows as f16 and as f32, each where somebody asks.
#[derive(Debug)]
struct Both {
    f16: Buffer<f16>,
    f32: Buffer<f32>,
}

impl Both {
    fn room(device: &Device, values: usize) -> Result<Both, CudaError> {
        Ok(Both {
            f16: device.zeroed(values)?,
            f32: device.zeroed(values)?,
        })
    }

    /// `rows` of `cols`, in the forms that `matrices` take.
    fn rows(
        &self,
        rows: usize,
        cols: usize,
        matrices: &[&Stack],
    ) -> Result<WideRows<'_>, CudaError> {
        let is_f32 = |m: &&&Stack| m.ty() == WeightType::F32;
        let plain = matrices.iter().filter(is_f32).count();
        let (asks_32, asks_16) = (plain > 0, plain < matrices.len());
        let f16 = asks_16.then(|| self.f16.part(0..rows * cols));
        let f32 = asks_32.then(|| self.f32.part(0..rows * cols));
        Ok(WideRows {
            f16: f16.transpose()?,
            f32: f32.transpose()?,
            rows,
            cols,
            stride: cols,
        })
    }
}

/// One lane of a pass: its place in it, and which of its rows are wanted.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub lane: WideLane,
    /// The last so many of its rows.
    pub wanted: usize,
}

impl Wide {
    /// For passes of up to `rows` rows and `lanes` lanes.
    pub fn new(
        device: &Device,
        (h, experts): (&Hparams, Place),
        rows: usize,
        lanes: usize,
    ) -> Result<Wide, CudaError> {
        let s = Sizes::of(h);
        let are_here = experts == Place::Card;
        let floats = |width: usize| device.zeroed::<f32>(rows * width);
        let both = |width: usize| Both::room(device, rows * width);
        let low = h.kda.head_dim.max(s.low_q);
        let middle = ffns(h, experts).map(|(shared, used, ff)| shared.max(used * ff));
        let mla =
            mla_shape(h).map(|shape| WideMla::new(device, shape, h.mla.rope_base, h.norm_eps));
        let groups =
            (s.experts > 0 && are_here).then(|| Groups::new(device, rows * s.used, s.experts));
        Ok(Wide {
            rows,
            lanes: device.zeroed(lanes)?,
            tokens: device.zeroed(rows)?,
            x: floats(s.hidden)?,
            asking: floats(s.hidden)?,
            normed: both(s.hidden)?,
            q: floats(s.query)?,
            k: floats(s.key)?,
            v: floats(s.inner)?,
            decay: floats(s.inner)?,
            open: floats(s.inner)?,
            beta: floats(s.heads)?,
            low: both(low)?,
            low_open: both(low)?,
            chunks: device.zeroed(chunks_len(&kda_shape(h), rows, lanes))?,
            o: floats(s.inner)?,
            mixed: both(s.mixed)?,
            mla: mla.transpose()?,
            expanded: Expanded::new(device, h, rows, lanes)?,
            logits: floats(s.experts)?,
            ids: device.zeroed(rows * s.used)?,
            weights: floats(s.used)?,
            groups: groups.transpose()?,
            middle: both(middle.max().unwrap_or(0))?,
            routed: floats(if are_here { s.used * s.hidden } else { 0 })?,
            shared: floats(s.hidden)?,
        })
    }

    /// Rows of a pass at most.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Every layer over the lanes' tokens. The wanted rows, lane after lane, ready for the output norm.
    /// `choices`: where the experts' numbers are kept.
    pub fn run(
        &mut self,
        model: Model<'_>,
        stream: &Stream,
        shares: &[Share],
        tokens: &[u32],
        aside: Option<&mut Aside>,
        choices: Option<&Choices>,
    ) -> Result<Part<'_, f32>, CudaError> {
        let lanes: Vec<WideLane> = shares.iter().map(|s| s.lane).collect();
        self.lanes.write(0, &lanes)?;
        self.tokens.write(0, tokens)?;
        self.expanded.begin(model.h, &lanes)?;
        let pass = Pass {
            model,
            stream,
            room: self,
            lanes: &lanes,
            choices,
            rows: tokens.len(),
            x: self.x.part(0..tokens.len() * model.h.hidden)?,
        };
        let rows = pass.run(shares, aside)?;
        self.asking.part(0..rows * model.h.hidden)
    }
}

/// Rows on their way through the layers.
#[derive(Clone, Copy)]
struct Pass<'p> {
    model: Model<'p>,
    stream: &'p Stream,
    room: &'p Wide,
    lanes: &'p [WideLane],
    choices: Option<&'p Choices>,
    rows: usize,
    x: Part<'p, f32>,
}

impl<'p> Pass<'p> {
    /// How many rows are wanted: they are in `asking`.
    fn run(self, shares: &[Share], mut aside: Option<&mut Aside>) -> Result<usize, CudaError> {
        let parts = &self.model.weights.parts;
        let tokens = Tokens::Ids(self.room.tokens.part(0..self.rows)?);
        embed(self.stream, &parts.token_embd, tokens, self.x)?;
        let (mut kda, mut mla, mut pass) = (0, 0, self);
        let last = parts.layers.len() - 1;
        for (at, layer) in parts.layers.iter().enumerate() {
            match &layer.mixer {
                MixerParts::Kda(parts) => {
                    pass.kda(&layer.attn_norm, parts, kda)?;
                    kda += 1;
                }
                MixerParts::Mla(parts) => {
                    pass.mla(&layer.attn_norm, parts, mla)?;
                    mla += 1;
                }
            }
            if at == last {
                // The states are complete: only the wanted rows go on.
                pass = pass.wanted(shares)?;
                if pass.rows == 0 {
                    break;
                }
            }
            match &layer.ffn {
                FfnParts::Dense(mlp) => pass.dense(&layer.ffn_norm, mlp)?,
                FfnParts::Sparse(sparse) => {
                    let norm = &layer.ffn_norm;
                    pass.sparse(norm, (at, sparse), aside.as_deref_mut())?;
                }
            }
        }
        Ok(pass.rows)
    }

    fn wanted(self, shares: &[Share]) -> Result<Pass<'p>, CudaError> {
        let (hidden, mut rows) = (self.model.h.hidden, 0);
        for Share { lane, wanted } in shares {
            let end = (lane.row + lane.rows) as usize;
            let from = self.x.part((end - wanted) * hidden..end * hidden)?;
            let to = self
                .room
                .asking
                .part(rows * hidden..(rows + wanted) * hidden)?;
            self.stream.copy(from, to)?;
            rows += wanted;
        }
        let x = self.room.asking.part(0..rows * hidden)?;
        Ok(Pass { rows, x, ..self })
    }

    fn part(self, of: &'p Buffer<f32>, width: usize) -> Result<Part<'p, f32>, CudaError> {
        of.part(0..self.rows * width)
    }

    /// x, normed, in the forms that `matrices` take.
    fn norm(self, weight: &Buffer<f32>, matrices: &[&Stack]) -> Result<WideRows<'p>, CudaError> {
        self.norm_to(weight, self.normed(matrices)?)
    }

    /// Room for it.
    fn normed(self, matrices: &[&Stack]) -> Result<WideRows<'p>, CudaError> {
        let hidden = self.model.h.hidden;
        self.room.normed.rows(self.rows, hidden, matrices)
    }

    fn norm_to(self, weight: &Buffer<f32>, rows: WideRows<'p>) -> Result<WideRows<'p>, CudaError> {
        let to = To {
            acts: None,
            f32: rows.f32,
            f16: rows.f16,
        };
        norm_rows(
            self.stream,
            self.x,
            weight.all(),
            self.model.h.norm_eps,
            &to,
        )?;
        Ok(rows)
    }

    /// x += matrix * rows.
    fn add(self, rows: &WideRows<'_>, matrix: &Stack) -> Done {
        let stride = self.model.h.hidden;
        let job = WideJob {
            matrix: matrix.into(),
            to: WideTo::Add(self.x),
            stride,
        };
        wide_products(self.stream, rows, &[job])
    }

    fn kda(self, norm: &Buffer<f32>, parts: &KdaParts<Held, Buffer<f32>>, number: usize) -> Done {
        let (h, room) = (self.model.h, self.room);
        let (inner, heads) = (h.kda.d_inner(), h.kda.heads);
        let (decay, open) = (first(&parts.decay), first(&parts.open));
        let (q, k, v) = (
            self.part(&room.q, inner)?,
            self.part(&room.k, inner)?,
            self.part(&room.v, inner)?,
        );
        let (decays, opens) = (
            self.part(&room.decay, inner)?,
            self.part(&room.open, inner)?,
        );
        let beta = self.part(&room.beta, heads)?;
        let first_of = |gate: &GateParts<Held>, whole, low: &'p Both| match gate {
            GateParts::Whole(_) => Ok(whole),
            GateParts::Narrow { a, .. } => self.part(&low.f32, a.rows()),
        };
        let decay_to = first_of(&parts.decay, decays, &room.low)?;
        let open_to = first_of(&parts.open, opens, &room.low_open)?;
        let all: [&Stack; 6] = [&parts.q, &parts.k, &parts.v, decay, open, &parts.beta];
        let input = self.norm(norm, &all)?;
        let outs = [q, k, v, decay_to, open_to, beta];
        let jobs = all
            .into_iter()
            .zip(outs)
            .map(|(matrix, to)| store(matrix, to));
        wide_products(self.stream, &input, &jobs.collect::<Vec<_>>())?;
        for (gate, low, to) in [
            (&parts.decay, &room.low, decays),
            (&parts.open, &room.low_open, opens),
        ] {
            if let GateParts::Narrow { b, .. } = gate {
                self.through(low, b, to)?;
            }
        }
        let layer = kda_layer(h, parts, number, self.model.kda_values);
        let strided = |values, stride| Strided { values, stride };
        let rows = KdaRows {
            q,
            k,
            v,
            stride: inner,
            decay: strided(decays, inner),
            beta: strided(beta, heads),
        };
        let chunks = chunks_len(&layer.shape, self.rows, self.lanes.len());
        let wide = KdaWide {
            layer: &layer,
            rows,
            lanes: room.lanes.part(0..self.lanes.len())?,
            longest: self
                .lanes
                .iter()
                .map(|l| l.rows as usize)
                .max()
                .unwrap_or(0),
            chunks: room.chunks.part(0..chunks)?,
            o: self.part(&room.o, inner)?,
        };
        kda_prepare(self.stream, &wide)?;
        kda_scan(self.stream, &wide)?;
        let mixed = room.mixed.rows(self.rows, inner, &[&parts.output])?;
        let finish = KdaFinish {
            layer: &layer,
            o: wide.o,
            open: strided(opens, inner),
            f32: mixed.f32,
            f16: mixed.f16,
        };
        kda_finish(self.stream, &finish)?;
        self.add(&mixed, &parts.output)
    }

    /// A narrow product's second matrix, on what lies in `low` as f32.
    fn through(self, low: &'p Both, b: &Stack, to: Part<'p, f32>) -> Done {
        let width = b.cols();
        let mut rows = low.rows(self.rows, width, &[b])?;
        let there = self.part(&low.f32, width)?;
        if rows.f16.is_some() {
            let to = To {
                acts: None,
                f32: None,
                f16: rows.f16,
            };
            quantize_rows(self.stream, there, width, &to)?;
        }
        rows.f32 = Some(there);
        wide_products(self.stream, &rows, &[store(b, to)])
    }

    fn mla(self, norm: &Buffer<f32>, parts: &MlaParts<Held, Buffer<f32>>, number: usize) -> Done {
        let (h, room) = (self.model.h, self.room);
        let d = h.mla;
        let (width, latent) = (d.heads * d.qk(), d.latent());
        let (q, kv) = (self.part(&room.q, width)?, self.part(&room.k, latent)?);
        let gates = self.part(&room.beta, d.heads)?;
        let (ask, to): (&Stack, _) = match &parts.q {
            QueryParts::Whole(w) => (w, q),
            QueryParts::Narrow { a, .. } => (a, self.part(&room.low.f32, a.rows())?),
        };
        let mut matrices = vec![ask, &parts.kv_a];
        matrices.extend(parts.gate.as_deref());
        let input = self.norm(norm, &matrices)?;
        let outs = [to, kv, gates];
        let jobs = matrices
            .into_iter()
            .zip(outs)
            .map(|(matrix, to)| store(matrix, to));
        wide_products(self.stream, &input, &jobs.collect::<Vec<_>>())?;
        if let QueryParts::Narrow { norm, b, .. } = &parts.q {
            // In `low_open`, which no MLA layer uses otherwise.
            let rows = room.low_open.rows(self.rows, b.cols(), &[b])?;
            let normed = To {
                acts: None,
                f32: rows.f32,
                f16: rows.f16,
            };
            norm_rows(self.stream, to, norm.all(), h.norm_eps, &normed)?;
            wide_products(self.stream, &rows, &[store(b, q)])?;
        }
        let mla = room.mla.as_ref().expect("made where a layer is MLA");
        let mixed = room
            .mixed
            .rows(self.rows, d.heads * d.v, &[&parts.output])?;
        let lanes = (room.lanes.part(0..self.lanes.len())?, self.lanes);
        let asked = super::expanded::Asked {
            number,
            weights: MlaWeights {
                norm: parts.kv_a_norm.all(),
                k_b: parts.k_b.matrix(),
                v_b: parts.v_b.matrix(),
            },
            q,
            kv,
            gate: parts.gate.as_ref().map(|_| gates),
            // Attention always writes its f16.
            f16: room.mixed.f16.part(0..self.rows * d.heads * d.v)?,
            f32: mixed.f32,
        };
        let by = &self.model.weights.expanding[number];
        room.expanded
            .attend(self.stream, (h, mla), lanes, &asked, by)?;
        self.add(&mixed, &parts.output)
    }
}

fn store<'j>(matrix: &'j Stack, to: Part<'j, f32>) -> WideJob<'j> {
    let stride = matrix.rows() * matrix.count();
    WideJob {
        matrix: matrix.into(),
        to: WideTo::Store(to),
        stride,
    }
}

/// What a gate's input meets first.
fn first(gate: &GateParts<Held>) -> &Stack {
    match gate {
        GateParts::Whole(w) => w,
        GateParts::Narrow { a, .. } => a,
    }
}
