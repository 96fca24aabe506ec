//! The model as one ggml graph, built anew for each lane of each pass: for devices that we have no
//! kernels for, and the twin that our own executors are held against. Lanes run one after another.
//! Products round differently at other widths, so a token's bits depend on how its prompt was cut.

mod listen;
mod pass;
mod state;
mod weights;

use std::sync::Arc;

use ggml_kernels::backend::{Backend, BackendError};
use ggml_kernels::graph::{Graph, GraphError};
use ggml_kernels::quant::TensorType;

use super::{Broken, Executor, Share, Watch};
use crate::engine::error::{Cause, Unfit};
use crate::engine::model::Model;
use crate::engine::tap::Listener;
use crate::engine::{HostState, Options};
use listen::Observed;
use state::Shape;
pub(in crate::engine) use state::{Kept, State};
use weights::Weights;

#[derive(Debug)]
pub(in crate::engine) struct Stock {
    weights: Weights,
    backend: Backend,
    shape: Shape,
}

impl Stock {
    pub fn new(model: &Model, backend: Backend, options: &Options) -> Result<Self, Unfit> {
        let cache: TensorType = options.cache_type.tensor_type();
        Ok(Self {
            weights: Weights::place(model, &backend, options.gpu_layers)?,
            shape: Shape::new(model.hparams(), cache),
            backend,
        })
    }

    fn run(
        &mut self,
        share: &mut Share<'_>,
        listener: Option<&mut dyn Listener>,
    ) -> Result<Vec<f32>, Cause> {
        let super::State::Stock(state) = &mut *share.state else {
            unreachable!("the engine checks whose state it is");
        };
        state.reserve(share.past, share.past + share.tokens.len(), &self.backend)?;
        let (weights, backend) = (&self.weights, &mut self.backend);
        let graph = Graph::new(pass::tensors_needed(&weights.hparams))?;
        let work = pass::Work {
            past: share.past,
            tokens: share.tokens,
            want: share.want,
        };
        let logits = pass::build(&graph, weights, state, &work)?;
        let computed = match listener {
            Some(listener) => {
                let mut observed = Observed::new(&weights.names, listener);
                graph.compute_observed(backend, &mut observed)?
            }
            None => graph.compute(backend)?,
        };
        Ok(logits.map_or(Ok(Vec::new()), |logits| computed.read(logits))?)
    }
}

impl Executor for Stock {
    fn device(&self) -> &str {
        self.backend.name()
    }

    fn is_batch_invariant(&self) -> bool {
        false
    }

    fn state(&self) -> Result<super::State, Cause> {
        let state = State::new(&self.shape, &self.backend)?;
        Ok(super::State::Stock(Box::new(state)))
    }

    fn keep(&self, state: &super::State, len: usize) -> super::Kept {
        let super::State::Stock(state) = state else {
            unreachable!("the engine checks whose state it is");
        };
        super::Kept::Stock(Arc::new(state.keep(len)))
    }

    fn take_up(&self, kept: &super::Kept) -> Option<Result<super::State, Cause>> {
        let super::Kept::Stock(kept) = kept else {
            return None;
        };
        let restored = State::restored(kept, &self.shape, &self.backend)?;
        Some(restored.map(|state| super::State::Stock(Box::new(state))))
    }

    fn adopt(&self, state: &HostState) -> Option<super::Kept> {
        let kept = Kept::adopted(&self.shape, state)?;
        Some(super::Kept::Stock(Arc::new(kept)))
    }

    fn state_bytes(&self, tokens: usize) -> usize {
        self.shape.bytes(tokens)
    }

    fn pass(
        &mut self,
        shares: &mut [Share<'_>],
        mut watch: Watch<'_>,
    ) -> Result<Vec<Vec<f32>>, Broken> {
        let mut all = Vec::with_capacity(shares.len());
        for (at, share) in shares.iter_mut().enumerate() {
            let done = self.run(share, watch.again().listener).map_err(|cause| {
                let computing = matches!(
                    cause,
                    Cause::Graph(GraphError::Backend(BackendError::Compute(_)))
                );
                // The lanes before this one have written their states.
                let states_are_whole = at == 0 && !computing;
                Broken {
                    cause,
                    states_are_whole,
                }
            });
            all.push(done?);
        }
        Ok(all)
    }
}
