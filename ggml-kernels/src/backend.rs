//! Devices and the scheduler that runs graphs on them. Owns ggml's backends; knows no model.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ggml_sys as sys;

use crate::storage::Placement;

/// Tensors that one graph may name. 48B's 27 layers take about 2,500; models of more than 90 layers
/// are refused by `GraphError::TooLarge`.
pub const MAX_NODES: usize = 16_384;

/// What to run on. The registry knows what this build and this machine have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The first GPU there is, else the CPU.
    Auto,
    Cpu,
    /// The first GPU of this kind.
    Gpu(GpuApi),
}

/// What a GPU is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuApi {
    Cuda,
    Metal,
    Vulkan,
}

impl GpuApi {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            GpuApi::Cuda => "CUDA",
            GpuApi::Metal => "Metal",
            GpuApi::Vulkan => "Vulkan",
        }
    }

    /// ggml's name of the backend in its registry. A device's own name has a number behind it.
    fn registry(self) -> &'static str {
        match self {
            GpuApi::Cuda => "CUDA",
            GpuApi::Metal => "MTL",
            GpuApi::Vulkan => "Vulkan",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("no {wanted} device: this build and machine have {have}")]
    NoDevice { wanted: &'static str, have: String },
    #[error("the {0} backend could not be started")]
    Start(String),
    #[error("{what}: {bytes} bytes could not be allocated")]
    OutOfMemory { what: &'static str, bytes: usize },
    #[error("{what}: wanted {wanted} bytes of the device's memory, {free} are free")]
    NoRoom {
        what: &'static str,
        wanted: usize,
        free: usize,
    },
    #[error("computing the graph failed: {}", status_text(*.0))]
    Compute(i32),
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub free: usize,
    pub total: usize,
}

/// ggml's words for the outcome of a computation.
fn status_text(status: i32) -> &'static str {
    match status {
        sys::GGML_STATUS_ALLOC_FAILED => "memory ran out on the way",
        sys::GGML_STATUS_ABORTED => "it was aborted",
        _ => "the backend reports an error",
    }
}

/// A device with the CPU behind it, and the scheduler that splits a graph over the two.
#[derive(Debug)]
pub struct Backend {
    devices: Arc<Devices>,
    /// `None` after a pass that found no memory, until the next one.
    sched: Option<NonNull<sys::ggml_backend_sched>>,
    name: String,
}

// SAFETY: ggml's scheduler holds no thread-local state; `&mut self` serialises use.
unsafe impl Send for Backend {}

/// ggml's backends, alive as long as anything is placed on them: the device first, the CPU last; one
/// entry when the device is the CPU.
#[derive(Debug)]
pub(crate) struct Devices(Vec<NonNull<sys::ggml_backend>>);

// SAFETY: ggml's backends hold no thread-local state; whoever uses them has a `&mut Backend`.
unsafe impl Send for Devices {}
// SAFETY: as above.
unsafe impl Sync for Devices {}

impl Drop for Devices {
    fn drop(&mut self) {
        free_all(&self.0);
    }
}

impl Backend {
    /// Opens `kind` with `threads` CPU threads.
    pub fn open(kind: DeviceKind, threads: usize) -> Result<Self, BackendError> {
        route_logs();
        let gpu = match kind {
            DeviceKind::Cpu => None,
            DeviceKind::Auto => devices().find(|d| d.gpu),
            DeviceKind::Gpu(api) => {
                let found = devices().find(|d| d.gpu && d.registry == api.registry());
                Some(found.ok_or_else(|| BackendError::NoDevice {
                    wanted: api.name(),
                    have: device_names(),
                })?)
            }
        };
        let cpu = devices()
            .find(|d| d.cpu)
            .ok_or_else(|| BackendError::NoDevice {
                wanted: "CPU",
                have: device_names(),
            })?;
        let name = gpu.as_ref().unwrap_or(&cpu).name.clone();
        let mut backends = Vec::new();
        for device in gpu.into_iter().chain([cpu]) {
            // SAFETY: the device comes from the registry; a null parameter string is allowed.
            let backend = unsafe { sys::ggml_backend_dev_init(device.handle, ptr::null()) };
            match NonNull::new(backend) {
                Some(backend) => backends.push(backend),
                None => {
                    free_all(&backends);
                    return Err(BackendError::Start(device.name));
                }
            }
        }
        set_threads(backends[backends.len() - 1], threads.clamp(1, 512));
        let mut backend = Self {
            devices: Arc::new(Devices(backends)),
            sched: None,
            name,
        };
        backend.scheduler()?;
        Ok(backend)
    }

    /// The scheduler, made anew where there is none.
    pub(crate) fn scheduler(&mut self) -> Result<NonNull<sys::ggml_backend_sched>, BackendError> {
        if let Some(sched) = self.sched {
            return Ok(sched);
        }
        let sched = self.new_scheduler(MAX_NODES, None)?;
        self.sched = Some(sched);
        Ok(sched)
    }

