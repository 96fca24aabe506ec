//! What HTTP's routes and connections share, beside what all doors do: who is connected, and answers that
//! outlive who asked for them.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::background::Background;
use crate::door::Door;

/// What the routes know.
pub struct Http {
    door: Arc<Door>,
    pub(super) background: Arc<Background>,
}

impl Deref for Http {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Http {
    pub fn new(door: Arc<Door>) -> Http {
        Http {
            door,
            background: Arc::default(),
        }
    }

    pub(super) fn door(&self) -> &Arc<Door> {
        &self.door
    }

    /// Once every answer that outlives its caller is over.
    pub async fn ended(&self) {
        self.background.ended().await;
    }
}

/// One connection, counted for as long as this lives.
pub(super) struct Visit(Arc<Door>);

impl Visit {
    pub(super) fn begin(http: &Http) -> Visit {
        let door = http.door.clone();
        door.traffic.open.fetch_add(1, Relaxed);
        door.traffic.taken.fetch_add(1, Relaxed);
        Visit(door)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.traffic.open.fetch_sub(1, Relaxed);
    }
}
