//! Why a conversion was refused or failed, and the exit code that says so to scripts.

use crate::recipe::FileType;
use crate::schema::SchemaError;
use ggml_kernels::gguf::{GgufError, LayoutError};
use ggml_kernels::map::{Damaged, GuardedMap};
use ggml_kernels::quant::{QuantError, TensorType};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the input that is missing, contradictory or not what its place demands.
    #[error("{}: {what}", path.display())]
    Input { path: PathBuf, what: String },
    #[error("{}: {source}", path.display())]
    Gguf {
        path: PathBuf,
        #[source]
        source: GgufError,
    },
    #[error("{}: {source}", path.display())]
    Schema {
        path: PathBuf,
        #[source]
        source: SchemaError,
    },
    /// A tensor whose values cannot be stored.
    #[error("{tensor}: row {row}: {source}")]
    Values {
        tensor: String,
        row: u64,
        #[source]
        source: QuantError,
    },
    /// A tensor whose columns nobody knows the importance of, and must.
    #[error(
        "{tensor}: {ty} needs an importance matrix that knows this tensor: make one with \
         `deltad-quantize imatrix F16.gguf TEXT -o importance.gguf`, use it with `convert --imatrix \
         importance.gguf`, or give the tensor another type with `--tensor-type`"
    )]
    NoImportance { tensor: String, ty: TensorType },
    #[error("no file of at most {limit} bytes{}", smallest(*least, *with_matrix))]
    NothingFits {
        limit: u64,
        /// The smallest, and its bytes.
        least: Option<(FileType, u64)>,
        with_matrix: Option<FileType>,
    },
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An input that changed while it was read.
    #[error("{}: {source}", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: Damaged,
    },
    #[error("{} exists; --overwrite replaces it", path.display())]
    Exists { path: PathBuf },
    #[error("{}: needs {needed} bytes, {free} are free", path.display())]
    NoSpace {
        path: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error("{}: another process is writing it", path.display())]
    Busy { path: PathBuf },
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// What was finished is there for the next time.
    #[error(
        "interrupted; what was finished is kept in {}: the same command goes on from there",
        listed(parts)
    )]
    Kept { parts: Vec<PathBuf> },
}

impl Error {
    /// 1 input/output, 3 refused input, 4 the target exists, 5 no space, 130 interrupted.
    /// (0 is success and 2 a wrong command line.)
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Io { source, .. } if no_room(source) => 5,
            Error::Io { .. } | Error::Damaged { .. } | Error::Busy { .. } => 1,
            Error::Input { .. }
            | Error::Gguf { .. }
            | Error::Schema { .. }
            | Error::Values { .. }
            | Error::NoImportance { .. }
            | Error::NothingFits { .. }
            | Error::Layout(_) => 3,
            Error::Exists { .. } => 4,
            Error::NoSpace { .. } => 5,
            Error::Interrupted | Error::Kept { .. } => 130,
        }
    }

    pub(crate) fn input(path: &Path, what: impl Into<String>) -> Self {
        Error::Input {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    /// Refuses what was read from a map of which zeros may have been read.
    pub(crate) fn intact(map: &GuardedMap) -> Result<(), Self> {
        match map.damaged() {
            None => Ok(()),
            Some(source) => Err(Error::Damaged {
                path: map.path().to_owned(),
                source,
            }),
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Error::Io {
            path: path.to_owned(),
            source,
        }
    }
}

fn smallest(least: Option<(FileType, u64)>, with_matrix: Option<FileType>) -> String {
    let least = least.map(|(to, bytes)| format!("; the smallest, {to}, has {bytes}"));
    let more = with_matrix.map(|to| format!("; {to} fits with an importance matrix (--imatrix)"));
    least.unwrap_or_default() + &more.unwrap_or_default()
}

fn listed(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

/// A full disk, a used-up quota, or a limit on the size of files.
fn no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
