//! What large bodies and calls may hold together while they are read, so that many clients that each send
//! little less than the limit cost no more than a few.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::limits::CallLimits;

/// Bodies up to here are read at once: with as many as there may be connections they are 256 MiB.
const SMALL: u64 = 64 << 10;

/// Large bodies of full size that are read at once; more wait, within their time.
const LARGE: usize = 4;

/// In bytes, taken by the kibibyte.
pub struct Budget(Arc<Semaphore>);

/// A place for a body or a call, free again when dropped.
pub struct Share {
    _places: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub fn new(limits: &CallLimits) -> Budget {
        Budget(Arc::new(Semaphore::new(
            LARGE * kibibytes(limits.request_bytes),
        )))
    }

    /// A place for so many bytes, where it is free by `due`; small ones need none.
    pub async fn share(&self, limits: &CallLimits, stated: u64, due: Instant) -> Option<Share> {
        if stated <= SMALL {
            return Some(Share { _places: None });
        }
        let bytes =
            usize::try_from(stated).map_or(limits.request_bytes, |n| n.min(limits.request_bytes));
        let places = self.0.clone().acquire_many_owned(kibibytes(bytes) as u32);
        let places = tokio::time::timeout_at(due, places).await.ok()?;
        // It is never closed.
        let _places = places.ok();
        Some(Share { _places })
    }
}

fn kibibytes(bytes: usize) -> usize {
    bytes.div_ceil(1 << 10).clamp(1, u32::MAX as usize / LARGE)
}
