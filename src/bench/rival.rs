//! llama.cpp as a side: the same file, threads, cache and size of passes, on a device if we are on one,
//! weights mapped and not repacked. States are kept and taken up again as its own server does it.

use std::path::{Path, PathBuf};

use ggml_kernels::rival::{Llama, RivalCache, RivalError};

use super::BenchError;
use super::side::Side;
use crate::engine::{CacheType, Engine, Options};
use crate::request::Token;

pub struct Theirs {
    path: PathBuf,
    threads: usize,
    cache: RivalCache,
    /// Tokens of a pass.
    pass: usize,
    /// Layers whose weights go to the device.
    gpu_layers: usize,
    lanes: usize,
    /// Opened for a number of sequences and their room.
    opened: Option<Llama>,
    has_fed: bool,
    /// Of each sequence; none where they were empty.
    kept: Vec<Vec<u8>>,
}

impl From<RivalError> for BenchError {
    fn from(why: RivalError) -> BenchError {
        BenchError::Rival(why.to_string())
    }
}

impl Theirs {
    pub fn new(path: &Path, options: &Options, engine: &Engine) -> Result<Theirs, BenchError> {
        let cache = match options.cache_type {
            CacheType::F32 => RivalCache::F32,
            CacheType::F16 => RivalCache::F16,
            other => {
                let why = format!("got cache type {other:?}, wanted f32 or f16");
                return Err(BenchError::Rival(why.to_lowercase()));
            }
        };
        Ok(Theirs {
            path: path.to_owned(),
            threads: options.threads.unwrap_or(1),
            cache,
            pass: engine.chunk(),
            gpu_layers: if engine.is_on_cpu() {
                0
            } else {
                options.gpu_layers.unwrap_or(usize::MAX)
            },
            lanes: 0,
            opened: None,
            has_fed: false,
            kept: Vec::new(),
        })
    }

    fn llama(&mut self) -> Result<&mut Llama, BenchError> {
        let none = || BenchError::Rival("no sequence was begun".into());
        self.opened.as_mut().ok_or_else(none)
    }
}

impl Side for Theirs {
    fn name(&self) -> &'static str {
        "llama.cpp"
    }

    fn begin(&mut self, lanes: usize, room: usize) -> Result<(), BenchError> {
        (self.opened, self.kept) = (None, Vec::new());
        (self.has_fed, self.lanes) = (false, lanes);
        let place = (self.threads, self.gpu_layers);
        let llama = Llama::open_many(&self.path, place, room, self.pass, self.cache, lanes)?;
        self.opened = Some(llama);
        Ok(())
    }

    fn feed(&mut self, lanes: &[(usize, &[Token])]) -> Result<(), BenchError> {
        self.has_fed = true;
        self.llama()?.feed_many(lanes)?;
        Ok(())
    }

    fn stretch(&mut self, lane: usize, depth: usize) -> Result<(), BenchError> {
        self.llama()?.stretch(lane, depth)?;
        Ok(())
    }

    fn keep(&mut self) -> Result<(), BenchError> {
        let lanes = if self.has_fed { self.lanes } else { 0 };
        let llama = self.llama()?;
        let kept = (0..lanes).map(|sequence| llama.state(sequence));
        self.kept = kept.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn go_back(&mut self) -> Result<(), BenchError> {
        let kept = std::mem::take(&mut self.kept);
        let llama = self.llama()?;
        llama.clear();
        for (sequence, state) in kept.iter().enumerate() {
            llama.set_state(sequence, state)?;
        }
        self.kept = kept;
        Ok(())
    }
}
