//! The command line.

use clap::{Parser, Subcommand};
use quantize::recipe::{FileType, Override};
use quantize::synth::Shape;
use std::path::PathBuf;

/// Makes, looks at and checks model files for deltad.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 input/output error, 2 wrong command line, 3 input refused, \
                  4 target exists, 5 no space, 130 interrupted."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Convert(Convert),
    Inspect(Inspect),
    Verify(Verify),
    Synth(Synth),
    /// Prints a completion script for a shell.
    Completions {
        shell: clap_complete::Shell,
    },
}

/// Converts a checkpoint directory, or another GGUF, to a GGUF.
#[derive(Debug, clap::Args)]
pub struct Convert {
    /// A checkpoint directory of the hub's layout, or a GGUF file.
    pub source: PathBuf,
    /// The file to write.
    pub target: PathBuf,
    /// f32 f16 bf16 q8_0 q6_k q5_k_m q5_k_s q4_k_m q4_k_s q4_0 q3_k_m iq4_nl iq4_xs mxfp4
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub to: FileType,
    /// An importance matrix (GGUF), as `deltad-quantize imatrix` or llama-imatrix writes them.
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Gives tensors whose names match another type; repeatable, the last match counts.
    #[arg(long = "tensor-type", value_name = "REGEX=TYPE")]
    pub overrides: Vec<Override>,
    /// Shows what each tensor would become, and writes nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Threads; all cores if not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// Replaces an existing target.
    #[arg(long)]
    pub overwrite: bool,
    /// No progress, no remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Shows a file's keys and tensors.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    pub file: PathBuf,
    /// One JSON object; arrays of more than 16 values give their length alone.
    #[arg(long)]
    pub json: bool,
}

/// Checks that a file is whole: every block finite, every shape as wanted; prints digests.
#[derive(Debug, clap::Args)]
pub struct Verify {
    pub file: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// Only the verdict: no progress, no digest per tensor.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Writes a model of random weights, for speed runs.
#[derive(Debug, clap::Args)]
pub struct Synth {
    /// The file to write.
    pub target: PathBuf,
    /// 48b or edge
    #[arg(long, default_value = "48b")]
    pub shape: Shape,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub layers: u16,
    /// As for convert, but q5_k and q4_k are the plain mixes (q5_k_s, q4_k_s).
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "q4_k", value_parser = plain)]
    pub to: FileType,
    /// Full attention in every layer, instead of every fourth.
    #[arg(long)]
    pub all_mla: bool,
    /// Replaces an existing target.
    #[arg(long)]
    pub overwrite: bool,
    #[arg(long, short)]
    pub quiet: bool,
}

/// In speed runs a type's name means that type throughout, not a mix around it.
fn plain(name: &str) -> Result<FileType, String> {
    match name {
        "q4_k" => Ok(FileType::Q4KS),
        "q5_k" => Ok(FileType::Q5KS),
        other => other.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
