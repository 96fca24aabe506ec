//! Tensors that outlive a graph: [`Weights`] over a map or in device memory, which nothing writes
//! after they were made, and [`State`], which passes write. Two types, so that a map, which is
//! read-only memory, can never be the target of a write.

use std::ffi::CString;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ggml_sys as sys;

use crate::backend::{Backend, BackendError};
use crate::map::GuardedMap;
use crate::quant::TensorType;
use crate::tensor::{Tensor, next_owner};

/// A tensor to be placed: its type and sizes, fastest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// What observers see; ggml keeps 63 bytes of it.
    pub name: String,
    pub ty: TensorType,
    pub ne: [usize; 4],
}

impl Placement {
    /// Bytes of the tensor, if its rows can hold the type and the product fits.
    pub fn bytes(&self) -> Option<usize> {
        let row = self.ty.row_bytes(self.ne[0])?;
        self.ne[1..].iter().try_fold(row, |a, &n| a.checked_mul(n))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("a tensor of {ne:?} cannot be {ty}")]
    Shape { ne: [usize; 4], ty: TensorType },
    #[error("a tensor at {start} of {bytes} bytes is outside the map of {map} bytes or misaligned")]
    Outside {
        start: usize,
        bytes: usize,
        map: usize,
    },
    #[error("got {got} bytes for a tensor of {wanted}")]
    Length { got: usize, wanted: usize },
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// ggml's own alignment of CPU tensors.
const ALIGNMENT: usize = 32;

/// Tensors that passes only read. Dropping it frees the memory.
#[derive(Debug)]
pub struct Weights {
    held: Arc<Tensors>,
}

/// Tensors that passes read and write: what a sequence remembers. Dropping it frees the memory.
#[derive(Debug)]
pub struct State {
    held: Arc<Tensors>,
}

impl Weights {
    /// Over a map, without a copy: `wanted` with the offset of each from the map's start.
    pub fn mapped(
        map: &Arc<GuardedMap>,
        wanted: &[(Placement, usize)],
    ) -> Result<Self, StorageError> {
        let held = Arc::new(Tensors::over(map, wanted)?);
        Ok(Self { held })
    }

    /// Copied into the device's memory: each placement with its bytes.
    pub fn copied(backend: &Backend, wanted: &[(Placement, &[u8])]) -> Result<Self, StorageError> {
        let placements: Vec<_> = wanted.iter().map(|(p, _)| p.clone()).collect();
        let mut held = Tensors::zeroed(backend, &placements, "weights")?;
        if let Some(buffer) = held.buffer {
            let usage = sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
            // SAFETY: a live buffer.
            unsafe { sys::ggml_backend_buffer_set_usage(buffer.as_ptr(), usage) };
        }
        for (at, (_, bytes)) in wanted.iter().enumerate() {
            held.write(at, bytes)?;
            let tensor = &mut held.tensors[at];
            // Once for all: nothing writes it after this.
            tensor.ordered =
                tensor.ty == TensorType::F32 && tensor.rows() == 1 && has_no_nan(bytes);
        }
        let held = Arc::new(held);
        Ok(Self { held })
    }
}

impl State {
    /// In the device's memory, all zeros.
    pub fn zeroed(backend: &Backend, wanted: &[Placement]) -> Result<Self, StorageError> {
        let held = Arc::new(Tensors::zeroed(backend, wanted, "sequence state")?);
        Ok(Self { held })
    }

    /// Tells it from every other storage.
    pub(crate) fn id(&self) -> u64 {
        self.held.owner
    }

    /// Overwrites the first bytes of tensor `at`, which may be longer.
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), StorageError> {
        self.held.write(at, bytes)
    }
}

impl Weights {
    /// For who must keep it alive.
    pub(crate) fn shared(&self) -> &Arc<Tensors> {
        &self.held
    }
}

impl Deref for Weights {
    type Target = Tensors;
    fn deref(&self) -> &Tensors {
        &self.held
    }
}

impl State {
    /// For who must keep it alive: it may be followed while the `State` is lent, and not without.
    pub(crate) fn shared(&self) -> &Arc<Tensors> {
        &self.held
    }
}

impl Deref for State {
    type Target = Tensors;
    fn deref(&self) -> &Tensors {
        &self.held
    }
}

