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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_the_word_is_asked() {
        for (query, wanted) in [
            ("ask what is a heron?", Some("what is a heron?")),
            ("  Ask\twhat  is it ", Some("what  is it")),
            ("ask", None),
            ("ask  ", None),
            ("asking for a friend", None),
            ("please ask him", None),
            ("", None),
        ] {
            assert_eq!(asked(query, "ask"), wanted, "{query:?}");
        }
        assert_eq!(asked("ÄSK x", "äsk"), Some("x"));
    }

    #[tokio::test]
    async fn an_answer_is_waited_for_until_it_settles_or_another_takes_its_place() {
        let long = Duration::from_secs(60);
        let question = Question::new("q");
        question.push("half");
        assert_eq!(question.settled(Duration::ZERO).await.text, "half");
        question.given_up.cancel();
        assert_eq!(question.settled(long).await.stage, Stage::Typed);
        let question = Question::new("q");
        let (answer, ()) = tokio::join!(question.settled(long), async {
            question.enter(Stage::Running);
            question.push("whole");
            question.enter(Stage::Ended);
        });
        assert_eq!((answer.is_over(), answer.text.as_str()), (true, "whole"));
    }
}
