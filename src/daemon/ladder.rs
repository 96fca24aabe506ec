//! What is given up where memory runs short, a rung at a time, and when it is taken up again. Pure: the
//! clock and the figures come from outside.
//!
//! The kernel counts every wait for a page, those for a model's mapped weights too, and no conversation
//! that is given up helps against those. So the figures decide how high it goes: up to [`Rung::Hold`]
//! where what conversations hold is next to nothing of it all, up to [`Rung::Rest`] while most of our
//! memory is files that the kernel can drop by itself, and to the top only where it is not, or where our
//! control group has a mark below what nobody can drop but we.

use std::time::{Duration, Instant};

use crate::service::Held;

/// What is done on each, on top of what is done below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Rung {
    #[default]
    Calm,
    /// No new state is kept for a next turn.
    Hold,
    /// What rests is written to the disk, and half of those kept go, by what they save.
    Shed,
    /// Conversations that rest leave memory, and the others' states go.
    Rest,
    /// New requests are turned away for a while.
    Refuse,
}

impl Rung {
    const ALL: [Rung; 5] = [Rung::Calm, Rung::Hold, Rung::Shed, Rung::Rest, Rung::Refuse];

    pub fn name(self) -> &'static str {
        match self {
            Rung::Calm => "calm",
            Rung::Hold => "hold",
            Rung::Shed => "shed",
            Rung::Rest => "rest",
            Rung::Refuse => "refuse",
        }
    }

    fn next(self, up: bool) -> Rung {
        let at = self as usize;
        let to = if up { at + 1 } else { at.saturating_sub(1) };
        Rung::ALL[to.min(Rung::ALL.len() - 1)]
    }
}

/// One word of the kernel's is believed for so long.
const BELIEVED: Duration = Duration::from_secs(2);
/// Between the first rungs, which lose nothing, or only time.
const SOON: Duration = Duration::from_millis(250);
/// Before anybody is turned away, and after another word.
const LATER: Duration = Duration::from_secs(1);
/// After so long without a word it goes down, a rung each time.
const QUIET: Duration = Duration::from_secs(10);
const DOWN: Duration = Duration::from_secs(2);

/// Whether the kernel can no longer bring us below the mark, and makes us wait instead.
pub fn is_over(held: Held, mark: Option<u64>) -> bool {
    mark.is_some_and(|mark| held.own > mark)
}

/// Bytes that states may take below a mark: what all else of ours and the mapped files leave. Where
/// files alone would fill it, a quarter of what is no file's.
pub fn room(held: Held, mark: u64) -> u64 {
    let left = mark.saturating_sub(held.own.saturating_sub(held.states));
    left.saturating_sub(held.files).max(left / 4)
}