/// A group of tensors in one buffer: what both kinds offer, which is to be read.
#[derive(Debug)]
pub struct Tensors {
    context: NonNull<sys::ggml_context>,
    /// `None` when there are no tensors to hold.
    buffer: Option<NonNull<sys::ggml_backend_buffer>>,
    tensors: Vec<Tensor>,
    owner: u64,
    bytes: usize,
    /// Mapped tensors live in here; declared last, dropped after the buffer over it.
    _map: Option<Arc<GuardedMap>>,
}

// SAFETY: plain memory with one owner; ggml keeps no thread-local state about it.
unsafe impl Send for Tensors {}
// SAFETY: `&Tensors` only reads. A graph writes tensors of a `State` that was lent to it mutably, for
// as long as it was, and never those of `Weights`, which it marks as not writable.
unsafe impl Sync for Tensors {}

impl Tensors {
    fn zeroed(
        backend: &Backend,
        wanted: &[Placement],
        what: &'static str,
    ) -> Result<Self, StorageError> {
        let bytes = total(wanted)?;
        let context = new_context(wanted.len())?;
        let owner = next_owner();
        let tensors = make_tensors(context, owner, wanted);
        if tensors.is_empty() {
            return Ok(Self {
                context,
                buffer: None,
                tensors,
                owner,
                bytes,
                _map: None,
            });
        }
        if let Err(error) = backend.check_room(what, bytes) {
            // SAFETY: made above, freed once.
            unsafe { sys::ggml_free(context.as_ptr()) };
            return Err(error.into());
        }
        // SAFETY: the context holds only unallocated tensors; the buffer type is the backend's.
        let buffer = unsafe {
            sys::ggml_backend_alloc_ctx_tensors_from_buft(
                context.as_ptr(),
                backend.device_buffer_type(),
            )
        };
        let Some(buffer) = NonNull::new(buffer) else {
            // SAFETY: made above, freed once.
            unsafe { sys::ggml_free(context.as_ptr()) };
            return Err(BackendError::OutOfMemory { what, bytes }.into());
        };
        // SAFETY: a live buffer. Attention may look at rows not written yet; zeros are harmless.
        unsafe { sys::ggml_backend_buffer_clear(buffer.as_ptr(), 0) };
        Ok(Self {
            context,
            buffer: Some(buffer),
            tensors,
            owner,
            bytes,
            _map: None,
        })
    }

    fn over(map: &Arc<GuardedMap>, wanted: &[(Placement, usize)]) -> Result<Self, StorageError> {
        let placements: Vec<_> = wanted.iter().map(|(p, _)| p.clone()).collect();
        let bytes = total(&placements)?;
        for (placement, start) in wanted {
            let size = placement.bytes().unwrap_or(usize::MAX);
            let fits = start.checked_add(size).is_some_and(|end| end <= map.len());
            if !fits || !start.is_multiple_of(ALIGNMENT) {
                return Err(StorageError::Outside {
                    start: *start,
                    bytes: size,
                    map: map.len(),
                });
            }
        }
        let context = new_context(placements.len())?;
        let owner = next_owner();
        let tensors = make_tensors(context, owner, &placements);
        // SAFETY: a map starts at a page, and the `Arc` kept below holds it longer than the buffer.
        // It is read-only memory: the pointer is `*mut` for C alone. `Tensors` are written by
        // `write`, which `State` and `Weights::copied` call on tensors that `zeroed` made, and by
        // graphs, which write what `Graph::state` lent; only `Weights` are made here.
        let buffer =
            unsafe { sys::ggml_backend_cpu_buffer_from_ptr(map.as_ptr() as *mut _, map.len()) };
        let Some(buffer) = NonNull::new(buffer) else {
            // SAFETY: made above, freed once.
            unsafe { sys::ggml_free(context.as_ptr()) };
            // The tensors' bytes are there already: this is a header of ggml's.
            let (what, bytes) = ("the header of a mapped buffer", size_of::<usize>());
            return Err(BackendError::OutOfMemory { what, bytes }.into());
        };
        // SAFETY: a live buffer and tensors; every start and end was checked to lie in the map.
        unsafe {
            sys::ggml_backend_buffer_set_usage(
                buffer.as_ptr(),
                sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS,
            );
            for (tensor, (_, start)) in tensors.iter().zip(wanted) {
                let address = map.as_ptr().add(*start) as *mut _;
                sys::ggml_backend_tensor_alloc(buffer.as_ptr(), tensor.ptr.as_ptr(), address);
            }
        }
        Ok(Self {
            context,
            buffer: Some(buffer),
            tensors,
            owner,
            bytes,
            _map: Some(map.clone()),
        })
    }

