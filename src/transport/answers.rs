//! The events of all requests that one body made, until the last of them is over.

use std::task::Poll;

use crate::request::Event;
use crate::service::events::Events;
use crate::service::{Generation, Receipt};

/// The events of all prompts of one body.
pub struct Answers {
    each: Vec<Events>,
    /// Who is asked first: none waits behind one that always has something to say.
    first: usize,
}

impl Answers {
    pub fn of(generations: Vec<Generation>) -> Answers {
        Answers {
            each: generations.into_iter().map(|g| g.events).collect(),
            first: 0,
        }
    }

    /// The next event of any prompt, with the prompt's number; `None` after the last one of all.
    pub async fn next(&mut self) -> Option<(usize, Event)> {
        std::future::poll_fn(|cx| {
            let n = self.each.len();
            let mut waits = false;
            for at in (0..n).map(|i| (self.first + i) % n) {
                match self.each[at].poll_next(cx) {
                    Poll::Ready(Some(event)) => {
                        self.first = at + 1;
                        return Poll::Ready(Some((at, event)));
                    }
                    Poll::Ready(None) => {}
                    Poll::Pending => waits = true,
                }
            }
            if waits {
                Poll::Pending
            } else {
                Poll::Ready(None)
            }
        })
        .await
    }

    /// Keeps what is to be kept, which may wait for the disk.
    pub async fn settle(&mut self) -> Vec<Receipt> {
        let each = std::mem::take(&mut self.each);
        let keep = || each.into_iter().map(|mut e| e.settle()).collect();
        match tokio::task::spawn_blocking(keep).await {
            Ok(receipts) => receipts,
            Err(e) => {
                log::error!("an answer was not kept: {e}");
                Vec::new()
            }
        }
    }

    /// Nobody hears more of it; what was said stays. `told`: because somebody said so.
    pub async fn leave(&mut self, told: bool) {
        let each = std::mem::take(&mut self.each);
        let leave = move || {
            for mut events in each {
                events.close();
                if told {
                    events.cancelled();
                }
                events.leave();
            }
        };
        if let Err(e) = tokio::task::spawn_blocking(leave).await {
            log::error!("an answer was not kept: {e}");
        }
    }
}
