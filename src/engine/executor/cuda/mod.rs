//! The model on an NVIDIA card, by kernels of our own (`ggml-kernels/cuda`): nothing of it is computed
//! elsewhere, and no ggml is asked.
//!
//! Parts: `fit` what its kernels take, `upload` and `weights` how a model comes to the card, `rooms`
//! its memory in pieces, `state` what a sequence holds, `small` passes of one token each, `wide` all
//! others with `expanded` for their attention, `head` logits, `shape` sizes as the kernels are told;
//! `clock` what a pass spends its time on, told apart by `kinds` and held against what is `counted`.
//!
//! A token's logits are not the same bits in every company: small passes multiply 8-bit activations,
//! wide ones f16 rows on tensor cores.

#[cfg(test)]
mod card;
mod clock;
mod counted;
mod expanded;
mod fit;
mod head;
mod kept;
mod kinds;
mod rooms;
mod shape;
mod small;
mod state;
mod upload;
mod weights;
mod wide;

use std::sync::Arc;

use ggml_kernels::cuda::ceiling::copy_rate;
use ggml_kernels::cuda::driver::{CudaError, Device, Stream, find};
use ggml_kernels::graph::Outline;
use quantize::schema::{Ffn, Hparams};

use super::{Broken, Executor, Share, State, Watch};
use crate::engine::error::{Cause, Unfit};
use crate::engine::model::Model as File;
use crate::engine::{HostState, Options, Want};
use clock::Choices;
use head::Head;
pub(in crate::engine) use kept::Kept;
use kinds::Manner;
use small::Small;
pub(in crate::engine) use state::State as Held;
use state::{Home, Open, Shape};
use weights::{Needed, Weights};
use wide::Wide;

/// Rows of a wide pass: an expert's matrices are read once for all of them.
const ROWS: usize = 2048;
/// Lanes of a wide pass.
const LANES: usize = 64;

#[derive(Debug)]
pub(in crate::engine) struct Cuda {
    h: Hparams,
    weights: Weights,
    home: Arc<Home>,
    head: Head,
    small: Small,
    wide: Wide,
    stream: Stream,
    name: String,
}

/// The model as a pass sees it.
#[derive(Clone, Copy)]
struct Model<'m> {
    h: &'m Hparams,
    weights: &'m Weights,
    /// Floats of a slot that each KDA layer has.
    kda_values: usize,
}

impl Model<'_> {
    /// Of every kind of feed-forward layer: the width that all rows meet, how many experts are chosen,
    /// and their width.
    fn ffns(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let h = self.h;
        let has = |ffn: Ffn| h.layers.iter().any(|l| l.ffn == ffn);
        let dense = has(Ffn::Dense).then_some((h.dense_ff, 0, 0));
        let shared = if h.moe.shared == 0 {
            0
        } else {
            h.moe.shared_ff
        };
        let sparse = has(Ffn::Sparse).then_some((shared, h.moe.used, h.moe.ff));
        dense.into_iter().chain(sparse)
    }
}

impl Cuda {
    /// On the first card.
    pub fn new(file: &File, options: &Options) -> Result<Cuda, Unfit> {
        fit::check_cache(options.cache_type.tensor_type())?;
        let needed = Needed::of(file)?;
        let device = Device::open(0, &find(options.card_kernels.as_deref())?)?;
        let weights = Weights::upload(file, needed, &device)?;
        let h = file.hparams().clone();
        let shape = Shape::new(&h);
        let model = Model {
            h: &h,
            weights: &weights,
            kda_values: shape.kda_values,
        };
        let rows = options.chunk.unwrap_or(ROWS).max(1);
        Ok(Cuda {
            head: Head::new(&device, model)?,
            small: Small::new(&device, model)?,
            wide: Wide::new(&device, model, rows, LANES)?,
            home: Home::new(&device, shape)?,
            stream: device.stream()?,
            name: format!("CUDA ({})", device.name()),
            weights,
            h,
        })
    }

