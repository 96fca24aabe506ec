//! What all connections and routes share: the service once the model is loaded, the limits, and who is
//! connected.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::background::Background;
use super::body::Budget;
use super::limits::HttpLimits;
use crate::service::Service;

/// What the routes know: the service once the model is loaded, and the limits.
pub struct Door {
    pub service: OnceLock<Service>,
    pub limits: HttpLimits,
    pub traffic: Traffic,
    /// What large requests may hold together, by whatever door they come.
    pub bodies: Budget,
    pub(super) background: Arc<Background>,
}

/// Who is connected, for whoever decides whether the daemon is in use.
#[derive(Debug, Default)]
pub struct Traffic {
    pub open: AtomicUsize,
    /// Only grows.
    pub taken: AtomicU64,
}

/// One connection, counted for as long as this lives.
pub(super) struct Visit(Arc<Door>);

impl Visit {
    pub(super) fn begin(door: &Arc<Door>) -> Visit {
        door.traffic.open.fetch_add(1, Relaxed);
        door.traffic.taken.fetch_add(1, Relaxed);
        Visit(door.clone())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.traffic.open.fetch_sub(1, Relaxed);
    }
}

impl Door {
    pub fn new(limits: HttpLimits) -> Door {
        Door {
            service: OnceLock::new(),
            traffic: Traffic::default(),
            bodies: Budget::new(&limits),
            background: Arc::default(),
            limits,
        }
    }

    /// Once every answer that outlives its caller is over.
    pub async fn ended(&self) {
        self.background.ended().await;
    }
}
