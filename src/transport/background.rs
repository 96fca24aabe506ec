//! Answers that outlive who asked for them. Each is heard out here, and its events are kept for a
//! while, so that who comes back reads on from where it was. What lasts, `sessions` keeps.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answers::Answers;
use super::render::{Frame, Render};
use super::responses::{self, Fate};
use crate::door::Door;
use crate::request::Refusal;
use crate::service::Service;

/// Answers of one user that run or wait to.
pub const MOST_OF_A_USER: usize = 8;
/// Answers of all users that run or wait to.
pub const MOST: usize = 64;
/// How long an answer's events can be read again after its end.
const LINGER: Duration = Duration::from_secs(300);
/// Bytes of an answer's events that are kept; the oldest go first.
const KEPT: usize = 4 << 20;

#[derive(Default)]
pub struct Background {
    all: Mutex<HashMap<String, Arc<Running>>>,
    tasks: TaskTracker,
}

/// One answer.
pub struct Running {
    uid: u32,
    cancel: CancellationToken,
    told: Mutex<Told>,
    /// Counts what was told.
    grew: watch::Sender<usize>,
}

/// What was told of it so far.
#[derive(Default)]
struct Told {
    /// `None` until it is taken up.
    answer: Option<responses::Answer>,
    frames: VecDeque<Frame>,
    /// Number of the first frame that is kept.
    first: usize,
    bytes: usize,
    over: Option<Instant>,
}

/// The right to one more.
pub struct Place {
    background: Arc<Background>,
    id: String,
    running: Arc<Running>,
}

impl Drop for Place {
    /// Nothing came of it.
    fn drop(&mut self) {
        if self.running.told().answer.is_none() {
            self.background.forget(&self.id);
        }
    }
}

impl Background {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Running>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the answer of that id.
    pub fn place(self: &Arc<Self>, uid: u32, id: &str) -> Result<Place, Refusal> {
        let mut all = self.lock();
        all.retain(|_, r| r.told().over.is_none_or(|over| over.elapsed() < LINGER));
        let runs = |r: &&Arc<Running>| r.told().over.is_none();
        let running = all.values().filter(runs);
        let own = running.clone().filter(|r| r.uid == uid).count();
        if own >= MOST_OF_A_USER || running.count() >= MOST {
            let limit = MOST_OF_A_USER;
            return Err(Refusal::TooManyInBackground { limit });
        }
        forget_oldest(&mut all, uid);
        let running = Arc::new(Running {
            uid,
            cancel: CancellationToken::new(),
            told: Mutex::default(),
            grew: watch::Sender::new(0),
        });
        all.insert(id.to_owned(), running.clone());
        Ok(Place {
            background: self.clone(),
            id: id.to_owned(),
            running,
        })
    }

    /// The user's answer of that id, if it was asked for here, and not too long ago.
    pub fn find(&self, uid: u32, id: &str) -> Option<Arc<Running>> {
        let all = self.lock();
        let found = all.get(id).filter(|r| r.uid == uid);
        let fresh = found.filter(|r| r.told().over.is_none_or(|over| over.elapsed() < LINGER));
        fresh.filter(|r| r.told().answer.is_some()).cloned()
    }

    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Once all of them are over.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Of answers that are over, a user has as many as may run.
fn forget_oldest(all: &mut HashMap<String, Arc<Running>>, uid: u32) {
    let over = |r: &Arc<Running>| r.told().over.filter(|_| r.uid == uid);
    let mut ended: Vec<(Instant, String)> = all
        .iter()
        .filter_map(|(id, r)| Some((over(r)?, id.clone())))
        .collect();
    ended.sort();
    let n = ended.len().saturating_sub(MOST_OF_A_USER - 1);
    for (_, id) in &ended[..n] {
        all.remove(id);
    }
}

impl Place {
    /// Hears the answer out, whoever listens.
    pub fn begin(
        self,
        door: &Arc<Door>,
        service: &Service,
        mut answer: responses::Answer,
        answers: Answers,
    ) -> Arc<Running> {
        let running = self.running.clone();
        let frames = answer.queue(service);
        running.told().answer = Some(answer);
        running.add(frames, false);
        let (door, hearer) = (door.clone(), running.clone());
        self.background
            .tasks
            .spawn(async move { hearer.hear(&door, answers).await });
        running
    }
}

impl Running {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It as it stands.
    pub fn response(&self, service: &Service) -> Value {
        let told = self.told();
        let answer = told.answer.as_ref();
        answer.map_or(Value::Null, |answer| answer.response(service))
    }

    pub fn is_over(&self) -> bool {
        self.told().over.is_some()
    }

    /// Stops it, and waits for its end.
    pub async fn cancel(&self) {
        self.cancel.cancel();
        let mut grew = self.grew.subscribe();
        while !self.is_over() {
            // The sender lives in `self`.
            let _ = grew.changed().await;
        }
    }

    /// Whether the frame of that number can still be read, now or later.
    pub fn has(&self, number: usize) -> bool {
        number >= self.told().first
    }

    /// The frames from `from` on, and the number after them; waits for them. `None` after the last.
    pub async fn read(&self, from: usize) -> Option<(Vec<Frame>, usize)> {
        let mut grew = self.grew.subscribe();
        loop {
            {
                let told = self.told();
                // One that reads too slowly misses what did not stay for it.
                let skip = from.saturating_sub(told.first);
                let frames: Vec<Frame> = told.frames.iter().skip(skip).cloned().collect();
                if !frames.is_empty() {
                    let next = told.first + told.frames.len();
                    return Some((frames, next));
                }
                if told.over.is_some() {
                    return None;
                }
            }
            // The sender lives in `self`.
            let _ = grew.changed().await;
        }
    }

    fn step<T>(&self, step: impl FnOnce(&mut responses::Answer) -> T) -> Option<T> {
        self.told().answer.as_mut().map(step)
    }

    fn add(&self, frames: Vec<Frame>, is_last: bool) {
        let mut told = self.told();
        for frame in frames {
            told.bytes += frame.bytes();
            told.frames.push_back(frame);
        }
        while told.bytes > KEPT && told.frames.len() > 1 {
            if let Some(gone) = told.frames.pop_front() {
                told.bytes -= gone.bytes();
                told.first += 1;
            }
        }
        if is_last {
            told.over = Some(Instant::now());
        }
        drop(told);
        self.grew.send_modify(|n| *n += 1);
    }

    async fn hear(&self, door: &Door, mut answers: Answers) {
        let Some(service) = door.service.get() else {
            return;
        };
        let fate = loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => break Fate::Cancelled,
                event = answers.next() => event,
            };
            let Some((prompt, event)) = event else {
                let kept = answers.settle().await;
                let last = self.step(|answer| answer.last(service, &kept));
                return self.add(last.unwrap_or_default(), true);
            };
            match self.step(|answer| answer.take(service, prompt, event)) {
                Some(Err(failure)) => break Fate::Failed(failure.to_string()),
                Some(Ok(frames)) => self.add(frames, false),
                None => {}
            }
        };
        // What was said until then stays.
        answers.leave(fate == Fate::Cancelled).await;
        let last = self.step(|answer| answer.cut(service, fate));
        self.add(last.unwrap_or_default(), true);
    }
}
