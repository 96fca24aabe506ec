//! One forward pass as a graph: tensors are made by the operators in [`crate::ops`], then placed
//! and computed, once. Owns the headers; borrows every storage whose tensors it uses for as long as
//! it lives, so nothing it points to can be freed or changed under it. What was computed lies in the
//! backend's buffers, so [`Computed`] borrows the backend too. A pass that comes again with other
//! inputs is kept as a [`Plan`], which has its own place and holds what it points to.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ggml_sys as sys;

use crate::backend::{Backend, BackendError, MAX_NODES};
use crate::quant::TensorType;
use crate::storage::{State, Tensors, Weights};
use crate::tensor::{Indices, Tensor, next_owner};

mod observe;
mod outline;
mod pinned;
mod plan;

pub use observe::{Node, Observer};
use observe::{on_node, read_contiguous};
pub use outline::{Operand, Operator, Outline};
pub use plan::Plan;

#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    #[error("{op}: {why}")]
    Shape { op: &'static str, why: String },
    #[error("the graph has more than {MAX_NODES} tensors")]
    TooLarge,
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A pass under construction. `'a` is the borrow of weights and state.
pub struct Graph<'a> {
    made: Made,
    /// Tensors that there was room for at first, and is now.
    room: usize,
    left: Cell<usize>,
    /// Storages whose tensors were lent to it.
    storages: RefCell<Vec<Arc<Tensors>>>,
    /// Of those, the ones that it may write.
    states: RefCell<Vec<u64>>,
    /// Invariant: a borrow lent to one graph lasts as long as the graph, never less.
    borrows: PhantomData<fn(&'a Tensors) -> &'a Tensors>,
}

/// The headers of a graph and the bytes of its inputs.
#[derive(Debug)]
struct Made {
    context: NonNull<sys::ggml_context>,
    graph: NonNull<sys::ggml_cgraph>,
    owner: u64,
    inputs: RefCell<Vec<(Tensor, Vec<u8>)>>,
}

/// A graph after its pass: what can be read. The values lie in the backend's buffers, which the next
/// pass or the backend's end takes away, so neither can come while this is held:
///
/// ```compile_fail,E0499
/// # use ggml_kernels::{backend::Backend, graph::{Graph, GraphError}, tensor::Tensor};
/// fn f(one: Graph, two: Graph, out: Tensor, backend: &mut Backend) -> Result<(), GraphError> {
///     let first = one.compute(backend)?;
///     two.compute(backend)?;
///     first.read(out)?;
///     Ok(())
/// }
/// ```
///
/// ```compile_fail,E0505
/// # use ggml_kernels::{backend::Backend, graph::{Graph, GraphError}, tensor::Tensor};
/// fn f(one: Graph, out: Tensor, mut backend: Backend) -> Result<(), GraphError> {
///     let first = one.compute(&mut backend)?;
///     drop(backend);
///     first.read(out)?;
///     Ok(())
/// }
/// ```
///
/// A graph is computed once, for its tensors keep the addresses that they were given:
///
/// ```compile_fail,E0382
/// # use ggml_kernels::{backend::Backend, graph::{Graph, GraphError}};
/// fn f(one: Graph, backend: &mut Backend) -> Result<(), GraphError> {
///     one.compute(backend)?;
///     one.compute(backend)?;
///     Ok(())
/// }
/// ```
pub struct Computed<'a, 'b> {
    graph: Graph<'a>,
    backend: PhantomData<&'b mut Backend>,
}

impl<'a> Graph<'a> {
    /// Room for `nodes` tensors, weights and views counted.
    pub fn new(nodes: usize) -> Result<Self, GraphError> {
        if nodes > MAX_NODES {
            return Err(GraphError::TooLarge);
        }
        // SAFETY: a context without data, with room for the graph and all its tensors.
        let (context, bytes) = unsafe {
            let bytes = (nodes + 1) * sys::ggml_tensor_overhead()
                + sys::ggml_graph_overhead_custom(nodes, false);
            let params = sys::ggml_init_params {
                mem_size: bytes,
                mem_buffer: ptr::null_mut(),
                no_alloc: true,
            };
            (sys::ggml_init(params), bytes)
        };
        let what = "graph headers";
        let context = NonNull::new(context).ok_or(BackendError::OutOfMemory { what, bytes })?;
        // SAFETY: the context was sized for this graph.
        let graph = unsafe { sys::ggml_new_graph_custom(context.as_ptr(), nodes, false) };
        let Some(graph) = NonNull::new(graph) else {
            // SAFETY: made above, freed once.
            unsafe { sys::ggml_free(context.as_ptr()) };
            return Err(BackendError::OutOfMemory { what, bytes }.into());
        };
        Ok(Self {
            made: Made {
                context,
                graph,
                owner: next_owner(),
                inputs: RefCell::default(),
            },
            room: nodes,
            left: Cell::new(nodes),
            storages: RefCell::default(),
            states: RefCell::default(),
            borrows: PhantomData,
        })
    }

    /// A weight: read only.
    pub fn weight(&self, weights: &'a Weights, at: usize) -> Result<Tensor, GraphError> {
        self.take(1)?;
        self.hold(weights.shared());
        Ok(Tensor {
            owner: self.made.owner,
            ..weights.tensor(at)
        })
    }

    /// All tensors of a state, which copies may write. Weights are of another type and cannot come
    /// this way, for they may be a read-only map:
    ///
    /// ```compile_fail,E0308
    /// # use ggml_kernels::{graph::{Graph, GraphError}, storage::Weights};
    /// fn f<'a>(graph: &Graph<'a>, weights: &'a mut Weights) -> Result<(), GraphError> {
    ///     graph.state(weights)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// ```compile_fail,E0624
    /// # use ggml_kernels::storage::Weights;
    /// fn f(weights: &mut Weights) {
    ///     weights.write(0, &[1]);
    /// }
    /// ```
    pub fn state(&self, state: &'a mut State) -> Result<Vec<Tensor>, GraphError> {
        self.take(state.len())?;
        self.hold(state.shared());
        self.states.borrow_mut().push(state.id());
        let lend = |at| Tensor {
            owner: self.made.owner,
            writable: true,
            ..state.tensor(at)
        };
        Ok((0..state.len()).map(lend).collect())
    }

    fn hold(&self, storage: &Arc<Tensors>) {
        let mut held = self.storages.borrow_mut();
        if !held.iter().any(|s| Arc::ptr_eq(s, storage)) {
            held.push(storage.clone());
        }
    }

    /// An input of this pass with its bytes.
    pub fn input(
        &self,
        ty: TensorType,
        ne: [usize; 4],
        bytes: Vec<u8>,
    ) -> Result<Tensor, GraphError> {
        let row = ty.row_bytes(ne[0]);
        let wanted = row.and_then(|r| ne[1..].iter().try_fold(r, |a, &n| a.checked_mul(n)));
        if wanted != Some(bytes.len()) || bytes.is_empty() {
            let why = format!("{} bytes for {ne:?} of {ty}", bytes.len());
            return Err(GraphError::Shape { op: "input", why });
        }
        self.take(1)?;
        let sizes = ne.map(|n| n as i64);
        // SAFETY: room was taken above; the sizes match `bytes`, so they fit.
        let tensor = unsafe {
            let raw = sys::ggml_new_tensor(self.context(), ty.id() as _, 4, sizes.as_ptr());
            sys::ggml_set_input(raw);
            self.wrap(raw, false, ty)
        };
        self.made.inputs.borrow_mut().push((tensor, bytes));
        Ok(tensor)
    }

    /// Rows to be chosen, `ne` of them, as an input of this pass; each must be below `below`.
    pub fn indices(
        &self,
        values: &[u32],
        ne: [usize; 4],
        below: usize,
    ) -> Result<Indices, GraphError> {
        let bytes = index_bytes(values, below)?;
        let tensor = self.input(TensorType::I32, ne, bytes)?;
        Ok(Indices { tensor, below })
    }

    /// Names a tensor for observers.
    pub fn name(&self, tensor: Tensor, name: &str) -> Tensor {
        if let (true, Ok(name)) = (tensor.owner == self.made.owner, CString::new(name)) {
            // SAFETY: a tensor of this graph and a terminated string, which ggml truncates.
            unsafe { sys::ggml_set_name(tensor.ptr.as_ptr(), name.as_ptr()) };
        }
        tensor
    }

    /// Marks `tensor` to be computed, after everything marked before it.
    pub fn compute_next(&self, tensor: Tensor) -> Result<(), GraphError> {
        self.owns("compute_next", &[tensor])?;
        // SAFETY: a tensor of this graph, which has room for all tensors ever made in it.
        unsafe { sys::ggml_build_forward_expand(self.made.graph.as_ptr(), tensor.ptr.as_ptr()) };
        Ok(())
    }

    /// Marks `tensor` as a result: computed, and its memory kept for [`Computed::read`].
    pub fn output(&self, tensor: Tensor) -> Result<(), GraphError> {
        self.owns("output", &[tensor])?;
        // SAFETY: a tensor of this graph.
        unsafe { sys::ggml_set_output(tensor.ptr.as_ptr()) };
        self.compute_next(tensor)
    }

    /// Computes everything marked.
    pub fn compute<'b>(self, backend: &'b mut Backend) -> Result<Computed<'a, 'b>, GraphError> {
        self.run(backend)?;
        Ok(Computed {
            graph: self,
            backend: PhantomData,
        })
    }

    /// As [`Graph::compute`], showing each computed tensor to `observer`. Slow.
    pub fn compute_observed<'b>(
        self,
        backend: &'b mut Backend,
        observer: &mut dyn Observer,
    ) -> Result<Computed<'a, 'b>, GraphError> {
        let mut observer = observer;
        let data: *mut &mut dyn Observer = &mut observer;
        let sched = backend.scheduler()?.as_ptr();
        // SAFETY: `data` outlives the computation below, after which the callback is removed.
        unsafe { sys::ggml_backend_sched_set_eval_callback(sched, Some(on_node), data.cast()) };
        let result = self.run(backend);
        // A pass that found no memory has taken the scheduler with it.
        if let Ok(sched) = backend.scheduler() {
            // SAFETY: a live scheduler, whose callback this removes.
            unsafe {
                let sched = sched.as_ptr();
                sys::ggml_backend_sched_set_eval_callback(sched, None, ptr::null_mut());
            }
        }
        result?;
        Ok(Computed {
            graph: self,
            backend: PhantomData,
        })
    }

    fn run(&self, backend: &mut Backend) -> Result<(), GraphError> {
        let (sched, graph) = (backend.scheduler()?.as_ptr(), self.made.graph.as_ptr());
        // SAFETY: the scheduler was made for MAX_NODES, which bounds this graph; storages and
        // inputs are alive; `&mut Backend` keeps others away while it runs. No tensor has an
        // address of an earlier pass: both callers own the graph and give it away.
        unsafe {
            sys::ggml_backend_sched_reset(sched);
            if !sys::ggml_backend_sched_alloc_graph(sched, graph) {
                return Err(backend.out_of_memory(graph).into());
            }
            self.made.compute(sched)
        }
    }

    /// Checks that every tensor is this graph's own.
    pub(crate) fn owns(&self, op: &'static str, tensors: &[Tensor]) -> Result<(), GraphError> {
        if tensors.iter().all(|t| t.owner == self.made.owner) {
            return Ok(());
        }
        Err(another(op))
    }

    /// Takes room for `n` tensors: ggml aborts when a context is full.
    pub(crate) fn take(&self, n: usize) -> Result<(), GraphError> {
        let left = self.left.get().checked_sub(n).ok_or(GraphError::TooLarge)?;
        self.left.set(left);
        Ok(())
    }

    pub(crate) fn context(&self) -> *mut sys::ggml_context {
        self.made.context.as_ptr()
    }

    /// Wraps a tensor that an operator just made in this graph's context.
    ///
    /// # Safety
    /// `raw` was made in this graph's context, is not null and is of type `ty`.
    pub(crate) unsafe fn wrap(
        &self,
        raw: *mut sys::ggml_tensor,
        writable: bool,
        ty: TensorType,
    ) -> Tensor {
        // SAFETY: as the caller says.
        unsafe { Tensor::from_raw(NonNull::new_unchecked(raw), self.made.owner, writable, ty) }
    }
}

