//! OpenAI's answers: whole bodies and stream chunks, made of a request's events.

use serde_json::{Value, json};

use super::figures::{timings, usage_json};
use super::parts::{Delta, delta, message, reason};
use super::render::{Frame, Render};
use super::scores::{Kind, Scores};
use crate::door::chat::Asked;
use crate::request::{Event, Failure, FinishReason, Part, Token, TokenLogprob, Took, Usage};
use crate::service::{Answer, Receipt, Service, fresh_id, now};

/// The answers to one body: `n` for each of its prompts, numbered through.
pub struct Replies {
    kind: Kind,
    id: String,
    prompts: Vec<Vec<Token>>,
    n: usize,
    echo: bool,
    scores: Scores,
    stream: bool,
    include_usage: bool,
    usage: Usage,
    took: Took,
    choices: Vec<Choice>,
}

#[derive(Default)]
struct Choice {
    begun: bool,
    said: Answer,
    logprobs: Vec<TokenLogprob>,
    /// Characters of the tokens so far: the next one's `text_offset`.
    offset: usize,
    reason: Option<FinishReason>,
}

impl Replies {
    pub fn new(kind: Kind, asked: &Asked, prompts: Vec<Vec<Token>>) -> Replies {
        let first = &asked.requests[0];
        let n_choices = prompts.len() * first.n;
        Replies {
            kind,
            id: match kind {
                Kind::Chat => fresh_id("chatcmpl-"),
                Kind::Completion => fresh_id("cmpl-"),
            },
            prompts,
            n: first.n,
            echo: first.echo,
            scores: Scores {
                kind,
                token_ids: asked.token_ids,
                shown: first.logprobs.is_some(),
            },
            stream: asked.stream,
            include_usage: asked.include_usage,
            usage: Usage::default(),
            took: Took::default(),
            choices: (0..n_choices).map(|_| Choice::default()).collect(),
        }
    }

    fn count(&mut self, usage: Usage, took: Took) {
        self.took.reading += took.reading;
        self.took.answering += took.answering;
        self.usage.prompt_tokens += usage.prompt_tokens;
        self.usage.cached_tokens += usage.cached_tokens;
        self.usage.completion_tokens += usage.completion_tokens;
    }

