//! Opens models and a text for the commands that run them.

use crate::args::Reading;
use crate::failure::Failure;
use deltad::engine::{CacheType, Engine, Options};
use deltad::measure::Text;
use deltad::text::Tokenizer;
use std::path::Path;

/// The cache keeps everything, so that only the weights are measured.
pub fn engine(path: &Path, reading: &Reading) -> Result<Engine, Failure> {
    let options = Options {
        threads: reading.threads.map(usize::from),
        cache_type: CacheType::F32,
        ..Options::default()
    };
    Ok(Engine::open(path, &options)?)
}

/// The chunks to read, in tokens of the model in `model`.
pub fn text(
    path: &Path,
    model: &Path,
    engine: &Engine,
    reading: &Reading,
) -> Result<Text, Failure> {
    let tokenizer = Tokenizer::from_metadata(engine.model().metadata());
    let tokenizer = tokenizer.map_err(|e| Failure::input(model, e))?;
    let words = std::fs::read(path).map_err(|e| Failure::io(path, e))?;
    let words = String::from_utf8(words)
        .map_err(|e| Failure::input(path, format!("not UTF-8: {}", e.utf8_error())))?;
    let context = engine.model().context();
    let text = Text::new(&tokenizer, &words, reading.chunk as usize, context);
    let text = text.map_err(|e| Failure::input(path, e))?;
    Ok(match reading.chunks {
        Some(most) => text.at_most(most as usize),
        None => text,
    })
}
