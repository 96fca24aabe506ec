//! The model as one ggml graph for each lane of a pass: for devices that we have no kernels for, and
//! the twin that our own executors are held against. Lanes run one after another. Products round
//! differently at other widths, so a token's bits depend on how its prompt was cut.
//!
//! | file | job |
//! |---|---|
//! | `weights` | where a model's tensors lie |
//! | `state` | where a sequence's do, and its moments |
//! | `work` | what a lane wants, and what its graph depends on |
//! | `inputs` | what differs between passes of one graph |
//! | `pass` | the graph |
//! | `ready` | short passes, kept with their state |
//! | `listen` | what is computed, as taps |

mod inputs;
mod listen;
mod pass;
mod ready;
mod state;
mod weights;
mod work;

use std::sync::Arc;

use ggml_kernels::backend::{Backend, BackendError};
use ggml_kernels::graph::{Graph, GraphError, Outline};
use ggml_kernels::quant::TensorType;

use super::{Broken, Came, Executor, Share, Watch};
use crate::engine::error::{Cause, Unfit};
use crate::engine::model::Model;
use crate::engine::tap::Listener;
use crate::engine::{HostState, Options, Want};
use listen::Observed;
use ready::Ready;
use state::Shape;
pub(in crate::engine) use state::{Kept, State};
use weights::Weights;
use work::Work;

#[derive(Debug)]
pub(in crate::engine) struct Stock {
    weights: Weights,
    backend: Backend,
    shape: Shape,
}

impl Stock {
    pub fn new(model: &Model, backend: Backend, options: &Options) -> Result<Self, Unfit> {
        let cache: TensorType = options.cache_type.tensor_type();
        let stock = Self {
            weights: Weights::place(model, &backend, options.gpu_layers, options.experts)?,
            shape: Shape::new(model.hparams(), cache),
            backend,
        };
        if !stock.backend.is_cpu() {
            let rows = options.chunk.unwrap_or_else(|| stock.rows());
            stock.check_room(rows.min(model.context()))?;
        }
        Ok(stock)
    }

    /// Refuses a device that has no memory left for a state and a whole pass.
    fn check_room(&self, tokens: usize) -> Result<(), Unfit> {
        let work = Work {
            past: 0,
            tokens: &vec![0; tokens.max(1)],
            want: Want::Last,
        };
        let mut state = State::new(&self.shape, &self.backend)?;
        state.reserve(0, work.end(), &self.backend)?;
        let graph = Graph::new(pass::tensors_needed(&self.weights.hparams))?;
        pass::build(&graph, &self.weights, &mut state, &work)?;
        Ok(graph.check_room(&self.backend)?)
    }

    fn run(
        &mut self,
        share: &mut Share<'_>,
        listener: Option<&mut dyn Listener>,
    ) -> Result<Vec<f32>, Cause> {
        let super::State::Stock(state) = &mut *share.state else {
            unreachable!("the engine checks whose state it is");
        };
        let work = Work {
            past: share.past,
            tokens: share.tokens,
            want: match share.want {
                // It is drawn of the row, by others, and the graph is the same for each.
                Want::Drawn(_) => Want::Last,
                want => want,
            },
        };
        state.reserve(work.past, work.end(), &self.backend)?;
        let (weights, backend) = (&self.weights, &mut self.backend);
        if listener.is_none() && Ready::is_for(&work) {
            return Ok(ready::run(state, weights, backend, &work)?);
        }
        let graph = Graph::new(pass::tensors_needed(&weights.hparams))?;
        let logits = pass::build(&graph, weights, state, &work)?.logits;
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

    fn is_on_cpu(&self) -> bool {
        self.backend.is_cpu()
    }

    fn rows(&self) -> usize {
        // Experts are read once a pass: on one H100, passes of 2048 read a prompt 1.6 times as fast
        // as passes of 512. A processor is busy with fewer.
        if self.backend.is_cpu() { 512 } else { 2048 }
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

    fn adopt(&self, state: &HostState) -> Option<Result<super::Kept, Cause>> {
        let kept = Kept::adopted(&self.shape, state)?;
        Some(Ok(super::Kept::Stock(Arc::new(kept))))
    }

    fn state_bytes(&self, tokens: usize) -> usize {
        self.shape.bytes(tokens)
    }

    fn outline(&self, past: usize, tokens: usize) -> Option<Result<Outline, Cause>> {
        let outline = || {
            let work = Work {
                past,
                tokens: &vec![0; tokens],
                want: Want::Last,
            };
            let mut state = State::new(&self.shape, &self.backend)?;
            state.reserve(0, work.end(), &self.backend)?;
            let ready = Ready::new(&mut state, &self.weights, &self.backend, &work)?;
            Ok(ready.outline())
        };
        Some(outline())
    }

    fn pass(
        &mut self,
        shares: &mut [Share<'_>],
        mut watch: Watch<'_>,
    ) -> Result<Vec<Came>, Broken> {
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
            all.push(Came::Logits(done?));
        }
        Ok(all)
    }
}
