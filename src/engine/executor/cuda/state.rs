//! A sequence's state in the card's memory, by reference: a snapshot or a fork copies no rows.
//! Blocks and slots that somebody else holds too are never written: a pass goes on in its own.
//!
//! Everything here is for the thread that runs passes, between passes, but for reading what is
//! kept: that may happen at any time, on any thread, since what is kept is not written.

use std::sync::Arc;

use ggml_kernels::cpu::mla::BLOCK;
use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Stream};
use ggml_kernels::cuda::weights::{Lane, WideLane};
use quantize::schema::{Hparams, Mixer};

use super::kept::{Held, Kept};
use super::rooms::{Room, Rooms};

#[cfg(test)]
mod tests;

/// What a state is made of. Rows of the cache are f16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub kda_layers: usize,
    pub mla_layers: usize,
    /// Values of one KDA layer's three tails and its S, in this order.
    pub kda_values: usize,
    /// Bytes of one MLA layer's rows in a block.
    pub layer_bytes: usize,
}

impl Shape {
    pub fn new(h: &Hparams) -> Shape {
        let kda = h.layers.iter().filter(|l| l.mixer == Mixer::Kda).count();
        let inner = h.kda.heads * h.kda.head_dim;
        Shape {
            kda_layers: kda,
            mla_layers: h.layers.len() - kda,
            kda_values: 3 * h.kda.conv.saturating_sub(1) * inner + inner * h.kda.head_dim,
            layer_bytes: BLOCK * h.mla.latent() * size_of::<u16>(),
        }
    }

    pub fn block_bytes(&self) -> usize {
        self.mla_layers * self.layer_bytes
    }

    pub fn slot_bytes(&self) -> usize {
        self.kda_layers * self.kda_values * size_of::<f32>()
    }

    /// Bytes of a state of so many tokens.
    pub fn bytes(&self, tokens: usize) -> usize {
        self.slot_bytes() + tokens.div_ceil(BLOCK) * self.block_bytes()
    }
}

/// Where states live.
#[derive(Debug)]
pub(super) struct Home {
    device: Device,
    shape: Shape,
    pub(super) blocks: Rooms,
    pub(super) slots: Rooms,
    /// The slot of a sequence without tokens: zeros.
    beginning: Arc<Room>,
    /// What lanes of nobody write.
    nobody: Held,
    nobodys_table: Table,
}

impl Home {
    pub fn new(device: &Device, shape: Shape) -> Result<Arc<Home>, CudaError> {
        let blocks = Rooms::new(device, shape.block_bytes());
        let slots = Rooms::new(device, shape.slot_bytes());
        let beginning = Arc::new(slots.take()?);
        let zeros = vec![0; shape.slot_bytes()];
        beginning.part().write(&zeros)?;
        let nobody = Held {
            blocks: vec![Arc::new(blocks.take()?)],
            slot: Arc::new(slots.take()?),
        };
        nobody.slot.part().write(&zeros)?;
        let mut nobodys_table = Table::default();
        nobodys_table.update(device, &nobody.blocks)?;
        Ok(Arc::new(Home {
            device: device.clone(),
            shape,
            blocks,
            slots,
            beginning,
            nobody,
            nobodys_table,
        }))
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// A lane that fills up a small pass: at the beginning of a sequence that nobody reads.
    pub fn nobody(&self) -> Lane {
        Lane {
            from: self.beginning.address(),
            to: self.nobody.slot.address(),
            table: self.nobodys_table.address(),
            token: 0,
            position: 0,
        }
    }
}

/// A sequence's state.
#[derive(Debug)]
pub(in crate::engine) struct State {
    home: Arc<Home>,
    held: Held,
    table: Table,
}

impl State {
    /// Without tokens. Takes no memory.
    pub(super) fn new(home: &Arc<Home>) -> State {
        State::of(
            home,
            Held {
                blocks: Vec::new(),
                slot: home.beginning.clone(),
            },
        )
    }

    pub(super) fn of(home: &Arc<Home>, held: Held) -> State {
        State {
            home: home.clone(),
            held,
            table: Table::default(),
        }
    }

    pub fn bytes(&self) -> usize {
        self.held.bytes(&self.home.shape)
    }

    /// Itself at this moment, read-only.
    pub(super) fn keep(&self) -> Kept {
        Kept::on_card(&self.home, &self.held)
    }

