//! An answer on its way, heard out: the one reader of a request's events. Puts the answer together,
//! remembers which tokens it was, and keeps the turn where it is to be kept: before the end is told,
//! or when the caller leaves or the daemon stops in the middle. Writes no wire format.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;

use crate::request::{
    Event, Failure, FinishReason, Message, Part, TemplateOptions, Token, Took, Usage,
};
use crate::sessions::{Answer, Claim, Ended, Ending, Key, Receipt, Sessions, Turn};

/// Dropping it cancels the answer.
pub struct Events {
    inner: Receiver<Event>,
    answers: Vec<Answer>,
    /// Of the first answer.
    reason: Option<FinishReason>,
    tokens: Vec<Token>,
    end: Option<Result<(Usage, Took), Failure>>,
    memory: Option<Memory>,
    turn: Option<Open>,
    pieces: Pieces,
    cancelled: bool,
}

/// What of a running answer is safe from a kill.
struct Pieces {
    last: Instant,
    /// Pieces so far.
    n: usize,
    new: Answer,
}

/// A killed process loses at most so much of what was seen.
const PIECE: Duration = Duration::from_secs(1);

/// How a conversation is known again when it comes back as text.
pub(super) struct Memory {
    pub sessions: Arc<Sessions>,
    pub uid: u32,
    /// Of the prompt's messages.
    pub key: Key,
    pub prompt: Vec<Token>,
}

/// A turn on its way. Its claim lives until it is over, kept or not.
pub(super) struct Open {
    pub claim: Claim,
    pub keep: bool,
    /// Nothing was asked: only its tokens are new.
    pub reads: bool,
    pub id: String,
    pub created: u64,
    pub input: Vec<Message>,
    pub before: Vec<Message>,
    pub tools: Vec<serde_json::Value>,
    pub options: TemplateOptions,
    pub face: serde_json::Value,
}

impl Open {
    fn turn(
        &self,
        input: Vec<Message>,
        answer: Option<Answer>,
        ending: Ending,
        usage: Usage,
    ) -> Turn {
        Turn {
            id: self.id.clone(),
            created: self.created,
            ended: None,
            input,
            answer,
            ending,
            usage,
            before: self.before.clone(),
            tools: self.tools.clone(),
            options: self.options.clone(),
            face: self.face.clone(),
        }
    }
}

impl Events {
    pub(super) fn new(
        inner: Receiver<Event>,
        n: usize,
        memory: Option<Memory>,
        turn: Option<Open>,
    ) -> Events {
        Events {
            inner,
            answers: vec![Answer::default(); n],
            reason: None,
            tokens: Vec::new(),
            end: None,
            memory,
            turn,
            pieces: Pieces {
                last: Instant::now(),
                n: 0,
                new: Answer::default(),
            },
            cancelled: false,
        }
    }

    /// The next event; `None` after the last one.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Events::next`], on a thread that may wait.
    pub fn blocking_next(&mut self) -> Option<Event> {
        if self.end.is_some() {
            return None;
        }
        let event = self.inner.blocking_recv();
        Some(self.hear(event))
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        let event = ready!(self.inner.poll_recv(cx));
        Poll::Ready(Some(self.hear(event)))
    }

    /// Stops the engine's work; what is on its way still comes.
    pub fn close(&mut self) {
        self.inner.close();
    }

    /// It ends because somebody said so.
    pub fn cancelled(&mut self) {
        self.cancelled = true;
    }

    /// The answer of that number as far as it came.
    pub fn answer(&self, choice: usize) -> Option<&Answer> {
        self.answers.get(choice)
    }

