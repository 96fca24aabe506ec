//! A state at one moment: read by any thread at any time, since nobody writes what is kept.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ggml_kernels::cpu::mla::BLOCK;
use ggml_kernels::cuda::driver::CudaError;

use super::rooms::{Room, Rooms};
use super::state::{Home, Shape, State};
use crate::engine::HostState;

/// Blocks and slot. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub blocks: Vec<Arc<Room>>,
    pub slot: Arc<Room>,
}

/// A state at one moment, read-only and shared.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Kept {
    home: Arc<Home>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Card(Held),
    /// From a file, and on the card since somebody took it up.
    Host(Arc<(HostState, OnceLock<Held>)>),
}

impl Kept {
    pub(super) fn on_card(home: &Arc<Home>, held: &Held) -> Kept {
        Kept {
            home: home.clone(),
            what: What::Card(held.clone()),
        }
    }

    /// What was in a file; nothing is copied yet. `None`: of another shape.
    pub(super) fn adopted(home: &Arc<Home>, state: &HostState) -> Option<Kept> {
        let shape = home.shape();
        let tail = state.len % BLOCK * (shape.layer_bytes / BLOCK) * shape.mla_layers;
        let fits = state.blocks.len() == state.len / BLOCK
            && state.blocks.iter().all(|b| b.len() == shape.block_bytes())
            && state.slot.len() == shape.slot_bytes()
            && state.tail.len() == tail;
        fits.then(|| Kept {
            home: home.clone(),
            what: What::Host(Arc::new((state.clone(), OnceLock::new()))),
        })
    }

    /// A state that begins there. `None`: of another executor.
    pub(super) fn taken_up(&self, home: &Arc<Home>) -> Option<Result<State, CudaError>> {
        if !Arc::ptr_eq(&self.home, home) {
            return None;
        }
        let held = match &self.what {
            What::Card(held) => Ok(held.clone()),
            What::Host(host) => match host.1.get() {
                Some(held) => Ok(held.clone()),
                None => {
                    Held::uploaded(home, &host.0).map(|held| host.1.get_or_init(|| held).clone())
                }
            },
        };
        Some(held.map(|held| State::of(home, held)))
    }

    /// What of it is on the card.
    fn held(&self) -> Option<&Held> {
        match &self.what {
            What::Card(held) => Some(held),
            What::Host(host) => host.1.get(),
        }
    }

    pub fn bytes(&self) -> usize {
        match &self.what {
            What::Card(held) => held.bytes(self.home.shape()),
            What::Host(host) => self.home.shape().bytes(host.0.len),
        }
    }

    /// Bytes that `other` does not hold too. What two states share is where both begin.
    pub fn bytes_beside(&self, other: &Kept) -> usize {
        let (Some(held), Some(other)) = (self.held(), other.held()) else {
            return self.bytes();
        };
        let both = held.blocks.len().min(other.blocks.len());
        let at: Vec<usize> = (0..both).collect();
        let same = |at: &usize| Arc::ptr_eq(&held.blocks[*at], &other.blocks[*at]);
        let shared = at.partition_point(same) * self.block_bytes();
        let slot = if Arc::ptr_eq(&held.slot, &other.slot) {
            self.home.shape().slot_bytes()
        } else {
            0
        };
        self.bytes() - shared - slot
    }

    pub fn block_bytes(&self) -> usize {
        self.home.shape().block_bytes()
    }

    /// A whole block, in the form of [`HostState`], as are the next two: copied from the card.
    pub fn block(&self, at: usize) -> Result<Bytes, CudaError> {
        match &self.what {
            What::Card(held) => Ok(held.blocks[at].part().read()?.into()),
            What::Host(host) => Ok(host.0.blocks[at].clone()),
        }
    }

    pub fn slot(&self) -> Result<Vec<u8>, CudaError> {
        match &self.what {
            What::Card(held) => held.slot.part().read(),
            What::Host(host) => Ok(host.0.slot.to_vec()),
        }
    }

    /// `len` tokens are in it.
    pub fn tail(&self, len: usize) -> Result<Vec<u8>, CudaError> {
        let held = match &self.what {
            What::Card(held) => held,
            What::Host(host) => return Ok(host.0.tail.to_vec()),
        };
        let layer_bytes = self.home.shape().layer_bytes;
        let rows = len % BLOCK * (layer_bytes / BLOCK);
        let Some(last) = held.blocks.get(len / BLOCK).filter(|_| rows > 0) else {
            return Ok(Vec::new());
        };
        let mut tail = Vec::with_capacity(rows * self.home.shape().mla_layers);
        for layer in 0..self.home.shape().mla_layers {
            let at = layer * layer_bytes;
            tail.extend(last.part().part(at..at + rows)?.read()?);
        }
        Ok(tail)
    }
}

impl Held {
    pub fn bytes(&self, shape: &Shape) -> usize {
        shape.slot_bytes() + self.blocks.len() * shape.block_bytes()
    }

    /// `from`, whose shape was seen to fit.
    fn uploaded(home: &Home, from: &HostState) -> Result<Held, CudaError> {
        let put = |rooms: &Rooms, bytes: &[u8]| {
            let room = rooms.take()?;
            room.part().write(bytes)?;
            Ok(Arc::new(room))
        };
        let blocks = from.blocks.iter().map(|bytes| put(&home.blocks, bytes));
        let mut blocks = blocks.collect::<Result<Vec<_>, CudaError>>()?;
        let shape = home.shape();
        let rows = from.len % BLOCK * (shape.layer_bytes / BLOCK);
        if rows > 0 && shape.mla_layers > 0 {
            let mut last = vec![0; shape.block_bytes()];
            let layers = last.chunks_exact_mut(shape.layer_bytes);
            for (layer, rows) in layers.zip(from.tail.chunks_exact(rows)) {
                layer[..rows.len()].copy_from_slice(rows);
            }
            blocks.push(put(&home.blocks, &last)?);
        }
        Ok(Held {
            blocks,
            slot: put(&home.slots, &from.slot)?,
        })
    }
}
