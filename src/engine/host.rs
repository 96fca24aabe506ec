//! A state as bytes that mean the same to every executor: what lies in files and what crosses from
//! one device to another. `docs/sessions.md` has the layout.
//!
//! Blocks are the rows of [`BLOCK`] tokens, `[MLA layers, BLOCK, latent]` of the cache's type; the
//! tail is the rows behind the last whole block, `[MLA layers, len % BLOCK, latent]`. The slot is,
//! for every KDA layer, the three convolution tails `[taps - 1, inner]` and S, `[heads, d_k, d_v]`,
//! all f32. Little-endian.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
pub use ggml_kernels::cpu::mla::BLOCK;
use ggml_kernels::map::{Damaged, GuardedMap, ask_for, map_start};

use super::error::StateError;
use super::{Engine, Snapshot};

/// A state at one moment, outside of any executor.
#[derive(Debug, Clone)]
pub struct HostState {
    /// Tokens that it has seen.
    pub len: usize,
    /// `len / BLOCK` of them.
    pub blocks: Vec<Bytes>,
    pub slot: Bytes,
    pub tail: Bytes,
    /// Where those bytes lie in files, for as long as they are of use.
    pub lent: Lent,
}

/// A file's first bytes, by reference. Somebody may shorten the file while they are in use, or its disk
/// fail: then they read as zeros, and whoever holds them looks at [`LentFile::damaged`] before the
/// outcome is believed.
#[derive(Debug, Clone)]
pub struct LentFile(Arc<GuardedMap>);

impl LentFile {
    /// `path`: what it is called.
    pub fn new(file: std::fs::File, path: &Path, len: u64) -> std::io::Result<LentFile> {
        Ok(LentFile(Arc::new(map_start(file, path, len)?)))
    }

    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    pub fn damaged(&self) -> Option<Damaged> {
        self.0.damaged()
    }
}

impl AsRef<[u8]> for LentFile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Asks for these bytes of a file, all at once: who reads them next waits for the disk as little as can
/// be. Touching them costs less than having each page put into place beforehand.
pub fn fetch(bytes: &[u8]) {
    ask_for(bytes);
}

/// The files that a state's bytes lie in.
#[derive(Debug, Clone, Default)]
pub struct Lent(pub Vec<LentFile>);

impl Lent {
    /// What became of one of them.
    pub fn damaged(&self) -> Option<Damaged> {
        self.0.iter().find_map(LentFile::damaged)
    }
}

impl Snapshot {
    /// Whole blocks.
    pub fn blocks(&self) -> usize {
        self.len / BLOCK
    }

    /// Bytes of one.
    pub fn block_bytes(&self) -> usize {
        self.kept.block_bytes()
    }

    /// Block `at`, without a copy where the executor has it in the host's memory. Empty where the device
    /// or the file that it lies in does not give it any more.
    pub fn block(&self, at: usize) -> Bytes {
        assert!(at < self.blocks(), "block {at} of {}", self.blocks());
        if self.is_lost() {
            return Bytes::new();
        }
        self.kept.block(at)
    }

    pub fn slot(&self) -> Bytes {
        self.kept.slot().into()
    }

    pub fn tail(&self) -> Bytes {
        self.kept.tail(self.len).into()
    }
}

impl Engine {
    /// The snapshot that `state` was. Blocks are held by reference where the executor computes in
    /// the host's memory. Whose state it is, the caller knows: only the sizes are checked here.
    pub fn adopt(&self, state: &HostState) -> Result<Snapshot, StateError> {
        let whole = state.blocks.len() == state.len / BLOCK;
        let kept = whole.then(|| self.executor.adopt(state)).flatten();
        let kept = kept.ok_or(StateError::Foreign)??;
        // What was copied is looked at once, what is held by reference whenever it was used.
        if let Some(why) = state.lent.damaged() {
            return Err(StateError::Lost(why));
        }
        let lent = if self.executor.lends() {
            state.lent.clone()
        } else {
            Lent::default()
        };
        Ok(Snapshot {
            kept,
            lent,
            len: state.len,
            model: self.id,
        })
    }
}

/// Little-endian bytes of floats, behind what is there.
pub(super) fn extend(bytes: &mut Vec<u8>, floats: &[f32]) {
    bytes.extend(floats.iter().flat_map(|x| x.to_le_bytes()));
}

/// The other way, as many as there is room for. `None` if there are fewer.
pub(super) fn fill(floats: &mut [f32], from: &mut &[u8]) -> Option<()> {
    let (bytes, rest) = from.split_at_checked(size_of_val(floats))?;
    for (x, bytes) in floats.iter_mut().zip(bytes.as_chunks().0) {
        *x = f32::from_le_bytes(*bytes);
    }
    *from = rest;
    Some(())
}
