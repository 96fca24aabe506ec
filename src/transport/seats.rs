//! Connections, counted for each user: one user cannot take all of them. Knows no socket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The most that one user may have of all places.
const SHARE: usize = 2;

#[derive(Debug, Default)]
pub struct Seats {
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A connection's seat, free again when dropped.
#[derive(Debug)]
pub struct Seat {
    uid: u32,
    taken: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Seats {
    /// `None` for a user who has a share of `places` already.
    pub fn take(&self, uid: u32, places: usize) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.entry(uid).or_default();
        if *own >= places.div_ceil(SHARE) {
            return None;
        }
        *own += 1;
        let taken = self.taken.clone();
        Some(Seat { uid, taken })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_takes_half_at_most_and_others_still_come_in() {
        let seats = Seats::default();
        let own: Vec<Seat> = (0..9).map_while(|_| seats.take(1, 8)).collect();
        assert_eq!(own.len(), 4);
        assert!(seats.take(2, 8).is_some());
        drop(own);
        assert!(seats.take(1, 8).is_some());
        assert!(seats.taken.lock().expect("no panic").is_empty());
    }
}
