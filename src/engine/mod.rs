//! The model and its sequences: passes over any number of lanes, on one thread. Knows no text, no
//! requests beyond a token's type, and no clock.
//!
//! ```no_run
//! # use deltad::engine::{Engine, Lane, Options, Want};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut engine = Engine::open("model.gguf".as_ref(), &Options::default())?;
//! let (mut one, mut other) = (engine.sequence()?, engine.sequence()?);
//! let logits = engine.forward(&mut [
//!     Lane { sequence: &mut one, tokens: &[1, 2, 3], want: Want::Last },
//!     Lane { sequence: &mut other, tokens: &[7], want: Want::Last },
//! ])?;
//! assert_eq!(logits.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! | file | job |
//! |---|---|
//! | `model` | an opened file, held against the schema |
//! | `digest` | what tells it from others |
//! | `layers` | its tensors as fields, for any executor |
//! | `sequence` | a conversation's state and its moments |
//! | `host` | those as bytes, for files |
//! | `executor` | ways to run a pass: `cpu` and `cuda` (kernels of our own), `stock` (a ggml graph) |
//! | `tap` | what a pass shows to who listens |
//! | `meter` | what its time went to |

use std::path::Path;
use std::sync::Arc;

use ggml_kernels::backend::{Backend, DeviceKind, GpuApi};
use ggml_kernels::cpu::Tier;
use ggml_kernels::gguf::GgufError;
pub use ggml_kernels::graph::{Operand, Operator, Outline};
pub use ggml_kernels::heap::trim;

use crate::request::{Draw, Few, Token};

mod digest;
mod error;
mod executor;
mod host;
mod layers;
pub mod meter;
mod model;
mod options;
pub mod room;
mod sequence;
mod tap;

pub use digest::Digests;
pub use error::{Cause, LaneError, LoadError, PassError, StateError, Unfit};
pub use executor::Spare;
pub use host::{BLOCK, HostState, Lent, LentFile, fetch};
pub use model::Model;
pub use options::{CacheType, Device, Experts, Kind, Options, Runner};
pub use sequence::{Sequence, Snapshot};
pub use tap::{Listener, Point, Tap};

use executor::{Broken, Came, Executor, Share, Watch, cpu::Cpu, cuda::Cuda, stock::Stock};
use meter::Meter;
use sequence::ModelId;

/// Which positions of a lane the caller wants logits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Want {
    Nothing,
    Last,
    All,
    /// A token drawn of the last one's, or the few that it is among, where the device can say so; else as
    /// [`Want::Last`].
    Drawn(Draw),
}

/// One sequence's share of a pass. (`S`: other engines than ours, in tests.)
#[derive(Debug)]
pub struct Lane<'t, S = Sequence> {
    pub sequence: &'t mut S,
    pub tokens: &'t [Token],
    pub want: Want,
}

/// `[n_rows, n_vocab]`, f32, row-major: one row per wanted position, oldest first. Of what was
/// [`Want::Drawn`] perhaps that instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    n_vocab: usize,
    came: Came,
}

/// What a device made of the logits that it kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Drawn {
    Token(Token),
    Few(Few),
}

/// What is known of the token after a lane's last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next<'l> {
    /// `[n_vocab]`.
    Logits(&'l [f32]),
    Token(Token),
    Few(&'l Few),
}

impl Logits {
    /// Of rows of `n_vocab` values each.
    pub fn new(n_vocab: usize, data: Vec<f32>) -> Logits {
        debug_assert!(data.len().is_multiple_of(n_vocab.max(1)));
        let came = Came::Logits(data);
        Logits { n_vocab, came }
    }

    /// Of none, but what is known of the next token.
    pub fn drawn(n_vocab: usize, drawn: Drawn) -> Logits {
        let came = Came::Drawn(drawn);
        Logits { n_vocab, came }
    }

    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data().chunks_exact(self.n_vocab)
    }
    pub fn last(&self) -> Option<&[f32]> {
        self.data().rchunks_exact(self.n_vocab).next()
    }

    pub fn next(&self) -> Option<Next<'_>> {
        match &self.came {
            Came::Drawn(Drawn::Token(token)) => Some(Next::Token(*token)),
            Came::Drawn(Drawn::Few(few)) => Some(Next::Few(few)),
            Came::Logits(_) => self.last().map(Next::Logits),
        }
    }

    fn data(&self) -> &[f32] {
        match &self.came {
            Came::Logits(data) => data,
            Came::Drawn(_) => &[],
        }
    }

    /// What came of further positions.
    fn add(&mut self, came: Came) {
        match (&mut self.came, came) {
            (Came::Logits(data), Came::Logits(more)) if !data.is_empty() => data.extend(more),
            (here, came) => *here = came,
        }
    }
}

/// Runs passes. One thread owns it (it may move between threads).
#[derive(Debug)]
pub struct Engine {
    model: Model,
    executor: Box<dyn Executor>,
    id: ModelId,
    chunk: usize,
}

