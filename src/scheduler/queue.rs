//! Requests that wait: bounded, and fair per caller. Owns the lock between the doors' threads and
//! the engine's; decides nothing about what runs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;
use std::time::{Duration, Instant};

use super::Admitted;
use crate::request::{Event, Failure, Refusal};

pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Requests that may wait. A caller with none waiting may always add one, up to twice this:
    /// no caller can fill the queue for the others.
    max: AtomicUsize,
}

struct State {
    /// Callers in order of their turn, each with its requests, oldest first; none is empty.
    waiting: VecDeque<(u32, VecDeque<Admitted>)>,
    mode: Mode,
    /// Somebody who was parked reads again, or has left.
    woken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Running,
    /// Nothing new is taken; what runs may run until then.
    Stopping {
        deadline: Instant,
    },
    /// The engine's thread is gone.
    Broken,
}

impl Queue {
    pub fn new(max: usize) -> Queue {
        Queue {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                mode: Mode::Running,
                woken: false,
            }),
            changed: Condvar::new(),
            max: AtomicUsize::new(max),
        }
    }

    pub fn push(&self, request: Admitted) -> Result<(), Refusal> {
        let mut state = self.lock();
        match state.mode {
            Mode::Running => {}
            Mode::Stopping { .. } => return Err(Refusal::Stopping),
            Mode::Broken => return Err(Refusal::Broken),
        }
        // Who left while waiting takes nobody's place.
        state.forget_the_gone();
        let uid = request.caller.uid;
        let n = state.len();
        let own = state.waiting.iter_mut().find(|(u, _)| *u == uid);
        let max = self.max.load(Relaxed);
        let room = if own.is_some() { max } else { 2 * max };
        if n >= room {
            return Err(Refusal::QueueFull);
        }
        match own {
            Some((_, requests)) => requests.push_back(request),
            None => state.waiting.push_back((uid, [request].into())),
        }
        self.changed.notify_all();
        Ok(())
    }

    /// From the next request on; who waits already may wait on.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    /// The next request whose caller still listens; callers take turns.
    pub fn pop(&self) -> Option<Admitted> {
        let mut state = self.lock();
        state.forget_the_gone();
        let (uid, mut requests) = state.waiting.pop_front()?;
        let next = requests.pop_front();
        if !requests.is_empty() {
            state.waiting.push_back((uid, requests));
        }
        next
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn mode(&self) -> Mode {
        self.lock().mode
    }

    /// Sleeps until a parked caller reads, the mode changes from `seen` or, where `has_room` for it,
    /// something waits; at most for `limit`.
    pub fn wait(&self, seen: Mode, has_room: bool, limit: Duration) {
        let idle = |s: &mut State| {
            let taken = has_room && !s.waiting.is_empty();
            !taken && !s.woken && s.mode == seen
        };
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, limit, idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.woken = false;
    }

    /// Takes nothing more; what waits is told so at once. A second call moves the deadline.
    pub fn stop(&self, deadline: Instant) {
        self.close(Mode::Stopping { deadline }, Failure::Stopped);
    }

    /// Ends a wait: there is something else to do.
    pub fn nudge(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }

    pub fn break_off(&self) {
        self.close(Mode::Broken, Failure::Broken);
    }

    fn close(&self, mode: Mode, failure: Failure) {
        let mut state = self.lock();
        if state.mode != Mode::Broken {
            state.mode = mode;
        }
        for (_, requests) in std::mem::take(&mut state.waiting) {
            for request in requests {
                // Nothing was sent yet, so there is room; or the caller has left.
                let _ = request.events.try_send(Event::Failed(failure.clone()));
            }
        }
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Queue {
    fn wake(self: Arc<Self>) {
        self.nudge();
    }
}

impl State {
    fn len(&self) -> usize {
        self.waiting.iter().map(|(_, r)| r.len()).sum()
    }

    fn forget_the_gone(&mut self) {
        for (_, requests) in &mut self.waiting {
            requests.retain(|r| !r.events.is_closed());
        }
        self.waiting.retain(|(_, r)| !r.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::fake::admitted;
    use tokio::sync::mpsc::Receiver;

    fn push(queue: &Queue, uid: u32) -> Result<Receiver<Event>, Refusal> {
        let (request, events) = admitted(uid, &[1]);
        queue.push(request).map(|()| events)
    }

    #[test]
    fn a_full_queue_refuses_who_waits_and_has_room_for_who_does_not() {
        let queue = Queue::new(2);
        let _kept = [push(&queue, 1).unwrap(), push(&queue, 1).unwrap()];
        assert_eq!(push(&queue, 1).unwrap_err(), Refusal::QueueFull);
        let _other = push(&queue, 2).unwrap();
        assert_eq!(push(&queue, 2).unwrap_err(), Refusal::QueueFull);
        let _third = push(&queue, 3).unwrap();
        assert_eq!(push(&queue, 4).unwrap_err(), Refusal::QueueFull);
    }

    #[test]
    fn callers_take_turns() {
        let queue = Queue::new(8);
        let _kept: Vec<_> = [1, 1, 1, 2].map(|uid| push(&queue, uid).unwrap()).into();
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop().map(|r| r.caller.uid)).collect();
        assert_eq!(order, [1, 2, 1, 1]);
    }

    #[test]
    fn who_leaves_while_waiting_takes_no_place() {
        let queue = Queue::new(1);
        drop(push(&queue, 1).unwrap());
        let _kept = push(&queue, 1).unwrap();
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn stopping_tells_those_who_wait_and_takes_nobody() {
        let queue = Queue::new(8);
        let mut events = push(&queue, 1).unwrap();
        queue.stop(Instant::now());
        assert_eq!(events.try_recv(), Ok(Event::Failed(Failure::Stopped)));
        assert_eq!(push(&queue, 1).unwrap_err(), Refusal::Stopping);
        queue.break_off();
        assert_eq!(push(&queue, 1).unwrap_err(), Refusal::Broken);
    }
}
