//! `deltad chat`: a conversation at a terminal, with history and a few commands.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustyline::error::ReadlineError;

use super::conversation::Conversation;
use super::session::Session;
use super::{
    Answer, ClientError, Daemon, Ended, Said, body, connect, input, note_thinking, screen,
    unless_interrupted,
};
use crate::cli::{Chat, Talk};

const HELP: &str = "\
/reset        forget the conversation and begin again
/save FILE    write the conversation as JSON; `deltad ask --messages FILE` reads it
/speed        show or hide figures after each answer
/help         this list
/quit         end (Ctrl-D too)
Ctrl-C stops an answer; what was said until then is kept. Up and down bring earlier lines back.";

/// What a typed line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Nothing,
    Say(&'a str),
    Help,
    Reset,
    Save(&'a str),
    Speed,
    Quit,
    Unknown(&'a str),
}

impl Line<'_> {
    fn of(line: &str) -> Line<'_> {
        let line = line.trim();
        if !line.starts_with('/') {
            return match line {
                "" => Line::Nothing,
                text => Line::Say(text),
            };
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (command, rest.trim()) {
            ("/help" | "/?", _) => Line::Help,
            ("/reset" | "/clear", _) => Line::Reset,
            ("/save", file) if !file.is_empty() => Line::Save(file),
            ("/speed", _) => Line::Speed,
            ("/quit" | "/exit", _) => Line::Quit,
            _ => Line::Unknown(line),
        }
    }
}

pub async fn chat(socket: Option<PathBuf>, chat: &Chat) -> Result<Ended, ClientError> {
    let daemon = connect(socket).await?;
    daemon.wait_loaded(screen::note).await?;
    let (session, mut talk) = opening(chat, &daemon).await?;
    // What a session has; of a fixed one never more.
    let mut known = session.as_ref().map_or(0, Session::known);
    let health = daemon.get("/health").await?;
    let model = health["model"].as_str().unwrap_or("the model");
    screen::note(&format!(
        "talking to {model}; /help lists commands, Ctrl-D ends"
    ));
    note_thinking(&daemon, &chat.talk).await?;
    if talk.messages().len() > 1 {
        screen::note(&format!(
            "going on after {} messages",
            talk.messages().len()
        ));
    }
    let mut editor = rustyline::DefaultEditor::new().map_err(input)?;
    let history = history_file();
    if let Some(file) = &history {
        // There is none the first time.
        let _ = editor.load_history(file);
    }
    let mut shows_speed = chat.talk.speed;
    loop {
        // Blocks this thread: nothing else runs on the client while a person types.
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                screen::note("Ctrl-D ends");
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(input(e)),
        };
        if !line.trim().is_empty() {
            let _ = editor.add_history_entry(line.trim());
        }
        match Line::of(&line) {
            Line::Nothing => {}
            Line::Quit => break,
            Line::Help => screen::line(HELP)?,
            Line::Speed => shows_speed = !shows_speed,
            Line::Unknown(line) => screen::note(&format!("no command {line}; try /help")),
            Line::Reset if session.is_some() => {
                screen::note("the daemon keeps this one; `deltad session delete NAME` ends it");
            }
            Line::Reset => {
                talk.reset();
                talk.keep()?;
                screen::note("forgotten");
            }
            Line::Save(file) => match talk.save(Path::new(file)) {
                Ok(()) => screen::note(&format!("{} messages in {file}", talk.messages().len())),
                Err(e) => screen::note(&e.to_string()),
            },
            Line::Say(text) => {
                let place = Place {
                    daemon: &daemon,
                    session: session.as_ref(),
                    known,
                };
                match turn(place, &mut talk, text, &chat.talk, shows_speed).await {
                    Ok(()) => {}
                    Err(e @ (ClientError::NoDaemon(_) | ClientError::Output(_))) => return Err(e),
                    Err(e) => screen::note(&e.to_string()),
                }
                if session.as_ref().is_some_and(|s| !s.is_fixed()) {
                    known = talk.messages().len();
                }
            }
        }
    }
    if let Some(file) = &history {
        // A history that cannot be kept spoils no conversation.
        let _ = file.parent().map(std::fs::create_dir_all);
        let _ = editor.save_history(file);
    }
    Ok(Ended::Done)
}

