//! The commands that talk to a running daemon: `ask`, `chat`, `status`. Terminal in, terminal out;
//! the exchange itself is `wire`'s.

mod wire;

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use wire::{Answer, ClientError, Daemon};

use crate::cli::{Ask, Status, Talk, exit};
use crate::config::socket_candidates;

/// How a command that was carried out ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    Interrupted,
}

impl ClientError {
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::NoDaemon(_) => exit::NO_DAEMON,
            ClientError::Input(_) => exit::USAGE,
            ClientError::Refused { .. } | ClientError::Broken(_) => exit::FAILED,
        }
    }

    /// What the person can do about it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            ClientError::NoDaemon(_) => Some(
                "start one with:  deltad serve --model FILE.gguf\n\
                 or as a service: systemctl --user start deltad",
            ),
            _ => None,
        }
    }
}

async fn connect(socket: Option<PathBuf>) -> Result<Daemon, ClientError> {
    let candidates = socket.map_or_else(socket_candidates, |s| vec![s]);
    Daemon::find(&candidates).await
}

/// `deltad ask`.
pub async fn ask(socket: Option<PathBuf>, ask: &Ask) -> Result<Ended, ClientError> {
    let mut messages = opening(&ask.talk);
    if let Some(path) = &ask.messages {
        messages.extend(read_messages(path)?);
    }
    let piped = piped_input(ask.text.is_none() && ask.messages.is_none())?;
    if let Some(text) = question(ask.text.as_deref(), &piped) {
        messages.push(json!({"role": "user", "content": text}));
    } else if ask.messages.is_none() {
        return Err(ClientError::Input(
            "nothing to ask: give a text or pipe one in".into(),
        ));
    }
    let daemon = connect(socket).await?;
    let body = body(&messages, &ask.talk);
    let work = async {
        if ask.json {
            let answer = daemon.post("/v1/chat/completions", &body).await?;
            println!("{answer:#}");
            return Ok(());
        }
        let answer = daemon.chat(&body, print_piece).await?;
        println!();
        for call in &answer.tool_calls {
            println!("{call}");
        }
        if ask.talk.speed {
            eprintln!("{}", speed(&answer));
        }
        Ok(())
    };
    unless_interrupted(work).await
}

/// `deltad chat`.
pub async fn chat(socket: Option<PathBuf>, talk: &Talk) -> Result<Ended, ClientError> {
    let daemon = connect(socket).await?;
    let mut editor = rustyline::DefaultEditor::new().map_err(input)?;
    let history = history_file();
    if let Some(file) = &history {
        let _ = editor.load_history(file);
    }
    let mut messages = opening(talk);
    let mut speed_wanted = talk.speed;
    loop {
        // Blocks this thread: nothing else runs on the client while a person types.
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(rustyline::error::ReadlineError::Interrupted) => continue,
            Err(rustyline::error::ReadlineError::Eof) => break,
            Err(e) => return Err(input(e)),
        };
        let line = line.trim();
        if !line.is_empty() {
            let _ = editor.add_history_entry(line);
        }
        match line {
            "" => continue,
            "/quit" | "/exit" => break,
            "/help" => {
                println!("/clear forgets the conversation, /speed shows figures, /quit ends")
            }
            "/clear" => messages = opening(talk),
            "/speed" => speed_wanted = !speed_wanted,
            command if command.starts_with('/') => println!("no command {command}; try /help"),
            text => {
                messages.push(json!({"role": "user", "content": text}));
                match turn(&daemon, &messages, talk, speed_wanted).await {
                    Ok(Some(answer)) => {
                        messages.push(json!({"role": "assistant", "content": answer.text}));
                    }
                    Ok(None) => {
                        messages.pop();
                        println!("\n(stopped; that question is forgotten)");
                    }
                    Err(e @ ClientError::NoDaemon(_)) => return Err(e),
                    Err(e) => {
                        messages.pop();
                        eprintln!("deltad: {e}");
                    }
                }
            }
        }
    }
    if let Some(file) = &history {
        let _ = file.parent().map(std::fs::create_dir_all);
        let _ = editor.save_history(file);
    }
    Ok(Ended::Done)
}

