//! Checkpoint or GGUF in, GGUF out. [`Conversion::plan`] decides everything from headers alone;
//! [`write`] streams: blocks of rows are read, converted on all cores and written in order. Memory is
//! a few blocks, whatever the model. What an earlier process finished of the same is not done again.

pub mod budget;
mod stream;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::imatrix::{Imatrix, Importance};
use crate::output::Part;
use crate::recipe::{self, FileType, Override};
use crate::schema::{self, Hparams, Role, TensorSpec};
use crate::source::{self, Source};
use crate::tokenizer;
use ggml_kernels::gguf::{GgufFile, Layout, Metadata, PlannedTensor};
use ggml_kernels::quant::TensorType;
use std::collections::{BTreeSet, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What to convert to.
#[derive(Debug, Clone)]
pub struct Options {
    pub to: FileType,
    pub overrides: Vec<Override>,
}

/// An open input.
pub enum Input {
    Checkpoint(Box<Checkpoint>),
    Gguf { path: PathBuf, file: GgufFile },
}

impl Input {
    /// A directory is a checkpoint, a file a GGUF.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return Ok(Self::Checkpoint(Box::new(Checkpoint::open(path)?)));
        }
        let file = GgufFile::open(path).map_err(|source| Error::Gguf {
            path: path.to_owned(),
            source,
        })?;
        let path = path.to_owned();
        Ok(Self::Gguf { path, file })
    }

    fn files(&self) -> Vec<&Path> {
        match self {
            Input::Checkpoint(checkpoint) => checkpoint.files().collect(),
            Input::Gguf { path, .. } => vec![path],
        }
    }

    /// Fails once the input changed while it was read.
    fn intact(&self) -> Result<(), Error> {
        match self {
            Input::Checkpoint(checkpoint) => checkpoint.intact(),
            Input::Gguf { file, .. } => Error::intact(file.map()),
        }
    }
}

/// One tensor of the plan.
pub struct Step<'a> {
    pub spec: TensorSpec,
    pub ty: TensorType,
    pub note: Option<String>,
    pub source: Source<'a>,
}

impl Step<'_> {
    fn planned(&self) -> PlannedTensor {
        PlannedTensor {
            name: self.spec.name.clone(),
            ty: self.ty,
            shape: self.spec.shape.clone(),
        }
    }
    /// Bytes in the output.
    pub fn size(&self) -> u64 {
        self.planned().size().unwrap_or(0)
    }
    pub fn values(&self) -> u64 {
        source::elements(&self.spec)
    }
}

/// Everything that will be written, before anything is.
pub struct Conversion<'a> {
    pub hparams: Hparams,
    pub steps: Vec<Step<'a>>,
    /// Remarks on the whole file.
    pub notes: Vec<String>,
    to: FileType,
    input: &'a Input,
    metadata: Metadata,
    layout: Layout,
}

/// What is said of a layer behind the model's own.
fn left_out(layer: usize) -> String {
    format!("layer {layer} is left out: it guesses several tokens ahead (MTP), which is not run")
}

/// Told what happens. All calls come from one thread.
pub trait Observer {
    /// So many tensors were finished before, of so many, in a file on its way to `target`.
    fn resumed(&mut self, _target: &Path, _tensors: usize, _of: usize) {}
    /// A tensor begins.
    fn tensor(&mut self, name: &str);
    /// So many values more are converted.
    fn advance(&mut self, values: u64);
}

/// Tells nobody.
pub struct Silent;

impl Observer for Silent {
    fn tensor(&mut self, _: &str) {}
    fn advance(&mut self, _: u64) {}
}

impl<'a> Conversion<'a> {
    pub fn plan(input: &'a Input, options: &Options) -> Result<Self, Error> {
        let mut metadata = Metadata::default();
        let mut notes = Vec::new();
        let (hparams, sources) = match input {
            Input::Checkpoint(checkpoint) => {
                let h = checkpoint.config.hparams.clone();
                source::bounded(&h).map_err(|source| Error::Schema {
                    path: checkpoint.dir.join("config.json"),
                    source,
                })?;
                let mut sources = Vec::new();
                for spec in schema::tensors(&h) {
                    if let Some(source) = Source::in_checkpoint(checkpoint, &spec)? {
                        sources.push((spec, source));
                    }
                }
                h.write(&mut metadata);
                let name = checkpoint.dir.canonicalize().ok();
                let name = name.as_deref().and_then(Path::file_name);
                if let Some(name) = name {
                    metadata.set("general.name", name.to_string_lossy().into_owned());
                }
                metadata.set("general.type", "model");
                notes = tokenizer::convert(checkpoint, &mut metadata)?;
                notes.extend(checkpoint.beyond.iter().map(|&layer| left_out(layer)));
                (h, sources)
            }
            Input::Gguf { path, file } => {
                let (h, specs) = schema::check(file).map_err(|source| Error::Schema {
                    path: path.clone(),
                    source,
                })?;
                metadata = file.metadata().clone();
                let known: HashSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
                let mut beyond = BTreeSet::new();
                for tensor in file.tensors() {
                    let name = tensor.name.as_str();
                    match schema::layer_of(name) {
                        _ if known.contains(name) => {}
                        Some(layer) if layer >= h.layers.len() => {
                            beyond.insert(layer);
                        }
                        _ => {
                            notes.push(format!("{name} is no tensor of this model and is left out"))
                        }
                    }
                }
                notes.extend(beyond.into_iter().map(left_out));
                let ahead = format!("{}.nextn_predict_layers", h.kin.architecture());
                if metadata.map.remove(&ahead).is_some() {
                    // What has an entry for each block has fewer now.
                    h.write(&mut metadata);
                }
                let source = |spec: TensorSpec| {
                    let tensor = file.tensor(&spec.name)?;
                    Some((spec, Source::in_gguf(file, tensor)))
                };
                (h, specs.into_iter().filter_map(source).collect())
            }
        };
        metadata.set("general.file_type", options.to.id());
        metadata.set("general.quantization_version", 2u32);
        let step = |(spec, source): (TensorSpec, Source<'a>)| {
            let choice = recipe::choose(&hparams, &spec, options.to, &options.overrides);
            Step {
                ty: choice.ty,
                note: choice.note,
                spec,
                source,
            }
        };
        let steps: Vec<Step<'a>> = sources.into_iter().map(step).collect();
        for unused in options.overrides.iter().filter(|o| {
            let used = |s: &Step<'_>| o.pattern.is_match(&s.spec.name);
            !steps.iter().any(used)
        }) {
            notes.push(format!(
                "--tensor-type {}: matches no tensor",
                unused.pattern
            ));
        }
        let planned: Vec<_> = steps.iter().map(Step::planned).collect();
        let layout = Layout::new(&metadata, &planned)?;
        Ok(Self {
            hparams,
            steps,
            notes,
            to: options.to,
            input,
            metadata,
            layout,
        })
    }