    /// A scheduler of graphs of at most so many tensors, for the caller to free before the devices.
    /// `inputs`: the CPU's memory for them, if not what it takes by itself.
    pub(crate) fn new_scheduler(
        &self,
        tensors: usize,
        inputs: Option<sys::ggml_backend_buffer_type_t>,
    ) -> Result<NonNull<sys::ggml_backend_sched>, BackendError> {
        let mut raw: Vec<_> = self.devices.0.iter().map(|b| b.as_ptr()).collect();
        let mut places: Vec<_> = self.devices.0.iter().map(|b| default_place(*b)).collect();
        // Inputs lie with the CPU.
        if let (Some(last), Some(inputs)) = (places.last_mut(), inputs) {
            *last = inputs;
        }
        // SAFETY: `raw` holds live backends, the CPU last as ggml wants, and `places` a kind of
        // memory for each that it computes on.
        let sched = unsafe {
            sys::ggml_backend_sched_new(
                raw.as_mut_ptr(),
                places.as_mut_ptr(),
                raw.len() as i32,
                tensors,
                false,
                true,
            )
        };
        NonNull::new(sched).ok_or_else(|| BackendError::Start("scheduler".into()))
    }

    /// Why a graph found no place: how much it wanted. Gives the scheduler up, for ggml's allocator
    /// takes the plan of the buffers that it could not get for theirs when the next graph of the same
    /// sizes comes.
    ///
    /// # Safety
    /// `graph` is live, of at most [`MAX_NODES`] tensors, and was not computed.
    pub(crate) unsafe fn out_of_memory(&mut self, graph: *mut sys::ggml_cgraph) -> BackendError {
        let what = "the buffers of a pass";
        let Some(sched) = self.sched.take() else {
            return BackendError::OutOfMemory { what, bytes: 0 };
        };
        // SAFETY: as the caller says; the scheduler is freed once.
        unsafe {
            let error = self.too_large(sched, graph);
            sys::ggml_backend_sched_free(sched.as_ptr());
            error
        }
    }

    /// How much a graph wants that `sched` has no place for.
    ///
    /// # Safety
    /// `sched` is live, with room for the tensors of `graph`, which is live and was not computed.
    pub(crate) unsafe fn too_large(
        &self,
        sched: NonNull<sys::ggml_backend_sched>,
        graph: *mut sys::ggml_cgraph,
    ) -> BackendError {
        // SAFETY: as the caller says.
        let sizes = unsafe { self.measure(sched, graph) };
        BackendError::OutOfMemory {
            what: "the buffers of a pass",
            bytes: sizes.iter().sum(),
        }
    }

    /// Bytes that a graph wants of each of the devices.
    ///
    /// # Safety
    /// As [`Backend::too_large`].
    pub(crate) unsafe fn measure(
        &self,
        sched: NonNull<sys::ggml_backend_sched>,
        graph: *mut sys::ggml_cgraph,
    ) -> Vec<usize> {
        let mut sizes = vec![0; self.devices.0.len()];
        // SAFETY: a live scheduler of so many backends; it measures without allocating.
        unsafe {
            sys::ggml_backend_sched_reserve_size(sched.as_ptr(), graph, sizes.as_mut_ptr());
        }
        sizes
    }

