//! Pieces of the card's memory of one size, taken from slabs and given back when they drop: taking
//! memory from the driver, and giving it back, waits for the card.

use std::sync::{Arc, Mutex, MutexGuard};

use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Part};

/// Where rooms come from. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Rooms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Device,
    /// Of a room, and from the start of one to the start of the next.
    bytes: usize,
    stride: usize,
    per_slab: usize,
    slabs: Mutex<Vec<Slab>>,
}

#[derive(Debug)]
struct Slab {
    memory: Arc<Buffer<u8>>,
    free: Vec<usize>,
}

/// One piece. Its bytes are whatever the last owner left.
#[derive(Debug)]
pub(super) struct Room {
    from: Arc<Inner>,
    memory: Arc<Buffer<u8>>,
    /// In its slab.
    at: usize,
}

/// A slab is of about this size, but for larger rooms.
const SLAB: usize = 32 << 20;
const MOST: usize = 64;
/// Free rooms that are kept, so that snapshots take and give without asking the driver.
const SPARE: usize = 4;
/// What every address is a multiple of.
const ALIGNMENT: usize = 256;

impl Rooms {
    pub fn new(device: &Device, bytes: usize) -> Rooms {
        let stride = bytes.max(1).next_multiple_of(ALIGNMENT);
        Rooms(Arc::new(Inner {
            device: device.clone(),
            bytes,
            stride,
            per_slab: (SLAB / stride).clamp(1, MOST),
            slabs: Mutex::default(),
        }))
    }

    pub fn take(&self) -> Result<Room, CudaError> {
        let mut slabs = self.0.lock();
        if slabs.iter().all(|slab| slab.free.is_empty()) {
            let bytes = self.0.per_slab * self.0.stride;
            slabs.push(Slab {
                memory: Arc::new(self.0.device.zeroed(bytes)?),
                free: (0..self.0.per_slab).rev().collect(),
            });
        }
        let taken = slabs.iter_mut().find_map(|slab| {
            let at = slab.free.pop()?;
            Some((slab.memory.clone(), at))
        });
        let (memory, at) = taken.expect("a slab with free rooms was just seen to");
        Ok(Room {
            from: self.0.clone(),
            memory,
            at,
        })
    }

    /// Bytes of the card, free rooms included.
    #[cfg(test)]
    pub fn slabs(&self) -> usize {
        self.0.lock().len()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Vec<Slab>> {
        self.slabs.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes room `at` of the slab `memory` back; the slab itself, where it is not needed.
    fn put(&self, memory: &Arc<Buffer<u8>>, at: usize) -> Option<Slab> {
        let mut slabs = self.lock();
        let here = slabs.iter().position(|s| Arc::ptr_eq(&s.memory, memory))?;
        slabs[here].free.push(at);
        let free: usize = slabs.iter().map(|slab| slab.free.len()).sum();
        let is_spare = slabs[here].free.len() == self.per_slab
            && free >= self.per_slab + self.per_slab.max(SPARE);
        is_spare.then(|| slabs.swap_remove(here))
    }
}

impl Room {
    /// On the card, a multiple of 256.
    pub fn address(&self) -> u64 {
        self.memory.address() + (self.at * self.from.stride) as u64
    }

    pub fn part(&self) -> Part<'_, u8> {
        let at = self.at * self.from.stride;
        let part = self.memory.part(at..at + self.from.bytes);
        part.expect("rooms lie inside of their slab")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Where a slab goes, it goes after the lock.
        drop(self.from.put(&self.memory, self.at));
    }
}