/// One answer in a conversation; `None` when Ctrl-C stopped it.
async fn turn(
    daemon: &Daemon,
    messages: &[Value],
    talk: &Talk,
    speed_wanted: bool,
) -> Result<Option<Answer>, ClientError> {
    let mut kept = None;
    let body = body(messages, talk);
    let work = async {
        let answer = daemon.chat(&body, print_piece).await?;
        println!();
        if speed_wanted {
            eprintln!("{}", speed(&answer));
        }
        kept = Some(answer);
        Ok(())
    };
    unless_interrupted(work).await?;
    Ok(kept)
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
    if status.json {
        let socket = daemon.socket.display().to_string();
        println!(
            "{:#}",
            json!({"socket": socket, "health": health, "models": models["data"]})
        );
        return Ok(Ended::Done);
    }
    println!("socket  {}", daemon.socket.display());
    for model in models["data"].as_array().into_iter().flatten() {
        println!("model   {}", model["id"].as_str().unwrap_or("?"));
    }
    for (name, value) in health.as_object().into_iter().flatten() {
        match value {
            Value::String(text) => println!("{name:7} {text}"),
            value => println!("{name:7} {value}"),
        }
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

fn opening(talk: &Talk) -> Vec<Value> {
    let system = talk.system.iter();
    system
        .map(|text| json!({"role": "system", "content": text}))
        .collect()
}

/// The request; a setting that was not given is left to the daemon.
fn body(messages: &[Value], talk: &Talk) -> Value {
    let mut body = json!({"messages": messages});
    let settings = [
        ("temperature", talk.temperature.map(Value::from)),
        ("top_p", talk.top_p.map(Value::from)),
        ("seed", talk.seed.map(Value::from)),
        ("max_tokens", talk.max_tokens.map(Value::from)),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

/// What was piped in goes before the question, as its context.
fn question(asked: Option<&str>, piped: &str) -> Option<String> {
    match (asked, piped.trim_end()) {
        (None, "") => None,
        (None, piped) => Some(piped.to_owned()),
        (Some(asked), "") => Some(asked.to_owned()),
        (Some(asked), piped) => Some(format!("{piped}\n\n{asked}")),
    }
}

/// Standard input to its end, unless a person sits at it and already said what to ask.
fn piped_input(needed: bool) -> Result<String, ClientError> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() && !needed {
        return Ok(text);
    }
    std::io::stdin().read_to_string(&mut text).map_err(input)?;
    Ok(text)
}

fn read_messages(path: &std::path::Path) -> Result<Vec<Value>, ClientError> {
    let wrong = |what: String| ClientError::Input(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    match serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))? {
        Value::Array(messages) => Ok(messages),
        _ => Err(wrong("wanted a JSON list of messages".into())),
    }
}

fn print_piece(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe ends the program at the next write; there is nobody left to tell.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Decoding speed counts the tokens after the first, over the time after the first.
fn speed(answer: &Answer) -> String {
    let count = |name: &str| {
        answer
            .usage
            .as_ref()
            .and_then(|u| u[name].as_u64())
            .unwrap_or(0)
    };
    let (prompt, completion) = (count("prompt_tokens"), count("completion_tokens"));
    let first = answer.first.unwrap_or(answer.total);
    let rest = (answer.total - first).as_secs_f64();
    let rate = match completion {
        0 | 1 => String::new(),
        n => format!(", {:.1} tokens/s", (n - 1) as f64 / rest.max(1e-9)),
    };
    format!(
        "[{prompt} tokens in, first text after {:.0} ms, {completion} tokens out{rate}]",
        first.as_secs_f64() * 1e3
    )
}

fn history_file() -> Option<PathBuf> {
    let dir = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let state = dir("XDG_STATE_HOME").or_else(|| Some(dir("HOME")?.join(".local/state")))?;
    Some(state.join("deltad/history"))
}

fn input(e: impl std::fmt::Display) -> ClientError {
    ClientError::Input(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn piped_text_goes_before_the_question() {
        assert_eq!(question(Some("why?"), "log\n").unwrap(), "log\n\nwhy?");
        assert_eq!(question(None, "why?\n").unwrap(), "why?");
        assert_eq!(question(Some("why?"), "").unwrap(), "why?");
        assert_eq!(question(None, " \n"), None);
    }

    #[test]
    fn speed_leaves_out_the_first_token() {
        let answer = Answer {
            usage: Some(json!({"prompt_tokens": 5, "completion_tokens": 11})),
            first: Some(Duration::from_secs(1)),
            total: Duration::from_secs(3),
            ..Answer::default()
        };
        assert!(speed(&answer).contains("first text after 1000 ms, 11 tokens out, 5.0 tokens/s"));
    }
}
