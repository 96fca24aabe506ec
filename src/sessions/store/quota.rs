//! What is given up when the disk's share is used up. Pure.
//!
//! States first, of the session that was used longest ago: they cost reading again and nothing more.
//! Then whole sessions, in the same order. What is pinned, or in use, is never given up.

use super::id::Id;

/// What one user's sessions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of all sessions.
    pub disk: u64,
    /// No state is written that would leave less than this free for others.
    pub floor: u64,
}

impl Quota {
    /// A tenth of what is free and no more than 10 GiB; nothing where less than 5 GiB are free.
    pub fn of_free(free: u64) -> Quota {
        const GIB: u64 = 1 << 30;
        Quota {
            disk: (free / 10).min(10 * GIB),
            floor: 5 * GIB,
        }
    }
}

/// A session's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub id: Id,
    pub bytes: u64,
    /// Of which rows and states.
    pub states: u64,
    pub used: u64,
    /// Pinned, or written just now.
    pub stays: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Give {
    State(Id),
    Whole(Id),
}

/// What to give up so that `need` more bytes fit into `limit`; `None` if that cannot be.
pub fn plan(mut shares: Vec<Share>, need: u64, limit: u64) -> Option<Vec<Give>> {
    shares.sort_by_key(|s| (s.used, s.id));
    let held: u64 = shares.iter().map(|s| s.bytes).sum();
    let mut over = held.saturating_add(need).saturating_sub(limit);
    let mut given = Vec::new();
    let going = || shares.iter().filter(|s| !s.stays);
    for share in going().filter(|s| s.states > 0) {
        if over > 0 {
            over = over.saturating_sub(share.states);
            given.push(Give::State(share.id));
        }
    }
    for share in going() {
        if over > 0 {
            over = over.saturating_sub(share.bytes - share.states);
            given.retain(|g| *g != Give::State(share.id));
            given.push(Give::Whole(share.id));
        }
    }
    (over == 0).then_some(given)
}
