//! One admitted request on its way: prefill, then each choice to its end. Owns its sequence, so
//! dropping it frees the state.

use std::time::{Duration, Instant};

use super::beside::{Beside, Mask};
use super::deliver::Outbox;
use super::model::{Fault, Model};
use super::plan::{Cost, DECODE_COST, Standing, prefill_cost};
use super::prefixes::Prefixes;
use super::{Admitted, Style, failed};
use crate::engine::{Lane, Logits, PassError, Want};
use crate::request::{Event, FinishReason, Part, Token, TokenLogprob, Usage};
use crate::sampler::{Sampler, logprobs};
use crate::text::{Constraint, ConstraintError, Delta, ReplyReader, TextStream, Tokenizer};

/// Prompt tokens per pass where the logits of all are wanted: they take `n_vocab` floats each.
const SCORED_CHUNK: usize = 64;

pub struct Running<M: Model> {
    pub standing: Standing,
    pub outbox: Outbox,
    request: Admitted,
    sequence: M::Sequence,
    /// What the sequence was fed, from its beginning.
    fed: Vec<Token>,
    phase: Phase,
    choice: Choice,
    /// Where further choices start from.
    fork: Option<Fork<M::Snapshot>>,
    pub usage: Usage,
    /// When the last token came; before the first, when the request did.
    last_token: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Prefilling,
    Decoding { last: Token },
    Finished,
}

/// The end of the prompt. Choices run one after another from here: they would take as long side by
/// side, and this way `n` answers hold the memory of two.
struct Fork<S> {
    snapshot: S,
    logits: Vec<f32>,
}

struct Choice {
    index: usize,
    sampler: Sampler,
    reader: Reader,
    constraint: Option<Constraint>,
    n_tokens: usize,
}

enum Reader {
    Raw(TextStream),
    Reply(Box<ReplyReader>),
}

impl Choice {
    fn new(index: usize, request: &mut Admitted, tokenizer: &Tokenizer) -> Choice {
        let seed = request.seed.wrapping_add(index as u64);
        let stops = &request.stop.strings;
        Choice {
            index,
            sampler: Sampler::new(&request.sampling, seed, &request.prompt),
            reader: match request.style {
                Style::Raw => Reader::Raw(TextStream::new(stops)),
                Style::Chat(expect) => {
                    Reader::Reply(Box::new(ReplyReader::new(tokenizer, stops, expect)))
                }
            },
            constraint: request.constraints.pop(),
            n_tokens: 0,
        }
    }

    /// The next token; `None` where the constraint allows none or there are no logits. `mask` is
    /// what was computed beside the pass; a choice that begins without a pass has none yet.
    fn choose(
        &mut self,
        logits: &[f32],
        mask: Option<Mask>,
    ) -> Result<Option<Token>, ConstraintError> {
        let Some(constraint) = &mut self.constraint else {
            // Where the constraint was lost, the mask says why.
            return Ok(self
                .sampler
                .sample(logits, mask.transpose()?.flatten().as_ref()));
        };
        let mask = mask.unwrap_or_else(|| constraint.mask())?;
        let token = self.sampler.sample(logits, mask.as_ref());
        if let Some(token) = token {
            constraint.accept(token)?;
        }
        Ok(token)
    }

    /// The parts that `token` made certain, and which stop string ended the text, if one did.
    fn read(&mut self, tokenizer: &Tokenizer, token: Token) -> (Vec<Part>, Option<usize>) {
        match &mut self.reader {
            // Markup is not text.
            Reader::Raw(_) if tokenizer.is_special(token) => (Vec::new(), None),
            Reader::Raw(stream) => {
                let piece = stream.push(tokenizer.token_bytes(token));
                (text(piece.text), piece.stopped)
            }
            Reader::Reply(reader) => {
                let parts = reader.push(tokenizer, token).into_iter().map(part);
                (parts.collect(), reader.stopped())
            }
        }
    }

    fn finish(&mut self) -> Vec<Part> {
        match &mut self.reader {
            Reader::Raw(stream) => text(stream.finish().text),
            Reader::Reply(reader) => reader.finish().into_iter().map(part).collect(),
        }
    }

    fn calls_tools(&self) -> bool {
        matches!(&self.reader, Reader::Reply(reader) if reader.calls_tools())
    }
}

