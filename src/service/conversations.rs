//! What is done with conversations that are kept, beside answering in them: measured, saved, suspended,
//! carried, rebuilt; and how a request goes on from one.

use super::events::Open;
use super::house::{Service, invalid};
use crate::request::{
    Caller, Message, Origin, Prompt, Refusal, Request, TemplateOptions, Thread, Token, ToolChoice,
};
use crate::scheduler::{Outward, Resume};
use crate::sessions::{Incoming, Outgoing, Rest, Resting, Summary, store::Id};

/// A state that is not on the disk yet.
struct Unsaved {
    uid: u32,
    id: Id,
    tokens: Vec<Token>,
    state: Outward,
}

impl Service {
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

    /// What rests is written, where that is to a disk: to memory it would only make more of it.
    pub(super) fn unburden(&self) {
        if self.sessions.has_disk() {
            let (save, leave) = (0, None);
            self.save(Rest { save, leave });
        }
    }

    /// Every kept state goes from memory. What is on the disk already goes at once, without waiting for
    /// what is still to be written: writing takes memory too.
    pub(super) fn unload(&self) {
        let (save, leave) = (0, Some(0));
        let mut left = Vec::new();
        if self.sessions.has_disk() {
            let resting = self.sessions.resting(Rest { save, leave });
            left.extend(resting.into_iter().filter_map(|r| self.taken(r)));
        }
        self.scheduler.forget();
        for state in left {
            self.write(state);
        }
    }

    /// The state on disk that a prompt goes on from, where there is none in memory.
    pub(super) fn resume(
        &self,
        uid: u32,
        (id, tokens): (Id, Vec<Token>),
        prompt: &[Token],
    ) -> Option<Resume> {
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
    /// long. Waits for the disk.
    pub fn save(&self, rest: Rest) {
        let resting = self.sessions.resting(rest).into_iter();
        resting
            .filter_map(|r| self.taken(r))
            .for_each(|s| self.write(s));
    }

    /// A conversation's state, if there is more in it than in what is on the disk.
    fn taken(&self, resting: Resting) -> Option<Unsaved> {
        let Resting {
            uid,
            id,
            mut tokens,
            leaves,
        } = resting;
        let (state, n) = self.scheduler.saved(uid, &tokens, leaves)?;
        tokens.truncate(n);
        (n > self.sessions.saved(uid, &id)).then_some(Unsaved {
            uid,
            id,
            tokens,
            state,
        })
    }

    fn write(&self, unsaved: Unsaved) {
        if let Err(why) = self.save_one(Some(unsaved)) {
            log::warn!("a conversation's state is not saved: {why}");
        }
    }

    /// How many bytes were written.
    fn save_one(&self, unsaved: Option<Unsaved>) -> Result<u64, String> {
        let written = unsaved.map(|u| self.sessions.save(u.uid, &u.id, &u.tokens, &*u.state));
        written.unwrap_or(Ok(0))
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
        self.save_one(self.taken(leaving))
            .or_else(|why| invalid("id", why))
    }

    /// A session to be written to a file, its newest state along with it.
    pub fn export(&self, uid: u32, who: &str) -> Result<Outgoing, Refusal> {
        if let Ok(Some(resting)) = self.sessions.rests(uid, who)
            && let Err(why) = self.save_one(self.taken(resting))
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
                self.scheduler.saved(uid, &tokens, true);
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
    pub(super) fn take_up(
        &self,
        caller: &Caller,
        raw: &mut Request,
        thread: Thread,
    ) -> Result<Open, Refusal> {
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
}
