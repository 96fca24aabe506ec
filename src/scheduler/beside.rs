//! Computes the next masks of constrained answers on threads of their own, beside the pass whose
//! logits the masks are for: a mask depends only on the tokens accepted so far. Chooses nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::request::TokenMask;
use crate::text::{Constraint, ConstraintError};

/// What may come next; `None` while everything may.
pub type Mask = Result<Option<TokenMask>, ConstraintError>;

type Masked = Vec<(Constraint, Mask)>;

/// Threads, made when they are first needed, as many as the process may use cores at most.
pub struct Beside {
    helpers: Vec<Helper>,
    most: usize,
}

/// It ends by itself when this is dropped.
struct Helper {
    ask: SyncSender<Vec<Constraint>>,
    answer: Receiver<Masked>,
}

impl Helper {
    fn open() -> Option<Helper> {
        let (ask, asked) = sync_channel(1);
        let (say, answer) = sync_channel(1);
        let work = move || {
            while let Ok(constraints) = asked.recv() {
                if say.send(masks(constraints)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("mask".into()).spawn(work);
        thread.ok().map(|_| Helper { ask, answer })
    }
}

fn masks(constraints: Vec<Constraint>) -> Masked {
    let one = |mut constraint: Constraint| {
        let mask = catch_unwind(AssertUnwindSafe(|| constraint.mask()));
        let failed = |_| Err(ConstraintError("the grammar's parser failed".into()));
        (constraint, mask.unwrap_or_else(failed))
    };
    constraints.into_iter().map(one).collect()
}

impl Default for Beside {
    fn default() -> Beside {
        Beside {
            helpers: Vec::new(),
            most: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Beside {
    /// Runs `pass` and computes the masks meanwhile; they come back in the order of `constraints`.
    pub fn run<R>(
        &mut self,
        mut constraints: Vec<Constraint>,
        pass: impl FnOnce() -> R,
    ) -> (R, Masked) {
        let wanted = self.most.min(constraints.len());
        while self.helpers.len() < wanted {
            match Helper::open() {
                Some(helper) => self.helpers.push(helper),
                // No more threads are to be had: fewer do the work.
                None => break,
            }
        }
        let helpers = &self.helpers[..wanted.min(self.helpers.len())];
        let each = constraints.len().div_ceil(helpers.len().max(1));
        let mut busy = 0;
        for helper in helpers {
            let rest = constraints.split_off(each.min(constraints.len()));
            let share = std::mem::replace(&mut constraints, rest);
            if let Err(back) = helper.ask.send(share) {
                constraints.splice(..0, back.0);
                break;
            }
            busy += 1;
        }
        let result = pass();
        let answers = helpers[..busy].iter();
        let mut masked: Masked = answers.flat_map(|h| h.answer.recv()).flatten().collect();
        masked.extend(masks(constraints));
        (result, masked)
    }
}