    /// Makes room on the card for `tokens` behind `past` others, on `stream`, and opens the state
    /// for a pass on it. A failure leaves it as it was.
    pub(super) fn open(
        &mut self,
        past: usize,
        tokens: usize,
        stream: &Stream,
    ) -> Result<Open, CudaError> {
        self.reserve(past, past + tokens, stream)?;
        self.table.update(&self.home.device, &self.held.blocks)?;
        let fresh = match Arc::get_mut(&mut self.held.slot) {
            Some(_) => None,
            None => Some(Arc::new(self.home.slots.take()?)),
        };
        let from = self.held.slot.address();
        Ok(Open {
            from,
            to: fresh.as_ref().map_or(from, |fresh| fresh.address()),
            table: self.table.address(),
            position: past,
            fresh,
        })
    }

    /// Adopts what a pass wrote. Without it, a pass that was not [in place](Open::is_in_place)
    /// never was.
    pub(super) fn close(&mut self, open: Open) {
        if let Some(fresh) = open.fresh {
            self.held.slot = fresh;
        }
    }

    /// Blocks for tokens up to `len`; those that take the tokens from `past` on are its own.
    fn reserve(&mut self, past: usize, len: usize, stream: &Stream) -> Result<(), CudaError> {
        // What an earlier, failed pass reserved may be there already.
        while self.held.blocks.len() < len.div_ceil(BLOCK) {
            let block = self.home.blocks.take()?;
            // Rows that nobody wrote are multiplied by zero, which a NaN would survive.
            stream.clear(block.part())?;
            self.held.blocks.push(Arc::new(block));
        }
        let first = (past / BLOCK).min(self.held.blocks.len());
        for block in &mut self.held.blocks[first..] {
            if Arc::get_mut(block).is_none() {
                let own = self.home.blocks.take()?;
                stream.copy(block.part(), own.part())?;
                *block = Arc::new(own);
            }
        }
        Ok(())
    }
}

/// A state in a pass: what kernels are told of it.
#[derive(Debug)]
pub(super) struct Open {
    /// Slots, by address: to read and to write. A pass writes all of the latter.
    from: u64,
    to: u64,
    table: u64,
    /// Tokens before the pass.
    position: usize,
    /// The slot that is written, where it is another one than is read.
    fresh: Option<Arc<Room>>,
}

impl Open {
    /// The slot is read and written in one place: a pass that fails half-way leaves nothing of it.
    pub fn is_in_place(&self) -> bool {
        self.fresh.is_none()
    }

    /// In a small pass, for one token.
    pub fn lane(&self, token: u32) -> Lane {
        Lane {
            from: self.from,
            to: self.to,
            table: self.table,
            token,
            position: self.position as u32,
        }
    }

    /// In a wide pass, where its `rows` tokens begin at row `row`.
    pub fn wide_lane(&self, row: usize, rows: usize) -> WideLane {
        WideLane {
            from: self.from,
            to: self.to,
            table: self.table,
            row: row as u32,
            rows: rows as u32,
            position: self.position as u32,
            pad: 0,
        }
    }
}

/// Addresses of a sequence's blocks, on the card.
#[derive(Debug, Default)]
struct Table {
    memory: Option<Buffer<u64>>,
    /// What it says.
    said: Vec<u64>,
}

/// Entries of the smallest table.
const ENTRIES: usize = 64;

impl Table {
    fn address(&self) -> u64 {
        self.memory.as_ref().map_or(0, Buffer::address)
    }

    /// Says where `blocks` are. No pass may be under way.
    fn update(&mut self, device: &Device, blocks: &[Arc<Room>]) -> Result<(), CudaError> {
        let wanted: Vec<u64> = blocks.iter().map(|block| block.address()).collect();
        let memory = match self.memory.take() {
            Some(memory) if memory.len() >= wanted.len() => memory,
            _ => {
                self.said.clear();
                device.zeroed(wanted.len().next_power_of_two().max(ENTRIES))?
            }
        };
        let same = self.said.iter().zip(&wanted).take_while(|(a, b)| a == b);
        let same = same.count();
        let written = memory.write(same, &wanted[same..]);
        self.memory = Some(memory);
        // What a failure left is unknown.
        self.said.truncate(same);
        written?;
        self.said = wanted;
        Ok(())
    }
}
