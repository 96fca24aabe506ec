//! Writes importance matrices as llama.cpp does, so that its tools read them. Refuses nothing that
//! was counted: a tensor that saw no token is written with zeros, and readers know what that means.

use super::{COUNTS, KIND, SUMS};
use crate::error::Error;
use crate::output::Output;
use ggml_kernels::gguf::{Array, GgufWriter, Layout, Metadata, PlannedTensor, Value};
use ggml_kernels::quant::TensorType;
use std::io::BufWriter;
use std::path::Path;

/// Everything that a file of importance says.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Names of the texts.
    pub datasets: Vec<String>,
    pub chunks: u32,
    /// Tokens in each.
    pub chunk_size: u32,
    pub tensors: Vec<Sums>,
}

/// What met one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    pub name: String,
    /// Squares, summed over tokens: `[matrices, row]`.
    pub squares: Vec<f64>,
    /// Tokens: one number, or one for each expert.
    pub counts: Vec<u64>,
}

/// Writes `record` to `target`, whole or not at all.
pub fn write(record: &Record, target: &Path, overwrite: bool) -> Result<(), Error> {
    let mut metadata = Metadata::default();
    metadata.set("general.type", KIND);
    let datasets = Value::Array(Array::Str(record.datasets.clone()));
    metadata.set("imatrix.datasets", datasets);
    metadata.set("imatrix.chunk_count", record.chunks);
    metadata.set("imatrix.chunk_size", record.chunk_size);
    let mut sorted: Vec<&Sums> = record.tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let planned = sorted.iter().flat_map(|sums| {
        let n = sums.counts.len() as u64;
        let plan = |suffix: &str, width: u64| PlannedTensor {
            name: format!("{}{suffix}", sums.name),
            ty: TensorType::F32,
            shape: vec![width, n],
        };
        let width = sums.squares.len() as u64 / n.max(1);
        [plan(SUMS, width), plan(COUNTS, 1)]
    });
    let layout = Layout::new(&metadata, &planned.collect::<Vec<_>>())?;
    let failed = |e| Error::io(target, e);
    let output = Output::create(target, layout.file_size(), overwrite)?;
    let mut writer = GgufWriter::new(BufWriter::new(output), layout).map_err(failed)?;
    for sums in sorted {
        let squares = sums.squares.iter().map(|&x| x as f32);
        let counts = sums.counts.iter().map(|&n| n as f32);
        for values in [squares.collect::<Vec<_>>(), counts.collect()] {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            writer.write(&bytes).map_err(failed)?;
        }
    }
    let buffered = writer.finish().map_err(failed)?;
    let output = buffered.into_inner().map_err(|e| failed(e.into_error()))?;
    output.commit()
}
