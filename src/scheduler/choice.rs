//! One answer of a request: chooses its tokens, reads them as text and knows when it ends. Knows no
//! sequence and no neighbour.

use super::beside::Mask;
use super::model::Fault;
use super::{Admitted, Style};
use crate::engine::{Next, Want};
use crate::request::{FinishReason, Part, Token, TokenLogprob};
use crate::sampler::{Sampler, logprobs};
use crate::text::{Constraint, Delta, ReplyReader, Stopped, TextStream, Tokenizer};

pub struct Choice {
    sampler: Sampler,
    decoder: Decoder,
    /// Away while its mask is computed.
    constraint: Option<Constraint>,
    /// All logits are looked at, or a mask is put over them.
    needs_logits: bool,
    n_tokens: usize,
}

enum Decoder {
    Raw(TextStream),
    Reply(Box<ReplyReader>),
}

/// What one token made of an answer.
pub struct Said {
    pub token: Token,
    pub parts: Vec<Part>,
    pub logprob: Option<TokenLogprob>,
    /// Where it was the last one.
    pub end: Option<End>,
}

pub struct End {
    pub reason: FinishReason,
    /// The stop string that did it, where one did.
    pub stop: Option<String>,
    /// The token says that the turn is over and nothing else.
    pub is_markup: bool,
}

impl Choice {
    /// The answer of that number; takes its constraint out of the request.
    pub fn new(index: usize, request: &mut Admitted, tokenizer: &Tokenizer) -> Choice {
        let seed = request.seed.wrapping_add(index as u64);
        let constraint = request.constraints.pop();
        Choice {
            sampler: Sampler::new(&request.sampling, seed, &request.prompt),
            decoder: match &request.style {
                Style::Raw => Decoder::Raw(TextStream::new(&request.stop.strings)),
                Style::Chat(expect) => {
                    let reader = ReplyReader::new(tokenizer, &request.stop, expect.clone());
                    Decoder::Reply(Box::new(reader))
                }
            },
            needs_logits: constraint.is_some() || request.logprobs.is_some(),
            constraint,
            n_tokens: 0,
        }
    }

    /// What of the next pass its next token is chosen from.
    pub fn want(&mut self) -> Want {
        let draw = self.sampler.draw_of().filter(|_| !self.needs_logits);
        draw.map_or(Want::Last, Want::Drawn)
    }

    /// Lends the constraint for a mask; [`Choice::take`] wants both back.
    pub fn lend(&mut self) -> Option<Constraint> {
        self.constraint.take()
    }

    /// Chooses the next token. `lent`: what came of the constraint.
    pub fn take(
        &mut self,
        next: Next<'_>,
        lent: Option<(Constraint, Mask)>,
        request: &Admitted,
        tokenizer: &Tokenizer,
    ) -> Result<Said, Fault> {
        let (constraint, mask) = lent.unzip();
        self.constraint = constraint;
        let mask = mask.transpose()?.flatten();
        let token = match next {
            Next::Logits(logits) => self.sampler.sample(logits, mask.as_ref()),
            Next::Few(few) => self.sampler.sample_few(few),
            Next::Token(token) => {
                self.sampler.count(token);
                Some(token)
            }
        };
        let token = token.ok_or(Fault::NoToken)?;
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token)?;
        }
        self.n_tokens += 1;
        let ends = tokenizer.is_end(token) && !request.stop.ignore_eos;
        let constraint = self.constraint.as_ref();
        let complete = constraint.is_some_and(Constraint::is_complete);
        let (mut parts, stopped) = if ends {
            (Vec::new(), None)
        } else {
            self.read(tokenizer, token)
        };
        let by_itself = ends || stopped.is_some() || complete;
        let is_last = by_itself || self.n_tokens >= request.max_tokens;
        if is_last {
            parts.extend(self.finish());
        }
        let reason = if !by_itself {
            FinishReason::Length
        } else if self.calls_tools() {
            FinishReason::ToolCalls
        } else {
            FinishReason::Stop
        };
        Ok(Said {
            token,
            parts,
            logprob: request.logprobs.and_then(|n| match next {
                Next::Logits(logits) => Some(logprobs(logits, token, n)),
                Next::Few(_) | Next::Token(_) => None,
            }),
            end: is_last.then(|| End {
                reason,
                stop: match stopped {
                    Some(Stopped::By(at)) => Some(request.stop.strings[at].clone()),
                    Some(Stopped::Spelled) | None => None,
                },
                is_markup: ends,
            }),
        })
    }

    /// The parts that `token` made certain, and what ended the text, if anything did.
    fn read(&mut self, tokenizer: &Tokenizer, token: Token) -> (Vec<Part>, Option<Stopped>) {
        match &mut self.decoder {
            // Markup is not text.
            Decoder::Raw(_) if tokenizer.is_special(token) => (Vec::new(), None),
            Decoder::Raw(stream) => {
                let piece = stream.push(tokenizer.token_bytes(token));
                (text(piece.text), piece.stopped.map(Stopped::By))
            }
            Decoder::Reply(reader) => {
                let parts = reader.push(tokenizer, token).into_iter().map(part);
                (parts.collect(), reader.stopped())
            }
        }
    }

    fn finish(&mut self) -> Vec<Part> {
        match &mut self.decoder {
            Decoder::Raw(stream) => text(stream.finish().text),
            Decoder::Reply(reader) => reader.finish().into_iter().map(part).collect(),
        }
    }

    fn calls_tools(&self) -> bool {
        matches!(&self.decoder, Decoder::Reply(reader) if reader.calls_tools())
    }
}

fn text(text: String) -> Vec<Part> {
    if text.is_empty() {
        Vec::new()
    } else {
        vec![Part::Text(text)]
    }
}

fn part(delta: Delta) -> Part {
    match delta {
        Delta::Content(text) => Part::Text(text),
        Delta::Reasoning(text) => Part::Reasoning(text),
        Delta::Call { index, id, name } => Part::Call { index, id, name },
        Delta::Arguments { index, text } => Part::Arguments { index, text },
    }
}
