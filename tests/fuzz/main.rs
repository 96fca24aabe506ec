//! A mutational fuzzer for everything that deltad reads. `cargo test` runs it for a moment,
//! `make fuzz` for as long as you like; it needs nothing but itself, so the built program can be
//! carried to another machine.
//!
//! ```text
//! fuzz [--seconds N] [--target T] [--seed S] [--threads N]     all targets share the seconds
//! fuzz --target T --seed S --case N [--keep FILE]              repeats one case
//! ```
//!
//! A case is a number: it decides every choice. Workers are processes, so that an abort, a crash, a
//! panic of any thread, a case that takes too long or too much memory is found, named and survived.

mod container;
mod dice;
mod fixtures;
mod targets;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use targets::Target;

#[derive(Parser, Debug, Clone)]
#[command(about = "Feeds deltad's readers what nobody should send")]
pub struct Flags {
    /// Seconds for all targets together
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only this one
    #[arg(long, value_enum)]
    target: Option<Target>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Worker processes side by side
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Repeat this case of --target and nothing else
    #[arg(long, requires = "target")]
    case: Option<u64>,
    /// With --case: keep the case's input here
    #[arg(long)]
    keep: Option<std::path::PathBuf>,
    /// How this program calls itself: first case, progress file, directory
    #[arg(long, hide = true, num_args = 3)]
    worker: Option<Vec<String>>,
    /// Names, as `cargo test NAME` passes them: nothing runs if none of them is `fuzz`
    #[arg(hide = true)]
    names: Vec<String>,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Some(worker) = &flags.worker {
        return worker::run(&flags, worker);
    }
    if !flags.names.is_empty() && !flags.names.iter().any(|n| n == "fuzz") {
        return ExitCode::SUCCESS;
    }
    watch::run(&flags)
}
