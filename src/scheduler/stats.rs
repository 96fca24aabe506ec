//! What the scheduler counts. Read without a lock: each figure is right, all together are not one
//! moment's.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::request::Miss;

/// Labels of one user's figures.
pub type ByUid = Family<[(&'static str, String); 1], Counter>;

/// Figures by what was found.
pub type ByFound = Family<[(&'static str, &'static str); 1], Counter>;

/// Counters that only grow, and gauges.
#[derive(Debug)]
pub struct Stats {
    pub running: AtomicUsize,
    pub prompt_tokens: AtomicU64,
    pub cached_tokens: AtomicU64,
    pub completion_tokens: AtomicU64,
    pub requests: AtomicU64,
    pub prefix_bytes: AtomicUsize,
    /// Moves at least every second while the engine's thread lives and its passes end.
    pub heartbeat: AtomicU64,
    /// Seconds from admission to an answer's first token, waiting included.
    pub first_token: Histogram,
    /// Seconds from one token of an answer to the next, other requests' turns included.
    pub between_tokens: Histogram,
    /// Sequences that one pass served.
    pub pass_lanes: Histogram,
    pub caller_requests: ByUid,
    pub caller_tokens: ByUid,
    /// Chats whose prompt was looked for among the states kept, by what was found.
    pub looked_for: ByFound,
}

impl Stats {
    pub(super) fn new() -> Stats {
        Stats {
            running: AtomicUsize::new(0),
            prompt_tokens: AtomicU64::new(0),
            cached_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            prefix_bytes: AtomicUsize::new(0),
            heartbeat: AtomicU64::new(0),
            // 1 ms to 65 s.
            first_token: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            // 0.1 ms to 3.3 s.
            between_tokens: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            // 1 to 256.
            pass_lanes: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            caller_requests: ByUid::default(),
            caller_tokens: ByUid::default(),
            looked_for: looked_for(),
        }
    }

    /// `n` of a prompt's tokens were there.
    pub(super) fn found(&self, uid: u32, miss: Option<Miss>, n: usize, of: usize) {
        let what = [("found", FOUND[found(miss)])];
        self.looked_for.get_or_create(&what).inc();
        match miss {
            None => log::debug!("user {uid}: {n} of {of} prompt tokens were kept"),
            Some(why) => log::debug!("user {uid}: {n} of {of} prompt tokens were kept: {why}"),
        }
    }

    pub(super) fn started(&self, uid: u32) {
        self.requests.fetch_add(1, Relaxed);
        self.caller_requests.get_or_create(&label(uid)).inc();
    }

    /// `waited`: since the token before, or since the request's admission.
    pub(super) fn token(&self, uid: u32, waited: Duration, is_first: bool) {
        self.completion_tokens.fetch_add(1, Relaxed);
        self.caller_tokens.get_or_create(&label(uid)).inc();
        let times = if is_first {
            &self.first_token
        } else {
            &self.between_tokens
        };
        times.observe(waited.as_secs_f64());
    }
}

/// What can be found of a prompt.
const FOUND: [&str; 6] = [
    "all",
    "empty",
    "diverged",
    "evicted",
    "no_state",
    "other_model",
];

/// Its place in [`FOUND`].
fn found(miss: Option<Miss>) -> usize {
    match miss {
        None => 0,
        Some(Miss::Empty) => 1,
        Some(Miss::Diverged { .. }) => 2,
        Some(Miss::Evicted) => 3,
        Some(Miss::NoState) => 4,
        Some(Miss::OtherModel) => 5,
    }
}

/// From the start on each has its figure.
fn looked_for() -> ByFound {
    let by_found = ByFound::default();
    for what in FOUND {
        // Only made.
        let _ = by_found.get_or_create(&[("found", what)]);
    }
    by_found
}

fn label(uid: u32) -> [(&'static str, String); 1] {
    [("uid", uid.to_string())]
}
