//! Messages and options from the bus, read by the one reader of options that HTTP has. Where HTTP
//! ignores a name that it does not know, this refuses it.

use serde_json::{Map, Value, json};

use super::error::Error;
use super::value::{self, Dictionary};
use crate::door::chat::{self, Asked};
use crate::door::fields::Fields;
use crate::door::messages;
use crate::request::{Message, Refusal};

/// What HTTP's body holds beside options; methods have arguments for that.
const NOT_OPTIONS: [&str; 4] = ["messages", "prompt", "stream", "stream_options"];

/// What makes more of an answer than one text.
const NOT_ONE_TEXT: [&str; 5] = ["n", "tools", "tool_choice", "logprobs", "top_logprobs"];

/// The options of a call as JSON, none of them an argument in disguise.
pub fn named(options: &Dictionary) -> Result<Map<String, Value>, Error> {
    match options.keys().find(|k| NOT_OPTIONS.contains(&k.as_str())) {
        Some(name) => Err(Error::UnknownOption(format!(
            "{name}: is no option here; the method's arguments and its descriptor say that"
        ))),
        None => Ok(value::object(options, "")?),
    }
}

pub fn messages(given: &[Dictionary]) -> Result<Vec<Message>, Error> {
    let each = given.iter().enumerate();
    let each = each.map(|(i, m)| value::object(m, &format!("messages[{i}]")));
    messages_of(each.collect::<Result<Vec<_>, _>>()?.into())
}

/// Messages that are JSON already.
pub fn messages_of(given: Value) -> Result<Vec<Message>, Error> {
    let body = json!({"messages": given});
    Ok(messages::messages(&Fields::of(&body, "")?)?.unwrap_or_default())
}

/// A conversation with its options, in at most `max_bytes` of text.
pub fn chat(
    said: Vec<Message>,
    options: Map<String, Value>,
    max_bytes: usize,
) -> Result<Asked, Error> {
    fits(weight(&said, &options), max_bytes)?;
    let body = Value::Object(options);
    let fields = Fields::of(&body, "")?;
    let asked = chat::chat_of(&fields, said)?;
    refuse_unread(&fields)?;
    Ok(asked)
}

/// The bytes of a call's texts, which are nearly all of a large one.
pub fn weight(said: &[Message], options: &Map<String, Value>) -> usize {
    let calls = |m: &Message| {
        let each = m.tool_calls.iter();
        each.map(|c| c.id.len() + c.name.len() + c.arguments.len())
            .sum::<usize>()
    };
    let ids = |m: &Message| {
        [&m.name, &m.tool_call_id, &m.reasoning]
            .map(|t| t.as_ref().map_or(0, String::len))
            .iter()
            .sum::<usize>()
    };
    let message = |m: &Message| m.role.len() + m.content.len() + ids(m) + calls(m);
    let options = options
        .iter()
        .map(|(name, value)| name.len() + text_of(value));
    said.iter().map(message).sum::<usize>() + options.sum::<usize>()
}

fn text_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(text_of).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + text_of(v)).sum(),
        _ => size_of::<f64>(),
    }
}
pub fn fits(bytes: usize, max_bytes: usize) -> Result<(), Error> {
    if bytes <= max_bytes {
        Ok(())
    } else {
        Err(Error::TooLarge(format!(
            "the call holds {bytes} bytes, want at most {max_bytes}"
        )))
    }
}

/// The options of a call whose answer is one text.
pub fn one_text(options: &Map<String, Value>) -> Result<(), Error> {
    match NOT_ONE_TEXT.iter().find(|n| options.contains_key(**n)) {
        Some(name) => Err(Error::InvalidArgument(format!(
            "{name}: Ask answers with one text; use Chat"
        ))),
        None => Ok(()),
    }
}

/// Names that nobody asked for, the nearest known one beside them.
pub fn refuse_unread(fields: &Fields) -> Result<(), Error> {
    let Some(name) = fields.unread().next() else {
        return Ok(());
    };
    let known = fields.asked();
    let nearest = known
        .iter()
        .filter(|k| !NOT_OPTIONS.contains(&k.as_str()))
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7);
    let hint = nearest.map_or(String::new(), |(_, k)| format!("; did you mean {k}?"));
    Err(Error::UnknownOption(format!(
        "{name}: no such option{hint}"
    )))
}

/// A message by its text, and what else a message is, which is taken out of the options: a tool's result
/// names its call.
pub fn question(content: String, options: &mut Map<String, Value>) -> Result<Message, Error> {
    let role = text(options, "role")?;
    Ok(Message {
        role: messages::role(role.as_deref().unwrap_or("user")).to_owned(),
        content,
        name: text(options, "name")?,
        tool_call_id: text(options, "tool_call_id")?,
        ..Message::default()
    })
}

/// Takes `persist` out of the options of a session.
pub fn persist(options: &mut Map<String, Value>) -> Result<Option<bool>, Error> {
    match options.remove("persist") {
        None => Ok(None),
        Some(Value::Bool(persist)) => Ok(Some(persist)),
        Some(_) => invalid("persist", "want true or false"),
    }
}

/// Takes `name` out of the options of a session.
pub fn name(options: &mut Map<String, Value>) -> Result<Option<String>, Error> {
    text(options, "name")
}

fn text(options: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Error> {
    match options.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => invalid(name, "want a text"),
    }
}

/// What [`Refusal::Invalid`] says, for arguments that only the bus has.
pub fn invalid<T>(param: &str, message: &str) -> Result<T, Error> {
    let (param, message) = (param.to_owned(), message.to_owned());
    Err(Refusal::Invalid { param, message }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(options: Value) -> Result<Asked, String> {
        let options = options.as_object().expect("an object").clone();
        let hello = messages_of(json!([{"role": "user", "content": "Hi"}]));
        chat(hello.expect("a message"), options, 10_000).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn an_option_means_what_it_means_over_http() {
        let options = json!({"temperature": 0.5, "max_tokens": 7, "stop": ["a"], "seed": 3,
            "enable_thinking": false, "reasoning_effort": "low",
            "chat_template_kwargs": {"thinking_option": "off"}});
        let mut body = options.clone();
        body["messages"] = json!([{"role": "user", "content": "Hi"}]);
        assert_eq!(asked(options), Ok(chat::chat(&body).expect("a body")));
    }

    #[test]
    fn a_misspelt_option_is_refused_with_the_right_spelling() {
        let refused = asked(json!({"temperatur": 0.5})).unwrap_err();
        assert!(refused.contains("UnknownOption"), "{refused}");
        assert!(refused.contains("did you mean temperature?"), "{refused}");
        let refused = asked(json!({"zzz": 0.5})).unwrap_err();
        assert!(refused.contains("zzz: no such option\""), "{refused}");
    }

    #[test]
    fn arguments_are_no_options() {
        for name in NOT_OPTIONS {
            let options = Dictionary::from([(name.to_owned(), true.into())]);
            let refused = named(&options).unwrap_err();
            assert!(matches!(refused, Error::UnknownOption(_)), "{name}");
        }
    }

    #[test]
    fn a_call_that_is_too_large_is_refused_before_it_is_read() {
        let options = Map::from_iter([("user".to_owned(), "x".repeat(100).into())]);
        let refused = chat(vec![], options, 50).unwrap_err();
        assert!(matches!(refused, Error::TooLarge(_)));
    }
}
