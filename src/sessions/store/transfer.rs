//! A session as one safetensors file, for other machines and other programs. `docs/sessions.md` says
//! what is in it; `received` takes one in.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::Turn;
use super::error::{StoreError, doing};
use super::identity::{Digest, Identity};
use super::loaded::Loaded;
use crate::request::Token;

pub const FORMAT: u16 = 1;

/// A session outside of any store.
#[derive(Debug)]
pub struct Carried {
    pub name: Option<String>,
    pub note: String,
    pub identity: Identity,
    pub turns: Vec<Turn>,
    pub state: Option<Loaded>,
}

/// The head, as safetensors has it.
#[derive(Serialize, Deserialize)]
pub struct Head {
    #[serde(rename = "__metadata__")]
    pub about: BTreeMap<String, String>,
    #[serde(flatten)]
    pub tensors: BTreeMap<String, Tensor>,
}

#[derive(Serialize, Deserialize)]
pub struct Tensor {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub data_offsets: [usize; 2],
}

#[derive(Serialize, Deserialize)]
pub struct Said {
    pub response: String,
    pub messages: String,
    pub kept: usize,
    pub tokens: Vec<Token>,
    pub options: String,
    pub at: u64,
}

/// Digests of the texts and of each tensor.
pub type Digests = BTreeMap<String, Digest>;

pub fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}

fn digest_of_all(pieces: &[Bytes]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for piece in pieces {
        hasher.update(piece);
    }
    Digest(*hasher.finalize().as_bytes())
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("texts, numbers and lists are JSON")
}

impl Carried {
    /// Writes it; returns the bytes.
    pub fn write(&self, out: &mut dyn Write) -> Result<u64, StoreError> {
        let io = doing("writing an exported session");
        let said = |t: &Turn| Said {
            response: t.response.clone(),
            messages: t.messages.clone(),
            kept: t.kept,
            tokens: t.tokens.clone(),
            options: t.options.clone(),
            at: t.at,
        };
        let turns = json(&self.turns.iter().map(said).collect::<Vec<_>>());
        let mut digests = Digests::from([
            ("turns".to_owned(), digest(turns.as_bytes())),
            ("note".to_owned(), digest(self.note.as_bytes())),
        ]);
        let seen = self.state.as_ref().map(|state| state.tokens.to_string());
        if let Some(seen) = &seen {
            digests.insert("state_tokens".to_owned(), digest(seen.as_bytes()));
        }
        let (mut tensors, mut data, mut end) = (BTreeMap::new(), Vec::new(), 0);
        let mut add = |name: &str, dtype: &str, shape: Vec<usize>, pieces: &[Bytes]| {
            let begin = end;
            end += pieces.iter().map(Bytes::len).sum::<usize>();
            digests.insert(name.to_owned(), digest_of_all(pieces));
            data.extend_from_slice(pieces);
            let tensor = Tensor {
                dtype: dtype.into(),
                shape,
                data_offsets: [begin, end],
            };
            tensors.insert(name.to_owned(), tensor);
        };
        let mut about = BTreeMap::from([
            ("format".to_owned(), format!("deltad-session-{FORMAT}")),
            ("identity".to_owned(), json(&self.identity)),
            ("note".to_owned(), self.note.clone()),
            ("turns".to_owned(), turns),
        ]);
        about.extend(self.name.iter().map(|n| ("name".to_owned(), n.clone())));
        about.extend(seen.map(|seen| ("state_tokens".to_owned(), seen)));
        if let Some(state) = &self.state {
            let block = state.blocks.first().map_or(0, Bytes::len);
            add(
                "blocks",
                "U8",
                vec![state.blocks.len(), block],
                &state.blocks,
            );
            for (name, part) in [("slot", &state.slot), ("next", &state.next)] {
                let part = std::slice::from_ref(part);
                add(name, "F32", vec![part[0].len() / 4], part);
            }
            let tail = std::slice::from_ref(&state.tail);
            add("tail", "U8", vec![tail[0].len()], tail);
        }
        about.insert("blake3".to_owned(), json(&digests));
        let mut head = json(&Head { about, tensors }).into_bytes();
        head.resize(head.len().next_multiple_of(8), b' ');
        out.write_all(&(head.len() as u64).to_le_bytes())
            .map_err(&io)?;
        out.write_all(&head).map_err(&io)?;
        for piece in &data {
            out.write_all(piece).map_err(&io)?;
        }
        // What was lent may have become zeros meanwhile: such a file is not to be had.
        let damaged = self.state.as_ref().and_then(|s| s.lent.damaged());
        if let Some(why) = damaged {
            return Err(io(std::io::Error::other(why)));
        }
        out.flush().map_err(&io)?;
        Ok(8 + head.len() as u64 + end as u64)
    }
}
