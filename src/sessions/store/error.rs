//! What the store says when it cannot: by name, never by guessing.

use std::io;

use super::id::Id;
use super::identity::Differs;

/// Why a session's files are not taken up. The transcript can be had back all the same, as far as
/// it is readable: [`super::Store::rebuild`].
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("there is no session {0}")]
    Absent(Id),
    #[error("the session was made with another {0}")]
    Other(Differs),
    #[error("the session has format {got}, and this version knows {known} and older")]
    Newer { got: u16, known: u16 },
    #[error("{what} is no session's file")]
    Foreign { what: String },
    #[error("the session's {piece} is damaged at byte {at}")]
    Damaged { piece: Piece, at: u64 },
    #[error("the session's {piece} cannot be read: {why}")]
    Unreadable { piece: Piece, why: io::Error },
}

/// A part of a session on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Log,
    /// Rows of the block of this number.
    Block(usize),
    State,
    File(String),
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Piece::Log => f.write_str("log"),
            Piece::Block(at) => write!(f, "block {at} of rows"),
            Piece::State => f.write_str("state"),
            Piece::File(name) => write!(f, "file {name}"),
        }
    }
}

/// Why something was not written, or not done.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What was acknowledged before is as it was.
    #[error("{doing} failed: {why}")]
    Io { doing: &'static str, why: io::Error },
    #[error("another process has the sessions in {0}")]
    InUse(String),
    #[error("{0} belongs to another user or is open to others (wanted: owner {1}, mode 0700)")]
    NotPrivate(String, u32),
    #[error("sessions may take {limit} bytes of disk, and {need} more do not fit")]
    Quota { need: u64, limit: u64 },
    #[error("{free} bytes are free on the disk, and {floor} are to stay free")]
    Floor { free: u64, floor: u64 },
    #[error("{what} has {got} bytes, at most {most} are taken")]
    TooLarge {
        what: &'static str,
        got: usize,
        most: usize,
    },
    #[error("turn {at} is beyond the session's {turns} turns")]
    NoTurn { at: usize, turns: usize },
    #[error("{kept} tokens are to be kept of {have}")]
    Kept { kept: usize, have: usize },
    #[error("the state is of {got} tokens and the transcript has {have}")]
    Ahead { got: usize, have: usize },
}

/// For `map_err`: what was being done.
pub(super) fn doing(doing: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |why| StoreError::Io { doing, why }
}
