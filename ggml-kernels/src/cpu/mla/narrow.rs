//! Lanes of few queries, decoding above all: threads share the splits of each group of queries. The
//! tasks go in waves, so that what they gather stays small however long the context is.

use std::ops::Range;

use super::Pass;
use super::fold::Columns;
use super::product::WIDTH;
use crate::cpu::share::Shared;
use crate::cpu::simd::dispatch;

/// Tasks of a wave for each thread.
const TASKS: usize = 32;
/// Columns to a piece where splits are folded.
const COLUMNS: usize = 64;
/// Greatest scores and sums of weights before a part's columns.
const HEAD: usize = 2 * WIDTH;

/// One group over one split. A group's tasks follow each other.
#[derive(Debug)]
pub(super) struct Narrow {
    pub lane: usize,
    pub group: usize,
    pub split: usize,
    /// Splits of this group.
    pub splits: usize,
}

/// How the parts of a wave lie in memory: one a task, one that carries on the group that the wave
/// before cut, and the head of that which this one cuts.
pub(super) struct Wave {
    pub tasks: usize,
    /// Floats of a part.
    part: usize,
}

/// A group's tasks in a wave.
struct Span {
    lane: usize,
    group: usize,
    /// Where the part begins that takes up the others.
    first: usize,
    /// Where those lie, one behind the other.
    others: Range<usize>,
    ends: bool,
}

impl Wave {
    pub(super) fn new(threads: usize, tasks: usize, part: usize) -> Wave {
        Wave {
            tasks: (TASKS * threads).min(tasks).max(1),
            part,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.head() + HEAD
    }

    fn carry(&self) -> usize {
        self.tasks * self.part
    }

    fn head(&self) -> usize {
        self.carry() + self.part
    }

    fn spans(&self, tasks: &[Narrow], carried: bool) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut at = 0;
        while let Some(task) = tasks.get(at) {
            let end = tasks.len().min(at + task.splits - task.split);
            let from_before = carried && at == 0;
            let others = if from_before { at } else { at + 1 };
            spans.push(Span {
                lane: task.lane,
                group: task.group,
                first: if from_before {
                    self.carry()
                } else {
                    at * self.part
                },
                others: others * self.part..end * self.part,
                ends: task.split + (end - at) == task.splits,
            });
            at = end;
        }
        spans
    }
}

impl Pass<'_> {
    /// One wave; `carried`: the one before cut a group. Returns whether this one does.
    pub(super) fn narrow(
        &self,
        wave: &Wave,
        tasks: &[Narrow],
        carried: bool,
        parts: &mut [f32],
    ) -> bool {
        let of_tasks = &mut parts[..tasks.len() * wave.part];
        self.crew
            .pool
            .run_chunks(of_tasks, wave.part, &|piece, part, worker| {
                let task = &tasks[piece];
                // SAFETY: a worker does one piece at a time, and has this part for itself.
                let work = unsafe { self.work.part(worker * self.each..(worker + 1) * self.each) };
                let groups = task.group..task.group + 1;
                self.attend(task.lane, groups, task.split..task.split + 1, part, work);
            });
        let spans = wave.spans(tasks, carried);
        let pieces = self.shape.rank.div_ceil(COLUMNS);
        let shared = Shared::new(&mut *parts);
        self.crew.pool.run(spans.len() * pieces, &|piece, _| {
            self.fold(wave, &shared, &spans[piece / pieces], piece % pieces);
        });
        let Some(span) = spans.last().filter(|span| !span.ends) else {
            return false;
        };
        let (carry, head) = (wave.carry(), wave.head());
        if span.first != carry {
            parts.copy_within(span.first..span.first + wave.part, carry);
        }
        parts.copy_within(head..head + HEAD, carry);
        true
    }

    /// Some columns of a span: folded, and where it ends, given out.
    fn fold(&self, wave: &Wave, parts: &Shared<'_, f32>, span: &Span, piece: usize) {
        let columns = piece * COLUMNS..self.shape.rank.min((piece + 1) * COLUMNS);
        let sums =
            |part: usize| part + HEAD + columns.start * WIDTH..part + HEAD + columns.end * WIDTH;
        // SAFETY: heads are only read in this job, as are the columns of all parts but the first of
        // a span; of that one each piece has its own columns.
        let (first, own) = unsafe {
            let head = parts.read(span.first..span.first + HEAD);
            (head, parts.part(sums(span.first)))
        };
        let others = span.others.clone().step_by(wave.part);
        // SAFETY: as above.
        let mut others =
            others.map(|at| unsafe { [parts.read(at..at + HEAD), parts.read(sums(at))] });
        let folded = Columns {
            first,
            columns: own,
            others: &mut others,
        };
        let head = dispatch(self.crew.tier, folded);
        // SAFETY: as above.
        let own = unsafe { parts.read(sums(span.first)) };
        if span.ends {
            self.finish([span.lane, span.group], columns, &head, own);
        } else if piece == 0 {
            // SAFETY: one span of a wave does not end, and has one first piece.
            let to = unsafe { parts.part(wave.head()..wave.head() + HEAD) };
            to.copy_from_slice(&head);
        }
    }
}
