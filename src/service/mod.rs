//! The single door: validates, renders the template, tokenizes and admits, whatever transport a
//! request came by. What it lets through needs no second check. Writes no wire format and runs
//! nothing itself.

pub mod events;
pub mod groups;
mod held;
mod prompt;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};

use crate::request::{
    Cached, Caller, Format, Message, Origin, Prompt, Refusal, Request, Sampling, Stop,
    TemplateOptions, Thread, Token, ToolChoice,
};
use crate::scheduler::{self, Admitted, Resume, Scheduler, Stats, Style};
use crate::sessions::{Resting, Sessions, store::Id};
use crate::text::{
    ChatTemplate, Constraint, Expect, Grammars, Markup, Tokenizer, constraint, markup,
};
use events::{Events, Memory, Open};
pub use held::Held;

pub use crate::sessions::{
    About, Answer, Block, Ending, Found, Incoming, MAX_HELD, Outgoing, Receipt, Rest, Step,
    Summary, Turn, Untaken, fresh_id, now,
};
pub use crate::text::Specials;

/// Events that may lie unread before a request is parked.
const UNREAD_EVENTS: usize = 64;
const MAX_CHOICES: usize = 128;
const MAX_LOGPROBS: usize = 20;
const MAX_STOPS: usize = 16;
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

    /// What rests is written, where that is to a disk: to memory it would only make more of it.
    fn unburden(&self, leave: Option<u64>) {
        if self.sessions.has_disk() {
            self.save(Rest { save: 0, leave });
        }
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
    pub fn state_bytes(&self, tokens: usize) -> usize {
        self.scheduler.state_bytes(tokens)
    }

    /// Tokens of a session with these messages after it.
    pub fn measure(&self, uid: u32, who: &str, more: &[Message]) -> Result<usize, Refusal> {
        let mut messages = self.sessions.messages(uid, who)?;
        messages.extend_from_slice(more);
        if messages.is_empty() {
            return Ok(0);
        }
        let (tools, tool_choice) = (Vec::new(), ToolChoice::Auto);
        let prompt = Prompt::Chat {
            messages,
            tools,
            tool_choice,
            parallel_tool_calls: true,
            options: TemplateOptions::default(),
        };
        Ok(self.prompt(uid, &prompt, false)?.tokens.len())
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
        check_sampling(&raw.sampling, self.card.n_vocab)?;
        check_stop(&raw.stop)?;
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

    /// The state on disk that a prompt goes on from, where there is none in memory.
    fn resume(&self, uid: u32, (id, tokens): (Id, Vec<Token>), prompt: &[Token]) -> Option<Resume> {
        let saved = self.sessions.saved(uid, &id);
        let seen = tokens.get(..saved).filter(|seen| !seen.is_empty())?;
        if prompt.len() <= saved || !prompt.starts_with(seen) {
            return None;
        }
        let n = tokens.len();
        let in_memory = |n: usize| n >= saved && self.scheduler.holds(uid, &tokens[..n]);
        if [n, n.saturating_sub(1), saved].into_iter().any(in_memory) {
            return None;
        }
        let loaded = self.sessions.load(uid, &id, &tokens)?;
        Some(Resume {
            tokens: tokens[..loaded.tokens].to_vec(),
            state: loaded.host(),
        })
    }

    /// Writes the states of conversations that rest to the disk, and lets go of those that rest for
    /// long. Waits for passes and for the disk.
    pub fn save(&self, rest: Rest) {
        for resting in self.sessions.resting(rest) {
            if let Err(why) = self.save_one(resting) {
                log::warn!("a conversation's state is not saved: {why}");
            }
        }
    }

    fn save_one(&self, resting: Resting) -> Result<u64, String> {
        let Resting {
            uid,
            id,
            tokens,
            leaves,
        } = resting;
        let found = self.scheduler.saved(uid, tokens.clone(), leaves);
        let Some((state, n)) = found.filter(|(_, n)| *n > self.sessions.saved(uid, &id)) else {
            return Ok(0);
        };
        self.sessions.save(uid, &id, &tokens[..n], &*state)
    }

    /// A session's state goes to the disk, and from memory; how many bytes were written.
    pub fn suspend(&self, uid: u32, who: &str) -> Result<u64, Refusal> {
        let resting = self.sessions.rests(uid, who)?;
        let Some(resting) = resting else {
            return invalid(
                "id",
                "the session is in memory only, by its own wish or sessions.disk",
            );
        };
        let leaving = Resting {
            leaves: true,
            ..resting
        };
        self.save_one(leaving).or_else(|why| invalid("id", why))
    }

    /// A session to be written to a file, its newest state along with it.
    pub fn export(&self, uid: u32, who: &str) -> Result<Outgoing, Refusal> {
        if let Ok(Some(resting)) = self.sessions.rests(uid, who)
            && let Err(why) = self.save_one(resting)
        {
            log::warn!("a session leaves without its newest state: {why}");
        }
        self.sessions.export(uid, who)
    }

    /// Makes a session of a file that came in.
    pub fn import(&self, file: Incoming, name: Option<String>) -> Result<Summary, Refusal> {
        self.sessions.import(file, name, self.card.n_vocab)
    }

    /// The words stay and the state goes, to be read anew. Of a session that could not be taken up, a
    /// new one is made of what can be read.
    pub fn rebuild(&self, uid: u32, who: &str) -> Result<Summary, Refusal> {
        match self.sessions.shed(uid, who) {
            Ok(tokens) => {
                self.scheduler.saved(uid, tokens, true);
                self.sessions.summary(uid, who)
            }
            Err(Refusal::NoSuchSession { .. }) => self.sessions.rebuild(uid, who),
            Err(refused) => Err(refused),
        }
    }

    /// 1 live: its state is in memory; 2 suspended: it is on disk; 3: its text is read again.
    pub fn state(&self, uid: u32, who: &str) -> Result<u32, Refusal> {
        let tokens = self.sessions.tokens(uid, who)?;
        let n = tokens.len();
        let held = |n: usize| n > 0 && self.scheduler.holds(uid, &tokens[..n]);
        if held(n) || held(n.saturating_sub(1)) {
            return Ok(1);
        }
        let on_disk = self.sessions.rests(uid, who)?;
        let saved = on_disk.is_some_and(|r| self.sessions.saved(uid, &r.id) > 0);
        Ok(if saved { 2 } else { 3 })
    }

    /// Puts what was said before into a chat's prompt.
    fn take_up(&self, caller: &Caller, raw: &mut Request, thread: Thread) -> Result<Open, Refusal> {
        let Prompt::Chat {
            messages,
            tools,
            options,
            ..
        } = &mut raw.prompt
        else {
            return invalid("input", "only a chat goes on from what was said before");
        };
        let origin = match thread.origin {
            Origin::Replayed => self.rejoin(caller.uid, messages, tools, options),
            origin => origin,
        };
        let claim = self.sessions.claim(caller.uid, &origin)?;
        let apart = thread.apart.min(messages.len());
        let input = messages.split_off(apart);
        messages.extend(claim.history());
        messages.extend_from_slice(&input);
        Ok(Open {
            claim,
            keep: thread.keep,
            reads: !thread.answer,
            before: messages[..apart].to_vec(),
            tools: tools.clone(),
            options: options.clone(),
            id: thread.id,
            created: thread.created,
            input,
            face: thread.face,
        })
    }

    /// What is kept already of messages that were sent whole; they are cut down to what is behind it.
    fn rejoin(
        &self,
        uid: u32,
        messages: &mut Vec<Message>,
        tools: &[serde_json::Value],
        options: &TemplateOptions,
    ) -> Origin {
        let replays = &self.sessions.replays;
        let keys = replays.keys(uid, options, tools, messages);
        let answers = (0..messages.len()).rev();
        let mut answers = answers.filter(|&i| messages[i].role == "assistant");
        let kept = answers.find_map(|i| {
            let id = replays.answer(uid, keys[i + 1])?;
            self.sessions.answer(uid, &id).is_ok().then_some((i, id))
        });
        match kept {
            Some((i, id)) => {
                messages.drain(..=i);
                Origin::Answer(id)
            }
            None => Origin::New,
        }
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

    /// What begins a call, where tools are told of and must not be called.
    fn forbidden(&self, raw: &Request) -> Option<(Token, f32)> {
        let Prompt::Chat {
            tools, tool_choice, ..
        } = &raw.prompt
        else {
            return None;
        };
        let must_not = *tool_choice == ToolChoice::None && !tools.is_empty();
        let markup = self.markup.as_ref().filter(|_| must_not);
        markup.map(|markup| (markup.opening(), f32::NEG_INFINITY))
    }

    fn constraint(&self, raw: &Request) -> Result<Option<Constraint>, Refusal> {
        let chat = match &raw.prompt {
            Prompt::Chat {
                tools,
                tool_choice,
                parallel_tool_calls,
                ..
            } => Some((tools.as_slice(), tool_choice, *parallel_tool_calls)),
            _ => None,
        };
        let calls =
            chat.filter(|(tools, choice, _)| !tools.is_empty() && **choice != ToolChoice::None);
        let must = matches!(
            chat,
            Some((_, ToolChoice::Required | ToolChoice::Named(_), _))
        );
        if must && calls.is_none() {
            return invalid("tool_choice", "asks for a call, but no tools were given");
        }
        if must && raw.format != Format::Text {
            return invalid(
                "response_format",
                "cannot be met by an answer that must be a call",
            );
        }
        if calls.is_none() && raw.format == Format::Text {
            return Ok(None);
        }
        let Some(grammars) = &self.grammars else {
            return invalid(
                "response_format",
                "this model's answers cannot be constrained",
            );
        };
        let named = |param: &'static str| {
            move |e: constraint::ConstraintError| Refusal::Invalid {
                param: param.into(),
                message: e.to_string(),
            }
        };
        let made = match (&raw.format, calls) {
            (Format::JsonObject, _) => grammars.json_object().map_err(named("response_format"))?,
            (Format::JsonSchema(schema), _) => grammars
                .json_schema(schema)
                .map_err(named("response_format"))?,
            (Format::Text, Some((tools, choice, parallel))) => grammars
                .tool_calls(tools, choice, parallel)
                .map_err(named("tools"))?,
            (Format::Text, None) => return Ok(None),
        };
        Ok(Some(made))
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

fn check_sampling(s: &Sampling, n_vocab: usize) -> Result<(), Refusal> {
    let ranges = [
        ("temperature", s.temperature, 0.0, 2.0),
        ("top_p", s.top_p, 0.0, 1.0),
        ("min_p", s.min_p, 0.0, 1.0),
        ("presence_penalty", s.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", s.frequency_penalty, -2.0, 2.0),
        ("repetition_penalty", s.repetition_penalty, 0.01, 100.0),
    ];
    for (param, got, low, high) in ranges {
        if !(low..=high).contains(&got) {
            return invalid(param, format!("got {got}, want {low} to {high}"));
        }
    }
    for &(token, bias) in &s.logit_bias {
        if token as usize >= n_vocab {
            let why = format!("got token {token}, want less than {n_vocab}");
            return invalid("logit_bias", why);
        }
        if !(-100.0..=100.0).contains(&bias) {
            let why = format!("token {token}: got {bias}, want -100 to 100");
            return invalid("logit_bias", why);
        }
    }
    Ok(())
}

fn check_stop(stop: &Stop) -> Result<(), Refusal> {
    let n = stop.strings.len();
    if n > MAX_STOPS {
        return invalid("stop", format!("got {n} strings, want at most {MAX_STOPS}"));
    }
    if stop.strings.iter().any(String::is_empty) {
        invalid("stop", "got an empty string, which would stop every answer")
    } else {
        Ok(())
    }
}
