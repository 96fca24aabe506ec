//! KDA's memory at one moment, and what becomes of it when nobody has it any more: a few are kept to be
//! had again. The kernel takes longer to find pages for a large one than a pass takes to fill it.

use std::sync::{Arc, Mutex, PoisonError};

use ggml_kernels::cpu::kda::{KdaShape, KdaState};

use crate::engine::executor::Spare;

/// Slots that lie ready: a state from the disk takes one, the pass that goes on from it another.
const READY: usize = 2;

/// Slots of one shape that nobody has.
#[derive(Debug)]
pub(super) struct Slots {
    shape: KdaShape,
    layers: usize,
    ready: Mutex<Vec<Vec<KdaState>>>,
}

/// A state a layer.
#[derive(Debug)]
pub(super) struct Slot {
    pub layers: Vec<KdaState>,
    home: Arc<Slots>,
}

impl Slots {
    pub fn new(shape: KdaShape, layers: usize) -> Arc<Slots> {
        Arc::new(Slots {
            shape,
            layers,
            ready: Mutex::default(),
        })
    }

    fn made(&self) -> Vec<KdaState> {
        KdaState::of_layers(&self.shape, self.layers)
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, Vec<Vec<KdaState>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes as many ready as there are to be, their pages in memory.
    pub fn warm(&self) {
        let mut ready = self.ready();
        while ready.len() < READY {
            let mut layers = self.made();
            layers.iter_mut().for_each(zero);
            ready.push(layers);
        }
    }

    /// For the first token.
    pub fn zeroed(self: &Arc<Self>) -> Slot {
        let ready = self.ready().pop();
        let again = ready.map(|mut layers| {
            layers.iter_mut().for_each(zero);
            layers
        });
        self.slot(again)
    }

    /// Of any values: whoever takes it writes all of it.
    pub fn any(self: &Arc<Self>) -> Slot {
        let ready = self.ready().pop();
        self.slot(ready)
    }

    fn slot(self: &Arc<Self>, ready: Option<Vec<KdaState>>) -> Slot {
        Slot {
            layers: ready.unwrap_or_else(|| self.made()),
            home: self.clone(),
        }
    }
}

impl Spare for Slots {
    fn give_back(&self) {
        self.ready().clear();
    }
}

fn zero(layer: &mut KdaState) {
    for tail in [&mut layer.tail_q, &mut layer.tail_k, &mut layer.tail_v] {
        tail.fill(0.0);
    }
    layer.s.fill(0.0);
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut ready = self.home.ready();
        if ready.len() < READY {
            ready.push(std::mem::take(&mut self.layers));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Arc<Slots> {
        let shape = KdaShape {
            heads: 1,
            head_dim: 16,
            taps: 2,
        };
        Slots::new(shape, 1)
    }

    #[test]
    fn what_was_let_go_is_had_again_and_is_empty_for_whoever_begins() {
        let slots = slots();
        let mut slot = slots.zeroed();
        slot.layers[0].s[3] = 7.0;
        slot.layers[0].tail_k[1] = 7.0;
        let place = slot.layers[0].s.as_ptr();
        drop(slot);
        let any = slots.any();
        assert_eq!(any.layers[0].s.as_ptr(), place);
        assert_eq!(any.layers[0].s[3], 7.0, "it was not written for nothing");
        drop(any);
        let fresh = slots.zeroed();
        assert_eq!(fresh.layers[0].s.as_ptr(), place);
        assert!(fresh.layers[0].s.iter().all(|x| *x == 0.0));
        assert!(fresh.layers[0].tail_k.iter().all(|x| *x == 0.0));
    }

    #[test]
    fn no_more_lie_ready_than_are_of_use_and_none_where_memory_is_short() {
        let slots = slots();
        slots.warm();
        let taken: Vec<Slot> = (0..5).map(|_| slots.any()).collect();
        assert_eq!(slots.ready().len(), 0);
        drop(taken);
        assert_eq!(slots.ready().len(), READY);
        slots.give_back();
        assert_eq!(slots.ready().len(), 0);
    }
}
