//! A sequence's state in the host's memory, by reference: a snapshot or a fork copies no rows.
//! Blocks and slots that somebody else holds too are never written: a pass goes on in its own.

use std::sync::Arc;

use bytes::Bytes;
use ggml_kernels::cpu::kda::KdaShape;
use ggml_kernels::cpu::mla::BLOCK;
use ggml_kernels::cpu::pages::Span;
use ggml_kernels::quant::TensorType;
use quantize::schema::{Hparams, Mixer};

use super::slots::{Slot, Slots};
use crate::engine::HostState;
use crate::engine::error::Cause;
use crate::engine::host::{extend, fill};

/// What a state is made of.
#[derive(Debug)]
pub(super) struct Shape {
    pub kda: KdaShape,
    kda_layers: usize,
    mla_layers: usize,
    /// Bytes of one layer's rows in a block.
    layer_bytes: usize,
    pub slots: Arc<Slots>,
}

impl PartialEq for Shape {
    /// Whoever made it.
    fn eq(&self, other: &Shape) -> bool {
        let sizes = |s: &Shape| (s.kda_layers, s.mla_layers, s.layer_bytes);
        self.kda == other.kda && sizes(self) == sizes(other)
    }
}

impl Shape {
    pub fn new(h: &Hparams, ty: TensorType) -> Shape {
        let kda = h.layers.iter().filter(|l| l.mixer == Mixer::Kda).count();
        let row = ty.row_bytes(h.mla.latent()).unwrap_or(0);
        let shape = KdaShape {
            heads: h.kda.heads,
            head_dim: h.kda.head_dim,
            taps: h.kda.conv,
        };
        Shape {
            kda: shape,
            slots: Slots::new(shape, kda),
            kda_layers: kda,
            mla_layers: h.layers.len() - kda,
            layer_bytes: row * BLOCK,
        }
    }

    fn block_bytes(&self) -> usize {
        self.mla_layers * self.layer_bytes
    }

    fn slot_bytes(&self) -> usize {
        let (tail, state) = (
            3 * (self.kda.taps - 1) * self.kda.inner(),
            self.kda.inner() * self.kda.head_dim,
        );
        self.kda_layers * (tail + state) * size_of::<f32>()
    }

    /// Bytes of a state of so many tokens.
    pub fn bytes(&self, tokens: usize) -> usize {
        self.slot_bytes() + tokens.div_ceil(BLOCK) * self.block_bytes()
    }
}

/// [`BLOCK`] tokens' rows of all MLA layers, `[layers, BLOCK, latent]` of the cache's type.
#[derive(Debug)]
pub(super) enum Block {
    Own(Span<u8>),
    /// Somebody else's, such as a map of a file: never written.
    Lent(Bytes),
}

impl Block {
    fn zeroed(shape: &Shape) -> Result<Arc<Block>, Cause> {
        Ok(Arc::new(Block::Own(Block::room(shape)?)))
    }

    /// For a block's rows.
    fn room(shape: &Shape) -> Result<Span<u8>, Cause> {
        let bytes = shape.block_bytes();
        let what = "a block of cache rows";
        Span::zeroed(bytes).map_err(|_| Cause::OutOfMemory { what, bytes })
    }

    /// To write, where nobody else has it.
    fn own(block: &mut Arc<Block>) -> Option<&mut [u8]> {
        match Arc::get_mut(block)? {
            Block::Own(bytes) => Some(bytes),
            Block::Lent(_) => None,
        }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        match self {
            Block::Own(bytes) => bytes,
            Block::Lent(bytes) => bytes,
        }
    }
}

