//! `deltad-quantize`: makes, looks at and checks model files. Offline; the daemon is not asked.
//!
//! A binary of the root package, not of crate `quantize`, because some of its commands run the
//! model and need the engine and the tokenizer. Parses the command line and prints; decisions are
//! made in the library.
//!
//! Exit codes: 0 done, 1 input/output error, 2 wrong command line, 3 the input was refused,
//! 4 the target exists, 5 no space, 130 interrupted.
#![forbid(unsafe_code)]

mod args;
mod convert;
mod failure;
mod imatrix;
mod inspect;
mod progress;
mod quality;
mod reading;
mod synth;
mod table;
mod verify;

use clap::{CommandFactory, Parser};
use deltad::stdio;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let args = args::Args::parse();
    let result: Result<(), Failure> = match &args.command {
        args::Command::Convert(args) => convert::run(args),
        args::Command::Imatrix(args) => imatrix::run(args),
        args::Command::Inspect(args) => inspect::run(args),
        args::Command::Quality(args) => quality::run(args),
        args::Command::Synth(args) => synth::run(args).map_err(Failure::from),
        args::Command::Verify(args) => verify::run(args),
        args::Command::Completions { shell } => {
            let (mut command, mut script) = (args::Args::command(), Vec::new());
            clap_complete::generate(*shell, &mut command, "deltad-quantize", &mut script);
            stdio::print(String::from_utf8_lossy(&script)).map_err(Failure::Output)
        }
        args::Command::Manual { dir } => {
            let written = deltad::manual::commands(args::Args::command(), dir);
            written.map_err(|e| Failure::io(dir, e))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_closed_pipe() {
                stdio::remark(format_args!("deltad-quantize: {failure}"));
            }
            ExitCode::from(failure.exit_code())
        }
    }
}