fn text(text: String) -> Vec<Part> {
    match text.is_empty() {
        true => Vec::new(),
        false => vec![Part::Text(text)],
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

impl<M: Model> Running<M> {
    /// Takes up the longest state kept of the prompt's beginning.
    pub fn start(
        id: u64,
        mut request: Admitted,
        model: &mut M,
        tokenizer: &Tokenizer,
        prefixes: &mut Prefixes<M::Snapshot>,
    ) -> Result<Running<M>, Box<(Admitted, Fault)>> {
        let uid = request.caller.uid;
        // Scores of the prompt need all of its logits.
        let found = match request.scores_prompt {
            true => None,
            false => prefixes.find(uid, &request.prompt),
        };
        let begun = match found {
            Some((snapshot, n)) => model.restore(snapshot).map(|s| (s, n)),
            None => model.sequence().map(|s| (s, 0)),
        };
        let (sequence, cached) = match begun {
            Ok(begun) => begun,
            Err(e) => return Err(Box::new((request, e.into()))),
        };
        Ok(Running {
            standing: Standing { id, uid },
            outbox: Outbox::new(request.events.clone()),
            sequence,
            fed: request.prompt[..cached].to_vec(),
            phase: Phase::Prefilling,
            choice: Choice::new(0, &mut request, tokenizer),
            fork: None,
            usage: Usage {
                prompt_tokens: request.prompt.len(),
                cached_tokens: cached,
                completion_tokens: 0,
            },
            last_token: request.arrived,
            request,
        })
    }

    /// Time since the token before, which this call makes now.
    pub fn since_last_token(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.last_token, now))
    }

    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// One pass, at most `chunk` tokens.
    pub fn step(
        &mut self,
        model: &mut M,
        tokenizer: &Tokenizer,
        prefixes: &mut Prefixes<M::Snapshot>,
        beside: &mut Beside,
        chunk: usize,
    ) -> Result<Cost, Fault> {
        match self.phase {
            Phase::Prefilling => self.prefill(model, tokenizer, prefixes, beside, chunk),
            Phase::Decoding { last } => {
                let pass = || alone(model, &mut self.sequence, &[last], Want::Last);
                let (passed, mask) = beside.run(&mut self.choice.constraint, pass);
                let logits = passed?.last().map_or_else(Vec::new, <[f32]>::to_vec);
                self.fed.push(last);
                self.accept(logits, mask, model, tokenizer, prefixes)?;
                Ok(DECODE_COST)
            }
            Phase::Finished => Ok(0),
        }
    }

    fn prefill(
        &mut self,
        model: &mut M,
        tokenizer: &Tokenizer,
        prefixes: &mut Prefixes<M::Snapshot>,
        beside: &mut Beside,
        chunk: usize,
    ) -> Result<Cost, Fault> {
        let prompt = &self.request.prompt;
        let done = self.fed.len();
        let scores = self.request.scores_prompt;
        let chunk = if scores {
            chunk.min(SCORED_CHUNK)
        } else {
            chunk
        };
        let end = prompt.len().min(done + chunk);
        let is_last = end == prompt.len();
        let want = match (scores, is_last) {
            (true, _) => Want::All,
            (false, true) if self.request.max_tokens > 0 => Want::Last,
            (false, _) => Want::Nothing,
        };
        let n_top = self.request.logprobs.unwrap_or(0);
        let mut scored: Vec<TokenLogprob> = Vec::new();
        if scores && done == 0 {
            scored.push(TokenLogprob {
                token: prompt[0],
                logprob: None,
                top: Vec::new(),
            });
        }
        // Logits at position i are about token i + 1.
        let about = if scores { done + 1 } else { end };
        let mut last_row = Vec::new();
        let mut pass = || alone(model, &mut self.sequence, &prompt[done..end], want);
        let (passed, mask) = match is_last {
            true => beside.run(&mut self.choice.constraint, pass),
            false => (pass(), None),
        };
        for (about, row) in (about..).zip(passed?.rows()) {
            match prompt.get(about) {
                Some(&token) => scored.push(logprobs(row, token, n_top)),
                None => last_row = row.to_vec(),
            }
        }
        self.fed.extend_from_slice(&prompt[done..end]);
        if !scored.is_empty() {
            self.outbox.push(Event::Prompt(scored));
        }
        if is_last {
            self.begin_choices(last_row, mask, model, tokenizer, prefixes)?;
        }
        Ok(prefill_cost(end - done))
    }

    fn begin_choices(
        &mut self,
        logits: Vec<f32>,
        mask: Option<Mask>,
        model: &mut M,
        tokenizer: &Tokenizer,
        prefixes: &mut Prefixes<M::Snapshot>,
    ) -> Result<(), Fault> {
        if self.request.max_tokens == 0 {
            for choice in 0..self.request.n {
                let reason = FinishReason::Length;
                self.outbox.push(Event::Finished {
                    choice,
                    reason,
                    stop: None,
                });
            }
            self.end();
            return Ok(());
        }
        if self.request.n > 1 {
            self.fork = Some(Fork {
                snapshot: model.snapshot(&self.sequence),
                logits: logits.clone(),
            });
        }
        self.keep_prefix(model, prefixes);
        self.accept(logits, mask, model, tokenizer, prefixes)
    }

    /// Chooses a token from `logits`, tells the caller, and decides whether the choice goes on.
    fn accept(
        &mut self,
        mut logits: Vec<f32>,
        mut mask: Option<Mask>,
        model: &mut M,
        tokenizer: &Tokenizer,
        prefixes: &mut Prefixes<M::Snapshot>,
    ) -> Result<(), Fault> {
        loop {
            let chosen = self.choice.choose(&logits, mask.take());
            let token = chosen?.ok_or(Fault::NoToken)?;
            self.choice.n_tokens += 1;
            self.usage.completion_tokens += 1;
            let logprob = self.request.logprobs.map(|n| logprobs(&logits, token, n));
            let ends = tokenizer.is_end(token) && !self.request.stop.ignore_eos;
            let complete = self.choice.constraint.as_ref();
            let complete = complete.is_some_and(Constraint::is_complete);
            let (mut parts, stopped) = match ends {
                true => (Vec::new(), None),
                false => self.choice.read(tokenizer, token),
            };
            let is_full = self.choice.n_tokens >= self.request.max_tokens;
            let by_itself = ends || stopped.is_some() || complete;
            let finished = by_itself || is_full;
            if finished {
                parts.extend(self.choice.finish());
            }
            let choice = self.choice.index;
            if !parts.is_empty() || logprob.is_some() {
                self.outbox.push(Event::Delta {
                    choice,
                    parts,
                    logprob,
                });
            }
            if !finished {
                self.phase = Phase::Decoding { last: token };
                return Ok(());
            }
            let reason = match (by_itself, self.choice.calls_tools()) {
                (true, true) => FinishReason::ToolCalls,
                (true, false) => FinishReason::Stop,
                (false, _) => FinishReason::Length,
            };
            let stop = stopped.map(|at| self.request.stop.strings[at].clone());
            self.outbox.push(Event::Finished {
                choice,
                reason,
                stop,
            });
            self.keep_prefix(model, prefixes);
            let next = choice + 1;
            match &self.fork {
                Some(fork) if next < self.request.n => {
                    self.sequence = model.restore(&fork.snapshot)?;
                    logits = fork.logits.clone();
                    self.fed.truncate(self.request.prompt.len());
                    self.choice = Choice::new(next, &mut self.request, tokenizer);
                }
                _ => {
                    self.end();
                    return Ok(());
                }
            }
        }
    }

    /// Nothing more will run; the caller is told why.
    pub fn fail(&mut self, e: &Fault) {
        self.phase = Phase::Finished;
        self.outbox.push(failed(e));
    }

    fn end(&mut self) {
        self.phase = Phase::Finished;
        self.outbox.push(Event::Done(self.usage));
    }

    /// Only conversations come back.
    fn keep_prefix(&self, model: &mut M, prefixes: &mut Prefixes<M::Snapshot>) {
        let bytes = M::bytes(&self.sequence);
        let uid = self.standing.uid;
        let worth = matches!(self.request.style, Style::Chat(_)) && prefixes.has_room_for(bytes);
        if worth && !prefixes.holds(uid, &self.fed) {
            let snapshot = model.snapshot(&self.sequence);
            prefixes.keep(uid, self.fed.clone(), snapshot, bytes);
        }
    }
}

fn alone<M: Model>(
    model: &mut M,
    sequence: &mut M::Sequence,
    tokens: &[Token],
    want: Want,
) -> Result<Logits, PassError> {
    let lane = Lane {
        sequence,
        tokens,
        want,
    };
    let logits = model.forward(&mut [lane])?.pop();
    Ok(logits.unwrap_or_else(|| Logits::new(1, Vec::new())))
}
