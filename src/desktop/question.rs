//! One question: what was typed after the word, and how far its answer has come. Asks nobody.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How far an answer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Somebody may still be typing.
    Typed,
    /// The daemon is not there, or not ready: whoever chooses the question has it asked.
    Offered,
    Running,
    Ended,
    /// With the reason.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub stage: Stage,
    /// As far as it has come.
    pub text: String,
}

impl Answer {
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ended | Stage::Failed(_))
    }
}

pub struct Question {
    pub text: String,
    answer: watch::Sender<Answer>,
    /// Somebody chose it: it is asked now, and to its end.
    pub chosen: CancellationToken,
    /// Another query has taken its place.
    pub given_up: CancellationToken,
}

impl Question {
    pub fn new(text: &str) -> Question {
        let answer = Answer {
            stage: Stage::Typed,
            text: String::new(),
        };
        Question {
            text: text.to_owned(),
            answer: watch::Sender::new(answer),
            chosen: CancellationToken::new(),
            given_up: CancellationToken::new(),
        }
    }

    pub fn enter(&self, stage: Stage) {
        self.answer.send_modify(|answer| answer.stage = stage);
    }

    pub fn push(&self, more: &str) {
        self.answer.send_modify(|answer| answer.text += more);
    }

    pub fn answer(&self) -> Answer {
        self.answer.borrow().clone()
    }

    pub fn follow(&self) -> watch::Receiver<Answer> {
        self.answer.subscribe()
    }

    /// The answer when nothing more is to come by itself, or as far as it is after `patience`.
    pub async fn settled(&self, patience: Duration) -> Answer {
        let mut answer = self.follow();
        let settled = answer.wait_for(|a| a.is_over() || a.stage == Stage::Offered);
        tokio::select! {
            _ = tokio::time::timeout(patience, settled) => {}
            () = self.given_up.cancelled() => {}
        }
        self.answer()
    }
}

/// What is asked by a query that begins with `word`, in whatever case.
pub fn asked<'q>(query: &'q str, word: &str) -> Option<&'q str> {
    let (first, rest) = query.trim_start().split_once(char::is_whitespace)?;
    let rest = rest.trim();
    (first.to_lowercase() == word.to_lowercase() && !rest.is_empty()).then_some(rest)
}