    /// Collects an event for the whole body.
    fn add(&mut self, service: &Service, prompt: usize, event: Event) -> Result<(), Failure> {
        match event {
            Event::Prompt(scored) => {
                for choice in &mut self.choices[prompt * self.n..(prompt + 1) * self.n] {
                    choice.logprobs.extend_from_slice(&scored);
                }
            }
            Event::Delta {
                choice,
                parts,
                logprob,
            } => {
                let index = prompt * self.n + choice;
                self.begin(service, index);
                let choice = &mut self.choices[index];
                choice.logprobs.extend(logprob);
                for part in parts {
                    choice.said.add(part);
                }
            }
            Event::Finished { choice, reason, .. } => {
                let index = prompt * self.n + choice;
                self.begin(service, index);
                self.choices[index].reason = Some(reason);
            }
            Event::Read(_) => {}
            Event::Done(usage, took) => self.count(usage, took),
            Event::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    /// The text that is there before the first token: the prompt, where it is echoed.
    fn begin(&mut self, service: &Service, index: usize) -> String {
        let choice = &mut self.choices[index];
        if std::mem::replace(&mut choice.begun, true) || !self.echo {
            return String::new();
        }
        let text = service.detokenize(&self.prompts[index / self.n]);
        if !self.scores.shown {
            choice.offset = text.chars().count();
        }
        choice.said.add(Part::Text(text.clone()));
        text
    }

    fn body(&mut self, service: &Service) -> Value {
        let mut choices = Vec::with_capacity(self.choices.len());
        for (index, mut choice) in std::mem::take(&mut self.choices).into_iter().enumerate() {
            let scored = std::mem::take(&mut choice.logprobs);
            let logprobs = self.scores.json(service, &scored, &mut choice.offset);
            let reason = choice.reason.map(reason);
            choices.push(match self.kind {
                Kind::Completion => json!({
                    "index": index,
                    "text": choice.said.text(),
                    "logprobs": logprobs,
                    "finish_reason": reason,
                }),
                Kind::Chat => json!({
                    "index": index,
                    "message": message(&choice.said),
                    "logprobs": logprobs,
                    "finish_reason": reason,
                }),
            });
        }
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Completion => "text_completion",
        };
        let mut body = self.frame(service, object, choices);
        body["usage"] = usage_json(self.usage);
        body["timings"] = timings(self.usage, self.took);
        body
    }

    /// The chunks of a stream that an event makes.
    fn chunks(
        &mut self,
        service: &Service,
        prompt: usize,
        event: Event,
    ) -> Result<Vec<Value>, Failure> {
        match event {
            // Scores of a prompt go with its text, in the first chunk.
            Event::Prompt(scored) => {
                for choice in &mut self.choices[prompt * self.n..(prompt + 1) * self.n] {
                    choice.logprobs.extend_from_slice(&scored);
                }
                Ok(Vec::new())
            }
            Event::Delta {
                choice,
                parts,
                logprob,
            } => {
                let index = prompt * self.n + choice;
                let mut chunks = self.opening(service, index);
                let scored = Vec::from_iter(logprob);
                let mut offset = self.choices[index].offset;
                let logprobs = self.scores.json(service, &scored, &mut offset);
                self.choices[index].offset = offset;
                let mut logprobs = Some(logprobs).filter(|l| !l.is_null());
                for part in parts {
                    let scores = logprobs.take().unwrap_or(Value::Null);
                    chunks.push(self.chunk(service, index, delta(&part), scores, None));
                }
                if let Some(scores) = logprobs {
                    let nothing = Delta::default();
                    chunks.push(self.chunk(service, index, nothing, scores, None));
                }
                Ok(chunks)
            }
            Event::Finished { choice, reason, .. } => {
                let index = prompt * self.n + choice;
                let mut chunks = self.opening(service, index);
                let nothing = Delta::default();
                chunks.push(self.chunk(service, index, nothing, Value::Null, Some(reason)));
                Ok(chunks)
            }
            Event::Read(_) => Ok(Vec::new()),
            Event::Done(usage, took) => {
                self.count(usage, took);
                Ok(Vec::new())
            }
            Event::Failed(failure) => Err(failure),
        }
    }

    /// A choice's first chunk: its role, or the echoed prompt.
    fn opening(&mut self, service: &Service, index: usize) -> Vec<Value> {
        if self.choices[index].begun {
            return Vec::new();
        }
        let text = self.begin(service, index);
        match self.kind {
            Kind::Chat => {
                let role = Delta {
                    text: String::new(),
                    chat: json!({"role": "assistant", "content": ""}),
                };
                vec![self.chunk(service, index, role, Value::Null, None)]
            }
            Kind::Completion if self.echo => {
                let scored = std::mem::take(&mut self.choices[index].logprobs);
                let mut offset = self.choices[index].offset;
                let logprobs = self.scores.json(service, &scored, &mut offset);
                self.choices[index].offset = offset;
                let echoed = Delta {
                    text,
                    chat: Value::Null,
                };
                vec![self.chunk(service, index, echoed, logprobs, None)]
            }
            Kind::Completion => Vec::new(),
        }
    }

    fn chunk(
        &self,
        service: &Service,
        index: usize,
        delta: Delta,
        logprobs: Value,
        finish: Option<FinishReason>,
    ) -> Value {
        let finish = finish.map(reason);
        let (object, choice) = match self.kind {
            Kind::Chat => (
                "chat.completion.chunk",
                json!({
                    "index": index,
                    "delta": delta.chat,
                    "logprobs": logprobs,
                    "finish_reason": finish,
                }),
            ),
            Kind::Completion => (
                "text_completion",
                json!({
                    "index": index,
                    "text": delta.text,
                    "logprobs": logprobs,
                    "finish_reason": finish,
                }),
            ),
        };
        let mut chunk = self.frame(service, object, vec![choice]);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// The last chunk, where it was asked for: some clients stop at an empty `choices`.
    fn usage_chunk(&self, service: &Service) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        let mut chunk = self.frame(service, object, Vec::new());
        chunk["usage"] = usage_json(self.usage);
        chunk["timings"] = timings(self.usage, self.took);
        chunk
    }

    fn frame(&self, service: &Service, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": now(),
            "model": service.card().id,
            "choices": choices,
        })
    }
}

impl Render for Replies {
    fn take(
        &mut self,
        service: &Service,
        prompt: usize,
        event: Event,
    ) -> Result<Vec<Frame>, Failure> {
        if !self.stream {
            return self.add(service, prompt, event).map(|()| Vec::new());
        }
        let chunks = self.chunks(service, prompt, event)?;
        Ok(chunks.into_iter().map(Frame::plain).collect())
    }

    fn last(&mut self, service: &Service, _: &[Receipt]) -> Vec<Frame> {
        let usage = self.include_usage.then(|| self.usage_chunk(service));
        let mut frames: Vec<Frame> = usage.into_iter().map(Frame::plain).collect();
        frames.push(Frame::plain("[DONE]"));
        frames
    }

    fn whole(&mut self, service: &Service, _: &[Receipt]) -> Value {
        self.body(service)
    }

    /// The stream ends after it, without its `[DONE]`.
    fn failed(&mut self, error: Value) -> Frame {
        Frame::plain(error)
    }
}
