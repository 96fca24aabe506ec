//! From a request's prompt to tokens. A conversation that was answered here goes on with the very
//! tokens that it had, however its caller spells it now.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::house::{Service, invalid};
use crate::request::{Mark, Message, Prompt, Refusal, TemplateOptions, Token, ToolChoice};
use crate::scheduler::{End, Style};
use crate::sessions::Key;
use crate::text::{self, Calls, Expect, PromptText, Specials};

pub(super) struct Made {
    pub tokens: Vec<Token>,
    pub style: Style,
    /// Of a chat's messages.
    pub key: Option<Key>,
    /// Where they end.
    pub ends: Vec<End>,
    /// Another model answered in it, and none of its answers' tokens are known.
    pub is_strange: bool,
}

fn raw(tokens: Vec<Token>) -> Made {
    Made {
        tokens,
        style: Style::Raw,
        key: None,
        ends: Vec::new(),
        is_strange: false,
    }
}

/// How many tokens are up to each mark.
pub(super) fn places(marks: &[Mark], ends: &[End]) -> Vec<(usize, Duration)> {
    let place = |mark: &Mark| {
        let upto = ends.iter().rev().filter(|end| match mark.messages {
            0 => end.message == 0,
            n => end.message < n,
        });
        // What comes before the first message may end with it.
        let nth = if mark.messages == 0 { 1 } else { 0 };
        let places: Vec<usize> = upto.map(|end| end.at).take(nth + 1).collect();
        Some((*places.get(nth).or(places.last())?, mark.stays))
    };
    marks.iter().filter_map(place).collect()
}

impl Service {
    /// `asks`: a chat's prompt ends where the answer begins.
    pub(super) fn prompt(&self, uid: u32, prompt: &Prompt, asks: bool) -> Result<Made, Refusal> {
        match prompt {
            Prompt::Tokens(tokens) => {
                let n_vocab = self.card.n_vocab;
                if let Some(token) = tokens.iter().find(|&&t| t as usize >= n_vocab) {
                    let why = format!("got token {token}, want less than {n_vocab}");
                    return invalid("prompt", why);
                }
                if tokens.is_empty() {
                    invalid("prompt", "got no tokens, want at least one")
                } else {
                    Ok(raw(tokens.clone()))
                }
            }
            Prompt::Text(text) => {
                let tokens = self.tokenize(text, true, Specials::Plain);
                match (tokens.is_empty(), self.tokenizer.bos()) {
                    (false, _) => Ok(raw(tokens)),
                    (true, Some(bos)) => Ok(raw(vec![bos])),
                    (true, None) => invalid("prompt", "got an empty text, want at least one token"),
                }
            }
            Prompt::Chat {
                messages,
                tools,
                tool_choice,
                options,
                ..
            } => {
                let calls = *tool_choice != ToolChoice::None;
                self.chat(uid, messages, (tools, calls), options, asks)
            }
        }
    }

    /// `calls`: of the tools that it is told of, some may be called. It is told of them anyway, so
    /// that the prompt begins as it did before.
    fn chat(
        &self,
        uid: u32,
        messages: &[Message],
        (tools, calls): (&[serde_json::Value], bool),
        options: &TemplateOptions,
        asks: bool,
    ) -> Result<Made, Refusal> {
        if messages.is_empty() {
            return invalid("messages", "got none, want at least one");
        }
        let rendered = self.template.render_with(options, messages, tools, asks);
        let rendered = rendered.or_else(|e| invalid("messages", e.to_string()))?;
        let keys = self.sessions.replays.keys(uid, options, tools, messages);
        let tokens = self.as_it_was(uid, (messages, tools, options), &keys, &rendered);
        let is_strange = tokens.is_none() && self.is_strange(uid, &keys);
        let tokens = tokens.unwrap_or_else(|| text::encode_chat(&self.tokenizer, &rendered));
        if tokens.is_empty() {
            return invalid("messages", "the chat template made an empty prompt of them");
        }
        let mut salt = DefaultHasher::new();
        rendered.hash(&mut salt);
        let markup = self.markup.clone();
        let markup = markup.filter(|_| calls && !tools.is_empty());
        let expect = Expect {
            calls: markup.map(|markup| Calls {
                markup,
                tools: tools.into(),
                salt: salt.finish(),
            }),
            thinking: rendered.opens_thinking(),
        };
        Ok(Made {
            ends: self.ends(&tokens, messages),
            tokens,
            style: Style::Chat(expect),
            key: keys.last().copied(),
            is_strange,
        })
    }

    /// Where the template's own markup ends each message. What it puts first is the first one's;
    /// results that it ends together are the first of them.
    fn ends(&self, tokens: &[Token], messages: &[Message]) -> Vec<End> {
        let ends = tokens.iter().zip(1..);
        let ends = ends.filter(|(t, _)| self.tokenizer.is_end(**t));
        let ends: Vec<usize> = ends.map(|(_, at)| at).collect();
        let mut units: Vec<usize> = (0..messages.len()).collect();
        if ends.len() < units.len() {
            let goes_on = |&i: &usize| {
                let is_result = |m: &Message| m.role == "tool";
                i > 0 && is_result(&messages[i]) && is_result(&messages[i - 1])
            };
            units.retain(|i| !goes_on(i));
        }
        let before = ends.len().saturating_sub(units.len());
        let message = |i: usize| i.checked_sub(before).map_or(0, |i| units[i]);
        let each = ends.into_iter().enumerate();
        each.map(|(i, at)| End {
            at,
            message: message(i),
        })
        .collect()
    }

    /// Whether another model answered in it.
    fn is_strange(&self, uid: u32, keys: &[Key]) -> bool {
        let replays = &self.sessions.replays;
        keys.iter().any(|key| replays.is_strange(uid, *key))
    }

    /// The tokens of a prompt, with what they had been up to the last answer that is remembered. What
    /// had been is not tokenized again.
    fn as_it_was(
        &self,
        uid: u32,
        (messages, tools, options): (&[Message], &[serde_json::Value], &TemplateOptions),
        keys: &[Key],
        rendered: &PromptText,
    ) -> Option<Vec<Token>> {
        let answers = (0..messages.len()).rev();
        let mut answers = answers.filter(|&i| messages[i].role == "assistant");
        answers.find_map(|i| {
            let was = self.sessions.replays.find(uid, keys[i + 1])?;
            // Where the answer's own markup ends it.
            let upto = &messages[..=i];
            let upto = self
                .template
                .render_with(options, upto, tools, false)
                .ok()?;
            let behind = text::encode_behind(&self.tokenizer, rendered, &upto)?;
            Some([&was, &behind[..]].concat())
        })
    }
}
