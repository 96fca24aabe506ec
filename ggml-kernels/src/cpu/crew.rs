//! Who runs a kernel, and with which instructions.

use super::{Pool, Tier};

/// A pool and the tier that its workers use.
#[derive(Debug, Clone, Copy)]
pub struct Crew<'p> {
    pub pool: &'p Pool,
    pub tier: Tier,
}
