//! Computes a constrained answer's next mask on a thread of its own, beside the pass whose logits
//! the mask is for: it depends only on the tokens accepted so far. Chooses nothing.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::request::TokenMask;
use crate::text::{Constraint, ConstraintError};

/// What may come next; `None` while everything may.
pub type Mask = Result<Option<TokenMask>, ConstraintError>;

/// One lane is enough: one pass runs at a time.
#[derive(Default)]
pub struct Beside {
    lane: Option<Lane>,
}

struct Lane {
    ask: SyncSender<Constraint>,
    answer: Receiver<(Constraint, Mask)>,
}

impl Lane {
    fn open() -> Option<Lane> {
        let (ask, asked) = sync_channel::<Constraint>(1);
        let (say, answer) = sync_channel(1);
        let work = move || {
            while let Ok(mut constraint) = asked.recv() {
                let mask = constraint.mask();
                if say.send((constraint, mask)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("mask".into()).spawn(work);
        // It ends by itself when the lane is dropped.
        thread.ok().map(|_| Lane { ask, answer })
    }
}

impl Beside {
    /// Runs `pass` and computes the mask meanwhile. Without a constraint there is no mask.
    pub fn run<R>(
        &mut self,
        constraint: &mut Option<Constraint>,
        pass: impl FnOnce() -> R,
    ) -> (R, Option<Mask>) {
        let Some(own) = constraint.take() else {
            return (pass(), None);
        };
        let lane = match self.lane.take().or_else(Lane::open) {
            Some(lane) => lane,
            // No thread is to be had: one after the other, then.
            None => {
                let mask = constraint.insert(own).mask();
                return (pass(), Some(mask));
            }
        };
        if let Err(back) = lane.ask.send(own) {
            let mask = constraint.insert(back.0).mask();
            return (pass(), Some(mask));
        }
        let result = pass();
        let mask = match lane.answer.recv() {
            Ok((own, mask)) => {
                *constraint = Some(own);
                self.lane = Some(lane);
                mask
            }
            // It panicked, and the constraint went with it; the next one gets a new lane.
            Err(_) => Err(ConstraintError("the grammar's thread failed".into())),
        };
        (result, Some(mask))
    }
}
