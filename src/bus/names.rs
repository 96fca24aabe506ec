//! What things are called on the bus, and signals to one connection alone.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use zbus::names::{BusName, OwnedUniqueName};
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath};

use super::error::Error;

pub const NAME: &str = "org.deltad.Inference1";
pub const PATH: &str = "/org/deltad/Inference1";
pub const SESSION: &str = "org.deltad.Inference1.Session";
pub const GENERATION: &str = "org.deltad.Inference1.Generation";

/// Different each time. It need not be secret: every call on it asks whose it is.
pub fn fresh_path(kind: &str) -> Result<OwnedObjectPath, Error> {
    let half = || RandomState::new().hash_one(Instant::now());
    let path = format!("{PATH}/{kind}/{:016x}{:016x}", half(), half());
    OwnedObjectPath::try_from(path).map_err(Error::Bus)
}

/// Signals from `path` to one connection alone.
pub fn emitter<'a>(
    connection: &Connection,
    path: &'a str,
    to: &'a OwnedUniqueName,
) -> zbus::Result<SignalEmitter<'a>> {
    let emitter = SignalEmitter::new(connection, path)?;
    Ok(emitter.set_destination(BusName::Unique(to.as_ref())))
}
