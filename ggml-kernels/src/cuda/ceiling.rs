//! What a card's memory could move at most. Kernels are held against it; nothing is computed with it.

use std::time::Instant;

use super::driver::{CudaError, Device};

/// Copied at a time: several times what caches hold. Less where less is free.
const PIECE: u64 = 256 << 20;
/// Of what is free, so that whoever comes next finds something too.
const SHARE: u64 = 4;
const COPIES: usize = 4;
const ROUNDS: usize = 4;

/// Bytes a second that copies within the card's memory move, read and written: the most of several
/// rounds.
pub fn copy_rate(device: &Device) -> Result<f64, CudaError> {
    let bytes = PIECE.min(device.memory()?.free / SHARE) as usize;
    let (from, to) = (device.zeroed::<u8>(bytes)?, device.zeroed::<u8>(bytes)?);
    let stream = device.stream()?;
    let mut most = 0.0_f64;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..COPIES {
            stream.copy(from.all(), to.all())?;
        }
        stream.synchronize()?;
        let moved = 2 * COPIES * bytes;
        most = most.max(moved as f64 / start.elapsed().as_secs_f64());
    }
    Ok(most)
}
