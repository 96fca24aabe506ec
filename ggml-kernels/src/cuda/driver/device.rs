//! The card: opened once, with the kernels that belong to this program.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUdevice_attribute, CUfunction, CUfunction_attribute, CUmodule,
    CUresult,
};

use super::error::check;
use super::{Buffer, CudaError, Plain, Stream, kernels};

/// Everything of the driver's that is called here: a driver that lacks one is refused when it is
/// opened, since the bindings can only panic.
const FUNCTIONS: [&CStr; 39] = [
    c"cuInit",
    c"cuDriverGetVersion",
    c"cuGetErrorName",
    c"cuGetErrorString",
    c"cuDeviceGetCount",
    c"cuDeviceGet",
    c"cuDeviceGetName",
    c"cuDeviceGetAttribute",
    c"cuDevicePrimaryCtxRetain",
    c"cuDevicePrimaryCtxRelease_v2",
    c"cuCtxSetCurrent",
    c"cuMemGetInfo_v2",
    c"cuMemAlloc_v2",
    c"cuMemFree_v2",
    c"cuMemAllocHost_v2",
    c"cuMemFreeHost",
    c"cuMemcpyHtoDAsync_v2",
    c"cuMemcpyDtoHAsync_v2",
    c"cuMemcpyDtoDAsync_v2",
    c"cuMemsetD8Async",
    c"cuModuleLoadData",
    c"cuModuleUnload",
    c"cuModuleGetFunction",
    c"cuModuleGetGlobal_v2",
    c"cuFuncSetAttribute",
    c"cuLaunchKernelEx",
    c"cuStreamCreate",
    c"cuStreamDestroy_v2",
    c"cuStreamSynchronize",
    c"cuStreamBeginCapture_v2",
    c"cuStreamEndCapture",
    c"cuGraphInstantiateWithFlags",
    c"cuGraphLaunch",
    c"cuGraphDestroy",
    c"cuGraphExecDestroy",
    c"cuEventCreate",
    c"cuEventDestroy_v2",
    c"cuEventRecord",
    c"cuEventElapsedTime",
];

/// A card, with the kernels loaded. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Device(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: CUdevice,
    context: CUcontext,
    /// Null while the kernels are not loaded.
    module: CUmodule,
    name: String,
    facts: Facts,
    kernels: Mutex<HashMap<&'static str, Function>>,
}

// SAFETY: the driver's handles may be used by any thread whose current context is theirs, and
// every call here is made after `enter`; the driver itself locks.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

#[derive(Debug, Clone, Copy)]
struct Facts {
    multiprocessors: u32,
    compute: (u32, u32),
    /// Bytes of shared memory that a block may ask for.
    shared: u32,
}

/// Memory of the card, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub free: u64,
    pub total: u64,
}

/// A kernel of the file, by name.
#[derive(Debug, Clone)]
pub struct Kernel {
    pub(super) name: &'static str,
    /// Whose module stays loaded meanwhile.
    device: Device,
    function: Function,
}

#[derive(Debug, Clone)]
struct Function {
    raw: CUfunction,
    /// Bytes of dynamic shared memory that it may have.
    shared: Arc<AtomicU32>,
}

