//! What is decided at each tick while the daemon serves: whether the engine moves, whether anybody
//! uses the daemon, what one line says of it. Pure: the clock and the counters come from outside.

use std::time::{Duration, Instant};

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pulse {
    /// Turns of the engine's loop, which it makes at least twice a second when it has nothing to
    /// do, and once a pass when it has.
    pub turns: u64,
    pub running: usize,
    pub queued: usize,
    pub connections: usize,
    /// Sessions and answers on the bus. They live in memory: an end would end them.
    pub conversations: usize,
    /// Connections and requests so far.
    pub arrivals: u64,
}

impl Pulse {
    pub fn in_use(&self) -> bool {
        self.running + self.queued + self.connections + self.conversations > 0
    }

    /// For `systemctl status`.
    pub fn line(&self, model: &str) -> String {
        match (self.running, self.queued) {
            (0, 0) => format!("serving {model}: idle"),
            (running, 0) => format!("serving {model}: {running} running"),
            (running, queued) => format!("serving {model}: {running} running, {queued} waiting"),
        }
    }
}

/// Whether the engine has moved since it was last asked.
#[derive(Debug, Default)]
pub struct Heart {
    turns: Option<u64>,
}

impl Heart {
    pub fn beats(&mut self, pulse: Pulse) -> bool {
        self.turns.replace(pulse.turns) != Some(pulse.turns)
    }
}

/// How long nobody has used the daemon.
#[derive(Debug)]
pub struct Idle {
    since: Instant,
    arrivals: u64,
}

impl Idle {
    pub fn new(now: Instant) -> Idle {
        Idle {
            since: now,
            arrivals: 0,
        }
    }

    /// Who came and went between two ticks counts as well.
    pub fn is_over(&mut self, limit: Option<Duration>, now: Instant, pulse: Pulse) -> bool {
        if pulse.in_use() || pulse.arrivals != self.arrivals {
            self.since = now;
            self.arrivals = pulse.arrivals;
        }
        limit.is_some_and(|limit| now.duration_since(self.since) >= limit)
    }
}

/// How often to look: often enough for the manager's deadline and for the idle limit.
pub fn tick(watchdog: Option<Duration>) -> Duration {
    let second = Duration::from_secs(1);
    watchdog.map_or(second, |limit| (limit / 4).min(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_engine_that_stands_still_has_no_heartbeat() {
        let mut heart = Heart::default();
        let at = |turns| Pulse {
            turns,
            ..Pulse::default()
        };
        assert!(heart.beats(at(0)));
        assert!(!heart.beats(at(0)));
        assert!(heart.beats(at(1)));
        assert!(!heart.beats(at(1)));
    }

    #[test]
    fn the_idle_time_counts_from_the_last_use() {
        let start = Instant::now();
        let mut idle = Idle::new(start);
        let limit = Some(10 * SECOND);
        let at = |s: u32| start + s * SECOND;
        let quiet = Pulse::default();
        assert!(!idle.is_over(limit, at(9), quiet));
        for used in [
            Pulse {
                running: 1,
                ..quiet
            },
            Pulse { queued: 1, ..quiet },
            Pulse {
                connections: 1,
                ..quiet
            },
            Pulse {
                conversations: 1,
                ..quiet
            },
        ] {
            assert!(!idle.is_over(limit, at(12), used), "{used:?}");
        }
        assert!(!idle.is_over(limit, at(21), quiet));
        assert!(idle.is_over(limit, at(22), quiet));
        assert!(!idle.is_over(None, at(10_000), quiet));
    }

    #[test]
    fn a_caller_who_left_between_two_looks_was_seen() {
        let start = Instant::now();
        let mut idle = Idle::new(start);
        let one = Pulse {
            arrivals: 1,
            ..Pulse::default()
        };
        assert!(!idle.is_over(Some(SECOND), start + 5 * SECOND, one));
        assert!(idle.is_over(Some(SECOND), start + 6 * SECOND, one));
    }

    #[test]
    fn the_manager_hears_of_us_well_before_its_deadline() {
        assert_eq!(tick(None), SECOND);
        assert_eq!(tick(Some(SECOND)), SECOND / 4);
        assert_eq!(tick(Some(300 * SECOND)), SECOND);
    }
}