    /// The device's name, as the registry has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_cpu(&self) -> bool {
        self.devices.0.len() == 1
    }

    /// Memory of the host that the device can fetch from and write to by itself. Dear to get: for what
    /// stays.
    pub(crate) fn pinned_buffer_type(&self) -> Option<sys::ggml_backend_buffer_type_t> {
        if self.is_cpu() {
            return None;
        }
        // SAFETY: the backend is alive; a device without such memory says null.
        let place = unsafe {
            let device = sys::ggml_backend_get_device(self.devices.0[0].as_ptr());
            sys::ggml_backend_dev_host_buffer_type(device)
        };
        (!place.is_null()).then_some(place)
    }

    /// Whether the device itself can read rows of such a tensor.
    pub fn reads_rows_of(&self, placement: &Placement) -> bool {
        let params = sys::ggml_init_params {
            // SAFETY: a constant of ggml's.
            mem_size: 4 * unsafe { sys::ggml_tensor_overhead() },
            mem_buffer: ptr::null_mut(),
            no_alloc: true,
        };
        let ne = placement.ne.map(|n| n as i64);
        if placement.bytes().is_none() || placement.ne[2..] != [1, 1] {
            return false;
        }
        // SAFETY: a context with room for three tensors without data, freed here; the sizes were
        // checked, and the device is alive and asked about a complete operator.
        unsafe {
            let Some(context) = NonNull::new(sys::ggml_init(params)) else {
                return false;
            };
            let context = context.as_ptr();
            let rows = sys::ggml_new_tensor(context, placement.ty.id() as _, 4, ne.as_ptr());
            let ids = sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_I32, 1);
            let op = sys::ggml_get_rows(context, rows, ids);
            let yes = sys::ggml_backend_supports_op(self.devices.0[0].as_ptr(), op);
            sys::ggml_free(context);
            yes
        }
    }

    /// Bytes of the device that are free and that it has, where it is a device of its own.
    pub fn memory(&self) -> Option<Memory> {
        if self.is_cpu() {
            return None;
        }
        let (mut free, mut total) = (0, 0);
        // SAFETY: the backend is alive; its device lives for the process.
        unsafe {
            let device = sys::ggml_backend_get_device(self.devices.0[0].as_ptr());
            sys::ggml_backend_dev_memory(device, &mut free, &mut total);
        }
        Some(Memory { free, total })
    }

    /// Refuses what will not fit, before ggml tries.
    pub(crate) fn check_room(&self, what: &'static str, wanted: usize) -> Result<(), BackendError> {
        match self.memory() {
            // Devices that cannot tell say nothing of either.
            Some(Memory { free, total }) if total > 0 && wanted > free => {
                Err(BackendError::NoRoom { what, wanted, free })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn devices(&self) -> &Arc<Devices> {
        &self.devices
    }

    /// Where tensors that this device computes on are kept.
    pub(crate) fn device_buffer_type(&self) -> sys::ggml_backend_buffer_type_t {
        default_place(self.devices.0[0])
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(sched) = self.sched {
            // SAFETY: made by `scheduler`, freed once, before the backends it uses.
            unsafe { sys::ggml_backend_sched_free(sched.as_ptr()) };
        }
    }
}

/// Where a backend keeps tensors by itself.
fn default_place(backend: NonNull<sys::ggml_backend>) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: callers hold the backend alive.
    unsafe { sys::ggml_backend_get_default_buffer_type(backend.as_ptr()) }
}

fn free_all(backends: &[NonNull<sys::ggml_backend>]) {
    for backend in backends {
        // SAFETY: each was made by `ggml_backend_dev_init` and is freed once.
        unsafe { sys::ggml_backend_free(backend.as_ptr()) };
    }
}

struct DeviceEntry {
    handle: sys::ggml_backend_dev_t,
    name: String,
    /// The name of its backend.
    registry: String,
    gpu: bool,
    cpu: bool,
}

fn devices() -> impl Iterator<Item = DeviceEntry> {
    // SAFETY: the registry is initialised on first use and lives for the process.
    let count = unsafe { sys::ggml_backend_dev_count() };
    (0..count).map(|at| {
        // SAFETY: `at` is below the registry's count; every device has a backend, and both have
        // names that live for the process.
        let (handle, name, registry, kind) = unsafe {
            let handle = sys::ggml_backend_dev_get(at);
            let name = CStr::from_ptr(sys::ggml_backend_dev_name(handle));
            let registry = sys::ggml_backend_reg_name(sys::ggml_backend_dev_backend_reg(handle));
            let registry = CStr::from_ptr(registry);
            (handle, name, registry, sys::ggml_backend_dev_type(handle))
        };
        DeviceEntry {
            handle,
            name: name.to_string_lossy().into_owned(),
            registry: registry.to_string_lossy().into_owned(),
            gpu: kind == sys::GGML_BACKEND_DEVICE_TYPE_GPU
                || kind == sys::GGML_BACKEND_DEVICE_TYPE_IGPU,
            cpu: kind == sys::GGML_BACKEND_DEVICE_TYPE_CPU,
        }
    })
}

fn device_names() -> String {
    let names: Vec<_> = devices().map(|d| d.name).collect();
    names.join(", ")
}

fn set_threads(backend: NonNull<sys::ggml_backend>, threads: usize) {
    type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, i32);
    // SAFETY: the backend is alive; its device and registry live for the process.
    let set = unsafe {
        let device = sys::ggml_backend_get_device(backend.as_ptr());
        let registry = sys::ggml_backend_dev_backend_reg(device);
        sys::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_set_n_threads".as_ptr())
    };
    if !set.is_null() {
        // SAFETY: ggml documents this name's type as `ggml_backend_set_n_threads_t`.
        let set: SetThreads = unsafe { std::mem::transmute::<*mut c_void, SetThreads>(set) };
        // SAFETY: the backend is alive and of the registry that gave the function.
        unsafe { set(backend.as_ptr(), threads as i32) };
    }
}

/// ggml's messages go where ours go.
pub(crate) fn route_logs() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the callback is a static function and takes no user data. The library holds
        // llama.cpp too, with a log of its own.
        unsafe {
            sys::ggml_log_set(Some(log_line), ptr::null_mut());
            sys::llama_log_set(Some(log_line), ptr::null_mut());
        }
    });
}

unsafe extern "C" fn log_line(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a terminated string that lives for this call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim_end();
    if text.is_empty() {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => log::error!(target: "ggml", "{text}"),
        sys::GGML_LOG_LEVEL_WARN => log::warn!(target: "ggml", "{text}"),
        _ => log::debug!(target: "ggml", "{text}"),
    }
}
