//! `deltad`: reads the command line, sets up logging, hands over, and turns the end into an exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use deltad::bench::{self, BenchError};
use deltad::cli::{Cli, Command, Desktop, Doctor, Serve, exit};
use deltad::client::{self, ClientError, Ended};
use deltad::config::Config;
use deltad::daemon::{self, Reloaded, Settings};
use deltad::manual;
use deltad::{stdio, systemd};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(
        cli.log_level.as_deref(),
        matches!(cli.command, Command::Serve(_)),
    );
    let socket = cli.socket;
    match cli.command {
        Command::Serve(flags) => serve(&flags, socket),
        Command::Ask(flags) => finish(on_one_thread(client::ask(socket, &flags))),
        Command::Chat(flags) => finish(on_one_thread(client::chat(socket, &flags))),
        Command::Session(command) => finish(on_one_thread(client::session(socket, &command))),
        Command::Status(flags) => finish(on_one_thread(client::status(socket, &flags))),
        Command::Doctor(flags) => doctor(&flags, socket),
        Command::Desktop(flags) => desktop(&flags),
        Command::Bench(flags) => measured(bench::run(&flags)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "deltad", &mut script);
            printed(&String::from_utf8_lossy(&script))
        }
        Command::Manual { dir } => {
            let written =
                manual::commands(Cli::command(), &dir).and_then(|()| manual::configuration(&dir));
            match written {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    stdio::remark(format_args!("deltad: {e}"));
                    ExitCode::from(exit::FAILED)
                }
            }
        }
    }
}

fn serve(flags: &Serve, socket: Option<std::path::PathBuf>) -> ExitCode {
    let mut config = match Config::load(flags.config.as_deref()) {
        Ok((config, file)) => {
            if let Some(file) = file {
                log::info!("configuration: {}", file.display());
            }
            config
        }
        Err(e) => {
            stdio::remark(format_args!("deltad: {e}"));
            return ExitCode::from(exit::USAGE);
        }
    };
    flags.apply(socket.as_ref(), &mut config);
    if flags.check_config {
        return printed(&config.to_toml());
    }
    let Some(settings) = Settings::of(&config) else {
        stdio::remark(
            "deltad: no model: give --model FILE.gguf or set model.path in the configuration",
        );
        return ExitCode::from(exit::USAGE);
    };
    let mut reload = || {
        let (mut new, _) = Config::load(flags.config.as_deref()).map_err(|e| e.to_string())?;
        flags.apply(socket.as_ref(), &mut new);
        let settings = Settings::of(&new).ok_or("it names no model any more")?;
        let changed = new.differences(&config);
        config = new;
        Ok(Reloaded { settings, changed })
    };
    match daemon::run(settings, systemd::inherited(), &mut reload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if systemd::on_journal() {
                log::error!("{e}");
            } else {
                stdio::remark(format_args!("deltad: {e}"));
            }
            ExitCode::from(exit::FAILED)
        }
    }
}

fn doctor(flags: &Doctor, socket: Option<std::path::PathBuf>) -> ExitCode {
    let config = match Config::load(flags.config.as_deref()) {
        Ok((config, _)) => config,
        Err(e) => {
            stdio::remark(format_args!("deltad: {e}"));
            return ExitCode::from(exit::USAGE);
        }
    };
    match deltad::doctor::run(flags, socket, &config) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(exit::FAILED),
        Err(e) => finish(Err(ClientError::Output(e))),
    }
}

fn desktop(flags: &Desktop) -> ExitCode {
    let config = match Config::load(flags.config.as_deref()) {
        Ok((config, _)) => config,
        Err(e) => {
            stdio::remark(format_args!("deltad: {e}"));
            return ExitCode::from(exit::USAGE);
        }
    };
    let word = config.desktop.word;
    let served = on_one_thread(async { Ok(deltad::desktop::run(word).await) });
    let served = match served {
        Ok(served) => served,
        Err(e) => return finish(Err(e)),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            stdio::remark(format_args!("deltad: {e}"));
            ExitCode::from(exit::FAILED)
        }
    }
}

fn measured(result: Result<(), BenchError>) -> ExitCode {
    let Err(e) = result else {
        return ExitCode::SUCCESS;
    };
    if !e.is_quiet() {
        stdio::remark(format_args!("deltad: {e}"));
    }
    ExitCode::from(e.exit_code())
}

fn printed(text: &str) -> ExitCode {
    finish(
        stdio::print(text)
            .map(|()| Ended::Done)
            .map_err(ClientError::Output),
    )
}

fn on_one_thread<T>(work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|e| ClientError::Input(e.to_string()))?
        .block_on(work)
}

fn finish(result: Result<Ended, ClientError>) -> ExitCode {
    match result {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => ExitCode::from(exit::INTERRUPTED),
        Err(e) if e.is_closed_pipe() => ExitCode::from(exit::FAILED),
        Err(e) => {
            stdio::remark(format_args!("deltad: {e}"));
            if let Some(advice) = e.advice() {
                stdio::remark(advice);
            }
            ExitCode::from(e.exit_code())
        }
    }
}

/// To the journal when standard error is the journal, else to standard error.
fn start_logging(level: Option<&str>, daemon: bool) {
    let filter = level.unwrap_or(if daemon { "info" } else { "warn" });
    if systemd::on_journal()
        && let Ok(level) = filter.parse()
        && let Ok(journal) = systemd_journal_logger::JournalLog::new()
        && journal.install().is_ok()
    {
        log::set_max_level(level);
        return;
    }
    env_logger::Builder::new().parse_filters(filter).init();
}
