//! One admitted request on its way: its prompt is read, then its answers grow side by side. Says
//! what it wants of the next pass and takes what came back; never runs the engine. Owns its
//! sequences, so dropping it frees their state.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::beside::Mask;
use super::choice::{self, Choice, Said};
use super::deliver::Outbox;
use super::kept::Kept;
use super::model::{Fault, Model};
use super::plan::{Standing, Wish, Work};
use super::start;
use super::stats::Stats;
use super::{Admitted, Style, failed};
use crate::engine::{Lane, Logits, Next, Want};
use crate::request::{Event, FinishReason, Token, TokenLogprob, Took, Usage};
use crate::sampler::logprobs;
use crate::text::{Constraint, Tokenizer};

/// Prompt tokens per pass where the logits of all are wanted: they take `n_vocab` floats each.
const SCORED_CHUNK: usize = 64;

/// What all requests share.
pub struct House<'a, M: Model> {
    pub model: &'a mut M,
    pub tokenizer: &'a Tokenizer,
    pub kept: &'a Kept<M>,
    pub stats: &'a Stats,
}

pub struct Running<M: Model> {
    pub standing: Standing,
    pub outbox: Outbox,
    request: Admitted,
    phase: Phase<M>,
    /// Prompt tokens or answers of the pass that it was made ready for.
    granted: usize,
    usage: Usage,
    took: Took,
    /// When the first answer's first token was there.
    first_token: Option<Instant>,
}

enum Phase<M: Model> {
    Reading(Prompt<M>),
    /// Lowest number first.
    Answering(Vec<Answer<M>>),
    Finished,
}

struct Prompt<M: Model> {
    sequence: M::Sequence,
    /// Tokens that are in the sequence.
    done: usize,
    /// Where a state is kept on the way, ascending.
    cuts: VecDeque<usize>,
    choices: Vec<Choice>,
}

struct Answer<M: Model> {
    index: usize,
    choice: Choice,
    state: State<M>,
    /// The last one is not in the sequence yet.
    said: Vec<Token>,
    last_token: Instant,
}

enum State<M: Model> {
    Own(M::Sequence),
    /// The prompt's end: no memory of its own until a lane is granted.
    Waiting(Rc<M::Snapshot>),
}

/// What came of a pass for one request.
pub struct Came {
    /// Of its lanes, in their order.
    pub logits: Vec<Logits>,
    /// The constraints that it lent, with their masks.
    pub lent: Vec<(Constraint, Mask)>,
    /// How long it took, for all who took part.
    pub took: Duration,
}

