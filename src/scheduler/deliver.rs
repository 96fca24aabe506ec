//! Hands events to callers without ever waiting for one. A caller that does not read is parked,
//! then given up; the engine goes on for the others.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::mpsc::{OwnedPermit, Sender};

use crate::request::Event;

pub struct Outbox {
    events: Sender<Event>,
    /// What the channel has no room for: at most what one step says.
    waiting: VecDeque<Event>,
    stalled: Option<Stalled>,
}

type Room = Result<OwnedPermit<Event>, SendError<()>>;

struct Stalled {
    since: Instant,
    /// Becomes room for one event when the caller reads.
    room: Pin<Box<dyn Future<Output = Room> + Send>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    Listening,
    /// Everything it was sent lies unread: its request does not run until it reads.
    Parked,
    /// It left, or did not read for too long.
    Gone,
}

impl Outbox {
    pub fn new(events: Sender<Event>) -> Outbox {
        Outbox {
            events,
            waiting: VecDeque::new(),
            stalled: None,
        }
    }

    pub fn push(&mut self, event: Event) {
        self.waiting.push_back(event);
    }

    /// Sends what there is room for. Where there is none, `waker` is woken when the caller reads or
    /// leaves.
    pub fn flush(&mut self, now: Instant, patience: Duration, waker: &Waker) -> Reader {
        loop {
            if let Some(stalled) = &mut self.stalled {
                let is_over = now.duration_since(stalled.since) > patience;
                match stalled.room.as_mut().poll(&mut Context::from_waker(waker)) {
                    Poll::Ready(Ok(room)) => self.waiting.pop_front().map(|e| room.send(e)),
                    Poll::Ready(Err(_)) => return Reader::Gone,
                    Poll::Pending if is_over => return Reader::Gone,
                    Poll::Pending => return Reader::Parked,
                };
                self.stalled = None;
            }
            let Some(event) = self.waiting.pop_front() else {
                break;
            };
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return Reader::Gone,
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    let room = Box::pin(self.events.clone().reserve_owned());
                    self.stalled = Some(Stalled { since: now, room });
                }
            }
        }
        if self.events.is_closed() {
            Reader::Gone
        } else {
            Reader::Listening
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    const EVENT: Event = Event::Read(0);

    #[test]
    fn a_reader_that_stops_is_parked_then_given_up_and_loses_nothing_if_it_returns() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        let patience = Duration::from_secs(5);
        let start = Instant::now();
        outbox.push(EVENT);
        assert_eq!(
            outbox.flush(start, patience, Waker::noop()),
            Reader::Listening
        );
        outbox.push(EVENT);
        assert_eq!(outbox.flush(start, patience, Waker::noop()), Reader::Parked);
        assert_eq!(
            outbox.flush(start + patience, patience, Waker::noop()),
            Reader::Parked
        );
        assert!(receiver.try_recv().is_ok());
        let later = start + 2 * patience;
        assert_eq!(
            outbox.flush(later, patience, Waker::noop()),
            Reader::Listening
        );
        outbox.push(EVENT);
        assert_eq!(outbox.flush(later, patience, Waker::noop()), Reader::Parked);
        assert_eq!(
            outbox.flush(later + 2 * patience, patience, Waker::noop()),
            Reader::Gone
        );
    }

    #[test]
    fn a_reader_that_left_is_gone_even_when_there_is_nothing_to_say() {
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        let mut outbox = Outbox::new(sender);
        let gone = outbox.flush(Instant::now(), Duration::ZERO, Waker::noop());
        assert_eq!(gone, Reader::Gone);
    }
}
