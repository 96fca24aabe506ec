//! Devices and the scheduler that runs graphs on them. Owns ggml's backends; knows no model.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};

use ggml_sys as sys;

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
    #[error("computing the graph failed: {}", status_text(*.0))]
    Compute(i32),
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
    /// The device first, the CPU last; one entry when the device is the CPU.
    backends: Vec<NonNull<sys::ggml_backend>>,
    /// `None` after a pass that found no memory, until the next one.
    sched: Option<NonNull<sys::ggml_backend_sched>>,
    name: String,
}

// SAFETY: ggml's backends and scheduler hold no thread-local state; `&mut self` serialises use.
unsafe impl Send for Backend {}

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
            backends,
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
        let mut raw: Vec<_> = self.backends.iter().map(|b| b.as_ptr()).collect();
        // SAFETY: `raw` holds live backends, the CPU last as ggml wants; null buffer types mean
        // each backend's own.
        let sched = unsafe {
            sys::ggml_backend_sched_new(
                raw.as_mut_ptr(),
                ptr::null_mut(),
                raw.len() as i32,
                MAX_NODES,
                false,
                true,
            )
        };
        self.sched = NonNull::new(sched);
        let failed = || BackendError::Start("scheduler".into());
        self.sched.ok_or_else(failed)
    }

    /// Why a graph found no place: how much it wanted. Gives the scheduler up, for ggml's allocator
    /// takes the plan of the buffers that it could not get for theirs when the next graph of the same
    /// sizes comes.
    ///
    /// # Safety
    /// `graph` is live, of at most [`MAX_NODES`] tensors, and was not computed.
    pub(crate) unsafe fn out_of_memory(&mut self, graph: *mut sys::ggml_cgraph) -> BackendError {
        let mut sizes = vec![0; self.backends.len()];
        if let Some(sched) = self.sched.take() {
            // SAFETY: a live scheduler of so many backends, freed once; it measures the graph
            // without allocating.
            unsafe {
                sys::ggml_backend_sched_reserve_size(sched.as_ptr(), graph, sizes.as_mut_ptr());
                sys::ggml_backend_sched_free(sched.as_ptr());
            }
        }
        BackendError::OutOfMemory {
            what: "the buffers of a pass",
            bytes: sizes.iter().sum(),
        }
    }

    /// The device's name, as the registry has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_cpu(&self) -> bool {
        self.backends.len() == 1
    }

    /// Where tensors that this device computes on are kept.
    pub(crate) fn device_buffer_type(&self) -> sys::ggml_backend_buffer_type_t {
        // SAFETY: the first backend is alive as long as `self`.
        unsafe { sys::ggml_backend_get_default_buffer_type(self.backends[0].as_ptr()) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(sched) = self.sched {
            // SAFETY: made by `scheduler`, freed once, before the backends it uses.
            unsafe { sys::ggml_backend_sched_free(sched.as_ptr()) };
        }
        free_all(&self.backends);
    }
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
