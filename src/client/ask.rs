//! `deltad ask`: one question, one answer.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::conversation::{Conversation, json_file};
use super::session::Session;
use super::{ClientError, Ended, body, connect, input, note_thinking, screen, unless_interrupted};
use crate::cli::Ask;

pub async fn ask(socket: Option<PathBuf>, ask: &Ask) -> Result<Ended, ClientError> {
    let (session, mut talk) = match (&ask.session, &ask.messages, &ask.conversation) {
        (Some(name), ..) => {
            let (session, talk) = Session::open(connect(socket.clone()).await?, name).await?;
            (Some(session), talk)
        }
        (None, Some(path), _) => (None, Conversation::read(path)?),
        (None, None, Some(path)) => (None, Conversation::open(path)?),
        (None, None, None) => (None, Conversation::default()),
    };
    // The daemon keeps the rest.
    let known = session.as_ref().map_or(0, Session::known);
    if let Some(text) = &ask.talk.system {
        talk.system(text)?;
    }
    if !ask.tool_result.is_empty() {
        talk.results(&ask.tool_result)?;
    }
    let said_enough = ask.text.is_some() || ask.messages.is_some() || !ask.tool_result.is_empty();
    let piped = piped_input(!said_enough)?;
    match question(ask.text.as_deref(), &piped) {
        Some(text) => talk.user(&text),
        None if said_enough => {}
        None => {
            let why = "nothing to ask: give a text or pipe one in";
            return Err(ClientError::Input(why.into()));
        }
    }
    let body = request(&talk.messages()[known..], ask)?;
    let path = match &session {
        Some(session) => session.send(),
        None => "/v1/chat/completions".to_owned(),
    };
    let work = async {
        let daemon = match &session {
            Some(session) => session.daemon().clone(),
            None => connect(socket).await?,
        };
        daemon.wait_loaded(screen::note).await?;
        note_thinking(&daemon, &ask.talk).await?;
        if ask.json {
            let answer = daemon.post(&path, &body).await?;
            screen::line(&format!("{answer:#}"))?;
            talk.answer(&answer["choices"][0]["message"]);
        } else {
            let mut pieces = screen::Pieces::default();
            let answer = daemon.chat(&path, &body, |said| pieces.show(said)).await?;
            pieces.end(&answer)?;
            if ask.talk.speed {
                screen::note(&screen::speed(&answer));
            }
            talk.answer(&answer.message());
        }
        talk.keep()
    };
    unless_interrupted(work).await
}

/// The whole request, everything in the files included.
fn request(messages: &[Value], ask: &Ask) -> Result<Value, ClientError> {
    let mut body = body(messages, &ask.talk);
    if let Some(path) = &ask.schema {
        let schema = json_file(path, Value::is_object, "a JSON schema: an object")?;
        let named = json!({"name": "answer", "schema": schema});
        body["response_format"] = json!({"type": "json_schema", "json_schema": named});
    }
    if let Some(path) = &ask.tools {
        body["tools"] = json_file(path, Value::is_array, "a JSON list of tools")?;
    }
    Ok(body)
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
}