impl Engine {
    /// Opens `path`; mapped weights are read when they are first touched.
    pub fn open(path: &Path, options: &Options) -> Result<Engine, LoadError> {
        let model = Model::open(path, options)?;
        let executor = start(&model, options).map_err(LoadError::at(path))?;
        if let Some(damaged) = model.file.damaged() {
            return Err(LoadError::at(path)(GgufError::from(damaged).into()));
        }
        let executor_rows = executor.rows();
        Ok(Engine {
            model,
            executor,
            id: ModelId::next(),
            chunk: options.chunk.unwrap_or(executor_rows).max(1),
        })
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The device that it runs on, as people know it.
    pub fn device(&self) -> &str {
        self.executor.device()
    }

    /// Nothing but the processor computes.
    pub fn is_on_cpu(&self) -> bool {
        self.executor.is_on_cpu()
    }

    /// Bytes a second that copies within the device's memory move, read and written, measured now.
    /// `None`: the processor computes, or nobody can measure.
    pub fn copy_rate(&self) -> Result<Option<f64>, StateError> {
        Ok(self.executor.copy_rate().transpose()?)
    }

    /// Rows of one pass, all lanes together.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// A token's logits are the same bits whoever else is in the pass, and however its prompt was
    /// cut.
    pub fn is_batch_invariant(&self) -> bool {
        self.executor.is_batch_invariant()
    }

    /// What lies ready for the next sequences, for whoever gives it back when memory is short.
    pub fn spare(&self) -> Option<Arc<dyn Spare>> {
        self.executor.spare()
    }

    /// Bytes of the state of a sequence of so many tokens.
    pub fn state_bytes(&self, tokens: usize) -> usize {
        self.executor.state_bytes(tokens)
    }

    /// What a pass of `tokens` behind `past` others consists of, and on which device each piece of it
    /// runs. `None` where no graph of ggml's is run.
    pub fn outline(&self, past: usize, tokens: usize) -> Result<Option<Outline>, StateError> {
        Ok(self.executor.outline(past, tokens.max(1)).transpose()?)
    }

    pub fn sequence(&self) -> Result<Sequence, StateError> {
        Ok(Sequence {
            state: self.executor.state()?,
            lent: Lent::default(),
            len: 0,
            model: self.id,
            broken: false,
        })
    }

    pub fn snapshot(&self, sequence: &Sequence) -> Snapshot {
        Snapshot {
            kept: self.executor.keep(&sequence.state, sequence.len),
            lent: sequence.lent.clone(),
            len: sequence.len,
            model: sequence.model,
        }
    }

    pub fn restore(&self, snapshot: &Snapshot) -> Result<Sequence, StateError> {
        if snapshot.model != self.id {
            return Err(StateError::Foreign);
        }
        if let Some(why) = snapshot.lent.damaged() {
            return Err(StateError::Lost(why));
        }
        let state = self.executor.take_up(&snapshot.kept);
        Ok(Sequence {
            state: state.ok_or(StateError::Foreign)??,
            lent: snapshot.lent.clone(),
            len: snapshot.len,
            model: self.id,
            broken: false,
        })
    }

    /// Why no pass can be believed any more, if that is so: the model's file changed under us.
    pub fn damaged(&self) -> Option<Cause> {
        self.model.damaged()
    }

    /// Feeds every lane its tokens, any number of them, and returns each lane's wanted logits: none of a
    /// lane whose rows lie in a file that was damaged meanwhile.
    pub fn forward(&mut self, lanes: &mut [Lane<'_>]) -> Result<Vec<Logits>, PassError> {
        self.run(lanes, Watch::default())
    }

    /// As [`Engine::forward`], showing what happens to `listener`. Slow.
    pub fn forward_heard(
        &mut self,
        lanes: &mut [Lane<'_>],
        listener: &mut dyn Listener,
    ) -> Result<Vec<Logits>, PassError> {
        let watch = Watch {
            listener: Some(listener),
            ..Watch::default()
        };
        self.run(lanes, watch)
    }

    /// As [`Engine::forward`], telling `meter` what the time went to. Executors that cannot tell
    /// leave it as it was.
    pub fn forward_metered(
        &mut self,
        lanes: &mut [Lane<'_>],
        meter: &mut Meter,
    ) -> Result<Vec<Logits>, PassError> {
        let watch = Watch {
            meter: Some(meter),
            ..Watch::default()
        };
        self.run(lanes, watch)
    }

    /// One lane alone.
    pub fn feed(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[Token],
        want: Want,
    ) -> Result<Logits, PassError> {
        let lane = Lane {
            sequence,
            tokens,
            want,
        };
        let logits = self.forward(&mut [lane])?.pop();
        Ok(logits.unwrap_or_else(|| Logits::new(self.model.n_vocab(), Vec::new())))
    }

    fn run(
        &mut self,
        lanes: &mut [Lane<'_>],
        mut watch: Watch<'_>,
    ) -> Result<Vec<Logits>, PassError> {
        for (lane, wish) in lanes.iter().enumerate() {
            let refuse = |why| PassError::Refused { lane, why };
            self.check(wish).map_err(refuse)?;
        }
        let n_vocab = self.model.n_vocab();
        let mut logits = vec![Logits::new(n_vocab, Vec::new()); lanes.len()];
        let mut done = vec![0; lanes.len()];
        loop {
            let (mut room, mut who, mut shares) = (self.chunk, Vec::new(), Vec::new());
            for (at, lane) in lanes.iter_mut().enumerate() {
                let rest = &lane.tokens[done[at]..];
                let tokens = &rest[..rest.len().min(room)];
                if tokens.is_empty() {
                    continue;
                }
                room -= tokens.len();
                done[at] += tokens.len();
                let is_last = tokens.len() == rest.len();
                who.push(at);
                shares.push(Share {
                    state: &mut lane.sequence.state,
                    past: lane.sequence.len,
                    tokens,
                    want: match lane.want {
                        Want::Last | Want::Drawn(_) if !is_last => Want::Nothing,
                        want => want,
                    },
                });
            }
            if shares.is_empty() {
                return Ok(logits);
            }
            let fed: Vec<usize> = shares.iter().map(|s| s.tokens.len()).collect();
            let passed = self.executor.pass(&mut shares, watch.again());
            // Whatever came of zeros, this is why.
            let passed = match self.model.damaged() {
                None => passed,
                Some(cause) => Err(Broken {
                    cause,
                    states_are_whole: false,
                }),
            };
            let rows = passed.map_err(|broken| fail(lanes, &who, broken))?;
            for ((at, fed), came) in who.into_iter().zip(fed).zip(rows) {
                lanes[at].sequence.len += fed;
                if lanes[at].sequence.lent.damaged().is_some() {
                    // It alone was made of zeros: the others go on.
                    lanes[at].sequence.broken = true;
                    done[at] = lanes[at].tokens.len();
                    logits[at] = Logits::new(n_vocab, Vec::new());
                    continue;
                }
                logits[at].add(came);
            }
        }
    }

    fn check(&self, lane: &Lane<'_>) -> Result<(), LaneError> {
        let (n_vocab, sequence) = (self.model.n_vocab(), &*lane.sequence);
        if sequence.model != self.id {
            return Err(LaneError::Foreign);
        }
        if let Some(why) = sequence.lent.damaged() {
            return Err(LaneError::Lost(why));
        }
        if sequence.broken {
            return Err(LaneError::Broken);
        }
        if let Some(&token) = lane.tokens.iter().find(|&&t| t as usize >= n_vocab) {
            return Err(LaneError::NoSuchToken { token, n_vocab });
        }
        let (have, more) = (sequence.len, lane.tokens.len());
        let limit = self.model.context();
        if have.saturating_add(more) > limit {
            return Err(LaneError::ContextFull { have, more, limit });
        }
        Ok(())
    }
}

fn fail(lanes: &mut [Lane<'_>], who: &[usize], broken: Broken) -> PassError {
    for &at in who {
        lanes[at].sequence.broken |= !broken.states_are_whole;
    }
    broken.cause.into()
}

fn start(model: &Model, options: &Options) -> Result<Box<dyn Executor>, Unfit> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(cores);
    let card = match (options.device, options.runner) {
        (Device::Auto | Device::Cuda, Runner::Own(kind)) if options.gpu_layers.is_none() => {
            match Cuda::new(model, (kind, threads), options) {
                Ok(cuda) => return Ok(Box::new(cuda)),
                Err(why) => Some(why),
            }
        }
        _ => None,
    };
    let kind = match options.device {
        Device::Auto => DeviceKind::Auto,
        Device::Cpu => DeviceKind::Cpu,
        Device::Cuda => DeviceKind::Gpu(GpuApi::Cuda),
        Device::Metal => DeviceKind::Gpu(GpuApi::Metal),
        Device::Vulkan => DeviceKind::Gpu(GpuApi::Vulkan),
    };
    let backend = match (Backend::open(kind, threads), card) {
        // Nothing else runs on the card that was asked for: why ours does not is what counts.
        (Err(_), Some(why)) => return Err(why),
        (backend, why) => {
            say_why_not(options.device, why);
            backend?
        }
    };
    match options.runner {
        Runner::Own(kind) if backend.is_cpu() => {
            Ok(Box::new(Cpu::new(model, tier(kind)?, threads, options)?))
        }
        _ => Ok(Box::new(Stock::new(model, backend, options)?)),
    }
}

/// `None`: the best that the processor has.
fn tier(kind: Option<Kind>) -> Result<Tier, Unfit> {
    match kind {
        Some(kind) => Tier::of(kind).ok_or(Unfit::NoTier { kind }),
        None => Ok(Tier::detect()),
    }
}

/// A card that does not run the model is worth a word; a machine without one is not.
fn say_why_not(device: Device, why: Option<Unfit>) {
    match why {
        None => {}
        Some(Unfit::Card(why)) if why.is_absence() && device == Device::Auto => {
            log::debug!("no card: {why}");
        }
        Some(why) => log::warn!("not on the card by kernels of our own: {why}"),
    }
}