impl<M: Model> Running<M> {
    /// Takes up the longest state kept of the prompt's beginning.
    pub fn start(
        id: u64,
        mut request: Admitted,
        house: &mut House<'_, M>,
    ) -> Result<Running<M>, Box<(Admitted, Fault)>> {
        let uid = request.caller.uid;
        if let Some(resume) = request.resume.take() {
            match house.model.adopt(&resume.state) {
                Ok(snapshot) => house.kept.lock().keep(uid, &resume.tokens, snapshot, None),
                Err(e) => log::warn!("a state from the disk is read anew: {e}"),
            }
        }
        let begun = start::state(&mut request, house);
        let (sequence, done, shared) = match begun {
            Ok(begun) => begun,
            Err(e) => return Err(Box::new((request, e.into()))),
        };
        let cuts = start::stops(&request, done, shared, house);
        let n = request.n;
        let choice = |i| Choice::new(i, &mut request, house.tokenizer);
        let choices = (0..n).map(choice).collect();
        Ok(Running {
            standing: Standing { id, uid },
            outbox: Outbox::new(request.events.clone()),
            phase: Phase::Reading(Prompt {
                sequence,
                done,
                cuts,
                choices,
            }),
            granted: 0,
            usage: Usage {
                prompt_tokens: request.prompt.len(),
                cached_tokens: done,
                completion_tokens: 0,
            },
            took: Took::default(),
            first_token: None,
            request,
        })
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished)
    }

    pub fn wish(&self) -> Option<Wish> {
        let work = match &self.phase {
            Phase::Reading(prompt) => Work::Prompt {
                left: self.request.prompt.len() - prompt.done,
                most: match prompt.cuts.front() {
                    _ if self.request.scores_prompt => SCORED_CHUNK,
                    Some(cut) => cut - prompt.done,
                    None => usize::MAX,
                },
            },
            Phase::Answering(answers) => Work::Answers(answers.len()),
            Phase::Finished => return None,
        };
        let who = self.standing;
        Some(Wish { who, work })
    }

    /// Makes ready for a pass with `n` prompt tokens or answers, and lends the constraints whose
    /// masks are for its logits.
    pub fn prepare(&mut self, n: usize, model: &mut M) -> Result<Vec<Constraint>, Fault> {
        self.granted = n;
        match &mut self.phase {
            Phase::Reading(prompt) => {
                let is_last = prompt.done + n == self.request.prompt.len();
                let choosing = is_last && self.request.max_tokens > 0;
                let choices = prompt.choices.iter_mut().filter(|_| choosing);
                Ok(choices.filter_map(Choice::lend).collect())
            }
            Phase::Answering(answers) => {
                for answer in &mut answers[..n] {
                    if let State::Waiting(snapshot) = &answer.state {
                        answer.state = State::Own(model.restore(snapshot)?);
                    }
                }
                let granted = answers[..n].iter_mut();
                Ok(granted.filter_map(|a| a.choice.lend()).collect())
            }
            Phase::Finished => Ok(Vec::new()),
        }
    }

    /// Its lanes of the pass that it was made ready for.
    pub fn lanes(&mut self) -> Vec<Lane<'_, M::Sequence>> {
        let request = &self.request;
        match &mut self.phase {
            Phase::Reading(Prompt { sequence, done, .. }) => {
                let end = *done + self.granted;
                let is_last = end == request.prompt.len();
                vec![Lane {
                    sequence,
                    tokens: &request.prompt[*done..end],
                    want: if request.scores_prompt {
                        Want::All
                    } else if is_last && request.max_tokens > 0 {
                        Want::Last
                    } else {
                        Want::Nothing
                    },
                }]
            }
            Phase::Answering(answers) => {
                let mut lanes = Vec::with_capacity(self.granted);
                for answer in &mut answers[..self.granted] {
                    if let State::Own(sequence) = &mut answer.state {
                        lanes.push(Lane {
                            sequence,
                            tokens: &answer.said[answer.said.len() - 1..],
                            want: answer.choice.want(),
                        });
                    }
                }
                lanes
            }
            Phase::Finished => Vec::new(),
        }
    }

    /// Takes what came of the pass. After an error nothing more will run; see [`Running::fail`].
    pub fn take(&mut self, came: Came, house: &mut House<'_, M>) -> Result<(), Fault> {
        match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Reading(prompt) => self.read(prompt, came, house),
            Phase::Answering(answers) => self.answer(answers, came, house),
            Phase::Finished => Ok(()),
        }
    }

    fn read(
        &mut self,
        mut prompt: Prompt<M>,
        came: Came,
        house: &mut House<'_, M>,
    ) -> Result<(), Fault> {
        self.took.reading += came.took;
        let tokens = &self.request.prompt;
        let (from, end) = (prompt.done, prompt.done + self.granted);
        prompt.done = end;
        if prompt.cuts.front() == Some(&end) {
            prompt.cuts.pop_front();
            self.keep_prefix(&prompt.sequence, &tokens[..end], house);
        }
        let tokens = &self.request.prompt;
        let is_last = end == tokens.len();
        if self.request.scores_prompt {
            let mut scored: Vec<TokenLogprob> = Vec::new();
            if from == 0 {
                scored.push(TokenLogprob {
                    token: tokens[0],
                    logprob: None,
                    top: Vec::new(),
                });
            }
            let n_top = self.request.logprobs.unwrap_or(0);
            // Logits at position i are about token i + 1; after the last one comes an answer.
            let about = tokens[from + 1..].iter();
            let rows = came.logits.iter().flat_map(Logits::rows);
            let pairs = rows.zip(about);
            scored.extend(pairs.map(|(row, &token)| logprobs(row, token, n_top)));
            self.outbox.push(Event::Prompt(scored));
        }
        if self.request.reports {
            self.outbox.push(Event::Read(end));
        }
        if !is_last {
            self.phase = Phase::Reading(prompt);
            return Ok(());
        }
        let counted = [
            (&house.stats.prompt_tokens, self.usage.prompt_tokens),
            (&house.stats.cached_tokens, self.usage.cached_tokens),
        ];
        for (counter, n) in counted {
            counter.fetch_add(n as u64, Relaxed);
        }
        if self.request.max_tokens == 0 {
            self.keep_prefix(&prompt.sequence, tokens, house);
            for choice in 0..self.request.n {
                let reason = FinishReason::Length;
                let stop = None;
                self.outbox.push(Event::Finished {
                    choice,
                    reason,
                    stop,
                    tokens: Vec::new(),
                });
            }
            self.end();
            return Ok(());
        }
        self.begin(prompt, came, house)
    }

    /// Every answer's first token, all of the same logits.
    fn begin(
        &mut self,
        prompt: Prompt<M>,
        came: Came,
        house: &mut House<'_, M>,
    ) -> Result<(), Fault> {
        let last = came.logits.first().and_then(Logits::next);
        let last = last.unwrap_or(Next::Logits(&[]));
        let Prompt {
            sequence, choices, ..
        } = prompt;
        self.keep_prefix(&sequence, &self.request.prompt, house);
        let fork = (choices.len() > 1).then(|| Rc::new(house.model.snapshot(&sequence)));
        // The first that goes on has the prompt's sequence, the others begin from its end.
        let mut own = Some(State::Own(sequence));
        let mut state = || own.take().or_else(|| fork.clone().map(State::Waiting));
        let mut answers = Vec::with_capacity(choices.len());
        let mut lent = came.lent.into_iter();
        for (index, mut choice) in choices.into_iter().enumerate() {
            let said = choice.take(last, lent.next(), &self.request, house.tokenizer)?;
            let token = said.token;
            let since = self.request.arrived;
            let goes_on = self.tell(index, said, &[], since, house.stats);
            if goes_on && let Some(state) = state() {
                answers.push(Answer {
                    index,
                    choice,
                    state,
                    said: vec![token],
                    last_token: Instant::now(),
                });
            }
        }
        self.go_on(answers);
        Ok(())
    }

    fn answer(
        &mut self,
        answers: Vec<Answer<M>>,
        came: Came,
        house: &mut House<'_, M>,
    ) -> Result<(), Fault> {
        let (mut logits, mut lent) = (came.logits.into_iter(), came.lent.into_iter());
        let mut left = Vec::with_capacity(answers.len());
        for (at, mut answer) in answers.into_iter().enumerate() {
            if at < self.granted {
                let logits = logits.next();
                let last = logits.as_ref().and_then(Logits::next);
                let last = last.unwrap_or(Next::Logits(&[]));
                let (request, tokenizer) = (&self.request, house.tokenizer);
                let said = answer.choice.take(last, lent.next(), request, tokenizer)?;
                let token = said.token;
                let since = std::mem::replace(&mut answer.last_token, Instant::now());
                if !self.tell(answer.index, said, &answer.said, since, house.stats) {
                    if let State::Own(sequence) = &answer.state {
                        let fed = [&self.request.prompt[..], &answer.said].concat();
                        self.keep_prefix(sequence, &fed, house);
                        if let Some(line) = &self.request.line {
                            house.kept.lock().follow(self.standing.uid, line, &fed);
                        }
                    }
                    continue;
                }
                answer.said.push(token);
            }
            left.push(answer);
        }
        self.go_on(left);
        Ok(())
    }

    /// Tells the caller and counts; whether the answer goes on. `before`: what it said already.
    fn tell(
        &mut self,
        choice: usize,
        said: Said,
        before: &[Token],
        since: Instant,
        stats: &Stats,
    ) -> bool {
        self.usage.completion_tokens += 1;
        self.first_token.get_or_insert_with(Instant::now);
        stats.token(self.standing.uid, since.elapsed(), before.is_empty());
        let Said {
            token,
            parts,
            logprob,
            end,
        } = said;
        if !parts.is_empty() || logprob.is_some() {
            self.outbox.push(Event::Delta {
                choice,
                parts,
                logprob,
            });
        }
        let Some(choice::End {
            reason,
            stop,
            is_markup,
        }) = end
        else {
            return true;
        };
        let last = (!is_markup).then_some(&token);
        self.outbox.push(Event::Finished {
            choice,
            reason,
            stop,
            tokens: before.iter().chain(last).copied().collect(),
        });
        false
    }

    fn go_on(&mut self, answers: Vec<Answer<M>>) {
        if answers.is_empty() {
            self.end();
        } else {
            self.phase = Phase::Answering(answers);
        }
    }

    /// Nothing more will run; the caller is told why.
    pub fn fail(&mut self, e: &Fault) {
        self.phase = Phase::Finished;
        self.outbox.push(failed(e));
    }

    fn end(&mut self) {
        self.phase = Phase::Finished;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.took.until = now.map_or(0, |now| now.as_secs());
        self.took.answering = self
            .first_token
            .map_or(Duration::ZERO, |first| first.elapsed());
        self.outbox.push(Event::Done(self.usage, self.took));
    }

    /// Keeps the state after what was fed. Only conversations come back.
    fn keep_prefix(&self, sequence: &M::Sequence, fed: &[Token], house: &mut House<'_, M>) {
        let bytes = M::bytes(sequence);
        let uid = self.standing.uid;
        let is_chat = matches!(self.request.style, Style::Chat(_));
        if !is_chat || !house.kept.lock().has_room_for(uid, bytes) {
            return;
        }
        let mut marks = self.request.marks.iter();
        let until = marks.find(|m| m.at == fed.len()).map(|m| m.until);
        if !house.kept.lock().pin(uid, fed, until) {
            let snapshot = house.model.snapshot(sequence);
            house.kept.lock().keep(uid, fed, snapshot, until);
        }
    }
}
