//! Where routed experts go, decided by what the card has free: on it with everything else, or with the
//! processor. What passes work in is taken here, before any weight comes, so that what does not fit is
//! refused with all that it would take.

use ggml_kernels::cuda::driver::{CudaError, Device, Memory};
use quantize::schema::Hparams;
use std::sync::Arc;

use super::LANES;
use super::aside::Aside;
use super::expanded::Expanded;
use super::head::Head;
use super::small::Small;
use super::state::{Home, Shape};
use super::weights::Needed;
use super::wide::Wide;
use crate::engine::Experts;
use crate::engine::error::Unfit;
use crate::engine::model::Model;

#[cfg(test)]
mod tests;

/// Where routed experts are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Card,
    Processor,
}

/// Tokens of the conversation that finds room beside experts that nobody asked to have on the card.
const FORESEEN: usize = 32 << 10;

/// What passes work in, and where sequences live.
#[derive(Debug)]
pub(super) struct Work {
    pub head: Head,
    pub small: Small,
    pub wide: Wide,
    pub home: Arc<Home>,
}

/// What was decided.
#[derive(Debug)]
pub(super) struct Settled {
    pub place: Place,
    pub weights: Needed,
    pub work: Work,
}

impl Work {
    /// For passes of up to so many rows.
    fn new(device: &Device, h: &Hparams, place: Place, rows: usize) -> Result<Work, CudaError> {
        Ok(Work {
            head: Head::new(device, h)?,
            small: Small::new(device, h, place)?,
            wide: Wide::new(device, (h, place), rows, LANES)?,
            home: Home::new(device, Shape::new(h))?,
        })
    }
}

/// Puts experts where they are wished to be, and fit.
pub(super) fn settle(
    model: &Model,
    device: &Device,
    wish: Experts,
    rows: usize,
) -> Result<Settled, Unfit> {
    let memory = device.memory()?;
    let places: &[_] = match wish {
        Experts::Auto => &[Place::Card, Place::Processor],
        Experts::Device => &[Place::Card],
        Experts::Cpu => &[Place::Processor],
    };
    let mut wanted = Vec::new();
    for &place in places {
        let spare = match wish {
            Experts::Auto if place == Place::Card => foreseen(model),
            _ => 0,
        };
        match fit(model, device, memory, (place, spare), rows)? {
            Fit::Settled(settled) => return Ok(*settled),
            Fit::Wanted(bytes) => wanted.push(bytes),
        }
    }
    Err(Unfit::CardMemory {
        card: device.name().to_owned(),
        needed: wanted[0],
        without: wanted.get(1).copied(),
        free: memory.free,
        total: memory.total,
    })
}

enum Fit {
    Settled(Box<Settled>),
    /// Bytes that it would take, or more.
    Wanted(u64),
}

fn fit(
    model: &Model,
    device: &Device,
    memory: Memory,
    (place, spare): (Place, u64),
    rows: usize,
) -> Result<Fit, Unfit> {
    let h = model.hparams();
    let weights = Needed::of(model, place)?;
    let beside = match place {
        Place::Card => spare,
        Place::Processor => Aside::bytes(h, rows) as u64,
    };
    let more = weights.weights + weights.beside + beside;
    let taken = |free: u64| memory.free.saturating_sub(free);
    let work = match Work::new(device, h, place, rows) {
        Ok(work) => work,
        Err(CudaError::OutOfMemory { bytes, free, .. }) => {
            return Ok(Fit::Wanted(more + taken(free) + bytes));
        }
        Err(why) => return Err(why.into()),
    };
    let free = device.memory()?.free;
    if more > free {
        return Ok(Fit::Wanted(more + taken(free)));
    }
    Ok(Fit::Settled(Box::new(Settled {
        place,
        weights,
        work,
    })))
}

/// Bytes that a long conversation takes beside weights.
fn foreseen(model: &Model) -> u64 {
    let h = model.hparams();
    let tokens = FORESEEN.min(model.context());
    (Shape::new(h).bytes(tokens) + Expanded::bytes(h, tokens)) as u64
}