impl Computed<'_, '_> {
    /// The values of an output, contiguous F32.
    pub fn read(&self, tensor: Tensor) -> Result<Vec<f32>, GraphError> {
        self.graph.made.read(tensor)
    }
}

impl Made {
    /// Gives the inputs their bytes, computes, and waits.
    ///
    /// # Safety
    /// `sched` has given this graph its place, and nobody else uses its backends meanwhile.
    unsafe fn compute(&self, sched: *mut sys::ggml_backend_sched) -> Result<(), GraphError> {
        // SAFETY: as the caller says; an input has as many bytes as its tensor.
        let status = unsafe {
            for (tensor, bytes) in self.inputs.borrow().iter() {
                let raw = tensor.ptr.as_ptr();
                // An input that nothing reads has no place.
                if !(*raw).buffer.is_null() {
                    sys::ggml_backend_tensor_set(raw, bytes.as_ptr().cast(), 0, bytes.len());
                }
            }
            sys::ggml_backend_sched_graph_compute(sched, self.graph.as_ptr())
        };
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            status => Err(BackendError::Compute(status).into()),
        }
    }

    fn read(&self, tensor: Tensor) -> Result<Vec<f32>, GraphError> {
        let values = read_contiguous(self.output(tensor)?, sys::GGML_TYPE_F32);
        values.ok_or_else(unreadable)
    }

    /// A contiguous F32 output of this graph.
    fn output(&self, tensor: Tensor) -> Result<&sys::ggml_tensor, GraphError> {
        if tensor.owner != self.owner {
            return Err(another("read"));
        }
        // SAFETY: a tensor of this graph, alive with it.
        let raw = unsafe { tensor.ptr.as_ref() };
        // The memory of what is no output may have gone to a later tensor.
        let kept = raw.flags & sys::GGML_TENSOR_FLAG_OUTPUT as i32 != 0 && !raw.data.is_null();
        if kept && tensor.ty == TensorType::F32 && tensor.contiguous() {
            return Ok(raw);
        }
        Err(unreadable())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // SAFETY: made by `Graph::new`, freed once; the graph lives inside the context.
        unsafe { sys::ggml_free(self.context.as_ptr()) };
    }
}

fn unreadable() -> GraphError {
    GraphError::Shape {
        op: "read",
        why: "not contiguous F32, or not an output".into(),
    }
}

fn another(op: &'static str) -> GraphError {
    let why = "a tensor of another graph".into();
    GraphError::Shape { op, why }
}

/// Rows to be chosen, each below `below`, as ggml takes them.
fn index_bytes(values: &[u32], below: usize) -> Result<Vec<u8>, GraphError> {
    let limit = below.min(i32::MAX as usize);
    if let Some(wrong) = values.iter().find(|&&v| v as usize >= limit) {
        let why = format!("got {wrong}, wanted rows below {limit}");
        return Err(GraphError::Shape { op: "indices", why });
    }
    Ok(values.iter().flat_map(|v| v.to_ne_bytes()).collect())
}
