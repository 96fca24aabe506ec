//! A pass kept with the state that it runs on. Short passes come again and again with other inputs
//! and are kept; a long one is another at every depth, and is not.

use ggml_kernels::backend::Backend;
use ggml_kernels::graph::{Graph, GraphError, Outline, Plan};

use super::pass::{self, Built};
use super::state::State;
use super::weights::Weights;
use super::work::{Shape, Work};

/// Passes of at most so many tokens are kept: what decoding asks for. A kept pass holds memory of its
/// own, most of it the logits, and a state keeps one.
const FEW: usize = 8;

#[derive(Debug)]
pub(super) struct Ready {
    shape: Shape,
    plan: Plan,
    built: Built,
}

impl Ready {
    /// The pass of `work` on `state`, which has room for it.
    pub fn new(
        state: &mut State,
        weights: &Weights,
        backend: &Backend,
        work: &Work<'_>,
    ) -> Result<Self, GraphError> {
        let graph = Graph::new(pass::tensors_needed(&weights.hparams))?;
        let built = pass::build(&graph, weights, state, work)?;
        Ok(Self {
            shape: work.shape(),
            plan: graph.keep(backend)?,
            built,
        })
    }

    pub fn outline(&self) -> Outline {
        self.plan.outline()
    }

    pub fn is_for(work: &Work<'_>) -> bool {
        work.tokens.len() <= FEW
    }
}

/// The logits that `work` wants; builds the pass unless the state has kept it.
pub(super) fn run(
    state: &mut State,
    weights: &Weights,
    backend: &mut Backend,
    work: &Work<'_>,
) -> Result<Vec<f32>, GraphError> {
    let kept = state.ready.take().filter(|r| r.shape == work.shape());
    let mut ready = match kept {
        Some(mut ready) => {
            ready.built.inputs.renew(&mut ready.plan, work)?;
            ready
        }
        None => Ready::new(state, weights, backend, work)?,
    };
    let states = &mut [&mut state.fixed, &mut state.rows];
    ready.plan.run(backend, states)?;
    let logits = match ready.built.logits {
        Some(logits) => ready.plan.read(backend, logits)?,
        None => Vec::new(),
    };
    state.ready = Some(ready);
    Ok(logits)
}
