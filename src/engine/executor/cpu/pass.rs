//! One pass over the rows of every lane, layer after layer. Rows of a lane are neighbours; lanes
//! come in the order in which they were given.

use std::ops::Range;

use ggml_kernels::cpu::kda::{KdaLane, KdaShape};
use ggml_kernels::cpu::mla::MlaLane;
use ggml_kernels::cpu::norm::{add_rms_norm, rms_norm};
use ggml_kernels::cpu::products::{Product, products};
use ggml_kernels::cpu::{Crew, math};
use ggml_kernels::quant::{TensorType, dequantize};
use quantize::schema::{Hparams, Role};

use super::clock::Clock;
use super::scratch::Scratch;
use super::state::Open;
use super::weights::{Bound, Held};
use super::{Share, State, Watch};
use crate::engine::Want;
use crate::engine::error::Cause;
use crate::engine::layers::{FfnParts, MixerParts};
use crate::engine::tap::{Listener, Point, Tap};
use crate::request::Token;

/// The model as a pass sees it.
#[derive(Clone, Copy)]
pub(super) struct Weights<'m> {
    pub h: &'m Hparams,
    pub parts: &'m Bound,
    pub map: &'m [u8],
    pub kda: KdaShape,
    pub cache: TensorType,
    /// Weights are missing from memory.
    pub is_hungry: bool,
}

/// Which rows of a pass ask in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    All,
    /// Those whose logits are wanted, in the last layer: nobody looks at what the others would add.
    Wanted,
}

/// A lane's share of the rows.
pub(super) struct LaneRows<'s> {
    pub rows: Range<usize>,
    /// Of the wanted rows, its own: the last ones of `rows`.
    pub wanted: Range<usize>,
    pub past: usize,
    pub state: Open<'s>,
}

impl LaneRows<'_> {
    /// KDA layer `number` of its state.
    pub fn kda(&mut self, number: usize) -> KdaLane<'_> {
        KdaLane {
            rows: self.rows.clone(),
            from: self.state.from.as_deref().map(|slot| &slot.layers[number]),
            to: &mut self.state.to.layers[number],
        }
    }

    /// The rows that ask, and the tokens before the first of them.
    pub fn asking(&self, asking: Asking) -> (Range<usize>, usize) {
        match asking {
            Asking::All => (self.rows.clone(), self.past),
            Asking::Wanted => {
                let quiet = self.rows.len() - self.wanted.len();
                (self.wanted.clone(), self.past + quiet)
            }
        }
    }

    /// MLA layer `number` of its state.
    pub fn mla(&self, number: usize, asking: Asking) -> MlaLane<'_> {
        let (rows, past) = self.asking(asking);
        MlaLane {
            rows,
            past,
            blocks: self.state.rows(number),
        }
    }
}

pub(super) struct Pass<'p> {
    pub crew: Crew<'p>,
    pub model: Weights<'p>,
    pub lanes: Vec<LaneRows<'p>>,
    pub ears: Ears<'p>,
    pub clock: Clock<'p>,
    tokens: Vec<Token>,
    /// Rows whose logits are wanted, lane after lane, and how many are each lane's.
    pub wanted: Vec<usize>,
    wanted_of: Vec<usize>,
}

/// Who listens, if anybody.
pub(super) struct Ears<'p>(Option<&'p mut dyn Listener>);

impl Ears<'_> {
    pub fn are_open(&self) -> bool {
        self.0.is_some()
    }

    pub fn input(&mut self, layer: Option<usize>, role: Role, matrix: usize, rows: &[f32]) {
        if let Some(listener) = &mut self.0 {
            listener.hear(Tap::Input {
                layer,
                role,
                matrix,
                rows,
            });
        }
    }

    fn hidden(&mut self, at: Point, rows: &[f32]) {
        if let Some(listener) = &mut self.0 {
            listener.hear(Tap::Hidden { at, rows });
        }
    }
}

