//! Names of sessions: sixteen random bytes, written as 32 hexadecimal digits, which is also the name
//! of a session's directory. Nothing else is taken for one.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(super) [u8; 16]);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What was given is not 32 hexadecimal digits in lower case.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session's id is 32 hexadecimal digits, got {0:?}")]
pub struct NoId(pub String);

impl FromStr for Id {
    type Err = NoId;
    fn from_str(text: &str) -> Result<Id, NoId> {
        hex(text).map(Id).ok_or_else(|| NoId(text.to_owned()))
    }
}

/// `N` bytes from their digits; upper case would give a directory two names.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
