//! Why a command ended early, and its exit code: the converter's errors, and those of commands that
//! run a model.

use deltad::engine::LoadError;
use deltad::measure::MeasureError;
use deltad::stdio;
use quantize::error::Error;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Quantize(#[from] Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Measure(#[from] MeasureError),
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

impl Failure {
    /// An input that is not what its place demands.
    pub fn input(path: &Path, what: impl ToString) -> Self {
        Self::Quantize(Error::Input {
            path: path.to_owned(),
            what: what.to_string(),
        })
    }

    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Quantize(Error::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// See [`stdio::is_closed`].
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(e) if stdio::is_closed(e))
    }

    /// As `--help` promises.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Quantize(error) => error.exit_code(),
            Self::Load(_) | Self::Measure(MeasureError::Logits { .. }) => 3,
            Self::Measure(MeasureError::Activations { .. }) => 3,
            Self::Measure(MeasureError::Pass(_) | MeasureError::State(_)) => 1,
            Self::Measure(MeasureError::Interrupted) => 130,
            Self::Output(_) => 1,
        }
    }
}
