//! `org.deltad.Inference1.Error.*`: what a caller on the bus is told when it is refused.

use zbus::DBusError;

use super::value::NoJson;
use crate::request::{Failure, Refusal};

#[derive(Debug, DBusError)]
#[zbus(prefix = "org.deltad.Inference1.Error", impl_display = true)]
pub enum Error {
    /// The bus itself failed.
    #[zbus(error)]
    Bus(zbus::Error),
    /// An option or a message is not what it must be; the text names it.
    InvalidArgument(String),
    /// No option has this name.
    UnknownOption(String),
    /// The prompt does not fit the context.
    TooLong(String),
    /// The arguments are larger than `limits.request_bytes`, or the state of the answer would be
    /// larger than `limits.request_memory`.
    TooLarge(String),
    /// The caller's user may not do this.
    NotPermitted(String),
    /// Too many requests wait already.
    QueueFull(String),
    /// The session still answers.
    Busy(String),
    /// No session of the user has this id or name.
    NoSuchSession(String),
    /// Another session of the user has this name.
    NameTaken(String),
    /// The user has as many sessions as one user may have.
    TooManySessions(String),
    /// A file is no session's, or a session another model's, damaged, or of a newer version.
    SessionRefused(String),
    /// The disk that the sessions lie on is full or fails.
    StorageFailed(String),
    /// The model is still being loaded.
    Loading(String),
    /// The daemon is stopping.
    Stopping(String),
    /// The engine has failed.
    EngineFailed(String),
    /// The caller left the bus before its answer was there.
    Cancelled(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let text = refusal.to_string();
        match refusal {
            Refusal::Invalid { .. } => Error::InvalidArgument(text),
            Refusal::TooLong { .. } => Error::TooLong(text),
            Refusal::TooLarge { .. } => Error::TooLarge(text),
            Refusal::NoSuchAnswer { .. } => Error::InvalidArgument(text),
            Refusal::NoSuchSession { .. } => Error::NoSuchSession(text),
            Refusal::SessionBusy { .. } => Error::Busy(text),
            Refusal::NameTaken { .. } => Error::NameTaken(text),
            Refusal::TooManySessions { .. } => Error::TooManySessions(text),
            Refusal::SessionRefused { .. } => Error::SessionRefused(text),
            Refusal::Storage { .. } => Error::StorageFailed(text),
            Refusal::TooManyInBackground { .. } => Error::QueueFull(text),
            Refusal::Carrying => Error::Busy(text),
            Refusal::NotPermitted { .. } => Error::NotPermitted(text),
            Refusal::QueueFull | Refusal::MemoryShort => Error::QueueFull(text),
            Refusal::Loading => Error::Loading(text),
            Refusal::Stopping => Error::Stopping(text),
            Refusal::Broken => Error::EngineFailed(text),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        let text = failure.to_string();
        match failure {
            Failure::Stopped => Error::Stopping(text),
            Failure::Engine(_) | Failure::Broken => Error::EngineFailed(text),
        }
    }
}

impl From<NoJson> for Error {
    fn from(e: NoJson) -> Error {
        Error::InvalidArgument(e.to_string())
    }
}
