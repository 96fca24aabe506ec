//! `deltad session ...`, and a session as `ask` and `chat` go on with it: what is said there is kept
//! by the daemon, so only what is new is sent.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::conversation::Conversation;
use super::{ClientError, Daemon, Ended, carry, connect, input, screen, unless_interrupted};
use crate::cli::{CreateSession, Session as Command};

/// One session of a daemon.
pub struct Session {
    daemon: Daemon,
    name: String,
    known: usize,
    fixed: bool,
}

impl Session {
    /// Goes on with it; one that is not there yet is made.
    pub async fn open(daemon: Daemon, name: &str) -> Result<(Session, Conversation), ClientError> {
        daemon.wait_loaded(screen::note).await?;
        let shown = match daemon.get(&path(name, "")).await {
            Err(ClientError::Refused { status: 404, .. }) => {
                let made = daemon.post("/v1/sessions", &json!({"name": name})).await?;
                screen::note(&format!("session {name} begins"));
                made
            }
            shown => shown?,
        };
        let messages = shown["messages"].as_array().cloned().unwrap_or_default();
        let session = Session {
            daemon,
            name: name.to_owned(),
            known: messages.len(),
            fixed: shown["fixed"] == true,
        };
        Ok((session, Conversation::of(messages)))
    }

    /// Messages that it had when it was opened.
    pub fn known(&self) -> usize {
        self.known
    }

    /// What is asked is not kept.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// Where a question is sent.
    pub fn send(&self) -> String {
        path(&self.name, "/send")
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

fn path(name: &str, more: &str) -> String {
    format!("/v1/sessions/{}{more}", spelled(name))
}

/// As a part of a path. A name with anything else than these in it is refused by the daemon, which
/// names it.
pub fn spelled(name: &str) -> String {
    let mut spelled = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                spelled.push(byte.into());
            }
            other => spelled.push_str(&format!("%{other:02X}")),
        }
    }
    spelled
}

pub async fn session(socket: Option<PathBuf>, command: &Command) -> Result<Ended, ClientError> {
    let work = async {
        let daemon = connect(socket).await?;
        daemon.wait_loaded(screen::note).await?;
        run(&daemon, command).await
    };
    unless_interrupted(work).await
}

async fn run(daemon: &Daemon, command: &Command) -> Result<(), ClientError> {
    match command {
        Command::List { json } => {
            let all = daemon.get("/v1/sessions").await?;
            if *json {
                return screen::line(&format!("{all:#}"));
            }
            for session in all["data"].as_array().into_iter().flatten() {
                screen::line(&row(session))?;
            }
            for session in all["unusable"].as_array().into_iter().flatten() {
                screen::line(&unusable(session))?;
            }
            Ok(())
        }
        Command::Show { name, json } => {
            let shown = daemon.get(&path(name, "")).await?;
            if *json {
                return screen::line(&format!("{shown:#}"));
            }
            screen::line(&row(&shown))?;
            let context = &shown["context"];
            screen::line(&format!(
                "{} of {} tokens, {} of state",
                context["tokens"],
                context["window"],
                size(&context["bytes"])
            ))?;
            for message in shown["messages"].as_array().into_iter().flatten() {
                let (role, text) = (&message["role"], &message["content"]);
                let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                screen::line(&format!("\n{}: {}", word(role), word(text)))?;
            }
            Ok(())
        }
        Command::Create(flags) => create(daemon, flags).await,
        Command::Delete { name } => daemon.delete(&path(name, "")).await.map(drop),
        Command::Fork { name, new, at } => {
            let body = json!({"name": new, "response_id": at});
            let made = daemon.post(&path(name, "/fork"), &body).await?;
            screen::line(&row(&made))
        }
        Command::Export { name, file } => carry::export(daemon, &path(name, "/export"), file).await,
        Command::Import { file, name } => {
            let made = carry::import(daemon, file, name.as_deref()).await?;
            screen::line(&row(&made))
        }
        Command::Rebuild { name } => {
            let mut bar = screen::Progress::new();
            let (path, body) = (path(name, "/rebuild"), json!({"stream": true}));
            let made = daemon.events(&path, &body, |reading| bar.tell(reading));
            let made = made.await?;
            bar.end();
            screen::line(&row(&made))
        }
        Command::Measure { name, from } => {
            let more = from.as_deref().map(text).transpose()?;
            let body = more.map_or(json!({}), |text| json!({"content": text}));
            let told = daemon.post(&path(name, "/measure"), &body).await?;
            screen::line(&format!("{} tokens more", told["added"]))?;
            screen::line(&context(&told))
        }
        Command::Estimate { tokens } => {
            let body = json!({"tokens": tokens});
            let told = daemon.post("/v1/sessions/estimate", &body).await?;
            screen::line(&context(&told))
        }
    }
}

/// How long a session is, and what its state takes.
fn context(told: &Value) -> String {
    format!(
        "{} of {} tokens in all, {} of state: {} and {} bytes a token, {} tokens at a time",
        told["tokens"],
        told["window"],
        size(&told["bytes"]),
        size(&told["bytes_fixed"]),
        told["bytes_per_token"],
        told["block_tokens"]
    )
}

async fn create(daemon: &Daemon, flags: &CreateSession) -> Result<(), ClientError> {
    let mut body = json!({"name": flags.name});
    let mut messages = Vec::new();
    if let Some(system) = &flags.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    let Some(from) = &flags.from else {
        body["messages"] = json!(messages);
        let made = daemon.post("/v1/sessions", &body).await?;
        return screen::line(&row(&made));
    };
    messages.push(json!({"role": "system", "content": text(from)?}));
    body["messages"] = json!(messages);
    // Questions to a text are not about one another.
    body["fixed"] = json!(true);
    body["read"] = json!(true);
    body["stream"] = json!(true);
    let mut bar = screen::Progress::new();
    let made = daemon.events("/v1/sessions", &body, |reading| bar.tell(reading));
    let made = made.await?;
    bar.end();
    screen::line(&row(&made))
}

/// A file, or standard input by the name `-`.
fn text(path: &Path) -> Result<String, ClientError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(e) => Err(input(format!("{}: {e}", path.display()))),
    }
}

fn row(session: &Value) -> String {
    let name = session["name"].as_str().unwrap_or("-");
    let id = session["id"].as_str().unwrap_or("?");
    let kind = if session["fixed"] == true {
        ", fixed"
    } else {
        ""
    };
    format!("{name:20} {id} {} messages{kind}", session["message_count"])
}

fn unusable(session: &Value) -> String {
    let word = |name: &str| session[name].as_str().unwrap_or("-");
    let (name, id, why) = (word("name"), word("id"), word("why"));
    format!(
        "{name:20} {id} cannot be taken up: {why}; `deltad session rebuild {id}` keeps its words"
    )
}

fn size(bytes: &Value) -> String {
    let bytes = bytes.as_u64().unwrap_or(0) as f64;
    format!("{:.1} MiB", bytes / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_to_another_path() {
        assert_eq!(path("a-b_1.c", "/send"), "/v1/sessions/a-b_1.c/send");
        assert_eq!(path("../x?y", ""), "/v1/sessions/..%2Fx%3Fy");
    }

    #[test]
    fn a_session_is_told_in_one_row() {
        let session = json!({"id": "sess_1", "name": "manual", "fixed": true, "message_count": 1});
        assert_eq!(
            row(&session),
            "manual               sess_1 1 messages, fixed"
        );
    }
}
