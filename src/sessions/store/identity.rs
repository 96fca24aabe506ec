//! What a session's tokens and state are of: the model, its tokenizer and template, the type of its
//! rows. What differs is named; what the numbers were computed with is noted and refuses nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::hex;

/// A blake3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = || serde::de::Error::custom("a digest is 64 hexadecimal digits");
        hex(&text).map(Digest).ok_or_else(wrong)
    }
}

/// What tokens and states belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub model: Digest,
    pub tokenizer: Digest,
    pub template: Digest,
    /// Element type of the cache's rows, as the configuration names it.
    pub cache: String,
}

/// The first thing in which two identities differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Differs {
    #[error("model ({got}, this one is {want})")]
    Model { got: Digest, want: Digest },
    #[error("tokenizer ({got}, this one is {want})")]
    Tokenizer { got: Digest, want: Digest },
    #[error("chat template ({got}, this one is {want})")]
    Template { got: Digest, want: Digest },
    #[error("cache type ({got}, this one is {want})")]
    Cache { got: String, want: String },
}

impl Identity {
    /// `self` is what a session has.
    pub fn differs(&self, want: &Identity) -> Option<Differs> {
        let pair = |got: Digest, want: Digest| (got != want).then_some((got, want));
        if let Some((got, want)) = pair(self.model, want.model) {
            return Some(Differs::Model { got, want });
        }
        if let Some((got, want)) = pair(self.tokenizer, want.tokenizer) {
            return Some(Differs::Tokenizer { got, want });
        }
        if let Some((got, want)) = pair(self.template, want.template) {
            return Some(Differs::Template { got, want });
        }
        (self.cache != want.cache).then(|| Differs::Cache {
            got: self.cache.clone(),
            want: want.cache.clone(),
        })
    }
}
