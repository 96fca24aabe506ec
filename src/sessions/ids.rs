//! Names that nobody chose, and the time.

use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::store::Id;

/// What ids of conversations begin with, and names do not.
pub(super) const ID: &str = "sess_";

/// What a conversation on disk is called here.
pub(super) fn id_of(on_disk: &Id) -> String {
    format!("{ID}{on_disk}")
}

/// Not secret, only different each time: every look asks whose it is.
pub fn fresh_id(kind: &str) -> String {
    let half = || RandomState::new().hash_one(Instant::now());
    format!("{kind}{:016x}{:016x}", half(), half())
}

/// In seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}
