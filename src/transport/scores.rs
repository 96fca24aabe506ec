//! Scores of tokens, as OpenAI's answers have them.

use serde_json::{Map, Value, json};

use crate::request::{Token, TokenLogprob};
use crate::service::Service;

/// Whose form they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Completion,
}

/// How the scores of one body are written.
pub struct Scores {
    pub kind: Kind,
    /// Tokens are called by their ids.
    pub token_ids: bool,
    pub shown: bool,
}

impl Scores {
    fn name(&self, service: &Service, token: Token) -> String {
        if self.token_ids {
            format!("token_id:{token}")
        } else {
            spelling(service, token)
        }
    }

    /// `offset`: characters of what was said before, which goes on by these.
    pub fn json(&self, service: &Service, scored: &[TokenLogprob], offset: &mut usize) -> Value {
        if !self.shown || scored.is_empty() && self.kind == Kind::Completion {
            return Value::Null;
        }
        match self.kind {
            Kind::Chat if scored.is_empty() => Value::Null,
            Kind::Chat => {
                let name = |token| self.name(service, token);
                let content = scored.iter().map(|s| score_json(service, s, name));
                json!({"content": content.collect::<Vec<_>>(), "refusal": null})
            }
            Kind::Completion => {
                let mut tokens = Vec::new();
                let mut offsets = Vec::new();
                let mut tops = Vec::new();
                for s in scored {
                    tokens.push(self.name(service, s.token));
                    offsets.push(*offset);
                    let text = String::from_utf8_lossy(service.token_bytes(s.token));
                    *offset += text.chars().count();
                    tops.push(match s.logprob {
                        None => Value::Null,
                        // The token itself is named too, wherever it stands.
                        Some(own) => {
                            let all = s.top.iter().copied().chain([(s.token, own)]);
                            let mut named = Map::new();
                            for (token, logprob) in all {
                                let name = self.name(service, token);
                                named.entry(name).or_insert(json!(logprob));
                            }
                            Value::Object(named)
                        }
                    });
                }
                let values: Vec<_> = scored.iter().map(|s| s.logprob).collect();
                json!({
                    "tokens": tokens,
                    "token_logprobs": values,
                    "top_logprobs": tops,
                    "text_offset": offsets,
                })
            }
        }
    }
}

/// A token as text; U+FFFD for what is no character by itself.
pub fn spelling(service: &Service, token: Token) -> String {
    String::from_utf8_lossy(service.token_bytes(token)).into_owned()
}

/// A token's score with its alternatives, as chat and responses have it.
pub fn score_json(
    service: &Service,
    scored: &TokenLogprob,
    name: impl Fn(Token) -> String,
) -> Value {
    let entry = |token: Token, logprob: Option<f32>| {
        let bytes = service.token_bytes(token);
        json!({"token": name(token), "logprob": logprob, "bytes": bytes})
    };
    let mut one = entry(scored.token, scored.logprob);
    let top = scored.top.iter().map(|&(t, l)| entry(t, Some(l)));
    one["top_logprobs"] = top.collect();
    one
}