    /// Keeps the turn, if it is to be kept. Whoever tells the end needs the receipt.
    fn hear(&mut self, event: Option<Event>) -> Event {
        // A channel that closes early means that the engine's thread died.
        let event = event.unwrap_or(Event::Failed(Failure::Broken));
        match &event {
            Event::Prompt(_) | Event::Read(_) => {}
            Event::Delta { choice, parts, .. } => {
                if let Some(answer) = self.answers.get_mut(*choice) {
                    for part in parts {
                        answer.add(part.clone());
                    }
                }
                if *choice == 0 {
                    self.piece(parts);
                }
            }
            Event::Finished {
                choice,
                reason,
                stop,
                tokens,
            } => self.finished(*choice, *reason, stop.is_some(), tokens),
            Event::Done(usage, took) => self.end = Some(Ok((*usage, *took))),
            Event::Failed(failure) => self.end = Some(Err(failure.clone())),
        }
        event
    }

    fn piece(&mut self, parts: &[Part]) {
        let Some(open) = self.turn.as_ref().filter(|open| open.keep) else {
            return;
        };
        let pieces = &mut self.pieces;
        for part in parts {
            pieces.new.add(part.clone());
        }
        // Arguments go with their call: a call on its way is in no piece.
        if pieces.last.elapsed() < PIECE || pieces.new.calls().next().is_some() {
            return;
        }
        let is_first = pieces.n == 0;
        let input = if is_first {
            open.input.clone()
        } else {
            Vec::new()
        };
        let answer = Some(std::mem::take(&mut pieces.new));
        let piece = open.turn(input, answer, Ending::Cut, Usage::default());
        open.claim.partial(&piece, is_first);
        pieces.n += 1;
        pieces.last = Instant::now();
    }

    fn finished(&mut self, choice: usize, reason: FinishReason, stopped: bool, said: &[Token]) {
        if let Some(answer) = self.answers.get_mut(choice) {
            answer.close();
        }
        let (Some(memory), Some(answer)) = (&self.memory, self.answers.get(choice)) else {
            if choice == 0 {
                self.reason = Some(reason);
            }
            return;
        };
        // Tokens that hide what a stop string took away, or half a call, are not what was told.
        let cut_in_markup = reason == FinishReason::Length
            && (answer.calls().next().is_some() || answer.is_empty());
        let tokens = if stopped || cut_in_markup {
            Vec::new()
        } else {
            [&memory.prompt, said].concat()
        };
        if !tokens.is_empty() {
            let replays = &memory.sessions.replays;
            let kept = self.turn.as_ref().filter(|open| open.keep && choice == 0);
            let id = kept.map(|open| open.id.clone());
            let said = answer.message();
            replays.keep(memory.uid, memory.key, &said, tokens.clone(), id);
        }
        if choice == 0 {
            self.reason = Some(reason);
            self.tokens = tokens;
        }
    }

    /// Keeps the turn, if it is to be kept. Whoever tells the end needs the receipt.
    pub fn settle(&mut self) -> Receipt {
        let (usage, ended) = match &self.end {
            Some(Ok((usage, took))) => (*usage, Some(took.until)),
            _ => (Usage::default(), None),
        };
        let Some(open) = self.turn.take() else {
            return Sessions::settle(None);
        };
        if open.reads
            && let Some(memory) = self.memory.take()
        {
            open.claim.was_read(memory.prompt);
            return Sessions::settle(None);
        }
        let answer = self.answers.first().cloned();
        let ending = match self.reason {
            Some(reason) => Ending::Whole(reason),
            None if self.cancelled => Ending::Cancelled,
            None => Ending::Cut,
        };
        let turn = open.keep.then(|| {
            let turn = Turn {
                ended,
                ..open.turn(open.input.clone(), answer, ending, usage)
            };
            let tokens = std::mem::take(&mut self.tokens);
            let claim = open.claim;
            Ended {
                claim,
                turn,
                tokens,
            }
        });
        Sessions::settle(turn)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Events {
    /// Nobody hears more of it. What was said to a caller who has left, or until the daemon was
    /// stopped, was said.
    pub fn leave(&mut self) {
        let failed = matches!(&self.end, Some(Err(Failure::Engine(_) | Failure::Broken)));
        let said = self.answers.first().is_some_and(|a| !a.is_empty());
        if said && !failed {
            self.settle();
        }
        // Others may go on there.
        self.turn = None;
    }
}
