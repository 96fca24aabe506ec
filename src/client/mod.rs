//! The commands that talk to a running daemon: `ask`, `chat`, `session`, `status`. Terminal in, terminal out;
//! the exchange itself is `wire`'s.

mod ask;
mod carry;
mod chat;
mod conversation;
mod screen;
mod session;
mod wire;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use ask::ask;
pub use chat::chat;
pub use session::session;
pub use wire::{Answer, ClientError, Daemon, Said};

use crate::cli::{Status, Talk, exit};
use crate::config::socket_candidates;
use crate::stdio;

/// How a command that was carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    Interrupted,
}

impl ClientError {
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::NoDaemon(_) | ClientError::NotPermitted(_) => exit::NO_DAEMON,
            ClientError::Input(_) => exit::USAGE,
            ClientError::Loading
            | ClientError::Refused { .. }
            | ClientError::Broken(_)
            | ClientError::Output(_) => exit::FAILED,
        }
    }

    /// What the person can do about it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            ClientError::NoDaemon(_) => Some(
                "start one with:  deltad serve --model FILE.gguf\n\
                 or as a service: systemctl --user start deltad",
            ),
            ClientError::NotPermitted(_) => {
                Some("its owner decides: [service] socket_mode and socket_group in deltad.toml")
            }
            ClientError::Loading => Some("wait for it with:  deltad status --wait 60"),
            _ => None,
        }
    }

    /// See [`stdio::is_closed`].
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, ClientError::Output(e) if stdio::is_closed(e))
    }
}

async fn connect(socket: Option<PathBuf>) -> Result<Daemon, ClientError> {
    let candidates = socket.map_or_else(socket_candidates, |s| vec![s]);
    Daemon::find(&candidates).await
}

/// `deltad status`.
pub async fn status(socket: Option<PathBuf>, status: &Status) -> Result<Ended, ClientError> {
    let started = Instant::now();
    let patience = Duration::from_secs(status.wait.unwrap_or(0));
    let (daemon, health, models) = loop {
        match look(socket.clone()).await {
            Ok(seen) => break seen,
            Err(e) if started.elapsed() >= patience => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let socket = daemon.socket.display().to_string();
    if status.json {
        let seen = json!({"socket": socket, "health": health, "models": models["data"]});
        screen::line(&format!("{seen:#}"))?;
        return Ok(Ended::Done);
    }
    screen::line(&format!("socket   {socket}"))?;
    for model in models["data"].as_array().into_iter().flatten() {
        let name = model["id"].as_str().unwrap_or("?");
        screen::line(&format!("model    {name}"))?;
        screen::line(&format!("context  {} tokens", model["max_model_len"]))?;
    }
    // The model has been named.
    let others = health.as_object().into_iter().flatten();
    for (name, value) in others.filter(|(name, _)| *name != "model") {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        screen::line(&format!("{name:8} {value}"))?;
    }
    Ok(Ended::Done)
}

async fn look(socket: Option<PathBuf>) -> Result<(Daemon, Value, Value), ClientError> {
    let daemon = connect(socket).await?;
    let health = daemon.get("/health").await?;
    let models = daemon.get("/v1/models").await?;
    Ok((daemon, health, models))
}

/// Runs `work` until it ends or the person presses Ctrl-C, which drops it and so cancels the answer.
async fn unless_interrupted(
    work: impl Future<Output = Result<(), ClientError>>,
) -> Result<Ended, ClientError> {
    tokio::select! {
        done = work => done.map(|()| Ended::Done),
        _ = tokio::signal::ctrl_c() => Ok(Ended::Interrupted),
    }
}

/// The request; a setting that was not given is left to the daemon.
fn body(messages: &[Value], talk: &Talk) -> Value {
    let mut body = json!({"messages": messages});
    let settings = [
        ("temperature", talk.temperature.map(Value::from)),
        ("top_p", talk.top_p.map(Value::from)),
        ("seed", talk.seed.map(Value::from)),
        ("max_tokens", talk.max_tokens.map(Value::from)),
        ("enable_thinking", talk.thinking().map(Value::from)),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

/// A flag that cannot act is no error, but the person is told.
async fn note_thinking(daemon: &Daemon, talk: &Talk) -> Result<(), ClientError> {
    if talk.thinking().is_none() {
        return Ok(());
    }
    let models = daemon.get("/v1/models").await?;
    if models["data"][0]["thinking_switch"] != true {
        let flag = if talk.think { "--think" } else { "--no-think" };
        screen::note(&format!(
            "{flag} is without effect: this model's template has no switch for thinking"
        ));
    }
    Ok(())
}

fn input(e: impl std::fmt::Display) -> ClientError {
    ClientError::Input(e.to_string())
}
