//! The model on an NVIDIA card, by kernels of our own (`ggml-kernels/cuda`): nothing of it is computed
//! elsewhere but routed experts that have no room there, and no ggml is asked.
//!
//! Parts: `fit` what its kernels take, `upload` and `weights` how a model comes to the card, `rooms`
//! its memory in pieces, `state` what a sequence holds, `small` passes of one token each, `wide` all
//! others with `expanded` for their attention, `head` logits and `draw` the tokens chosen of them, `shape` sizes as the kernels are told,
//! `place` where routed experts go, `aside` those that the processor computes, `clock` what a pass spends
//! its time on, told apart by `kinds` and held against what is `counted`.
//!
//! A token's logits are not the same bits in every company: small passes multiply 8-bit activations,
//! wide ones f16 rows on tensor cores.

mod aside;
#[cfg(test)]
mod card;
mod clock;
mod counted;
mod draw;
mod expanded;
mod fit;
mod head;
mod kept;
mod kinds;
mod place;
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
use ggml_kernels::cuda::mixers::MOST_ROWS;
use ggml_kernels::graph::Outline;
use quantize::schema::Hparams;

use super::cpu::Routed;
use super::{Broken, Came, Executor, Share, State, Watch};
use crate::engine::error::{Cause, Unfit};
use crate::engine::model::Model as File;
use crate::engine::{HostState, Kind, Options, Want, tier};
use aside::Aside;
use clock::Choices;
use head::Head;
pub(in crate::engine) use kept::Kept;
use kinds::Manner;
use place::{Place, Settled, Work};
use small::Small;
pub(in crate::engine) use state::State as Held;
use state::{Home, Open};
use weights::Weights;
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
    /// Where the card has no room for experts, or was not to have them.
    aside: Option<Aside>,
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

impl Cuda {
    /// On the first card. `processor`: its instructions and threads, where it computes experts.
    pub fn new(
        file: &File,
        processor: (Option<Kind>, usize),
        options: &Options,
    ) -> Result<Cuda, Unfit> {
        // Whether there is a card comes first: without one nothing else is worth a word.
        let device = Device::open(0, &find(options.card_kernels.as_deref())?)?;
        fit::check_cache(options.cache_type.tensor_type())?;
        let rows = options.chunk.unwrap_or(ROWS).max(1);
        let Settled {
            place,
            weights,
            work,
        } = place::settle(file, &device, options.experts, rows)?;
        let Work {
            head,
            small,
            wide,
            home,
        } = work;
        let (h, name) = (file.hparams().clone(), format!("CUDA ({})", device.name()));
        let aside = match place {
            Place::Card => None,
            Place::Processor => Some(aside(file, &device, processor, rows)?),
        };
        Ok(Cuda {
            name: match &aside {
                Some(_) => format!("{name}, experts on the CPU"),
                None => name,
            },
            weights: Weights::upload(file, weights, &device)?,
            stream: device.stream()?,
            aside,
            head,
            small,
            wide,
            home,
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
    ) -> Result<Vec<Came>, CudaError> {
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
            let wants: Vec<Want> = shares.iter().map(|s| s.want).collect();
            self.head.ask(&wants)?;
            let (part, aside) = ((model, &self.head), self.aside.as_mut());
            self.small
                .run(part, &self.stream, &lanes, nobody, aside, choices)?;
            return self.head.take(&self.stream, &wants);
        }
        let (mut tokens, mut parts) = (Vec::new(), Vec::new());
        for (share, open) in shares.iter().zip(opens) {
            parts.push(wide::Share {
                lane: open.wide_lane(tokens.len(), share.tokens.len()),
                wanted: wanted(share),
            });
            tokens.extend(share.tokens);
        }
        let aside = self.aside.as_mut();
        let x = self
            .wide
            .run(model, &self.stream, &parts, &tokens, aside, choices)?;
        let mut rest = &self.head.all(model, &self.stream, x)?[..];
        let take = |part: &wide::Share| {
            let (own, others) = rest.split_at(part.wanted * self.h.vocab);
            rest = others;
            Came::Logits(own.to_vec())
        };
        Ok(parts.iter().map(take).collect())
    }
}

/// Routed experts with the processor.
fn aside(
    file: &File,
    device: &Device,
    (kind, threads): (Option<Kind>, usize),
    rows: usize,
) -> Result<Aside, Unfit> {
    let experts = Routed::new(file, tier(kind)?, threads)?;
    let rows = rows.max(MOST_ROWS);
    Ok(Aside::new(device, file.hparams(), rows, experts)?)
}

fn wanted(share: &Share<'_>) -> usize {
    match share.want {
        Want::Nothing => 0,
        Want::Last | Want::Drawn(_) => 1,
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

    fn adopt(&self, state: &HostState) -> Option<Result<super::Kept, Cause>> {
        let kept = Kept::adopted(&self.home, state)?;
        Some(Ok(super::Kept::Cuda(kept)))
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
    ) -> Result<Vec<Came>, Broken> {
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
            let ran = match &mut watch.meter {
                Some(meter) => self.run_timed(shares, &opens, meter),
                None => self.run(shares, &opens, None),
            };
            if let Some(aside) = &mut self.aside {
                aside.look();
            }
            match ran {
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