/// How high it may go.
fn top(held: Held, is_over: bool) -> Rung {
    if is_over || held.own > held.files {
        Rung::Refuse
    } else if held.states.saturating_mul(50) >= held.own.saturating_add(held.files) {
        Rung::Rest
    } else {
        Rung::Hold
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Ladder {
    pub rung: Rung,
    changed: Option<Instant>,
    told: Option<Instant>,
}

impl Ladder {
    /// The kernel's word that memory is short.
    pub fn tell(&mut self, now: Instant) {
        self.told = Some(now);
    }

    /// Whether there is anything to look for.
    pub fn is_idle(&self) -> bool {
        self.told.is_none()
    }

    /// The rung from `now` on, if it is another one. `mark`: what our control group may hold; being
    /// over it is a word of its own.
    pub fn step(&mut self, now: Instant, held: Held, mark: Option<u64>) -> Option<Rung> {
        let is_over = is_over(held, mark);
        if is_over {
            self.tell(now);
        }
        let told = self.told?;
        let since = |then: Instant| now.saturating_duration_since(then);
        let rested = |span: Duration| self.changed.is_none_or(|at| since(at) >= span);
        let again = self.changed.is_none_or(|at| told > at);
        let up = self.rung.next(true);
        let climbs = if up < Rung::Refuse {
            rested(SOON)
        } else {
            rested(LATER) && again
        };
        let next = if since(told) < BELIEVED && climbs && up <= top(held, is_over) {
            up
        } else if since(told) >= QUIET && rested(DOWN) {
            self.rung.next(false)
        } else {
            self.rung
        };
        if next == self.rung {
            if self.rung == Rung::Calm && since(told) >= QUIET {
                self.told = None;
            }
            return None;
        }
        (self.rung, self.changed) = (next, Some(now));
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    /// Most of it is no file's.
    const OWN: Held = Held {
        states: 100,
        own: 300,
        files: 200,
    };

    /// The rungs at each look, a tenth of a second apart, where the kernel speaks at those times.
    fn climbed(held: Held, speaks: &[u32], until: u32) -> Vec<(u32, Rung)> {
        let start = Instant::now();
        let mut ladder = Ladder::default();
        let mut rungs = Vec::new();
        for at in (0..=until).step_by(100) {
            let now = start + at * MS;
            if speaks.contains(&at) {
                ladder.tell(now);
            }
            rungs.extend(ladder.step(now, held, None).map(|rung| (at, rung)));
        }
        rungs
    }

    #[test]
    fn one_word_is_enough_to_rest_within_a_second_and_turns_nobody_away() {
        let rungs = climbed(OWN, &[0], 5000);
        assert_eq!(
            rungs,
            [(0, Rung::Hold), (300, Rung::Shed), (600, Rung::Rest)]
        );
    }

    #[test]
    fn a_second_word_turns_new_requests_away_and_all_is_well_within_half_a_minute() {
        let rungs = climbed(OWN, &[0, 1000, 1600], 40_000);
        assert_eq!(rungs[3], (1600, Rung::Refuse));
        let down: Vec<Rung> = rungs[4..].iter().map(|(_, rung)| *rung).collect();
        assert_eq!(down, [Rung::Rest, Rung::Shed, Rung::Hold, Rung::Calm]);
        let last = rungs.last().map(|(at, _)| *at);
        assert!(last.is_some_and(|at| at < 30_000), "{rungs:?}");
    }

    #[test]
    fn pressure_that_lasts_does_not_swing() {
        let always: Vec<u32> = (0..60).map(|n| n * 2000).collect();
        let rungs = climbed(OWN, &always, 118_000);
        assert_eq!(rungs.len(), 4, "up once: {rungs:?}");
        // It comes back before all is given back: from there, not from the ground.
        let rungs = climbed(OWN, &[0, 11_000], 12_000);
        let last: Vec<Rung> = rungs[3..].iter().map(|(_, rung)| *rung).collect();
        assert_eq!(last, [Rung::Shed, Rung::Rest], "{rungs:?}");
    }

    #[test]
    fn waits_for_a_models_weights_cost_no_conversation() {
        let always: Vec<u32> = (0..20).map(|n| n * 2000).collect();
        let weights = Held {
            states: 1,
            own: 100,
            files: 30_000,
        };
        assert_eq!(climbed(weights, &always, 40_000), [(0, Rung::Hold)]);
        // Where conversations hold a good part of it, they rest, and nobody is turned away.
        let both = Held {
            states: 9_000,
            own: 10_000,
            files: 30_000,
        };
        let rungs = climbed(both, &always, 40_000);
        assert_eq!(rungs.last().map(|(_, rung)| *rung), Some(Rung::Rest));
    }

    #[test]
    fn a_mark_below_what_is_ours_is_word_enough_and_rest_comes_within_a_second() {
        let start = Instant::now();
        let mut ladder = Ladder::default();
        let resting = Held { states: 250, ..OWN };
        let mut look = |at: u32, held, mark| ladder.step(start + at * MS, held, mark);
        assert_eq!(look(0, resting, Some(300)), None, "just as much");
        let rungs: Vec<Rung> = (0..=600)
            .step_by(100)
            .filter_map(|at| look(at, resting, Some(299)))
            .collect();
        assert_eq!(rungs, [Rung::Hold, Rung::Shed, Rung::Rest]);
        // What is left is below it: nobody is turned away, and all is well again.
        let given_back = Held {
            states: 0,
            own: 50,
            ..OWN
        };
        let rungs: Vec<Rung> = (700..=30_000)
            .step_by(100)
            .filter_map(|at| look(at, given_back, Some(299)))
            .collect();
        assert_eq!(rungs, [Rung::Shed, Rung::Hold, Rung::Calm]);
    }

    #[test]
    fn states_have_what_the_rest_of_us_and_the_files_leave_of_a_mark() {
        let held = Held {
            states: 250,
            own: 300,
            files: 100,
        };
        assert_eq!(room(held, 450), 300);
        assert_eq!(room(held, 150), 25, "a quarter: files are in the way");
        assert_eq!(room(held, 40), 0, "the rest of us is over it alone");
        assert!(room(held, u64::MAX) > 1 << 60);
    }

    #[test]
    fn without_a_word_nothing_is_done() {
        assert_eq!(climbed(OWN, &[], 60_000), []);
    }
}
