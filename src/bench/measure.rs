//! States read or laid, then repeats in turn: each begins with the same state, so that a repeat is a repeat.
//! Sides take turns within a repeat, so that what else the machine does meets both.

use std::time::Instant;

use super::company::Company;
use super::report::{Figure, Kernel, Rate, Report, Share, What};
use super::side::{Ours, Side, to_stretch};
use super::{BenchError, Progress, memory};
use crate::engine::meter::{Meter, Ran, Work};
use crate::request::Token;

/// Decoded before the first measured token.
pub const BEFORE: usize = 2;

pub struct Plan {
    pub depths: Vec<usize>,
    pub lanes: Vec<usize>,
    /// Tokens of a pass.
    pub pass: usize,
    pub prompt: usize,
    pub tokens: usize,
    pub repeats: usize,
    pub profile: bool,
    /// Depths are laid and not read.
    pub laid: bool,
    /// Measures at how many bytes a second memory is read now.
    pub read: Option<Box<dyn Fn() -> f64>>,
}

/// Measures every depth with every number of lanes; figures go into the report as they come.
pub fn run(
    plan: &Plan,
    ours: &mut Ours,
    mut rival: Option<&mut dyn Side>,
    progress: &Progress,
    report: &mut Report,
) -> Result<(), BenchError> {
    let n_vocab = ours.n_vocab();
    for &depth in &plan.depths {
        for &lanes in &plan.lanes {
            let room = depth + plan.prompt.max(plan.tokens + BEFORE);
            let texts = (0..lanes).map(|lane| text(lane, room, n_vocab));
            let case = Case {
                plan,
                depth,
                texts: &texts.collect::<Vec<_>>(),
                progress,
            };
            let own = case.lay(ours)?;
            report.memory.deltad = report.memory.deltad.max(own);
            if let Some(rival) = &mut rival {
                let own = case.lay(&mut **rival)?;
                report.memory.rival = report.memory.rival.max(Some(own));
            }
            // Lanes read prompts one after the other, and a single one tells how fast.
            let whats: &[What] = match lanes {
                1 => &[What::Prefill, What::Decode],
                _ => &[What::Decode],
            };
            for &what in whats {
                let rival = rival.as_mut().map(|r| &mut **r as &mut dyn Side);
                let mut figure = case.figure(what, ours, rival)?;
                if let Some(ceilings) = &report.ceilings {
                    figure.hold_against(figure.read.unwrap_or(ceilings.read));
                }
                progress.say(&figure);
                report.figures.push(figure);
            }
        }
    }
    Ok(())
}

/// Tokens that mean nothing, each lane's of its own, so that lanes choose experts of their own.
fn text(lane: usize, len: usize, n_vocab: usize) -> Vec<Token> {
    let token = |at: usize| ((lane * 104_729 + at * 7919 + 13) % n_vocab) as Token;
    (0..len).map(token).collect()
}

struct Case<'c> {
    plan: &'c Plan,
    depth: usize,
    /// Of each lane: what lies before, then what is measured.
    texts: &'c [Vec<Token>],
    progress: &'c Progress,
}