impl<'p> Pass<'p> {
    /// Makes room in every state; nothing is changed where there is none.
    pub fn new(
        crew: Crew<'p>,
        model: Weights<'p>,
        shares: &'p mut [Share<'_>],
        watch: Watch<'p>,
    ) -> Result<Pass<'p>, Cause> {
        for share in shares.iter_mut() {
            if let State::Cpu(state) = &mut *share.state {
                state.reserve(share.past, share.past + share.tokens.len())?;
            }
        }
        let mut pass = Pass {
            crew,
            model,
            lanes: Vec::with_capacity(shares.len()),
            ears: Ears(watch.listener),
            clock: Clock::new(watch.meter),
            tokens: Vec::new(),
            wanted: Vec::new(),
            wanted_of: Vec::with_capacity(shares.len()),
        };
        for share in shares {
            let State::Cpu(state) = &mut *share.state else {
                unreachable!("the engine checks whose state it is");
            };
            let start = pass.tokens.len();
            pass.tokens.extend(share.tokens);
            let rows = start..pass.tokens.len();
            let wanted = match share.want {
                Want::Nothing => rows.end..rows.end,
                Want::Last | Want::Drawn(_) => rows.end - 1..rows.end,
                Want::All => rows.clone(),
            };
            let first = pass.wanted.len();
            pass.wanted_of.push(wanted.len());
            pass.wanted.extend(wanted);
            pass.lanes.push(LaneRows {
                rows,
                wanted: first..pass.wanted.len(),
                past: share.past,
                state: state.open(),
            });
        }
        Ok(pass)
    }

    /// The wanted logits of each lane, `[wanted, vocab]`.
    pub fn run(mut self, scratch: &mut Scratch) -> Vec<Vec<f32>> {
        let (model, hidden) = (self.model, self.model.h.hidden);
        let mut rows = self.tokens.len();
        self.embed(scratch.x.of(rows * hidden));
        self.ears
            .hidden(Point::Embedding, scratch.x.of(rows * hidden));
        if let Some(base) = model.h.mla.rope_base {
            let lanes = self.lanes.iter();
            let positions =
                lanes.flat_map(|l| l.rows.clone().map(|row| l.past + row - l.rows.start));
            scratch.turns.fill(model.h.mla.qk_rope, base, positions);
        }
        let last_layer = model.parts.layers.len() - 1;
        let (mut kda, mut mla, mut asking) = (0, 0, Asking::All);
        for (at, layer) in model.parts.layers.iter().enumerate() {
            if at == 0 {
                let (x, normed) = (scratch.x.of(rows * hidden), &mut scratch.normed);
                let normed = normed.of(rows * hidden);
                rms_norm(self.crew, x, &layer.attn_norm, model.h.norm_eps, normed);
            } else {
                self.add_and_norm(scratch, rows, &layer.attn_norm);
                self.hear_layer(at - 1, scratch, rows);
            }
            self.clock.other();
            match &layer.mixer {
                MixerParts::Kda(parts) => {
                    self.kda(at, parts, kda, scratch, rows);
                    kda += 1;
                }
                MixerParts::Mla(parts) => {
                    // Who listens hears every row.
                    if at == last_layer && !self.ears.are_open() {
                        asking = Asking::Wanted;
                    }
                    self.mla((at, asking), parts, mla, scratch, rows);
                    mla += 1;
                }
            }
            if at == last_layer {
                // The states are complete: only the wanted rows go on.
                if self.wanted.is_empty() {
                    return vec![Vec::new(); self.wanted_of.len()];
                }
                gather(scratch.x.of(rows * hidden), &self.wanted, hidden);
                if asking == Asking::All {
                    gather(scratch.delta.of(rows * hidden), &self.wanted, hidden);
                }
                rows = self.wanted.len();
            }
            self.add_and_norm(scratch, rows, &layer.ffn_norm);
            self.clock.other();
            match &layer.ffn {
                FfnParts::Dense(parts) => self.dense(at, parts, scratch, rows),
                FfnParts::Sparse(parts) => self.sparse(at, parts, scratch, rows),
            }
        }
        self.add_and_norm(scratch, rows, &model.parts.output_norm);
        self.hear_layer(last_layer, scratch, rows);
        let normed = scratch.normed.of(rows * hidden);
        self.ears.hidden(Point::OutputNorm, normed);
        self.clock.other();
        self.head(scratch, rows)
    }

    fn embed(&self, x: &mut [f32]) {
        let (table, map) = (&self.model.parts.token_embd, self.model.map);
        let rows = x.chunks_exact_mut(self.model.h.hidden);
        for (row, &token) in rows.zip(&self.tokens) {
            let read = dequantize(table.ty, table.row(map, token as usize), row);
            read.expect("the table was checked when it was bound");
        }
    }

    /// `x += delta`, and the norm of that.
    fn add_and_norm(&self, scratch: &mut Scratch, rows: usize, weight: &[f32]) {
        let len = rows * self.model.h.hidden;
        let (x, delta) = (scratch.x.of(len), scratch.delta.of(len));
        let eps = self.model.h.norm_eps;
        add_rms_norm(self.crew, x, delta, weight, eps, scratch.normed.of(len));
    }

    fn hear_layer(&mut self, layer: usize, scratch: &mut Scratch, rows: usize) {
        let x = scratch.x.of(rows * self.model.h.hidden);
        self.ears.hidden(Point::After { layer }, x);
    }

    fn head(&mut self, scratch: &mut Scratch, rows: usize) -> Vec<Vec<f32>> {
        let (h, output) = (self.model.h, &self.model.parts.output);
        let normed = scratch.normed.of(rows * h.hidden);
        // A tied head is the embedding, whose importance nobody asks for.
        self.ears.input(None, Role::Output, 0, normed);
        scratch.input.fill(self.crew, normed, h.hidden, [output.ty]);
        let mut logits = vec![0.0; rows * h.vocab];
        let matrix = output.matrix(self.model.map);
        let out = &mut logits[..];
        products(self.crew, &scratch.input, &mut [Product { matrix, out }]);
        self.clock.head(rows, output);
        if self.wanted_of.len() == 1 {
            return vec![logits];
        }
        let mut rest = logits.as_slice();
        let take = |&n: &usize| {
            let (own, others) = rest.split_at(n * h.vocab);
            rest = others;
            own.to_vec()
        };
        self.wanted_of.iter().map(take).collect()
    }

    /// `out = matrix * input`.
    pub fn project(
        &self,
        input: &ggml_kernels::cpu::activations::Activations,
        held: &Held,
        out: &mut [f32],
    ) {
        let matrix = held.matrix(self.model.map);
        products(self.crew, input, &mut [Product { matrix, out }]);
    }

    /// `x += y` over long rows.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        const PIECE: usize = 1 << 14;
        let Crew { pool, tier } = self.crew;
        pool.run_chunks(x, PIECE, &|piece, x, _| {
            math::add(tier, x, &y[piece * PIECE..][..x.len()]);
        });
    }
}

/// Moves the wanted rows to the front. Their numbers rise.
pub(super) fn gather(rows: &mut [f32], wanted: &[usize], width: usize) {
    for (to, &from) in wanted.iter().enumerate() {
        rows.copy_within(from * width..(from + 1) * width, to * width);
    }
}
