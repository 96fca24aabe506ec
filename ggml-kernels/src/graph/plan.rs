//! A graph that is kept and computed again with other inputs. Its headers, its place in the
//! backend's memory and the scheduler's cut of it stay as they are, so that a backend which records
//! what it is told (CUDA graphs) meets the same addresses, and nothing is built, cut or placed on
//! the way to a token.
//!
//! It holds the storages that it points to. States are lent to it anew for every run: between runs
//! they are their owner's, and a state that was not lent is neither read nor written.

use std::ptr::NonNull;
use std::sync::Arc;

use ggml_sys as sys;

use super::pinned::Pinned;
use super::{Graph, GraphError, Made, another, index_bytes};
use crate::backend::{Backend, Devices};
use crate::storage::{State, Tensors};
use crate::tensor::{Indices, Tensor};

/// A placed graph. Dropping it frees its memory.
#[derive(Debug)]
pub struct Plan {
    /// Freed first: it points to the headers and to the devices.
    pub(super) sched: Scheduler,
    pub(super) made: Made,
    states: Vec<u64>,
    _storages: Vec<Arc<Tensors>>,
    /// Where outputs come out, once one was read.
    pinned: Option<Pinned>,
    devices: Arc<Devices>,
}

#[derive(Debug)]
pub(super) struct Scheduler(pub(super) NonNull<sys::ggml_backend_sched>);

impl Drop for Scheduler {
    fn drop(&mut self) {
        // SAFETY: made by `Graph::keep`, freed once, before what it points to.
        unsafe { sys::ggml_backend_sched_free(self.0.as_ptr()) };
    }
}

// SAFETY: plain memory with one owner. Tensors of states are followed in `run` alone, while they are
// lent, and the devices are used by whoever has the `&mut Backend` that they belong to.
unsafe impl Send for Plan {}
// SAFETY: `&Plan` reads what no `&Plan` writes.
unsafe impl Sync for Plan {}

impl Graph<'_> {
    /// Refuses a graph that the device has no memory for, without giving it any.
    pub fn check_room(self, backend: &Backend) -> Result<(), GraphError> {
        let sched = Scheduler(backend.new_scheduler(self.room - self.left.get(), None)?);
        // SAFETY: a new scheduler with room for every tensor of this graph, which is given away.
        let sizes = unsafe { backend.measure(sched.0, self.made.graph.as_ptr()) };
        Ok(backend.check_room("the buffers of a pass", sizes[0])?)
    }

    /// Gives the graph a place of its own, to be computed there as often as wanted.
    pub fn keep(self, backend: &Backend) -> Result<Plan, GraphError> {
        let tensors = self.room - self.left.get();
        let graph = self.made.graph.as_ptr();
        let inputs = backend.pinned_buffer_type();
        let sched = Scheduler(backend.new_scheduler(tensors, inputs)?);
        // SAFETY: a new scheduler with room for every tensor of this graph. No tensor has an
        // address: this graph was never placed.
        let placed = unsafe { sys::ggml_backend_sched_alloc_graph(sched.0.as_ptr(), graph) };
        if !placed {
            // SAFETY: a live scheduler, given up here, and the graph that it has no place for.
            return Err(unsafe { backend.too_large(sched.0, graph) }.into());
        }
        Ok(Plan {
            sched,
            made: self.made,
            states: self.states.into_inner(),
            _storages: self.storages.into_inner(),
            pinned: None,
            devices: backend.devices().clone(),
        })
    }
}

impl Plan {
    /// Other bytes for an input, as many as it has.
    pub fn set(&mut self, input: Tensor, bytes: Vec<u8>) -> Result<(), GraphError> {
        let mut inputs = self.made.inputs.borrow_mut();
        let found = inputs.iter_mut().find(|(t, _)| t.ptr == input.ptr);
        let Some((_, held)) = found.filter(|_| input.owner == self.made.owner) else {
            return Err(another("set"));
        };
        if held.len() != bytes.len() {
            let why = format!("got {} bytes, wanted {}", bytes.len(), held.len());
            return Err(GraphError::Shape { op: "set", why });
        }
        *held = bytes;
        Ok(())
    }

    /// Other rows to be chosen, below the bound that the graph was built for.
    pub fn set_indices(&mut self, input: Indices, values: &[u32]) -> Result<(), GraphError> {
        self.set(input.tensor, index_bytes(values, input.below)?)
    }

    /// Computes with the inputs as they are now; `states` are those that the graph was built on.
    pub fn run(
        &mut self,
        backend: &mut Backend,
        states: &mut [&mut State],
    ) -> Result<(), GraphError> {
        let lent = |id: &u64| states.iter().any(|s| s.id() == *id);
        if !self.states.iter().all(lent) || !Arc::ptr_eq(&self.devices, backend.devices()) {
            let why = "wanted the states and the backend that it was built on".into();
            return Err(GraphError::Shape { op: "run", why });
        }
        // SAFETY: `keep` placed this graph, and nothing has taken its place since; every state that
        // it points to is lent, every other storage is held; `&mut Backend` keeps others from the
        // devices while it runs.
        unsafe { self.made.compute(self.sched.0.as_ptr()) }
    }

    /// The values of an output after the last run, contiguous F32.
    pub fn read(&mut self, backend: &mut Backend, tensor: Tensor) -> Result<Vec<f32>, GraphError> {
        let (raw, floats) = (self.made.output(tensor)?, tensor.elements());
        if !self.pinned.as_ref().is_some_and(|p| p.holds(floats)) {
            self.pinned = Pinned::new(backend, floats);
        }
        match &mut self.pinned {
            // SAFETY: an output of this graph, checked, on the device that the scheduler gave it to;
            // `&mut Backend` keeps others from that.
            Some(pinned) if Arc::ptr_eq(&self.devices, backend.devices()) => Ok(unsafe {
                let of = tensor.ptr.as_ptr();
                let device = sys::ggml_backend_sched_get_tensor_backend(self.sched.0.as_ptr(), of);
                pinned.fetch(device, raw, floats)
            }),
            _ => self.made.read(tensor),
        }
    }
}
