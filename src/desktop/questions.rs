//! The question that stands in a shell's search field, and those that were chosen. A new query takes
//! the place of the last, whose answer ends unless somebody chose it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;
use zbus::Connection;

use super::daemon::Daemon;
use super::notice;
use super::question::{Question, Stage, asked};

/// Who has not typed for so long has finished the question.
const PAUSE: Duration = Duration::from_millis(700);

pub struct Questions {
    connection: Connection,
    daemon: Daemon,
    word: String,
    standing: Mutex<Standing>,
    /// Questions that are asked, and notifications that tell of answers.
    running: TaskTracker,
}

struct Standing {
    question: Option<Arc<Question>>,
    /// When a shell last called.
    called: Instant,
}

impl Questions {
    pub async fn new(connection: &Connection, word: String) -> zbus::Result<Questions> {
        Ok(Questions {
            connection: connection.clone(),
            daemon: Daemon::new(connection).await?,
            word,
            standing: Mutex::new(Standing {
                question: None,
                called: Instant::now(),
            }),
            running: TaskTracker::new(),
        })
    }

    /// The question in a query; `None`, and the last one ends, where the word is missing.
    pub fn typed(&self, query: &str) -> Option<Arc<Question>> {
        let text = asked(query, &self.word);
        if text.is_none() {
            self.replace(None);
        }
        text.map(|text| self.stands(text))
    }

    /// This question, which is asked once it has stood for a moment.
    pub fn stands(&self, text: &str) -> Arc<Question> {
        let last = self.standing().question.clone();
        let failed = |q: &Question| matches!(q.answer().stage, Stage::Failed(_));
        if let Some(last) = last.filter(|q| q.text == text && !failed(q)) {
            return last;
        }
        let question = Arc::new(Question::new(text));
        self.replace(Some(question.clone()));
        let asked = ask(self.daemon.clone(), question.clone());
        self.running.spawn(asked);
        question
    }

    /// Asks now, starts the daemon for it if need be, and tells the answer in a notification.
    pub fn choose(&self, text: &str) {
        let question = self.stands(text);
        if !question.chosen.is_cancelled() {
            question.chosen.cancel();
            let connection = self.connection.clone();
            self.running.spawn(notice::tell(connection, question));
        }
    }

    fn replace(&self, question: Option<Arc<Question>>) {
        let last = std::mem::replace(&mut self.standing().question, question);
        if let Some(last) = last.filter(|q| !q.chosen.is_cancelled()) {
            last.given_up.cancel();
        }
    }

    /// Every call passes here.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.called = Instant::now();
        standing
    }

    /// For how long nobody has called, where no answer is on its way.
    fn unused(&self) -> Option<Duration> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let offered = |q: &Arc<Question>| q.answer().stage == Stage::Offered;
        // What is only offered waits for nothing but a call.
        let waiting = usize::from(standing.question.as_ref().is_some_and(offered));
        (self.running.len() <= waiting).then(|| standing.called.elapsed())
    }

    pub fn is_unused_for(&self, time: Duration) -> bool {
        self.unused().is_some_and(|unused| unused >= time)
    }

    pub async fn unused_for(&self, time: Duration) {
        while !self.is_unused_for(time) {
            let rest = time.saturating_sub(self.unused().unwrap_or_default());
            tokio::time::sleep(rest.max(Duration::from_secs(1))).await;
        }
    }
}

/// Asks when the question has stood for a moment and costs no start, or when it is chosen.
async fn ask(daemon: Daemon, question: Arc<Question>) {
    let ready = async {
        tokio::time::sleep(PAUSE).await;
        if !daemon.is_ready().await {
            question.enter(Stage::Offered);
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = question.given_up.cancelled() => return,
        () = question.chosen.cancelled() => {}
        () = ready => {}
    }
    question.enter(Stage::Running);
    let answered = daemon.answer(&question.text, |more| question.push(more));
    let answered = tokio::select! {
        () = question.given_up.cancelled() => return,
        answered = answered => answered,
    };
    question.enter(match answered {
        Ok(()) => Stage::Ended,
        Err(why) => Stage::Failed(why),
    });
}
