//! The model on the processor, by kernels of our own over slices: no graph, every lane in one pass,
//! and the same bits for a token whoever else is in it, however its prompt was cut, on any number
//! of threads.
//!
//! Parts: `weights` where the tensors lie, `state` what a sequence holds, `slots` its part of one size, `pass` the layers,
//! `mixers` and `ffn` what a layer is made of, `scratch` the memory that passes share, `clock` who
//! asks for the time, `hunger` what is done where weights are missing from memory,
//! `routed` experts alone, beside a card.

mod clock;
mod ffn;
mod hunger;
mod mixers;
mod pass;
mod routed;
mod scratch;
mod slots;
mod state;
mod weights;

use std::sync::Arc;

use ggml_kernels::cpu::{Crew, Pool, Tier};
use ggml_kernels::gguf::GgufFile;
use ggml_kernels::graph::Outline;
use ggml_kernels::quant::TensorType;

use super::{Broken, Came, Executor, Kept, Share, Spare, State, Watch};
use crate::engine::error::{Cause, Unfit};
use crate::engine::model::Model;
use crate::engine::room;
use crate::engine::{HostState, Options};
use hunger::Hunger;
use pass::Pass;
pub(in crate::engine) use routed::Routed;
use scratch::Scratch;
use state::Shape;
pub(in crate::engine) use state::State as Held;
use weights::Bound;

#[derive(Debug)]
pub(in crate::engine) struct Cpu {
    hparams: quantize::schema::Hparams,
    /// Mapped: the weights stay where they are.
    file: Arc<GgufFile>,
    parts: Bound,
    shape: Arc<Shape>,
    cache: TensorType,
    pool: Pool,
    tier: Tier,
    scratch: Scratch,
    hunger: Hunger,
    name: String,
}

impl Cpu {
    pub fn new(model: &Model, tier: Tier, threads: usize, options: &Options) -> Result<Cpu, Unfit> {
        let cache = options.cache_type.tensor_type();
        let map = model.file.map();
        let parts = weights::bind(model)?;
        let shape = Shape::new(model.hparams(), cache);
        shape.slots.warm();
        Ok(Cpu {
            parts,
            shape: Arc::new(shape),
            hparams: model.hparams().clone(),
            file: model.file.clone(),
            cache,
            pool: Pool::new(threads),
            tier,
            scratch: Scratch::default(),
            hunger: Hunger::of(map, room::has(map.len())),
            name: format!("CPU ({tier})"),
        })
    }
}

impl Executor for Cpu {
    fn device(&self) -> &str {
        &self.name
    }

    fn is_batch_invariant(&self) -> bool {
        true
    }

    fn is_on_cpu(&self) -> bool {
        true
    }

    fn rows(&self) -> usize {
        512
    }

    fn spare(&self) -> Option<Arc<dyn Spare>> {
        Some(self.shape.slots.clone())
    }

    fn state(&self) -> Result<State, Cause> {
        Ok(State::Cpu(Held::new(&self.shape)))
    }

    fn keep(&self, state: &State, _: usize) -> Kept {
        match state {
            State::Cpu(state) => Kept::Cpu(state.clone()),
            _ => unreachable!("the engine checks whose state it is"),
        }
    }

    fn take_up(&self, kept: &Kept) -> Option<Result<State, Cause>> {
        match kept {
            Kept::Cpu(state) if state.is_of(&self.shape) => Some(Ok(State::Cpu(state.clone()))),
            _ => None,
        }
    }

    fn adopt(&self, state: &HostState) -> Option<Result<Kept, Cause>> {
        let held = Held::adopted(&self.shape, state)?;
        Some(held.map(Kept::Cpu))
    }

    fn lends(&self) -> bool {
        true
    }

    fn state_bytes(&self, tokens: usize) -> usize {
        self.shape.bytes(tokens)
    }

    fn outline(&self, _: usize, _: usize) -> Option<Result<Outline, Cause>> {
        None
    }

    fn pass(
        &mut self,
        shares: &mut [Share<'_>],
        mut watch: Watch<'_>,
    ) -> Result<Vec<Came>, Broken> {
        let whole = |cause| Broken {
            cause,
            states_are_whole: true,
        };
        let crew = Crew {
            pool: &self.pool,
            tier: self.tier,
        };
        let model = pass::Weights {
            h: &self.hparams,
            parts: &self.parts,
            map: self.file.map(),
            kda: self.shape.kda,
            cache: self.cache,
            is_hungry: self.hunger.is_felt(),
        };
        let pass = Pass::new(crew, model, shares, watch.again()).map_err(whole)?;
        let rows = pass.run(&mut self.scratch);
        self.hunger.look();
        Ok(rows.into_iter().map(Came::Logits).collect())
    }
}