impl Case<'_> {
    /// Feeds every lane its depth, or as much as can be stretched to it, and keeps that; the bytes that
    /// the side took for it.
    fn lay(&self, side: &mut dyn Side) -> Result<u64, BenchError> {
        let before = memory::own();
        let (lanes, name) = (self.texts.len(), side.name());
        side.begin(lanes, self.texts[0].len())?;
        let depth = self.depth;
        let read = if self.plan.laid {
            to_stretch(depth)
        } else {
            depth
        };
        if read > 0 {
            self.progress.say(format_args!(
                "{name}: reading {read} tokens for {lanes} lanes"
            ));
        }
        for (lane, text) in self.texts.iter().enumerate() {
            for piece in text[..read].chunks(self.plan.pass) {
                self.progress.go_on()?;
                side.feed(&[(lane, piece)])?;
            }
            if read < depth {
                side.stretch(lane, depth)?;
            }
        }
        side.keep()?;
        // What a pass needs beside the state.
        self.once(What::Decode, side)?;
        Ok(memory::own().saturating_sub(before))
    }

    fn figure(
        &self,
        what: What,
        ours: &mut Ours,
        mut rival: Option<&mut dyn Side>,
    ) -> Result<Figure, BenchError> {
        let company = Company::begin();
        let (mut rates, mut rivals) = (Vec::new(), Vec::new());
        let mut reads = Vec::new();
        for repeat in 0..=self.plan.repeats {
            if let Some(read) = self.plan.read.as_ref().filter(|_| what == What::Decode) {
                reads.push(read());
            }
            let rate = self.once(what, ours)?;
            let rivals_rate = match &mut rival {
                Some(rival) => Some(self.once(what, &mut **rival)?),
                None => None,
            };
            // The first one warmed up.
            if repeat > 0 {
                rates.push(rate);
                rivals.extend(rivals_rate);
            }
        }
        let others = company.end();
        let (profile, kernels) = if self.plan.profile {
            self.profile(what, ours)?
        } else {
            (None, Vec::new())
        };
        let rival = (!rivals.is_empty()).then(|| Rate::of(rivals));
        let figure = Figure::new(what, self.depth, self.texts.len(), Rate::of(rates), rival);
        Ok(Figure {
            others,
            read: (!reads.is_empty()).then(|| Rate::of(reads).median),
            profile,
            kernels,
            ..figure
        })
    }

    /// Tokens a second, of all lanes together.
    fn once(&self, what: What, side: &mut dyn Side) -> Result<f64, BenchError> {
        side.go_back()?;
        let text = |lane: usize, from: usize, n: usize| &self.texts[lane][self.depth + from..][..n];
        let lanes = self.texts.len();
        let step = |side: &mut dyn Side, at: usize| {
            self.progress.go_on()?;
            let fed: Vec<_> = (0..lanes).map(|lane| (lane, text(lane, at, 1))).collect();
            side.feed(&fed)
        };
        let (start, n) = match what {
            What::Prefill => {
                let start = Instant::now();
                for piece in text(0, 0, self.plan.prompt).chunks(self.plan.pass) {
                    self.progress.go_on()?;
                    side.feed(&[(0, piece)])?;
                }
                (start, self.plan.prompt)
            }
            What::Decode => {
                (0..BEFORE).try_for_each(|at| step(side, at))?;
                let start = Instant::now();
                (BEFORE..BEFORE + self.plan.tokens).try_for_each(|at| step(side, at))?;
                (start, lanes * self.plan.tokens)
            }
        };
        Ok(n as f64 / start.elapsed().as_secs_f64())
    }

    /// Once more, with the clock in hand; `None` where the executor has none.
    fn profile(&self, what: What, ours: &mut Ours) -> Result<Profile, BenchError> {
        ours.meter = Some(Meter::default());
        let done = self.once(what, ours);
        let meter = ours.meter.take().unwrap_or_default();
        done?;
        let all = meter.time();
        if all.is_zero() {
            return Ok((None, Vec::new()));
        }
        let passes = match what {
            What::Prefill => 1,
            What::Decode => self.plan.tokens + BEFORE,
        };
        let share = |work: Work| {
            let spent = meter.of(work);
            let seconds = spent.time.as_secs_f64();
            Share {
                work: work.name(),
                arithmetic: if work.is_of_floats() { "f32" } else { "8 bit" },
                milliseconds: seconds * 1e3 / passes as f64,
                share: seconds / all.as_secs_f64(),
                bytes_per_second: rate(spent.bytes, seconds),
                operations_per_second: rate(spent.operations, seconds),
            }
        };
        let spent = Work::ALL
            .into_iter()
            .filter(|w| !meter.of(*w).time.is_zero());
        Ok((Some(spent.map(share).collect()), kernels(&meter, passes)))
    }
}

/// By kind of work, if the executor tells those apart, and by kernel, if it times those.
type Profile = (Option<Vec<Share>>, Vec<Kernel>);

/// Of one pass of so many, the slowest first.
fn kernels(meter: &Meter, passes: usize) -> Vec<Kernel> {
    let (all, passes) = (meter.time().as_secs_f64(), passes as f64);
    let kernel = |(kernel, ran): (&'static str, Ran)| {
        let seconds = ran.time.as_secs_f64();
        Kernel {
            kernel,
            runs: ran.runs as f64 / passes,
            microseconds: seconds * 1e6 / passes,
            share: seconds / all,
        }
    };
    let mut kernels: Vec<Kernel> = meter.kernels().map(kernel).collect();
    kernels.sort_by(|a, b| b.microseconds.total_cmp(&a.microseconds));
    kernels
}

/// `None`: nothing was counted.
fn rate(count: u64, seconds: f64) -> Option<f64> {
    (count > 0).then(|| count as f64 / seconds)
}
