//! One forward pass as a graph: tensors are made by the operators in [`crate::ops`], then placed
//! and computed, once. Owns the headers; borrows every storage whose tensors it uses for as long as
//! it lives, so nothing it points to can be freed or changed under it. What was computed lies in the
//! backend's buffers, so [`Computed`] borrows the backend too.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use ggml_sys as sys;

use crate::backend::{Backend, BackendError, MAX_NODES};
use crate::quant::TensorType;
use crate::storage::{State, Tensors, Weights};
use crate::tensor::{Indices, Tensor, next_owner};

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
    context: NonNull<sys::ggml_context>,
    graph: NonNull<sys::ggml_cgraph>,
    owner: u64,
    left: Cell<usize>,
    inputs: RefCell<Vec<(Tensor, Vec<u8>)>>,
    /// Invariant: a borrow lent to one graph lasts as long as the graph, never less.
    borrows: PhantomData<fn(&'a Tensors) -> &'a Tensors>,
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

/// Watches tensors as they are computed; see [`Graph::compute_observed`].
pub trait Observer {
    /// Whether `node` is of interest. Asked before it is computed.
    fn wants(&mut self, node: &Node<'_>) -> bool;
    /// `node`, computed.
    fn observe(&mut self, node: &Node<'_>);
}

/// A computed tensor, as an [`Observer`] sees it.
pub struct Node<'n> {
    raw: &'n sys::ggml_tensor,
}

impl Node<'_> {
    /// The name given by [`Graph::name`], or ggml's own.
    pub fn name(&self) -> &str {
        text(&self.raw.name)
    }
    /// ggml's name of the operator: `MUL_MAT`, `MUL_MAT_ID`, ...
    pub fn op(&self) -> &str {
        // SAFETY: a static string for every operator.
        let name = unsafe { CStr::from_ptr(sys::ggml_op_name(self.raw.op)) };
        name.to_str().unwrap_or("")
    }
    /// The name of source `at`, if there is one.
    pub fn source_name(&self, at: usize) -> Option<&str> {
        // SAFETY: sources of a graph's node live as long as the graph.
        let raw = unsafe { self.raw.src.get(at)?.as_ref() }?;
        Some(text(&raw.name))
    }
    pub fn ne(&self) -> [usize; 4] {
        self.raw.ne.map(|n| n as usize)
    }
    /// The sizes of source `at`.
    pub fn source_ne(&self, at: usize) -> Option<[usize; 4]> {
        // SAFETY: as above.
        let raw = unsafe { self.raw.src.get(at)?.as_ref() }?;
        Some(raw.ne.map(|n| n as usize))
    }
    /// The tensor's values, if it is contiguous F32.
    pub fn values(&self) -> Option<Vec<f32>> {
        read_contiguous(self.raw, sys::GGML_TYPE_F32)
    }
    /// The values of source `at`, if it is contiguous F32.
    pub fn source_values(&self, at: usize) -> Option<Vec<f32>> {
        // SAFETY: as above.
        read_contiguous(
            unsafe { self.raw.src.get(at)?.as_ref() }?,
            sys::GGML_TYPE_F32,
        )
    }
    /// Shows each row of source `at` with its place `[i1, i2, i3]`, whatever the strides between
    /// rows. False, and nothing shown, if it is not F32 or the values of a row are apart.
    pub fn each_source_row(&self, at: usize, show: &mut dyn FnMut([usize; 3], &[f32])) -> bool {
        // SAFETY: as above.
        let source = self.raw.src.get(at).and_then(|raw| unsafe { raw.as_ref() });
        let Some(raw) = source.filter(|raw| raw.type_ == sys::GGML_TYPE_F32 && raw.nb[0] == 4)
        else {
            return false;
        };
        if raw.data.is_null() {
            return false;
        }
        // SAFETY: `raw` is a live tensor.
        let bytes = unsafe { sys::ggml_nbytes(raw) };
        let mut all = vec![0f32; bytes / 4];
        // SAFETY: a computed tensor that spans `bytes` bytes, and as many in `all`.
        unsafe { sys::ggml_backend_tensor_get(raw, all.as_mut_ptr().cast(), 0, bytes) };
        let [width, n1, n2, n3] = raw.ne.map(|n| n as usize);
        let [_, s1, s2, s3] = raw.nb.map(|n| n / 4);
        for i3 in 0..n3 {
            for i2 in 0..n2 {
                for i1 in 0..n1 {
                    let start = i1 * s1 + i2 * s2 + i3 * s3;
                    show([i1, i2, i3], &all[start..start + width]);
                }
            }
        }
        true
    }
    /// The rows of source `at`, if it holds indices: `[ne1][ne0]`, whatever its stride.
    pub fn source_indices(&self, at: usize) -> Option<Vec<Vec<i32>>> {
        // SAFETY: as above.
        let raw = unsafe { self.raw.src.get(at)?.as_ref() }?;
        if raw.type_ != sys::GGML_TYPE_I32 || raw.nb[0] != 4 || raw.data.is_null() {
            return None;
        }
        let row = |at: i64| {
            let mut out = vec![0i32; raw.ne[0] as usize];
            // SAFETY: a computed tensor; the row lies inside it.
            unsafe {
                let offset = at as usize * raw.nb[1];
                let bytes = out.len() * 4;
                sys::ggml_backend_tensor_get(raw, out.as_mut_ptr().cast(), offset, bytes);
            }
            out
        };
        Some((0..raw.ne[1]).map(row).collect())
    }
}

fn text(name: &[std::ffi::c_char]) -> &str {
    // SAFETY: ggml keeps names terminated inside their 64 bytes.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_str().unwrap_or("")
}

fn read_contiguous<T: Default + Clone>(
    raw: &sys::ggml_tensor,
    ty: sys::ggml_type,
) -> Option<Vec<T>> {
    // SAFETY: `raw` is a live tensor.
    let (plain, bytes) = unsafe { (sys::ggml_is_contiguous(raw), sys::ggml_nbytes(raw)) };
    if raw.type_ != ty || !plain || raw.data.is_null() {
        return None;
    }
    let mut out = vec![T::default(); bytes / size_of::<T>()];
    // SAFETY: a computed tensor of `bytes` bytes, and as many in `out`.
    unsafe { sys::ggml_backend_tensor_get(raw, out.as_mut_ptr().cast(), 0, bytes) };
    Some(out)
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
            context,
            graph,
            owner: next_owner(),
            left: Cell::new(nodes),
            inputs: RefCell::default(),
            borrows: PhantomData,
        })
    }

    /// A weight: read only.
    pub fn weight(&self, weights: &'a Weights, at: usize) -> Result<Tensor, GraphError> {
        self.take(1)?;
        Ok(Tensor {
            owner: self.owner,
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
        let lend = |at| Tensor {
            owner: self.owner,
            writable: true,
            ..state.tensor(at)
        };
        Ok((0..state.len()).map(lend).collect())
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
            let raw = sys::ggml_new_tensor(self.context.as_ptr(), ty.id() as _, 4, sizes.as_ptr());
            sys::ggml_set_input(raw);
            Tensor::from_raw(NonNull::new_unchecked(raw), self.owner, false, ty)
        };
        self.inputs.borrow_mut().push((tensor, bytes));
        Ok(tensor)
    }

    /// Rows to be chosen, `ne` of them, as an input of this pass; each must be below `below`.
    pub fn indices(
        &self,
        values: &[u32],
        ne: [usize; 4],
        below: usize,
    ) -> Result<Indices, GraphError> {
        let limit = below.min(i32::MAX as usize);
        if let Some(wrong) = values.iter().find(|&&v| v as usize >= limit) {
            let why = format!("got {wrong}, wanted rows below {limit}");
            return Err(GraphError::Shape { op: "indices", why });
        }
        let bytes = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let tensor = self.input(TensorType::I32, ne, bytes)?;
        Ok(Indices { tensor, below })
    }

    /// Names a tensor for observers.
    pub fn name(&self, tensor: Tensor, name: &str) -> Tensor {
        if let (true, Ok(name)) = (tensor.owner == self.owner, CString::new(name)) {
            // SAFETY: a tensor of this graph and a terminated string, which ggml truncates.
            unsafe { sys::ggml_set_name(tensor.ptr.as_ptr(), name.as_ptr()) };
        }
        tensor
    }

    /// Marks `tensor` to be computed, after everything marked before it.
    pub fn compute_next(&self, tensor: Tensor) -> Result<(), GraphError> {
        self.owns("compute_next", &[tensor])?;
        // SAFETY: a tensor of this graph, which has room for all tensors ever made in it.
        unsafe { sys::ggml_build_forward_expand(self.graph.as_ptr(), tensor.ptr.as_ptr()) };
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
        let (sched, graph) = (backend.scheduler()?.as_ptr(), self.graph.as_ptr());
        // SAFETY: the scheduler was made for MAX_NODES, which bounds this graph; storages and
        // inputs are alive; `&mut Backend` keeps others away while it runs. No tensor has an
        // address of an earlier pass: both callers own the graph and give it away.
        unsafe {
            sys::ggml_backend_sched_reset(sched);
            if !sys::ggml_backend_sched_alloc_graph(sched, graph) {
                return Err(backend.out_of_memory(graph).into());
            }
            for (tensor, bytes) in self.inputs.borrow().iter() {
                let raw = tensor.ptr.as_ptr();
                // An input that nothing reads has no place.
                if !(*raw).buffer.is_null() {
                    sys::ggml_backend_tensor_set(raw, bytes.as_ptr().cast(), 0, bytes.len());
                }
            }
            match sys::ggml_backend_sched_graph_compute(sched, graph) {
                sys::GGML_STATUS_SUCCESS => Ok(()),
                status => Err(BackendError::Compute(status).into()),
            }
        }
    }

    /// Checks that every tensor is this graph's own.
    pub(crate) fn owns(&self, op: &'static str, tensors: &[Tensor]) -> Result<(), GraphError> {
        if tensors.iter().all(|t| t.owner == self.owner) {
            return Ok(());
        }
        let why = "a tensor of another graph".into();
        Err(GraphError::Shape { op, why })
    }

    /// Takes room for `n` tensors: ggml aborts when a context is full.
    pub(crate) fn take(&self, n: usize) -> Result<(), GraphError> {
        let left = self.left.get().checked_sub(n).ok_or(GraphError::TooLarge)?;
        self.left.set(left);
        Ok(())
    }

    pub(crate) fn context(&self) -> *mut sys::ggml_context {
        self.context.as_ptr()
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
        unsafe { Tensor::from_raw(NonNull::new_unchecked(raw), self.owner, writable, ty) }
    }
}

