//! `deltad serve`: reads the configuration, then the flags over it, and runs the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use deltad::config::Config;
use deltad::daemon::{self, Settings};

/// A local inference daemon for KDA/MLA language models.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a model and answer on a Unix socket until told to stop
    Serve {
        /// The GGUF file
        #[arg(long)]
        model: Option<PathBuf>,
        /// Configuration, instead of the user's or the machine's
        #[arg(long)]
        config: Option<PathBuf>,
        /// Where to listen
        #[arg(long)]
        socket: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let Command::Serve {
        model,
        config,
        socket,
    } = Cli::parse().command;
    let mut config = match Config::load(config.as_deref()) {
        Ok((config, _)) => config,
        Err(e) => return fail(2, &e),
    };
    if model.is_some() {
        config.model.path = model;
    }
    if let Some(socket) = socket {
        config.service.socket = socket;
    }
    let Some(settings) = Settings::of(&config) else {
        return fail(2, &"no model: name one with --model or as [model] path");
    };
    let socket = config.service.socket.display().to_string();
    match daemon::run(settings, None, || log::info!("ready at {socket}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(1, &e),
    }
}

fn fail(code: u8, why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("deltad: {why}");
    ExitCode::from(code)
}