async fn opening(
    chat: &Chat,
    daemon: &Daemon,
) -> Result<(Option<Session>, Conversation), ClientError> {
    let (session, mut talk) = match (&chat.session, &chat.conversation) {
        (Some(name), _) => {
            let (session, talk) = Session::open(daemon.clone(), name).await?;
            (Some(session), talk)
        }
        (None, Some(path)) => (None, Conversation::open(path)?),
        (None, None) => (None, Conversation::default()),
    };
    if let Some(text) = &chat.talk.system {
        talk.system(text)?;
    }
    Ok((session, talk))
}

/// Where a question goes.
#[derive(Clone, Copy)]
struct Place<'a> {
    daemon: &'a Daemon,
    session: Option<&'a Session>,
    /// Messages that the session has.
    known: usize,
}

/// A question right after a stopped answer may come before the daemon knows of the stop.
const BUSY_FOR: Duration = Duration::from_secs(2);

impl Place<'_> {
    /// Sends what is new of the conversation.
    async fn chat(
        self,
        talk: &Conversation,
        how: &Talk,
        mut on_piece: impl FnMut(Said<'_>) -> Result<(), ClientError>,
    ) -> Result<Answer, ClientError> {
        let Some(session) = self.session else {
            let body = body(talk.messages(), how);
            let path = "/v1/chat/completions";
            return self.daemon.chat(path, &body, on_piece).await;
        };
        let body = body(&talk.messages()[self.known..], how);
        let (path, started) = (session.send(), Instant::now());
        loop {
            let said = self.daemon.chat(&path, &body, &mut on_piece);
            match said.await {
                Err(ClientError::Refused { status: 409, .. }) if started.elapsed() < BUSY_FOR => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return other,
            }
        }
    }
}

/// One question and its answer. One that failed, or was stopped before its first word, leaves the
/// conversation as it was; of one stopped later, what was said is kept.
async fn turn(
    place: Place<'_>,
    talk: &mut Conversation,
    text: &str,
    how: &Talk,
    shows_speed: bool,
) -> Result<(), ClientError> {
    let before = talk.messages().len();
    talk.user(text);
    let mut so_far = Answer::default();
    let mut whole = None;
    let mut pieces = screen::Pieces::default();
    let work = async {
        let told = |said: Said<'_>| {
            match said {
                Said::Thought(text) => so_far.reasoning.push_str(text),
                Said::Text(text) => so_far.text.push_str(text),
            }
            pieces.show(said)
        };
        whole = Some(place.chat(talk, how, told).await?);
        Ok(())
    };
    match unless_interrupted(work).await {
        Err(e) => {
            talk.truncate(before);
            return Err(e);
        }
        Ok(Ended::Interrupted) => {
            screen::line("")?;
            if so_far.text.is_empty() {
                talk.truncate(before);
                screen::note("stopped; the question is forgotten");
            } else {
                talk.answer(&so_far.message());
                screen::note("stopped");
            }
        }
        Ok(Ended::Done) => {
            let answer = whole.unwrap_or_default();
            pieces.end(&answer)?;
            if shows_speed {
                screen::note(&screen::speed(&answer));
            }
            talk.answer(&answer.message());
        }
    }
    talk.keep()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_starts_with_a_slash_is_a_command_and_never_said() {
        assert_eq!(Line::of("  hello / you "), Line::Say("hello / you"));
        assert_eq!(Line::of("/save my talk.json"), Line::Save("my talk.json"));
        assert_eq!(Line::of("/save"), Line::Unknown("/save"));
        assert_eq!(Line::of("/rset"), Line::Unknown("/rset"));
        assert_eq!(Line::of("/clear"), Line::Reset);
        assert_eq!(Line::of(" "), Line::Nothing);
    }
}