impl Computed<'_, '_> {
    /// The values of an output, contiguous F32.
    pub fn read(&self, tensor: Tensor) -> Result<Vec<f32>, GraphError> {
        self.graph.owns("read", &[tensor])?;
        // SAFETY: a tensor of this graph, alive with it.
        let raw = unsafe { tensor.ptr.as_ref() };
        let values = if raw.flags & sys::GGML_TENSOR_FLAG_OUTPUT as i32 == 0 {
            // Its memory may have gone to a later tensor.
            None
        } else {
            read_contiguous(raw, sys::GGML_TYPE_F32)
        };
        values.ok_or_else(|| GraphError::Shape {
            op: "read",
            why: "not contiguous F32, or not an output".into(),
        })
    }
}

impl Drop for Graph<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once; the graph lives inside the context.
        unsafe { sys::ggml_free(self.context.as_ptr()) };
    }
}

unsafe extern "C" fn on_node(raw: *mut sys::ggml_tensor, ask: bool, data: *mut c_void) -> bool {
    // SAFETY: `compute_observed` passed a pointer to its observer, alive during the computation;
    // ggml passes a live tensor.
    let (observer, node) = unsafe { (&mut *data.cast::<&mut dyn Observer>(), Node { raw: &*raw }) };
    if ask {
        return observer.wants(&node);
    }
    observer.observe(&node);
    true
}
