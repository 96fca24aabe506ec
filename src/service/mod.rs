//! The single door: validates, renders the template, tokenizes and admits, whatever transport a
//! request came by. What it lets through needs no second check. Writes no wire format and runs
//! nothing itself.
//!
//! | file | job |
//! |---|---|
//! | `checks` | what a request asks for, held against what may be asked |
//! | `prompt` | from what was said to tokens, as they were where they are known |
//! | `conversations` | conversations that are kept: gone on with, saved, measured, carried |
//! | [`events`] | an answer heard out, and kept |
//! | `held`, [`groups`] | memory by kind; who is in a group |

mod checks;
mod conversations;
pub mod events;
pub mod groups;
mod held;
mod prompt;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::request::{Cached, Caller, Refusal, Request, Thread, Token};
use crate::scheduler::{self, Admitted, Scheduler, Stats, Style};
use crate::sessions::Sessions;
use crate::text::{ChatTemplate, Expect, Grammars, Markup, Tokenizer, markup};
use events::{Events, Memory};
pub use held::Held;

pub use crate::scheduler::Size;
pub use crate::sessions::{
    About, Answer, Block, Ending, Found, Incoming, MAX_HELD, Outgoing, Receipt, Rest, Step,
    Summary, Turn, Untaken, fresh_id, now,
};
pub use crate::text::Specials;

/// Events that may lie unread before a request is parked.
const UNREAD_EVENTS: usize = 64;
const MAX_CHOICES: usize = 128;
const MAX_LOGPROBS: usize = 20;
/// Tokens of thought before an answer that must keep to a grammar, and half of what the answer may
/// have at most: a model that never ended its thought would not answer at all.
const MOST_THOUGHT: usize = 4096;

/// Tokens that open an answer, at most.
const OPENING: usize = 16;

/// Who may ask, and for how much. A reload may change it.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// Longest answer in tokens; `None`: what the context leaves.
    pub max_tokens: Option<usize>,
    /// Who may ask; with no groups either: everyone who can open the door.
    pub allowed_uids: Vec<u32>,
    /// Group ids whose members may ask, too.
    pub allowed_groups: Vec<u32>,
}

/// The one model that is served.
#[derive(Debug, Clone)]
pub struct Card {
    pub id: String,
    pub n_vocab: usize,
    /// Longest sequence in tokens.
    pub context: usize,
}

pub struct Service {
    card: Card,
    created: u64,
    /// Replaced as a whole at a reload.
    admission: RwLock<Admission>,
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    /// How the model writes calls; `None` where it is not known to write any.
    markup: Option<Arc<dyn Markup>>,
    /// `None` for a vocabulary that cannot end a constrained answer.
    grammars: Option<Grammars>,
    scheduler: Scheduler,
    sessions: Arc<Sessions>,
    pressure: RwLock<Pressure>,
}

/// What is given up for want of memory, as people and programs are told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    pub name: &'static str,
    /// 0 is none; each further one gives up more.
    pub rung: u32,
    /// New requests are turned away.
    pub turns_away: bool,
}

impl Pressure {
    pub const NONE: Pressure = Pressure {
        name: "calm",
        rung: 0,
        turns_away: false,
    };
}

/// A request on its way. Dropping it cancels.
pub struct Generation {
    pub prompt: Vec<Token>,
    pub events: Events,
    /// Told when its turn has come.
    pub found: oneshot::Receiver<Cached>,
    /// Where its caller wants states kept: after so many tokens, for so long.
    pub marks: Vec<(usize, Duration)>,
}

fn invalid<T>(param: &str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Invalid {
        param: param.into(),
        message: message.into(),
    })
}

