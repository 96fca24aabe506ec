//! Fixture checkpoints, converted once, and their golden values.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltad::engine::{CacheType, Device, Engine, LoadError, Options, Runner, Unfit};
use ggml_kernels::cpu::Tier;
use quantize::convert::{Conversion, Input, Silent};
use safetensors::SafeTensors;

/// `tiny`: powers of two. `uneven`: every size differs, three shards, bf16. `apart`: heads apart.
/// `ling_tiny`: Ling's, queries through a low rank, groups of experts. `ling_small`: plain queries,
/// bounds, a trailing layer, a block that guesses ahead; three shards, bf16. `ling_odd`: no two sizes
/// equal, three taps, an output that is the embedding.
pub const FIXTURES: [&str; 6] = [
    "tiny",
    "uneven",
    "apart",
    "ling_tiny",
    "ling_small",
    "ling_odd",
];

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A fixture as a GGUF of file type `to`, in a directory that goes with the value.
pub struct Converted {
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

pub fn convert(name: &str, to: &str) -> Converted {
    convert_directory(&fixture(name), name, to)
}

/// The trained model that `make demo` talks to.
pub fn convert_trained(to: &str) -> Converted {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
    convert_directory(&demo, "trained", to)
}

/// `None` where the model's cache rows are no whole blocks of the cache's type; anything else that
/// keeps a model from opening is no reason to go without it.
pub fn open(path: &Path, options: &Options) -> Option<Engine> {
    match Engine::open(path, options) {
        Ok(engine) => Some(engine),
        Err(LoadError {
            why: Unfit::CacheType { .. },
            ..
        }) => None,
        Err(e) => panic!("{e}"),
    }
}

fn convert_directory(from: &Path, name: &str, to: &str) -> Converted {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("{name}-{to}.gguf"));
    let input = Input::open(from).unwrap();
    let options = quantize::convert::Options {
        to: to.parse().unwrap(),
        overrides: Vec::new(),
    };
    let conversion = Conversion::plan(&input, &options).unwrap();
    let never = AtomicBool::new(false);
    conversion
        .write(&path, false, None, &never, &mut Silent)
        .unwrap();
    Converted { path, _dir: dir }
}

pub fn options(cache_type: CacheType, chunk: usize) -> Options {
    Options {
        device: Device::Cpu,
        threads: Some(1),
        cache_type,
        chunk: Some(chunk),
        ..Options::default()
    }
}

pub fn engine(model: &Converted, cache_type: CacheType, chunk: usize) -> Engine {
    let options = options(cache_type, chunk);
    Engine::open(&model.path, &options).unwrap()
}

/// Everything that runs a model on this machine's processor: ggml's graph, and our own kernels of
/// every tier.
pub fn executors() -> Vec<Runner> {
    let own = Tier::available().into_iter();
    let own = own.map(|tier| Runner::Own(Some(tier.kind())));
    [Runner::Stock].into_iter().chain(own).collect()
}

/// `model` on each of them.
pub fn engines(
    model: &Converted,
    cache_type: CacheType,
    chunk: usize,
) -> impl Iterator<Item = (Runner, Engine)> {
    executors().into_iter().map(move |runner| {
        let options = Options {
            runner,
            ..options(cache_type, chunk)
        };
        (runner, Engine::open(&model.path, &options).unwrap())
    })
}

pub struct Golden(Vec<u8>);

impl Golden {
    pub fn of(name: &str) -> Self {
        Self(std::fs::read(fixture(name).join("golden.safetensors")).unwrap())
    }
    /// The trained model's, over a text longer than a chunk.
    pub fn trained() -> Self {
        Self(std::fs::read(fixture("trained.safetensors")).unwrap())
    }
    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }
    fn words(&self, name: &str) -> Option<Vec<[u8; 4]>> {
        let tensors = self.tensors();
        let data = tensors.tensor(name).ok()?.data();
        let words = data.chunks_exact(4);
        Some(words.map(|w| w.try_into().unwrap()).collect())
    }
    pub fn f32(&self, name: &str) -> Option<Vec<f32>> {
        let words = self.words(name)?;
        Some(words.into_iter().map(f32::from_le_bytes).collect())
    }
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        let words = self.words(name).unwrap();
        words.into_iter().map(u32::from_le_bytes).collect()
    }
    /// The prompts' lengths, shortest first.
    pub fn lengths(&self) -> Vec<usize> {
        let names = self
            .tensors()
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let lengths = names.iter().filter_map(|n| n.strip_prefix("tokens."));
        let mut lengths: Vec<usize> = lengths.map(|n| n.parse().unwrap()).collect();
        lengths.sort_unstable();
        lengths
    }
}

/// Natural log-probabilities of a row of logits.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
    logits
        .iter()
        .map(|&l| f64::from(l - max) - sum.ln())
        .collect()
}

pub fn argmax(row: &[f32]) -> u32 {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as u32
}
