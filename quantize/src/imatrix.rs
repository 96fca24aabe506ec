//! Importance matrices: per tensor and column, the mean square of the activations that met it.
//! The ecosystem's GGUF form: `general.type = "imatrix"`, tensors `NAME.in_sum2` `[row, experts]`
//! and `NAME.counts` `[1, experts]`, f32. Sums stay sums; the division happens here.

use crate::error::Error;
use crate::schema::TensorSpec;
use ggml_kernels::gguf::GgufFile;
use ggml_kernels::quant::{TensorType, dequantize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq)]
pub struct Imatrix {
    path: PathBuf,
    entries: BTreeMap<String, Importance>,
}

/// One tensor's importance.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// Columns.
    pub row: usize,
    /// `[experts, row]`.
    pub mean_squares: Vec<f32>,
    /// Tokens that each expert saw; `[1]` for a plain matrix.
    pub counts: Vec<f32>,
}

impl Importance {
    /// Weights for the rows of one matrix; `None` where it saw no token, since nothing is known.
    pub fn of_matrix(&self, at: usize) -> Option<&[f32]> {
        // One entry may serve all matrices of a stack.
        let at = if self.counts.len() == 1 { 0 } else { at };
        let seen = self.counts.get(at).is_some_and(|&n| n > 0.0);
        seen.then(|| &self.mean_squares[at * self.row..(at + 1) * self.row])
    }

    /// Experts without a token.
    pub fn unseen(&self) -> usize {
        self.counts.iter().filter(|&&n| n <= 0.0).count()
    }
}

impl Imatrix {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = GgufFile::open(path).map_err(|source| Error::Gguf {
            path: path.to_owned(),
            source,
        })?;
        let kind = file.metadata().str("general.type").unwrap_or("(absent)");
        if kind != "imatrix" {
            let what = format!("`general.type` is {kind}, wanted imatrix");
            return Err(Error::input(path, what));
        }
        let mut entries = BTreeMap::new();
        for sums in file.tensors() {
            let Some(name) = sums.name.strip_suffix(".in_sum2") else {
                continue;
            };
            let refuse = |what: &str| Error::input(path, format!("{name}: {what}"));
            let Some(counts) = file.tensor(&format!("{name}.counts")) else {
                return Err(refuse("no .counts beside .in_sum2"));
            };
            let (row, n) = (sums.ne[0] as usize, sums.rows());
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
            let (mut mean_squares, counts) = (read(sums)?, read(counts)?);
            if let Some(bad) = mean_squares
                .iter()
                .chain(&counts)
                .find(|x| !x.is_finite() || **x < 0.0)
            {
                return Err(refuse(&format!("holds {bad}")));
            }
            for (means, &n) in mean_squares.chunks_exact_mut(row).zip(&counts) {
                if n > 0.0 {
                    means.iter_mut().for_each(|x| *x /= n);
                }
            }
            let entry = Importance {
                row,
                mean_squares,
                counts,
            };
            entries.insert(name.to_owned(), entry);
        }
        if entries.is_empty() {
            return Err(Error::input(path, "holds no tensor NAME.in_sum2"));
        }
        let path = path.to_owned();
        Ok(Self { path, entries })
    }

    /// The importance for a tensor, if the file has one; an error where it is of another shape.
    pub fn of(&self, spec: &TensorSpec) -> Result<Option<&Importance>, Error> {
        let Some(entry) = self.entries.get(&spec.name) else {
            return Ok(None);
        };
        let matrices = spec.shape.get(2).map_or(1, |&n| n as usize);
        let fits = entry.row as u64 == spec.shape[0]
            && (entry.counts.len() == matrices || entry.counts.len() == 1);
        if !fits {
            let (row, n) = (entry.row, entry.counts.len());
            let what = format!(
                "{}: [{row}, {n}], wanted [{}, {matrices}]",
                spec.name, spec.shape[0]
            );
            return Err(Error::input(&self.path, what));
        }
        Ok(Some(entry))
    }
}