/// A block as somebody's who holds it too.
struct Shared(Arc<Block>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Clones share everything.
#[derive(Debug, Clone)]
pub(in crate::engine) struct State {
    shape: Arc<Shape>,
    blocks: Vec<Arc<Block>>,
    slot: Arc<Slot>,
}

impl State {
    pub(super) fn new(shape: &Arc<Shape>) -> State {
        State {
            blocks: Vec::new(),
            slot: Arc::new(shape.slots.zeroed()),
            shape: shape.clone(),
        }
    }

    pub(super) fn is_of(&self, shape: &Shape) -> bool {
        *self.shape == *shape
    }

    pub fn bytes(&self) -> usize {
        self.shape.slot_bytes() + self.blocks.len() * self.shape.block_bytes()
    }

    /// Bytes that `other` does not hold too. What two states share is where both begin.
    pub fn bytes_beside(&self, other: &State) -> usize {
        let both = self.blocks.len().min(other.blocks.len());
        let at: Vec<usize> = (0..both).collect();
        let same = |at: &usize| Arc::ptr_eq(&self.blocks[*at], &other.blocks[*at]);
        let shared = at.partition_point(same) * self.shape.block_bytes();
        let slot = if Arc::ptr_eq(&self.slot, &other.slot) {
            self.shape.slot_bytes()
        } else {
            0
        };
        self.bytes() - shared - slot
    }

    pub fn block_bytes(&self) -> usize {
        self.shape.block_bytes()
    }

    /// A block's rows, held by reference.
    pub fn block(&self, at: usize) -> Bytes {
        match &*self.blocks[at] {
            Block::Own(_) => Bytes::from_owner(Shared(self.blocks[at].clone())),
            Block::Lent(bytes) => bytes.clone(),
        }
    }

    /// As in [`HostState`].
    pub fn slot(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.shape.slot_bytes());
        for layer in &self.slot.layers {
            for floats in [&layer.tail_q, &layer.tail_k, &layer.tail_v] {
                extend(&mut bytes, floats);
            }
            extend(&mut bytes, &layer.s);
        }
        bytes
    }

    /// The rows behind the last whole block, where `len` tokens are in it.
    pub fn tail(&self, len: usize) -> Vec<u8> {
        let rows = len % BLOCK * (self.shape.layer_bytes / BLOCK);
        let last = self.blocks.get(len / BLOCK).filter(|_| rows > 0);
        let layers = last.map_or(&[][..], |b| (**b).as_ref());
        let layers = layers.chunks_exact(self.shape.layer_bytes.max(1));
        layers.flat_map(|layer| &layer[..rows]).copied().collect()
    }

    /// `None`: of another shape.
    pub(super) fn adopted(shape: &Arc<Shape>, from: &HostState) -> Option<Result<State, Cause>> {
        let bytes = shape.block_bytes();
        if from.blocks.iter().any(|b| b.len() != bytes) {
            return None;
        }
        let lent = |b: &Bytes| Arc::new(Block::Lent(b.clone()));
        let mut blocks: Vec<Arc<Block>> = from.blocks.iter().map(lent).collect();
        let rows = from.len % BLOCK * (shape.layer_bytes / BLOCK);
        if from.tail.len() != shape.mla_layers * rows {
            return None;
        }
        if rows > 0 {
            let mut last = match Block::room(shape) {
                Ok(last) => last,
                Err(full) => return Some(Err(full)),
            };
            let layers = last.chunks_exact_mut(shape.layer_bytes);
            for (layer, rows) in layers.zip(from.tail.chunks_exact(rows)) {
                layer[..rows.len()].copy_from_slice(rows);
            }
            blocks.push(Arc::new(Block::Own(last)));
        }
        let (mut slot, mut left) = (shape.slots.any(), &from.slot[..]);
        for layer in &mut slot.layers {
            for floats in [&mut layer.tail_q, &mut layer.tail_k, &mut layer.tail_v] {
                fill(floats, &mut left)?;
            }
            fill(&mut layer.s, &mut left)?;
        }
        let state = left.is_empty().then(|| State {
            shape: shape.clone(),
            blocks,
            slot: Arc::new(slot),
        })?;
        Some(Ok(state))
    }

    /// Blocks for tokens up to `len`; those that take the tokens from `past` on are its own.
    pub(super) fn reserve(&mut self, past: usize, len: usize) -> Result<(), Cause> {
        let first = past / BLOCK;
        // What an earlier, failed pass reserved may be there already.
        while self.blocks.len() < len.div_ceil(BLOCK) {
            self.blocks.push(Block::zeroed(&self.shape)?);
        }
        for block in &mut self.blocks[first..] {
            if Block::own(block).is_none() {
                let mut own = Block::zeroed(&self.shape)?;
                if let Some(own) = Block::own(&mut own) {
                    own.copy_from_slice((**block).as_ref());
                }
                *block = own;
            }
        }
        Ok(())
    }

    /// The state as a pass over it sees it, once `reserve` has made room.
    pub(super) fn open(&mut self) -> Open<'_> {
        let from = if Arc::get_mut(&mut self.slot).is_some() {
            None
        } else {
            let fresh = Arc::new(self.shape.slots.any());
            Some(std::mem::replace(&mut self.slot, fresh))
        };
        Open {
            from,
            to: Arc::get_mut(&mut self.slot).expect("nobody else has it, as seen above"),
            blocks: &mut self.blocks,
            layer_bytes: self.shape.layer_bytes,
        }
    }
}

/// A state in a pass.
pub(super) struct Open<'s> {
    /// KDA's memory to read, where that is not what is written.
    pub from: Option<Arc<Slot>>,
    pub to: &'s mut Slot,
    blocks: &'s mut [Arc<Block>],
    layer_bytes: usize,
}

impl Open<'_> {
    /// MLA layer `at` of block `block`, to write: one that was reserved.
    pub fn rows_mut(&mut self, at: usize, block: usize) -> &mut [u8] {
        let bytes = self.layer_bytes;
        let block = Block::own(&mut self.blocks[block]).expect("reserved for this pass");
        &mut block[at * bytes..(at + 1) * bytes]
    }

    /// MLA layer `at` of every block.
    pub fn rows(&self, at: usize) -> Vec<&[u8]> {
        let layer = at * self.layer_bytes..(at + 1) * self.layer_bytes;
        let blocks = self.blocks.iter();
        blocks.map(|b| &(**b).as_ref()[layer.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_moves_no_row_that_is_there() {
        let kda = KdaShape {
            heads: 1,
            head_dim: 16,
            taps: 2,
        };
        let shape = Arc::new(Shape {
            kda,
            slots: Slots::new(kda, 1),
            kda_layers: 1,
            mla_layers: 1,
            layer_bytes: 16 * BLOCK,
        });
        let mut state = State::new(&shape);
        let mut places: Vec<*const u8> = Vec::new();
        for len in [1, 64, 65, 5000, 100_000] {
            state.reserve(len - 1, len).unwrap();
            let now: Vec<_> = state
                .blocks
                .iter()
                .map(|b| (**b).as_ref().as_ptr())
                .collect();
            assert_eq!(now[..places.len()], places, "{len}");
            assert_eq!(now.len(), len.div_ceil(BLOCK));
            assert_eq!(state.bytes(), shape.bytes(len));
            places = now;
        }
    }
}