    pub fn file_size(&self) -> u64 {
        self.layout.file_size()
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    pub fn values(&self) -> u64 {
        self.steps.iter().map(Step::values).sum()
    }

    /// Whether a tensor can be written only by an importance of its columns.
    pub fn needs_importance(&self, step: &Step<'_>) -> bool {
        let multiplied = step.spec.role != Role::TokenEmbd;
        let by_mix = self.to == FileType::Q2KS && step.ty == TensorType::Q2K && multiplied;
        step.source.ty != step.ty && (step.ty.needs_importance() || by_mix)
    }

    /// Writes the file; see [`write`].
    pub fn write(
        &self,
        target: &Path,
        overwrite: bool,
        imatrix: Option<&Imatrix>,
        interrupted: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let all = [(self, target)];
        write(&all, overwrite, imatrix, interrupted, observer)
    }

    /// Refuses an importance that is missing or of the wrong shape.
    fn is_weighed(&self, imatrix: Option<&Imatrix>) -> Result<(), Error> {
        for step in &self.steps {
            if importance(imatrix, step)?.is_none() && self.needs_importance(step) {
                return Err(Error::NoImportance {
                    tensor: step.spec.name.clone(),
                    ty: step.ty,
                });
            }
        }
        Ok(())
    }

    /// Another one where any of what decides the file's bytes is another: the plan, the program, the
    /// importance, the input as far as its files' sizes and times tell.
    fn identity(&self, imatrix: Option<&Imatrix>) -> Result<blake3::Hash, Error> {
        let mut all = blake3::Hasher::new();
        all.update(env!("CARGO_PKG_VERSION").as_bytes());
        all.update(self.layout.header());
        for path in self.input.files() {
            let about = path.metadata().map_err(|e| Error::io(path, e))?;
            all.update(&about.len().to_le_bytes());
            all.update(&about.mtime().to_le_bytes());
            all.update(&about.mtime_nsec().to_le_bytes());
        }
        if let Some(imatrix) = imatrix {
            all.update(imatrix.digest().as_bytes());
        }
        Ok(all.finalize())
    }
}

fn importance(imatrix: Option<&Imatrix>, step: &Step<'_>) -> Result<Option<Importance>, Error> {
    match imatrix {
        Some(imatrix) => imatrix.of(&step.spec),
        None => Ok(None),
    }
}

/// Writes one file for each plan, all plans being of one input, on rayon's current pool. Stops soon
/// after `interrupted` becomes true, and keeps what was finished if that is much, as whoever is killed
/// does in any case: the next call goes on from there.
pub fn write(
    all: &[(&Conversion<'_>, &Path)],
    overwrite: bool,
    imatrix: Option<&Imatrix>,
    interrupted: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<(), Error> {
    // Found before the first byte.
    for (conversion, _) in all {
        conversion.is_weighed(imatrix)?;
    }
    let mut files = Vec::with_capacity(all.len());
    let mut finished = Vec::with_capacity(all.len());
    for &(conversion, target) in all {
        let identity = conversion.identity(imatrix)?;
        let layout = conversion.layout.clone();
        let part = Part::open(target, &layout, &identity, overwrite)?;
        if part.finished > 0 {
            observer.resumed(target, part.finished, conversion.steps.len());
        }
        let before = conversion.steps[..part.finished].iter();
        observer.advance(before.map(Step::values).sum());
        finished.push(part.finished);
        files.push(stream::File {
            part,
            layout,
            target,
        });
    }
    let tensors = all
        .first()
        .map_or(0, |(conversion, _)| conversion.steps.len());
    let outputs = stream::write(files, |sinks| {
        for at in 0..tensors {
            let mut wanted = Vec::with_capacity(all.len());
            for ((conversion, _), (sink, &done)) in all.iter().zip(sinks.iter().zip(&finished)) {
                let step = &conversion.steps[at];
                if at >= done {
                    observer.tensor(&step.spec.name);
                    let importance = importance(imatrix, step)?;
                    wanted.push(stream::Wanted {
                        step,
                        importance,
                        sink,
                    });
                }
            }
            stream::tensor(&wanted, &mut |values| {
                observer.advance(values);
                if interrupted.load(Ordering::Relaxed) {
                    Err(Error::Interrupted)
                } else {
                    Ok(())
                }
            })?;
            all.iter().try_for_each(|(c, _)| c.input.intact())?;
        }
        Ok(())
    })?;
    outputs.into_iter().try_for_each(|output| output.commit())
}
