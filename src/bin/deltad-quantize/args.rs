//! The command line.

use clap::{Parser, Subcommand};
use deltad::config::units::parse_size;
use quantize::recipe::{FileType, Override};
use quantize::synth::Shape;
use std::path::PathBuf;

/// Makes, looks at and checks model files for deltad.
#[derive(Debug, Parser)]
#[command(
    name = "deltad-quantize",
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
    Imatrix(Imatrix),
    Quality(Quality),
    Inspect(Inspect),
    Verify(Verify),
    Synth(Synth),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages.
    Manual {
        /// Where; pages go to man1 below it, which is made.
        dir: PathBuf,
    },
}

/// Converts a checkpoint directory, or another GGUF, to a GGUF, or to several in one reading.
///
/// What is finished when it is killed, or interrupted after 64 MiB and more, stays in .NAME.part beside
/// the target: the same command reads those tensors again, and goes on behind the last whole one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  deltad-quantize convert CHECKPOINT q4.gguf --type q4_k_m
  deltad-quantize convert CHECKPOINT 'model-{type}.gguf' --type q4_k_m,q8_0")]
pub struct Convert {
    /// A checkpoint directory of the hub's layout, or a GGUF file.
    pub source: PathBuf,
    /// The file to write; of several types, one for each, with the type in the place of {type}.
    pub target: PathBuf,
    /// One or, with commas or repeated, several of f32 f16 bf16 q8_0 q6_k q5_k_m q5_k_s q4_k_m q4_k_s q4_0 q3_k_m q3_k_s q2_k q2_k_s iq3_s iq3_xxs
    /// iq2_s iq2_xs iq2_xxs iq1_m iq4_nl iq4_xs mxfp4
    #[arg(
        long = "type",
        short = 't',
        value_name = "TYPE",
        value_delimiter = ',',
        required_unless_present = "size"
    )]
    pub to: Vec<FileType>,
    /// Instead of a type: the type that loses least and makes a file of at most so many bytes, such
    /// as 16GiB. Types that need an importance matrix are taken where one is given.
    #[arg(long, value_name = "SIZE", conflicts_with = "to", value_parser = size)]
    pub size: Option<u64>,
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

/// How a text is read by `imatrix` and `quality`.
#[derive(Debug, clap::Args)]
pub struct Reading {
    /// Tokens per chunk, each read afresh; what is left over at the end is not read.
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    pub chunk: u32,
    /// Reads the first N chunks only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    /// Threads; all cores if not given, one for a very small model.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// No progress, no remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Finds out which weights matter: runs a model over a text and writes an importance matrix.
///
/// The matrix holds, for every weight, the squares of what met each of its columns. `convert
/// --imatrix` then spends its precision where it counts. Use the F16 (or F32, BF16) file and a text
/// like what the model will be asked: its own chat markup, its languages, its tasks. Special tokens
/// spelled in the text are those tokens. llama.cpp's tools read the file, and we read theirs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  deltad-quantize convert CHECKPOINT f16.gguf --type f16
  deltad-quantize imatrix f16.gguf calibration.txt -o importance.gguf
  deltad-quantize convert f16.gguf q4.gguf --type q4_k_m --imatrix importance.gguf

The more experts a model has, the longer a text it needs: experts that saw few tokens are named at
the end, and `convert` treats their columns more alike.")]
pub struct Imatrix {
    /// The model, GGUF.
    pub model: PathBuf,
    /// The text, UTF-8.
    pub text: PathBuf,
    /// The file to write.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub reading: Reading,
    /// Replaces an existing file.
    #[arg(long)]
    pub overwrite: bool,
}

/// Measures what quantization lost: how far model B is from model A on a text.
///
/// Both models read the text in step. Positions of each chunk's second half are scored: perplexity
/// of both, KL divergence of B from A (mean, median, and the worst in a hundred and a thousand) and
/// how often both put the same token first. Take as A the F16 file that B was made from, and a text
/// that was not used for the importance matrix. The cache is f32 on both sides.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  deltad-quantize quality f16.gguf q4.gguf heldout.txt

Reading the figures: KL is in nats; 0 means that B says exactly what A says. The mean tells how much
is lost, the 99.9 % quantile how badly it goes when it goes wrong. Perplexity alone can hide a loss:
errors that favour the text cancel those that do not.")]
pub struct Quality {
    /// The model to compare with, GGUF.
    pub a: PathBuf,
    /// The model to judge, GGUF, with the same vocabulary.
    pub b: PathBuf,
    /// The text, UTF-8.
    pub text: PathBuf,
    #[command(flatten)]
    pub reading: Reading,
    /// One JSON object; no progress.
    #[arg(long)]
    pub json: bool,
}

/// Shows a file's keys and tensors.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The file, GGUF.
    pub file: PathBuf,
    /// One JSON object; arrays of more than 16 values give their length alone.
    #[arg(long)]
    pub json: bool,
}

/// Checks that a file is whole: every block finite, every shape as wanted; prints digests.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The file, GGUF.
    pub file: PathBuf,
    /// One JSON object.
    #[arg(long)]
    pub json: bool,
    /// Only the verdict: no progress, no digest per tensor.
    #[arg(long, short)]
    pub quiet: bool,
}

/// Writes a model of random weights, for speed runs.
///
/// Its tokenizer has the layout and size of a real one, with words that mean nothing: `deltad serve`
/// answers with it, and what it says is noise.
#[derive(Debug, clap::Args)]
pub struct Synth {
    /// The file to write.
    pub target: PathBuf,
    /// 48b, edge, ling-tiny or 48b-states (the states of the first, and few weights)
    #[arg(long, default_value = "48b")]
    pub shape: Shape,
    /// How many layers.
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
    /// No progress, no remarks.
    #[arg(long, short)]
    pub quiet: bool,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("`{text}` is no size; wanted one such as 16GiB"))
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
