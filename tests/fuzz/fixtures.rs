//! The models that the targets run on: the test checkpoints, carried inside this program so that it
//! runs where there is no source tree, converted when a worker starts.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltad::engine::{CacheType, Device, Options};
use quantize::convert::{self, Conversion, Input, Silent};

macro_rules! files {
    ($name:literal: $($file:literal)*) => {
        &[$(($file, include_bytes!(concat!("../fixtures/", $name, "/", $file)))),*]
    };
}

type Files = &'static [(&'static str, &'static [u8])];

const TINY: Files = files!("tiny": "config.json" "generation_config.json" "model.safetensors"
    "tiktoken.model" "tokenizer_config.json");
const APART: Files = files!("apart": "config.json" "generation_config.json" "model.safetensors"
    "tiktoken.model" "tokenizer_config.json");
const LING: Files = files!("ling_odd": "config.json" "generation_config.json" "model.safetensors"
    "tokenizer.json" "tokenizer_config.json" "chat_template.jinja");

/// Name, checkpoint and file type: dense and quantized rows, heads that agree and that do not, the
/// other architecture.
const MODELS: [(&str, Files, &str); 4] = [
    ("tiny", TINY, "f32"),
    ("quantized", TINY, "q4_0"),
    ("apart", APART, "f16"),
    ("ling", LING, "f32"),
];

pub fn models(dir: &Path) -> Vec<PathBuf> {
    MODELS
        .iter()
        .map(|(name, files, to)| convert(dir, name, files, to))
        .collect()
}

pub fn tiny(dir: &Path) -> PathBuf {
    convert(dir, "tiny", TINY, "f32")
}

fn convert(dir: &Path, name: &str, files: Files, to: &str) -> PathBuf {
    let source = dir.join(name);
    let target = dir.join(format!("{name}.gguf"));
    std::fs::create_dir(&source).expect("a new directory");
    for (file, bytes) in files {
        std::fs::write(source.join(file), bytes).expect("a file");
    }
    let input = Input::open(&source).expect("a checkpoint");
    let options = convert::Options {
        to: to.parse().expect("a type"),
        overrides: Vec::new(),
    };
    let conversion = Conversion::plan(&input, &options).expect("a plan");
    let never = AtomicBool::new(false);
    let written = conversion.write(&target, false, None, &never, &mut Silent);
    written.expect("a model");
    target
}

/// One thread: many workers run side by side.
pub fn options() -> Options {
    Options {
        device: Device::Cpu,
        threads: Some(1),
        cache_type: CacheType::F32,
        chunk: Some(16),
        // A prompt of a megabyte is refused by its length: read to its end it would take minutes, as it should.
        context: Some(2048),
        ..Options::default()
    }
}
