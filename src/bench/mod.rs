//! `deltad bench`: how fast a model is here, alone or beside llama.cpp on the same file.
//!
//! | file | job |
//! |---|---|
//! | `side` | who is measured: the engine, and what any other must be able to do |
//! | `rival` | llama.cpp as a side, in programs built with the feature of that name |
//! | `measure` | states read or laid, then repeats in turn, timed |
//! | `doubling` | one sequence as it grows |
//! | `memory`, `company` | what the process holds, and who else is busy |
//! | `report` | the figures as data, and as JSON |
//! | `page`, `picture` | the same as text or Markdown, by `table`, and as SVG |

mod company;
mod doubling;
mod measure;
mod memory;
mod page;
mod picture;
mod report;
#[cfg(feature = "rival")]
mod rival;
mod side;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ggml_kernels::cpu::ceiling::{product_rates, read_rate};
use ggml_kernels::cpu::{Crew, Pool, Tier};

use crate::cli::{Bench, exit};
use crate::doctor::processor;
use crate::engine::{Device, Engine, Experts, LoadError, Options, PassError, Runner, StateError};
use crate::{interrupt, stdio};
use report::{Ceilings, Report, Setting};
use side::{Ours, Side};

/// Depths measured where none are asked for, as far as the model's context goes.
const DEPTHS: [usize; 3] = [0, 8 << 10, 32 << 10];
/// Read for the ceiling: several times the caches of a desktop.
const MEMORY: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("{at} tokens and {more} to measure: got {} tokens, wanted at most {limit}, the model's context", at + more)]
    TooDeep {
        at: usize,
        more: usize,
        limit: usize,
    },
    #[error("--doubling: got {most} tokens, wanted at least {wanted}")]
    TooShort { most: usize, wanted: usize },
    #[error("the pass failed: {0}")]
    Pass(#[from] PassError),
    #[error("no sequence: {0}")]
    State(#[from] StateError),
    #[error("--against llama.cpp: {0}")]
    Rival(String),
    #[error("{}: {why}", path.display())]
    Picture { path: PathBuf, why: io::Error },
    #[error(transparent)]
    Output(io::Error),
    #[error("signals: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
}

impl BenchError {
    pub fn exit_code(&self) -> u8 {
        match self {
            BenchError::Interrupted => exit::INTERRUPTED,
            BenchError::TooDeep { .. } | BenchError::TooShort { .. } => exit::USAGE,
            _ => exit::FAILED,
        }
    }

    /// Whoever stopped it, or reads no more, knows.
    pub fn is_quiet(&self) -> bool {
        match self {
            BenchError::Interrupted => true,
            BenchError::Output(e) => stdio::is_closed(e),
            _ => false,
        }
    }
}

/// Says on standard error how far it is, and when to stop.
pub struct Progress {
    quiet: bool,
    stop: Arc<AtomicBool>,
}

impl Progress {
    pub fn say(&self, what: impl std::fmt::Display) {
        if !self.quiet {
            stdio::remark(what);
        }
    }

    pub fn go_on(&self) -> Result<(), BenchError> {
        if self.stop.load(Relaxed) {
            return Err(BenchError::Interrupted);
        }
        Ok(())
    }
}

/// Measures and prints.
pub fn run(flags: &Bench) -> Result<(), BenchError> {
    let progress = Progress {
        quiet: flags.quiet,
        stop: interrupt::flag().map_err(BenchError::Signals)?,
    };
    let before = memory::own();
    let options = options(flags);
    let engine = Engine::open(&flags.model, &options)?;
    if !engine.is_on_cpu() {
        say_pieces(&engine, &progress)?;
    }
    let setting = setting(flags, &options, &engine);
    let mut report = Report::new(setting);
    let limit = engine.model().context();
    if let Some(most) = flags.doubling {
        room(most, 0, limit)?;
        let wanted = doubling::least(flags.tokens);
        if most < wanted {
            return Err(BenchError::TooShort { most, wanted });
        }
        report.doublings = doubling::run(engine, most, flags.tokens, &progress)?;
    } else {
        let depths = depths(flags, limit)?;
        let mut rival = rival(flags, &options, &engine)?;
        if flags.profile {
            progress.say("measuring what this machine can do at most");
            report.ceilings = Some(match engine.copy_rate()? {
                Some(read) => Ceilings {
                    read,
                    floats: None,
                    bytes: None,
                },
                None => ceilings(flags, &options),
            });
        }
        let opened = memory::own().saturating_sub(before);
        let plan = measure::Plan {
            depths,
            lanes: flags.lanes.iter().map(|&n| n.into()).collect(),
            pass: engine.chunk(),
            prompt: flags.prompt,
            tokens: flags.tokens,
            repeats: flags.repeats.into(),
            profile: flags.profile,
            laid: flags.laid,
            read: (flags.profile && engine.is_on_cpu()).then(|| reader(flags, &options)),
        };
        let mut ours = Ours::new(engine);
        let rival = rival.as_mut().map(|r| &mut **r as &mut dyn Side);
        measure::run(&plan, &mut ours, rival, &progress, &mut report)?;
        report.memory.deltad += opened;
    }
    report.memory.process = memory::peak();
    if let Some(path) = &flags.svg {
        let drawn = std::fs::write(path, picture::draw(&report));
        drawn.map_err(|why| BenchError::Picture {
            path: path.clone(),
            why,
        })?;
    }
    let text = if flags.json {
        report.to_json()
    } else if flags.markdown {
        page::markdown(&report)
    } else {
        page::text(&report)
    };
    stdio::print(text).map_err(BenchError::Output)
}

/// What leaves the device costs more than any kernel.
fn say_pieces(engine: &Engine, progress: &Progress) -> Result<(), BenchError> {
    if let Some(outline) = engine.outline(0, 1)? {
        let away = outline.elsewhere(engine.device()).count();
        progress.say(format_args!(
            "a token's graph on {}: {} pieces, {away} operators elsewhere",
            engine.device(),
            outline.pieces,
        ));
    }
    Ok(())
}

fn options(flags: &Bench) -> Options {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Options {
        // Instructions are the processor's.
        device: match (flags.device, flags.tier) {
            (Some(device), _) => device.into(),
            (None, Some(_)) => Device::Cpu,
            (None, None) => Device::Auto,
        },
        threads: Some(flags.threads.map_or(cores, usize::from)),
        cache_type: flags.cache_type.into(),
        runner: if flags.stock {
            Runner::Stock
        } else {
            Runner::Own(flags.tier)
        },
        chunk: flags.chunk,
        gpu_layers: flags.gpu_layers.map(usize::from),
        experts: flags.experts.map_or(Experts::Auto, Experts::from),
        ..Options::default()
    }
}

fn setting(flags: &Bench, options: &Options, engine: &Engine) -> Setting {
    let processor = processor();
    Setting {
        model: name(&flags.model),
        file_bytes: std::fs::metadata(&flags.model).map_or(0, |m| m.len()),
        processor: processor.name,
        cores: processor.usable,
        device: engine.device().to_owned(),
        threads: options.threads.unwrap_or(1),
        cache_type: format!("{:?}", options.cache_type).to_lowercase(),
        prompt: flags.prompt,
        tokens: flags.tokens,
        repeats: flags.repeats.into(),
        laid: flags.laid,
    }
}

/// What is asked for, or what fits of what is usual.
fn depths(flags: &Bench, limit: usize) -> Result<Vec<usize>, BenchError> {
    let more = flags.prompt.max(flags.tokens + measure::BEFORE);
    room(0, more, limit)?;
    if flags.depths.is_empty() {
        let fit = DEPTHS.into_iter().filter(|depth| depth + more <= limit);
        return Ok(fit.collect());
    }
    for &depth in &flags.depths {
        room(depth, more, limit)?;
    }
    Ok(flags.depths.clone())
}

fn room(at: usize, more: usize, limit: usize) -> Result<(), BenchError> {
    if at.saturating_add(more) > limit {
        return Err(BenchError::TooDeep { at, more, limit });
    }
    Ok(())
}

fn tier(flags: &Bench) -> Tier {
    flags.tier.and_then(Tier::of).unwrap_or_else(Tier::detect)
}

/// Measures how fast memory is read whenever it is asked.
fn reader(flags: &Bench, options: &Options) -> Box<dyn Fn() -> f64> {
    let pool = Pool::new(options.threads.unwrap_or(1));
    let tier = tier(flags);
    Box::new(move || read_rate(Crew { pool: &pool, tier }, MEMORY))
}

fn ceilings(flags: &Bench, options: &Options) -> Ceilings {
    let pool = Pool::new(options.threads.unwrap_or(1));
    let tier = tier(flags);
    let crew = Crew { pool: &pool, tier };
    let products = product_rates(crew);
    Ceilings {
        read: read_rate(crew, MEMORY),
        floats: Some(products.floats),
        bytes: products.bytes,
    }
}

#[cfg(feature = "rival")]
fn rival(
    flags: &Bench,
    options: &Options,
    engine: &Engine,
) -> Result<Option<Box<dyn Side>>, BenchError> {
    if flags.against.is_none() {
        return Ok(None);
    }
    let rival = rival::Theirs::new(&flags.model, options, engine)?;
    Ok(Some(Box::new(rival)))
}

#[cfg(not(feature = "rival"))]
fn rival(flags: &Bench, _: &Options, _: &Engine) -> Result<Option<Box<dyn Side>>, BenchError> {
    if flags.against.is_none() {
        return Ok(None);
    }
    Err(BenchError::Rival(
        "this program was built without it; cargo build --release --features rival has it".into(),
    ))
}

/// A file's name without its folders: reports are shown around.
fn name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}
