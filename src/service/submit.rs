//! How a request is admitted: held against what may be asked, made tokens, and given to the scheduler.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::events::{Events, Memory};
use super::house::{Service, invalid};
use super::{checks, prompt};
use crate::request::{Cached, Caller, Refusal, Request, Thread, Token};
use crate::scheduler::{self, Admitted, Style};
use crate::text::Expect;

/// Events that may lie unread before a request is parked.
const UNREAD_EVENTS: usize = 64;
const MAX_CHOICES: usize = 128;
const MAX_LOGPROBS: usize = 20;
/// Tokens of thought before an answer that must keep to a grammar, and half of what the answer may
/// have at most: a model that never ended its thought would not answer at all.
const MOST_THOUGHT: usize = 4096;

/// Tokens that open an answer, at most.
const OPENING: usize = 16;

/// A request on its way. Dropping it cancels.
pub struct Generation {
    pub prompt: Vec<Token>,
    pub events: Events,
    /// Told when its turn has come.
    pub found: oneshot::Receiver<Cached>,
    /// Where its caller wants states kept: after so many tokens, for so long.
    pub marks: Vec<(usize, Duration)>,
}

impl Service {
    /// Admits a request or says why not. Takes time in proportion to the prompt's text.
    pub fn submit(&self, caller: Caller, raw: Request) -> Result<Generation, Refusal> {
        self.submit_in(caller, raw, None)
    }

    /// As [`Service::submit`], for a chat that goes on from what was said before.
    pub fn submit_in(
        &self,
        caller: Caller,
        mut raw: Request,
        thread: Option<Thread>,
    ) -> Result<Generation, Refusal> {
        let arrived = Instant::now();
        self.permit(&caller)?;
        if self.pressure().turns_away {
            return Err(Refusal::MemoryShort);
        }
        checks::sampling(&raw.sampling, self.card.n_vocab)?;
        checks::stop(&raw.stop)?;
        if !(1..=MAX_CHOICES).contains(&raw.n) {
            return invalid("n", format!("got {}, want 1 to {MAX_CHOICES}", raw.n));
        }
        if let Some(n) = raw.logprobs.filter(|&n| n > MAX_LOGPROBS) {
            return invalid("logprobs", format!("got {n}, want 0 to {MAX_LOGPROBS}"));
        }
        let only_read = thread.as_ref().is_some_and(|t| !t.answer);
        if only_read {
            raw.max_tokens = Some(0);
        }
        // A conversation on disk may come back as text.
        self.sessions.open(caller.uid);
        let turn = thread.map(|t| self.take_up(&caller, &mut raw, t));
        let turn = turn.transpose()?;
        let made = self.prompt(caller.uid, &raw.prompt, !only_read)?;
        let (prompt, style, key) = (made.tokens, made.style, made.key);
        let limit = self.card.context;
        let Some(room) = limit.checked_sub(prompt.len()) else {
            let tokens = prompt.len();
            return Err(Refusal::TooLong { tokens, limit });
        };
        // Scoring a prompt that fills the context needs no room after it.
        if room == 0 && raw.max_tokens != Some(0) {
            let tokens = prompt.len();
            return Err(Refusal::TooLong { tokens, limit });
        }
        let most = room.min(self.admission().max_tokens.unwrap_or(usize::MAX));
        let scheduler = &self.scheduler;
        let max_tokens = scheduler.fit(prompt.len(), raw.n, raw.max_tokens, most)?;
        // Last, and once: a grammar may take longer than all the rest.
        raw.sampling.logit_bias.extend(self.forbidden(&raw));
        let constraints = match self.constraint(&raw)? {
            None => Vec::new(),
            Some(first) => {
                let first = match &style {
                    Style::Chat(Expect { thinking: true, .. }) => first
                        .after_thinking((max_tokens / 2).min(MOST_THOUGHT))
                        .or_else(|e| invalid("response_format", e.to_string()))?,
                    _ => first,
                };
                let mut all: Vec<_> = (1..raw.n).map(|_| first.another()).collect();
                all.push(first);
                all
            }
        };
        let memory = key.map(|key| Memory {
            sessions: self.sessions.clone(),
            uid: caller.uid,
            key,
            prompt: prompt.clone(),
        });
        let n = raw.n;
        let marks = prompt::places(&raw.keep.marks, &made.ends);
        let (events, receiver) = mpsc::channel(UNREAD_EVENTS);
        let (tell, found) = oneshot::channel();
        let place = turn.as_ref().and_then(|t| self.sessions.place(&t.claim));
        let resume = place.or_else(|| match &style {
            Style::Chat(_) => self.sessions.nearest(caller.uid, &prompt),
            Style::Raw => None,
        });
        let resume = resume.and_then(|on_disk| self.resume(caller.uid, on_disk, &prompt));
        self.scheduler.push(Admitted {
            caller,
            arrived,
            prompt: prompt.clone(),
            style,
            seed: raw.sampling.seed.unwrap_or_else(fresh_seed),
            sampling: raw.sampling,
            stop: raw.stop,
            max_tokens,
            n,
            logprobs: raw.logprobs,
            scores_prompt: raw.echo && raw.logprobs.is_some(),
            reports: only_read,
            resume,
            is_strange: made.is_strange,
            ends: made.ends,
            marks: marks_until(&marks, prompt.len(), arrived),
            line: raw.keep.line.map(|line| scheduler::Line {
                until: arrived + line.stays,
                name: line.name,
            }),
            found: tell,
            constraints,
            events,
        })?;
        Ok(Generation {
            prompt,
            events: Events::new(receiver, n, memory, turn),
            found,
            marks,
        })
    }
}

/// Behind the last message is only what opens the answer: the state at the prompt's end is as good.
fn marks_until(marks: &[(usize, Duration)], prompt: usize, now: Instant) -> Vec<scheduler::Mark> {
    let each = marks.iter().map(|&(at, stays)| scheduler::Mark {
        at: if prompt - at < OPENING { prompt } else { at },
        until: now + stays,
    });
    each.collect()
}

/// The standard library seeds its hash keys from the system's randomness.
fn fresh_seed() -> u64 {
    RandomState::new().hash_one(Instant::now())
}
