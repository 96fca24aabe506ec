//! What one connection, one body or call, and one silence may take.

use std::time::Duration;

#[derive(Debug, Clone)]
pub struct CallLimits {
    pub request_bytes: usize,
    /// Half of them at most for one user.
    pub connections: usize,
    /// For a request's head, counted from when it is waited for: an idle connection ends then.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For a peer that does not read.
    pub patience: Duration,
    /// Silence in a stream after which a comment says that we are still here.
    pub ping: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        CallLimits {
            request_bytes: 8 << 20,
            connections: 4096,
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            patience: Duration::from_secs(20),
            ping: Duration::from_secs(1),
        }
    }
}
