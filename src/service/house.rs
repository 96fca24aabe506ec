//! The service itself: what it was made of, who may ask, and what it tells of how it goes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::groups;
use super::held::{Gauge, Held};
use crate::request::{Caller, Refusal, Token};
use crate::scheduler::{self, Scheduler, Size, Stats};
use crate::sessions::Sessions;
use crate::text::{ChatTemplate, Grammars, Markup, Specials, Tokenizer, markup};

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
    pub(super) card: Card,
    created: u64,
    /// Replaced as a whole at a reload.
    admission: RwLock<Admission>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: ChatTemplate,
    /// How the model writes calls; `None` where it is not known to write any.
    pub(super) markup: Option<Arc<dyn Markup>>,
    /// `None` for a vocabulary that cannot end a constrained answer.
    pub(super) grammars: Option<Grammars>,
    pub(super) scheduler: Scheduler,
    pub(super) sessions: Arc<Sessions>,
    pressure: RwLock<Pressure>,
    gauge: Gauge,
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

pub(super) fn invalid<T>(param: &str, message: impl Into<String>) -> Result<T, Refusal> {
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
            gauge: Gauge::open(),
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

    /// So many bytes of states are kept for next turns at most, whatever the configuration allows.
    pub fn set_bound(&self, bytes: usize) {
        self.scheduler.set_bound(bytes);
    }

    /// Half of the states kept for next turns go, those that save least; what conversations that rest
    /// have in them is on the disk by then. Waits for the disk.
    pub fn shed(&self) {
        self.unburden();
        self.scheduler.halve();
    }

    /// Conversations that nobody answers in go to the disk, and every kept state from memory. Waits for
    /// the disk.
    pub fn rest(&self) {
        self.unload();
    }

    /// As [`Service::shed`], and nothing is written: that takes memory, of which there is none.
    pub fn halve(&self) {
        self.scheduler.halve();
    }

    /// As [`Service::rest`], and nothing is written: what was not on the disk is read again.
    pub fn forget(&self) {
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
        self.gauge.now(self.stats().prefix_bytes.load(Relaxed))
    }

    pub fn pressure(&self) -> Pressure {
        *self.pressure.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn admission(&self) -> RwLockReadGuard<'_, Admission> {
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
