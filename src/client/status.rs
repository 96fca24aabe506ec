//! `deltad status`: what a daemon says of itself, once or again and again.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::wire::Daemon;
use super::{ClientError, Ended, connect, screen};
use crate::cli::Status;

/// How often `--watch` looks.
const AGAIN: Duration = Duration::from_secs(1);

/// What was seen at one moment.
struct Seen {
    socket: String,
    health: Value,
    models: Value,
    sessions: usize,
}

pub async fn status(socket: Option<PathBuf>, status: &Status) -> Result<Ended, ClientError> {
    let started = Instant::now();
    let patience = Duration::from_secs(status.wait.unwrap_or(0));
    let mut seen = loop {
        match look(socket.clone()).await {
            Ok(seen) => break seen,
            Err(e) if started.elapsed() >= patience => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    loop {
        // A person's screen holds the newest look alone; a file or a pipe holds them all.
        let clears = status.watch && std::io::stdout().is_terminal();
        if clears {
            screen::line("\x1b[H\x1b[2J")?;
        }
        show(&seen, status.json)?;
        if !status.watch {
            return Ok(Ended::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Ended::Interrupted),
        }
        seen = look(socket.clone()).await?;
    }
}

async fn look(socket: Option<PathBuf>) -> Result<Seen, ClientError> {
    let daemon: Daemon = connect(socket).await?;
    let health = daemon.get("/health").await?;
    let mut models = daemon.get("/v1/models").await?;
    let sessions = daemon.get("/v1/sessions").await?;
    Ok(Seen {
        socket: daemon.socket.display().to_string(),
        health,
        models: models["data"].take(),
        sessions: sessions["data"].as_array().map_or(0, Vec::len),
    })
}

fn show(seen: &Seen, as_json: bool) -> Result<(), ClientError> {
    let Seen {
        socket,
        health,
        models,
        sessions,
    } = seen;
    if as_json {
        let all =
            json!({"socket": socket, "health": health, "models": models, "sessions": sessions});
        return screen::line(&format!("{all:#}"));
    }
    screen::line(&format!("socket   {socket}"))?;
    for model in models.as_array().into_iter().flatten() {
        let name = model["id"].as_str().unwrap_or("?");
        screen::line(&format!("model    {name}"))?;
        screen::line(&format!("context  {} tokens", model["max_model_len"]))?;
    }
    screen::line(&format!("sessions {sessions}"))?;
    // The model has been named.
    let others = health.as_object().into_iter().flatten();
    for (name, value) in others.filter(|(name, _)| *name != "model") {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Object(kinds) => bytes_by_kind(kinds),
            other => other.to_string(),
        };
        screen::line(&format!("{name:8} {value}"))?;
    }
    Ok(())
}

fn bytes_by_kind(kinds: &serde_json::Map<String, Value>) -> String {
    let told = |(kind, bytes): (&String, &Value)| {
        let mib = bytes.as_f64().unwrap_or(0.0) / f64::from(1 << 20);
        format!("{kind} {mib:.1} MiB")
    };
    kinds.iter().map(told).collect::<Vec<_>>().join(", ")
}
