//! What every door has in common, HTTP's and the bus's: who calls, what may be asked and in which words,
//! what large requests may hold together, and the service behind it all. Knows no wire.
//!
//! | file | job |
//! |---|---|
//! | `fields` | JSON objects, field by field, with the names of wrong ones |
//! | `chat`, `messages` | a chat's options and messages, from JSON to plain requests |
//! | `budget`, `limits` | what a request may take, and all large ones together |
//! | `caller` | who is at the other end |

pub mod budget;
pub mod caller;
pub mod chat;
pub mod fields;
pub mod limits;
pub mod messages;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::service::Service;
use budget::Budget;
use limits::CallLimits;

/// What all doors share.
pub struct Door {
    /// Once the model is loaded.
    pub service: OnceLock<Service>,
    pub limits: CallLimits,
    pub traffic: Traffic,
    /// What large requests may hold together, by whatever door they come.
    pub bodies: Budget,
}

/// Who is connected, for whoever decides whether the daemon is in use.
#[derive(Debug, Default)]
pub struct Traffic {
    pub open: AtomicUsize,
    /// Only grows.
    pub taken: AtomicU64,
}

impl Door {
    pub fn new(limits: CallLimits) -> Door {
        Door {
            service: OnceLock::new(),
            traffic: Traffic::default(),
            bodies: Budget::new(&limits),
            limits,
        }
    }
}
