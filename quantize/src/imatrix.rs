//! Importance matrices: per tensor and column, the mean square of the activations that met it.
//! The ecosystem's GGUF form: `general.type = "imatrix"`, f32 tensors `NAME.in_sum2` and
//! `NAME.counts`. Stacked experts have `[row, experts]` and `[1, experts]`; every other tensor one
//! count, and a stack of heads its sums end to end. Sums stay sums; the division happens here.

mod write;

pub use write::{Record, Sums, write};

use crate::error::Error;
use crate::schema::TensorSpec;
use ggml_kernels::gguf::GgufFile;
use ggml_kernels::quant::{TensorType, dequantize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub const KIND: &str = "imatrix";
pub const SUMS: &str = ".in_sum2";
pub const COUNTS: &str = ".counts";

/// So many tokens to which all columns are alike are added to what an expert saw, so that one which
/// saw few is not judged by a handful of them; fewer are reported. Measured on the demo model, 50
/// texts of 24 to 512 tokens against one of 16,000: an expert's importance (its columns' shares,
/// sum of absolute differences) is off by 0.28 after 8 to 15 tokens where plain means are off by
/// 0.38, and by 0.24 against 0.31 after 16 to 31; 8 and 32 do no better. Leaning on what the other
/// experts saw does better only below 4 tokens (`ffn_down`: never, its columns are its own).
pub const FEW: f32 = 16.0;

#[derive(Debug, Clone, PartialEq)]
pub struct Imatrix {
    path: PathBuf,
    digest: blake3::Hash,
    entries: BTreeMap<String, Entry>,
}

/// One tensor's sums, as the file has them.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    /// Values per count.
    width: usize,
    sums: Vec<f32>,
    counts: Vec<f32>,
}

/// One tensor's importance.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// Columns.
    row: usize,
    /// `[matrices, row]`, or `[row]` for all of them.
    mean_squares: Vec<f32>,
    counts: Vec<f32>,
}

impl Importance {
    /// Weights for the rows of one matrix.
    pub fn of_matrix(&self, at: usize) -> &[f32] {
        // One row may serve all matrices of a stack.
        let start = if self.mean_squares.len() == self.row {
            0
        } else {
            at * self.row
        };
        &self.mean_squares[start..start + self.row]
    }

    /// `[matrices, row]`, or `[row]` where one serves all.
    pub fn values(&self) -> &[f32] {
        &self.mean_squares
    }

    /// Experts that saw fewer than [`FEW`] tokens, and of these the ones that saw none.
    pub fn scarce(&self) -> (usize, usize) {
        let fewer = |limit: f32| self.counts.iter().filter(|&&n| n < limit).count();
        (fewer(FEW), fewer(f32::MIN_POSITIVE))
    }
}

impl Imatrix {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = GgufFile::open(path).map_err(|source| Error::Gguf {
            path: path.to_owned(),
            source,
        })?;
        let kind = file.metadata().str("general.type").unwrap_or("(absent)");
        if kind != KIND {
            let what = format!("`general.type` is {kind}, wanted {KIND}");
            return Err(Error::input(path, what));
        }
        let mut entries = BTreeMap::new();
        for sums in file.tensors() {
            let Some(name) = sums.name.strip_suffix(SUMS) else {
                continue;
            };
            let refuse = |what: &str| Error::input(path, format!("{name}: {what}"));
            let Some(counts) = file.tensor(&format!("{name}{COUNTS}")) else {
                return Err(refuse("no .counts beside .in_sum2"));
            };
            let (width, n) = (sums.ne[0] as usize, sums.rows());
            if sums.ty != TensorType::F32 || counts.ty != TensorType::F32 {
                return Err(refuse("sums and counts are f32"));
            }
            if counts.elements() != n {
                return Err(refuse("as many counts as rows of sums are wanted"));
            }
            let read = |tensor| {
                let mut values = vec![0.0; file.data(tensor).len() / 4];
                let done = dequantize(TensorType::F32, file.data(tensor), &mut values);
                done.map(|()| values).map_err(|e| refuse(&e.to_string()))
            };
            let (sums, counts) = (read(sums)?, read(counts)?);
            let mut values = sums.iter().chain(&counts);
            if let Some(bad) = values.find(|x| !x.is_finite() || **x < 0.0) {
                return Err(refuse(&format!("holds {bad}")));
            }
            let entry = Entry {
                width,
                sums,
                counts,
            };
            entries.insert(name.to_owned(), entry);
        }
        Error::intact(file.map())?;
        if entries.is_empty() {
            return Err(Error::input(path, "holds no tensor NAME.in_sum2"));
        }
        Ok(Self {
            path: path.to_owned(),
            digest: blake3::hash(file.map()),
            entries,
        })
    }

    /// Of the file's bytes.
    pub fn digest(&self) -> &blake3::Hash {
        &self.digest
    }

    /// The importance for a tensor, if the file has seen it at work; an error where it is of
    /// another shape.
    pub fn of(&self, spec: &TensorSpec) -> Result<Option<Importance>, Error> {
        let Some(entry) = self.entries.get(&spec.name) else {
            return Ok(None);
        };
        let row = spec.shape[0] as usize;
        let matrices = spec.shape.get(2).map_or(1, |&n| n as usize);
        let counts = entry.counts.len();
        let fits = [row, row * matrices].contains(&entry.sums.len())
            && (counts == 1 || counts == matrices && entry.width == row);
        if !fits {
            let what = format!(
                "{}: [{}, {counts}], wanted [{row}, {matrices}]",
                spec.name, entry.width
            );
            return Err(Error::input(&self.path, what));
        }
        if entry.counts.iter().all(|&n| n <= 0.0) {
            return Ok(None);
        }
        Ok(Some(Importance {
            row,
            mean_squares: entry.mean_squares(row),
            counts: entry.counts.clone(),
        }))
    }
}

impl Entry {
    /// Sums over counts. Experts are drawn towards evenness; see [`FEW`].
    fn mean_squares(&self, row: usize) -> Vec<f32> {
        let mut means = self.sums.clone();
        if self.counts.len() == 1 {
            means.iter_mut().for_each(|x| *x /= self.counts[0]);
            return means;
        }
        let seen: f64 = self.counts.iter().map(|&n| f64::from(n)).sum();
        let sum: f64 = self.sums.iter().map(|&x| f64::from(x)).sum();
        let even = (sum / seen / row as f64) as f32;
        for (means, &n) in means.chunks_exact_mut(row).zip(&self.counts) {
            means
                .iter_mut()
                .for_each(|x| *x = (*x + FEW * even) / (n + FEW));
        }
        means
    }
}