    fn model(&self) -> Model<'_> {
        Model {
            h: &self.h,
            weights: &self.weights,
            kda_values: self.home.shape().kda_values,
        }
    }

    fn run(
        &mut self,
        shares: &[Share<'_>],
        opens: &[Open],
        choices: Option<&Choices>,
    ) -> Result<Vec<Vec<f32>>, CudaError> {
        // Of fields: others of them change.
        let model = Model {
            h: &self.h,
            weights: &self.weights,
            kda_values: self.home.shape().kda_values,
        };
        if Manner::of(shares) == Manner::Small {
            let lanes = shares.iter().zip(opens);
            let lanes: Vec<_> = lanes.map(|(s, open)| open.lane(s.tokens[0])).collect();
            let nobody = self.home.nobody();
            self.small
                .run((model, &self.head), &self.stream, &lanes, nobody, choices)?;
            let asks = |share: &Share<'_>| share.want != Want::Nothing;
            let wanted: Vec<usize> = (0..shares.len()).filter(|&at| asks(&shares[at])).collect();
            let mut rows = self.head.take(&self.stream, &wanted)?.into_iter();
            let mut of = |share| if asks(share) { rows.next() } else { None };
            return Ok(shares.iter().map(|s| of(s).unwrap_or_default()).collect());
        }
        let (mut tokens, mut parts) = (Vec::new(), Vec::new());
        for (share, open) in shares.iter().zip(opens) {
            parts.push(wide::Share {
                lane: open.wide_lane(tokens.len(), share.tokens.len()),
                wanted: wanted(share),
            });
            tokens.extend(share.tokens);
        }
        let x = self
            .wide
            .run(model, &self.stream, &parts, &tokens, choices)?;
        let mut rest = &self.head.all(model, &self.stream, x)?[..];
        let take = |part: &wide::Share| {
            let (own, others) = rest.split_at(part.wanted * self.h.vocab);
            rest = others;
            own.to_vec()
        };
        Ok(parts.iter().map(take).collect())
    }
}

fn wanted(share: &Share<'_>) -> usize {
    match share.want {
        Want::Nothing => 0,
        Want::Last => 1,
        Want::All => share.tokens.len(),
    }
}

fn held(state: &mut State) -> &mut Held {
    match state {
        State::Cuda(state) => state,
        _ => unreachable!("the engine checks whose state it is"),
    }
}

impl Executor for Cuda {
    fn device(&self) -> &str {
        &self.name
    }

    fn is_batch_invariant(&self) -> bool {
        false
    }

    fn is_on_cpu(&self) -> bool {
        false
    }

    fn copy_rate(&self) -> Option<Result<f64, Cause>> {
        Some(copy_rate(self.stream.device()).map_err(Cause::from))
    }

    fn rows(&self) -> usize {
        self.wide.rows()
    }

    fn state(&self) -> Result<State, Cause> {
        Ok(State::Cuda(Held::new(&self.home)))
    }

    fn keep(&self, state: &State, _: usize) -> super::Kept {
        match state {
            State::Cuda(state) => super::Kept::Cuda(state.keep()),
            _ => unreachable!("the engine checks whose state it is"),
        }
    }

    fn take_up(&self, kept: &super::Kept) -> Option<Result<State, Cause>> {
        match kept {
            super::Kept::Cuda(kept) => {
                let state = kept.taken_up(&self.home)?;
                Some(state.map(State::Cuda).map_err(Cause::from))
            }
            _ => None,
        }
    }

    fn adopt(&self, state: &HostState) -> Option<super::Kept> {
        Kept::adopted(&self.home, state).map(super::Kept::Cuda)
    }

    fn state_bytes(&self, tokens: usize) -> usize {
        self.home.shape().bytes(tokens)
    }

    fn outline(&self, _: usize, _: usize) -> Option<Result<Outline, Cause>> {
        None
    }

    fn pass(
        &mut self,
        shares: &mut [Share<'_>],
        mut watch: Watch<'_>,
    ) -> Result<Vec<Vec<f32>>, Broken> {
        let whole = |cause: Cause| Broken {
            cause,
            states_are_whole: true,
        };
        if watch.listener.is_some() {
            let device = self.name.clone();
            return Err(whole(Cause::Unheard { device }));
        }
        // More lanes than a wide pass takes come in several.
        let mut rows = Vec::with_capacity(shares.len());
        for shares in shares.chunks_mut(LANES) {
            let mut opens = Vec::with_capacity(shares.len());
            for share in shares.iter_mut() {
                let (past, more) = (share.past, share.tokens.len());
                let open = held(share.state).open(past, more, &self.stream);
                opens.push(open.map_err(|why| whole(why.into()))?);
            }
            let done = match &mut watch.meter {
                Some(meter) => self.run_timed(shares, &opens, meter),
                None => self.run(shares, &opens, None),
            };
            match done {
                Ok(logits) => rows.extend(logits),
                Err(why) => {
                    return Err(Broken {
                        cause: why.into(),
                        states_are_whole: opens.iter().all(|open| !open.is_in_place()),
                    });
                }
            }
            for (share, open) in shares.iter_mut().zip(opens) {
                held(share.state).close(open);
            }
        }
        Ok(rows)
    }
}