impl Service {
    pub fn new(
        card: Card,
        admission: Admission,
        tokenizer: Arc<Tokenizer>,
        template: ChatTemplate,
        scheduler: Scheduler,
        sessions: Sessions,
    ) -> Service {
        let markup = markup::of(&tokenizer, template.source());
        let grammars = Grammars::new(&tokenizer, markup.clone())
            .inspect_err(|e| log::warn!("answers cannot be constrained: {e}"))
            .ok();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Service {
            created: now.map_or(0, |d| d.as_secs()),
            card,
            admission: RwLock::new(admission),
            tokenizer,
            template,
            markup,
            grammars,
            pressure: RwLock::new(Pressure::NONE),
            scheduler,
            sessions: Arc::new(sessions),
        }
    }

    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Whether callers can turn the model's thinking on and off.
    pub fn has_thinking_switch(&self) -> bool {
        self.template.has_thinking_switch()
    }

    /// When the model was loaded, in seconds since 1970.
    pub fn created(&self) -> u64 {
        self.created
    }

    pub fn stats(&self) -> &Stats {
        self.scheduler.stats()
    }

    pub fn queued(&self) -> usize {
        self.scheduler.queued()
    }

    /// See [`Scheduler::stop`].
    pub fn stop(&self, deadline: Instant) {
        self.scheduler.stop(deadline);
    }

    /// New limits for whoever comes from now on; see [`Scheduler::renew`].
    pub fn renew(&self, admission: Admission, scheduler: scheduler::Limits) {
        *self
            .admission
            .write()
            .unwrap_or_else(PoisonError::into_inner) = admission;
        self.scheduler.renew(scheduler);
    }

    /// The machine is short of memory: no more states are kept for next turns, or some are again.
    pub fn hold_off(&self, holds_off: bool) {
        self.scheduler.hold_off(holds_off);
    }

    /// Half of the states kept for next turns go, those that save least; what conversations that rest
    /// have in them is on the disk by then. Waits for passes and for the disk.
    pub fn shed(&self) {
        self.unburden(None);
        self.scheduler.halve();
    }

    /// Conversations that nobody answers in go to the disk, and every kept state from memory. Waits for
    /// passes and for the disk.
    pub fn rest(&self) {
        self.unburden(Some(0));
        self.scheduler.forget();
    }

    /// How far it has come.
    pub fn set_pressure(&self, pressure: Pressure) {
        *self
            .pressure
            .write()
            .unwrap_or_else(PoisonError::into_inner) = pressure;
    }

    /// Memory by kind, now.
    pub fn held(&self) -> Held {
        Held::now(self.stats().prefix_bytes.load(Relaxed))
    }

    pub fn pressure(&self) -> Pressure {
        *self.pressure.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn admission(&self) -> RwLockReadGuard<'_, Admission> {
        self.admission
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn permit(&self, caller: &Caller) -> Result<(), Refusal> {
        let Admission {
            allowed_uids: uids,
            allowed_groups: groups,
            ..
        } = &*self.admission();
        let open = uids.is_empty() && groups.is_empty();
        if open || uids.contains(&caller.uid) || groups::is_in_any(caller.uid, groups) {
            Ok(())
        } else {
            Err(Refusal::NotPermitted { uid: caller.uid })
        }
    }

    /// The conversations that are kept.
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Bytes that the state of so many tokens takes.
    pub fn state_size(&self) -> Size {
        self.scheduler.state_size()
    }

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

    /// `add_special` puts the model's beginning-of-text token first, where it expects one.
    pub fn tokenize(&self, text: &str, add_special: bool, specials: Specials) -> Vec<Token> {
        let bos = self.tokenizer.bos().filter(|_| add_special);
        let bos = bos.filter(|_| self.tokenizer.add_bos());
        let mut tokens = Vec::from_iter(bos);
        tokens.extend(self.tokenizer.encode(text, specials));
        tokens
    }

    /// Special tokens are spelled out; bytes that are no text become U+FFFD.
    pub fn detokenize(&self, tokens: &[Token]) -> String {
        String::from_utf8_lossy(&self.tokenizer.decode(tokens)).into_owned()
    }

    pub fn token_bytes(&self, token: Token) -> &[u8] {
        self.tokenizer.token_bytes(token)
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
