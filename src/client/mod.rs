//! The commands that talk to a running daemon: `ask`, `chat`, `session`, `status`. Terminal in, terminal out;
//! the exchange itself is `wire`'s.

mod ask;
mod carry;
mod chat;
mod conversation;
mod screen;
mod session;
mod status;
mod wire;

use std::path::PathBuf;

use serde_json::{Value, json};

pub use ask::ask;
pub use chat::chat;
pub use session::session;
pub use status::status;
pub use wire::{Answer, ClientError, Daemon, Said};

use crate::cli::{Talk, exit};
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
