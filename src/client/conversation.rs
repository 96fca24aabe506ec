//! A conversation: OpenAI's list of messages, and the file that may keep it. Speaks to nobody.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::ClientError;

#[derive(Debug, Default, PartialEq)]
pub struct Conversation {
    messages: Vec<Value>,
    /// Where it is kept after each turn.
    file: Option<PathBuf>,
}

impl Conversation {
    /// The messages of a file, which stays as it is.
    pub fn read(path: &Path) -> Result<Conversation, ClientError> {
        Ok(Conversation {
            messages: messages(path, &text(path)?)?,
            file: None,
        })
    }

    /// Goes on with what a file keeps; one that is not there yet is a new conversation.
    pub fn open(path: &Path) -> Result<Conversation, ClientError> {
        let messages = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(wrong(path, e)),
            Ok(text) if text.trim().is_empty() => Vec::new(),
            Ok(text) => messages(path, &text)?,
        };
        Ok(Conversation {
            messages,
            file: Some(path.to_owned()),
        })
    }

    /// These messages, kept elsewhere.
    pub fn of(messages: Vec<Value>) -> Conversation {
        Conversation {
            messages,
            file: None,
        }
    }

    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// The system message comes first and is said once: saying the same one again changes nothing.
    pub fn system(&mut self, text: &str) -> Result<(), ClientError> {
        let message = json!({"role": "system", "content": text});
        match self.messages.first() {
            None => self.messages.push(message),
            Some(first) if *first == message => {}
            Some(_) => {
                let why = "--system: this conversation has begun already, with other words";
                return Err(ClientError::Input(why.into()));
            }
        }
        Ok(())
    }

    pub fn user(&mut self, text: &str) {
        self.messages.push(json!({"role": "user", "content": text}));
    }

    /// What the tools gave that the last answer called, in the order of the calls.
    pub fn results(&mut self, results: &[String]) -> Result<(), ClientError> {
        let last = self.messages.last().map(|m| &m["tool_calls"]);
        let calls = last.and_then(Value::as_array).cloned().unwrap_or_default();
        if calls.len() != results.len() {
            return Err(ClientError::Input(format!(
                "--tool-result: got {}, but the conversation's last message calls {} tools",
                results.len(),
                calls.len()
            )));
        }
        for (call, result) in calls.iter().zip(results) {
            self.messages
                .push(json!({"role": "tool", "tool_call_id": call["id"], "content": result}));
        }
        Ok(())
    }

    /// Adds the daemon's message, without the keys that only answers have.
    pub fn answer(&mut self, message: &Value) {
        let mut kept = json!({"role": "assistant", "content": message["content"]});
        // Some templates tell a model its own thoughts again.
        if message["reasoning_content"].is_string() {
            kept["reasoning_content"] = message["reasoning_content"].clone();
        }
        if message["tool_calls"].is_array() {
            kept["tool_calls"] = message["tool_calls"].clone();
        }
        self.messages.push(kept);
    }

    /// Takes back what came after the first `n` messages.
    pub fn truncate(&mut self, n: usize) {
        self.messages.truncate(n);
    }

    /// Forgets everything but the system message.
    pub fn reset(&mut self) {
        let system = self.messages.first().is_some_and(|m| m["role"] == "system");
        self.messages.truncate(usize::from(system));
    }

    /// Writes it where it is kept, if anywhere.
    pub fn keep(&self) -> Result<(), ClientError> {
        self.file.as_deref().map_or(Ok(()), |path| self.save(path))
    }

    /// Whole or not at all, so that a full disk costs no conversation; readable by its owner alone.
    pub fn save(&self, path: &Path) -> Result<(), ClientError> {
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty());
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
            serde_json::to_writer_pretty(&mut file, &self.messages)?;
            file.write_all(b"\n")?;
            file.persist(path)?;
            Ok(())
        };
        written().map_err(|e: std::io::Error| wrong(path, e))
    }
}

/// A JSON file that must hold a list or an object.
pub fn json_file(path: &Path, is: fn(&Value) -> bool, want: &str) -> Result<Value, ClientError> {
    let value = serde_json::from_str(&text(path)?).map_err(|e| wrong(path, e))?;
    if is(&value) {
        Ok(value)
    } else {
        Err(wrong(path, format!("want {want}")))
    }
}

fn messages(path: &Path, text: &str) -> Result<Vec<Value>, ClientError> {
    match serde_json::from_str(text).map_err(|e| wrong(path, e))? {
        Value::Array(messages) => Ok(messages),
        _ => Err(wrong(path, "want a JSON list of messages")),
    }
}

fn text(path: &Path) -> Result<String, ClientError> {
    std::fs::read_to_string(path).map_err(|e| wrong(path, e))
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> ClientError {
    ClientError::Input(format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}})
    }

    #[test]
    fn a_conversation_comes_back_from_its_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("talk.json");
        let mut talk = Conversation::open(&path).unwrap();
        assert!(talk.messages().is_empty());
        talk.system("Be brief.").unwrap();
        talk.user("What is it?");
        talk.answer(
            &json!({"role": "assistant", "content": null, "refusal": null,
            "tool_calls": [call("a")]}),
        );
        talk.keep().unwrap();
        let again = Conversation::open(&path).unwrap();
        assert_eq!(again, talk);
        assert_eq!(again.messages()[2].get("refusal"), None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn results_go_to_the_calls_that_wait_for_them() {
        let mut talk = Conversation::default();
        assert!(talk.results(&["17".into()]).is_err(), "nothing was called");
        talk.answer(&json!({"content": null, "tool_calls": [call("a"), call("b")]}));
        assert!(talk.results(&["17".into()]).is_err(), "two were called");
        talk.results(&["17".into(), "rain".into()]).unwrap();
        let ids: Vec<_> = talk.messages()[1..]
            .iter()
            .map(|m| &m["tool_call_id"])
            .collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(
            talk.results(&["17".into(), "rain".into()]).is_err(),
            "given already"
        );
    }

    #[test]
    fn a_system_message_may_be_repeated_but_not_changed() {
        let mut talk = Conversation::default();
        talk.system("Be brief.").unwrap();
        talk.user("Hello");
        talk.system("Be brief.").unwrap();
        assert_eq!(talk.messages().len(), 2);
        assert!(talk.system("Be long.").is_err());
    }

    #[test]
    fn a_file_that_holds_no_conversation_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.json");
        std::fs::write(&path, "{\"dear\": \"diary\"}").unwrap();
        let refused = Conversation::open(&path).unwrap_err();
        assert!(
            refused
                .to_string()
                .ends_with("notes.json: want a JSON list of messages")
        );
    }
}