    /// For [`State::write`] and [`Weights::copied`], who have it to themselves.
    fn write(&self, at: usize, bytes: &[u8]) -> Result<(), StorageError> {
        let tensor = self.tensors[at];
        let wanted = tensor_bytes(&tensor);
        if bytes.len() > wanted {
            let got = bytes.len();
            return Err(StorageError::Length { got, wanted });
        }
        if !bytes.is_empty() {
            // SAFETY: a live, allocated tensor of at least so many bytes.
            unsafe {
                let data = bytes.as_ptr().cast();
                sys::ggml_backend_tensor_set(tensor.ptr.as_ptr(), data, 0, bytes.len());
            }
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.tensors.len()
    }
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    pub(crate) fn tensor(&self, at: usize) -> Tensor {
        self.tensors[at]
    }

    /// The first `bytes` of tensor `at` (all of it, if it is shorter).
    pub fn read(&self, at: usize, bytes: usize) -> Vec<u8> {
        let tensor = self.tensors[at];
        let mut out = vec![0; bytes.min(tensor_bytes(&tensor))];
        if !out.is_empty() {
            // SAFETY: a live, allocated tensor of at least so many bytes.
            unsafe {
                let data = out.as_mut_ptr().cast();
                sys::ggml_backend_tensor_get(tensor.ptr.as_ptr(), data, 0, out.len());
            }
        }
        out
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: both made by a constructor, freed once, the buffer before the map it may cover
        // (fields are dropped after this).
        unsafe {
            if let Some(buffer) = self.buffer {
                sys::ggml_backend_buffer_free(buffer.as_ptr());
            }
            sys::ggml_free(self.context.as_ptr());
        }
    }
}

fn has_no_nan(floats: &[u8]) -> bool {
    let (floats, _) = floats.as_chunks();
    !floats.iter().any(|&x| f32::from_ne_bytes(x).is_nan())
}

fn tensor_bytes(tensor: &Tensor) -> usize {
    tensor.rows() * tensor.ty.row_bytes(tensor.ne[0]).unwrap_or(0)
}

fn total(wanted: &[Placement]) -> Result<usize, StorageError> {
    wanted.iter().try_fold(0usize, |sum, p| {
        let bytes = p.bytes().filter(|&b| b > 0);
        let sum = bytes.and_then(|b| sum.checked_add(b));
        sum.filter(|&s| s <= isize::MAX as usize)
            .ok_or(StorageError::Shape { ne: p.ne, ty: p.ty })
    })
}

fn new_context(tensors: usize) -> Result<NonNull<sys::ggml_context>, BackendError> {
    // SAFETY: a context without data; room for every tensor that will be made in it.
    let (context, bytes) = unsafe {
        let bytes = (tensors + 1) * sys::ggml_tensor_overhead();
        let params = sys::ggml_init_params {
            mem_size: bytes,
            mem_buffer: ptr::null_mut(),
            no_alloc: true,
        };
        (sys::ggml_init(params), bytes)
    };
    let what = "tensor headers";
    NonNull::new(context).ok_or(BackendError::OutOfMemory { what, bytes })
}

fn make_tensors(
    context: NonNull<sys::ggml_context>,
    owner: u64,
    wanted: &[Placement],
) -> Vec<Tensor> {
    let make = |p: &Placement| {
        let ne = p.ne.map(|n| n as i64);
        // SAFETY: the context has room for every tensor; the sizes were checked by `total`.
        unsafe {
            let raw = sys::ggml_new_tensor(context.as_ptr(), p.ty.id() as _, 4, ne.as_ptr());
            if let Ok(name) = CString::new(p.name.as_str()) {
                sys::ggml_set_name(raw, name.as_ptr());
            }
            Tensor::from_raw(NonNull::new_unchecked(raw), owner, false, p.ty)
        }
    };
    wanted.iter().map(make).collect()
}