// SAFETY: a handle, used as `Inner`'s are.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Device {
    /// Opens card number `index` with the kernels of the file `kernels`, which must be of this
    /// program's build.
    pub fn open(index: usize, kernels: &Path) -> Result<Device, CudaError> {
        let device = Self::bare(index)?;
        let image = kernels::read(kernels)?;
        device.with_kernels(kernels, &image)
    }

    /// What card number `index` is called. Takes nothing of it: neither memory nor kernels.
    pub fn name_of(index: usize) -> Result<String, CudaError> {
        name(card(index)?)
    }

    /// The card without kernels.
    fn bare(index: usize) -> Result<Inner, CudaError> {
        let device = card(index)?;
        let facts = Facts::of(device)?;
        let name = name(device)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: `context` may be written; `device` is a card. Released when `Inner` drops.
        let answer = unsafe { sys::cuDevicePrimaryCtxRetain(&mut context, device) };
        check(answer, || format!("making a context on {name}"))?;
        Ok(Inner {
            device,
            context,
            module: std::ptr::null_mut(),
            name,
            facts,
            kernels: Mutex::default(),
        })
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn multiprocessors(&self) -> u32 {
        self.0.facts.multiprocessors
    }

    /// What it can do, such as (9, 0).
    pub fn compute(&self) -> (u32, u32) {
        self.0.facts.compute
    }

    /// Bytes of shared memory that a block may have.
    pub fn shared_memory(&self) -> u32 {
        self.0.facts.shared
    }

    pub fn memory(&self) -> Result<Memory, CudaError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both may be written; the context is current.
        let answer = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
        check(answer, || "asking for the card's memory".into())?;
        Ok(Memory {
            free: free as u64,
            total: total as u64,
        })
    }

    pub fn stream(&self) -> Result<Stream, CudaError> {
        Stream::new(self)
    }

    /// Memory of the card, all zeros.
    pub fn zeroed<T: Plain>(&self, len: usize) -> Result<Buffer<T>, CudaError> {
        Buffer::zeroed(self, len)
    }

    /// A copy of `values` on the card.
    pub fn upload<T: Plain>(&self, values: &[T]) -> Result<Buffer<T>, CudaError> {
        Buffer::holding(self, values)
    }

    /// A kernel of the file.
    pub fn kernel(&self, name: &'static str) -> Result<Kernel, CudaError> {
        let mut kernels = self.0.kernels.lock().unwrap_or_else(|e| e.into_inner());
        let function = match kernels.get(name) {
            Some(function) => function.clone(),
            None => {
                let function = self.find(name)?;
                kernels.insert(name, function.clone());
                function
            }
        };
        Ok(Kernel {
            name,
            device: self.clone(),
            function,
        })
    }

    fn find(&self, name: &'static str) -> Result<Function, CudaError> {
        self.enter()?;
        let text = CString::new(name).map_err(|_| CudaError::NoKernel(name))?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` may be written, the module is loaded, the text ends with a zero.
        let answer = unsafe { sys::cuModuleGetFunction(&mut raw, self.0.module, text.as_ptr()) };
        if answer == CUresult::CUDA_ERROR_NOT_FOUND {
            return Err(CudaError::NoKernel(name));
        }
        check(answer, || format!("finding the kernel {name}"))?;
        Ok(Function {
            raw,
            shared: Arc::new(AtomicU32::new(0)),
        })
    }

    /// Makes this thread's calls this device's.
    pub(super) fn enter(&self) -> Result<(), CudaError> {
        self.0.enter()
    }

    pub(super) fn is(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Kernel {
    /// The function to launch on `device` with so much dynamic shared memory.
    pub(super) fn ready(&self, device: &Device, shared: u32) -> Result<CUfunction, CudaError> {
        if !self.device.is(device) {
            let (got, wanted) = (self.device.name(), device.name());
            return Err(CudaError::refused(self.name, "its device", got, wanted));
        }
        if shared <= self.function.shared.load(Ordering::Relaxed) {
            return Ok(self.function.raw);
        }
        let limit = device.shared_memory();
        if shared > limit {
            let what = "bytes of shared memory";
            let wanted = format!("at most {limit} on {}", device.name());
            return Err(CudaError::refused(self.name, what, shared, wanted));
        }
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: a function of a loaded module, whose context is current.
        let answer =
            unsafe { sys::cuFuncSetAttribute(self.function.raw, attribute, shared as i32) };
        check(answer, || {
            format!("giving {} {shared} bytes of shared memory", self.name)
        })?;
        self.function.shared.fetch_max(shared, Ordering::Relaxed);
        Ok(self.function.raw)
    }
}

impl Inner {
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained until `self` drops.
        let answer = unsafe { sys::cuCtxSetCurrent(self.context) };
        check(answer, || format!("turning to {}", self.name))
    }

    /// The same with the kernels of `image`, which lay in `path`.
    fn with_kernels(mut self, path: &Path, image: &[u8]) -> Result<Device, CudaError> {
        self.enter()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: `module` may be written; the image ends with a zero (`kernels::read`).
        let answer = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        check(answer, || {
            format!("loading the kernels of {} on {}", path.display(), self.name)
        })?;
        self.module = module;
        let device = Device(Arc::new(self));
        kernels::check_id(path, &device.text(kernels::ID_NAME)?)?;
        Ok(device)
    }
}

impl Device {
    /// A text of the kernels' file; empty where there is none of that name.
    fn text(&self, name: &CStr) -> Result<Vec<u8>, CudaError> {
        let (mut address, mut bytes) = (0, 0);
        // SAFETY: both may be written, the module is loaded, its context current.
        let answer = unsafe {
            sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, self.0.module, name.as_ptr())
        };
        if answer == CUresult::CUDA_ERROR_NOT_FOUND {
            return Ok(Vec::new());
        }
        check(answer, || format!("finding {name:?}"))?;
        super::memory::fetch(self, address, bytes)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        if !self.module.is_null() {
            // SAFETY: loaded here, and whoever could launch from it holds the device.
            let _ = unsafe { sys::cuModuleUnload(self.module) };
        }
        // SAFETY: retained once in `bare`.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// Opens the driver, which must have all that is called here.
fn start_driver() -> Result<(), CudaError> {
    // SAFETY: loads a library by name and drops it; NVIDIA's may be loaded at any time.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    // SAFETY: it is there, as was just seen.
    let library = unsafe { sys::culib() };
    for name in FUNCTIONS {
        // SAFETY: looked up, never called through this type.
        if unsafe { library.get::<unsafe extern "C" fn()>(name.to_bytes_with_nul()) }.is_err() {
            return Err(CudaError::NoFunction(name.to_str().unwrap_or_default()));
        }
    }
    let mut version = 0;
    // SAFETY: `version` may be written; allowed before initialization.
    let answer = unsafe { sys::cuDriverGetVersion(&mut version) };
    check(answer, || "asking for the driver's version".into())?;
    if version < 12_000 {
        return Err(CudaError::OldDriver { got: version });
    }
    // SAFETY: takes no memory of ours; may be called any number of times.
    let answer = unsafe { sys::cuInit(0) };
    if answer == CUresult::CUDA_ERROR_NO_DEVICE {
        return Err(CudaError::NoDevice { index: 0, count: 0 });
    }
    check(answer, || "starting the NVIDIA driver".into())
}

/// Card number `index` of the driver's, which is opened for it.
fn card(index: usize) -> Result<CUdevice, CudaError> {
    start_driver()?;
    let mut count = 0;
    // SAFETY: `count` may be written; the driver is initialized.
    let answer = unsafe { sys::cuDeviceGetCount(&mut count) };
    check(answer, || "counting the cards".into())?;
    let count = usize::try_from(count).unwrap_or(0);
    if index >= count {
        return Err(CudaError::NoDevice { index, count });
    }
    let mut device = 0;
    // SAFETY: `device` may be written; `index` is below the count.
    let answer = unsafe { sys::cuDeviceGet(&mut device, index as i32) };
    check(answer, || format!("finding card {index}"))?;
    Ok(device)
}

fn name(device: CUdevice) -> Result<String, CudaError> {
    let mut text = [0u8; 128];
    // SAFETY: so many bytes may be written, of which the last stays zero.
    let answer =
        unsafe { sys::cuDeviceGetName(text.as_mut_ptr().cast(), text.len() as i32 - 1, device) };
    check(answer, || "asking for the card's name".into())?;
    let text = CStr::from_bytes_until_nul(&text).unwrap_or_default();
    Ok(text.to_string_lossy().into_owned())
}

impl Facts {
    fn of(device: CUdevice) -> Result<Facts, CudaError> {
        use CUdevice_attribute::*;
        let ask = |attribute| {
            let mut value = 0;
            // SAFETY: `value` may be written; `device` is a card.
            let answer = unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) };
            check(answer, || "asking for the card's attributes".into())?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        Ok(Facts {
            multiprocessors: ask(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            compute: (
                ask(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                ask(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            shared: ask(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        })
    }
}
