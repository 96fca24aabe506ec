//! Copies and launches, one after the other on the card while the host goes on.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use cudarc::driver::sys::{
    self, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchAttributeValue, CUlaunchConfig, CUstream,
};

use super::clock::{Clock, Took};
use super::error::check;
use super::memory::{Locked, same_len};
use super::{CudaError, Device, Kernel, Part, Pinned, Plain};

/// A queue of work for the card.
#[derive(Debug)]
pub struct Stream {
    device: Device,
    pub(super) raw: CUstream,
    /// Host memory that copies under way read or write.
    pub(super) held: Mutex<Vec<Arc<Locked>>>,
    clock: Mutex<Option<Clock>>,
}

// SAFETY: a handle, used after `enter` only; the driver itself locks.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

/// What a kernel may do before the one before it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// Nothing.
    Alone,
    /// Begin, where the card can: up to its `depend()`.
    WithPrevious,
}

/// What waits for nobody, and nobody for it (`CU_STREAM_NON_BLOCKING`).
const NON_BLOCKING: u32 = 1;

impl Stream {
    pub(super) fn new(device: &Device) -> Result<Stream, CudaError> {
        device.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` may be written; the context is current. Destroyed when it drops.
        let answer = unsafe { sys::cuStreamCreate(&mut raw, NON_BLOCKING) };
        check(answer, || "making a stream".into())?;
        Ok(Stream {
            device: device.clone(),
            raw,
            held: Mutex::default(),
            clock: Mutex::default(),
        })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits until everything is done, and says whether it was.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.device.enter()?;
        // SAFETY: a stream of ours.
        let answer = unsafe { sys::cuStreamSynchronize(self.raw) };
        check(answer, || "what was running on the card".into())?;
        lock(&self.held).clear();
        Ok(())
    }

    /// Copies the values of `range` to the card.
    pub fn copy_in<T: Plain>(
        &self,
        from: &Pinned<T>,
        range: Range<usize>,
        to: Part<'_, T>,
    ) -> Result<(), CudaError> {
        from.check(&range)?;
        same_len(range.len(), to.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.enter(&to)?;
        let source = from.place(range.start) as *const c_void;
        // SAFETY: both have so many bytes; the host's are held until the stream is through.
        let answer =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to.address(), source, to.bytes(), self.raw) };
        check(answer, || {
            format!("copying {} bytes to the card", to.bytes())
        })?;
        lock(&self.held).push(from.held.clone());
        Ok(())
    }

    /// Copies values of the card to the place `at`. They are there after [`Stream::synchronize`].
    pub fn copy_out<T: Plain>(
        &self,
        from: Part<'_, T>,
        to: &Pinned<T>,
        at: usize,
    ) -> Result<(), CudaError> {
        to.check(&(at..at.saturating_add(from.len())))?;
        if from.is_empty() {
            return Ok(());
        }
        self.enter(&from)?;
        let target = to.place(at) as *mut c_void;
        // SAFETY: as in `copy_in`; nobody has a reference to pinned memory.
        let answer =
            unsafe { sys::cuMemcpyDtoHAsync_v2(target, from.address(), from.bytes(), self.raw) };
        check(answer, || {
            format!("copying {} bytes from the card", from.bytes())
        })?;
        lock(&self.held).push(to.held.clone());
        Ok(())
    }

    /// Copies values on the card. The two must not overlap.
    pub fn copy<T: Plain>(&self, from: Part<'_, T>, to: Part<'_, T>) -> Result<(), CudaError> {
        same_len(from.len(), to.len())?;
        if from.is_empty() {
            return Ok(());
        }
        let bytes = from.bytes() as u64;
        if from.address() < to.address() + bytes && to.address() < from.address() + bytes {
            let (got, wanted) = ("the same memory", "two places");
            return Err(CudaError::refused("a copy on the card", "it", got, wanted));
        }
        self.enter(&from)?;
        self.enter(&to)?;
        // SAFETY: both have so many bytes and do not overlap.
        let answer = unsafe {
            sys::cuMemcpyDtoDAsync_v2(to.address(), from.address(), from.bytes(), self.raw)
        };
        check(answer, || format!("copying {bytes} bytes on the card"))
    }

    /// Makes them zeros.
    pub fn clear<T: Plain>(&self, part: Part<'_, T>) -> Result<(), CudaError> {
        if part.is_empty() {
            return Ok(());
        }
        self.enter(&part)?;
        // SAFETY: it has so many bytes, and zeros are values.
        let answer = unsafe { sys::cuMemsetD8Async(part.address(), 0, part.bytes(), self.raw) };
        check(answer, || {
            format!("clearing {} bytes of the card", part.bytes())
        })
    }

    fn enter<T>(&self, part: &Part<'_, T>) -> Result<(), CudaError> {
        if !self.device.is(part.device) {
            let (got, wanted) = (part.device.name(), self.device.name());
            return Err(CudaError::refused(
                "a stream",
                "memory's device",
                got,
                wanted,
            ));
        }
        self.device.enter()
    }

    /// Runs a kernel on `grid` blocks of `threads`, each with `shared` bytes of dynamic shared
    /// memory. A grid of no blocks is nothing to do.
    ///
    /// # Safety
    /// The kernel takes one `A`, and whatever it reads and writes through its addresses, by this
    /// grid, lies in memory of this device that is not freed before the stream is through (for a
    /// graph: while it is kept).
    pub(crate) unsafe fn launch<A: Plain>(
        &self,
        kernel: &Kernel,
        grid: [u32; 3],
        threads: u32,
        shared: u32,
        overlap: Overlap,
        args: &A,
    ) -> Result<(), CudaError> {
        const { assert!(size_of::<A>() <= 4096, "more than a launch takes") };
        if grid.contains(&0) {
            return Ok(());
        }
        self.device.enter()?;
        let function = kernel.ready(&self.device, shared)?;
        let mut clock = lock(&self.clock);
        // What overlaps cannot be told apart by time.
        let overlaps = overlap == Overlap::WithPrevious && clock.is_none();
        // Before sm_90 no kernel can wait for part of another, and the attribute is refused.
        let mut attributes = [with_previous()];
        let count = u32::from(overlaps && self.device.compute() >= (9, 0));
        let config = CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shared,
            hStream: self.raw,
            attrs: attributes.as_mut_ptr(),
            numAttrs: count,
        };
        let mut values = [std::ptr::from_ref(args) as *mut c_void];
        if let Some(clock) = &mut *clock {
            clock.begin(self)?;
        }
        // SAFETY: one argument of the type that the kernel takes, as promised; the driver copies it
        // before it returns. `config` and the attributes outlive the call.
        let answer = unsafe {
            sys::cuLaunchKernelEx(&config, function, values.as_mut_ptr(), std::ptr::null_mut())
        };
        check(answer, || {
            let name = kernel.name;
            format!("the kernel {name} ({grid:?} blocks of {threads}, {shared} bytes shared)")
        })?;
        match &mut *clock {
            Some(clock) => clock.end(self, kernel.name),
            None => Ok(()),
        }
    }

    /// Notes from here on what each kernel takes, until [`Stream::took`]. Kernels run one by one
    /// meanwhile; those of graphs are not seen.
    pub fn time(&self) -> Result<(), CudaError> {
        self.synchronize()?;
        *lock(&self.clock) = Some(Clock::start(self)?);
        Ok(())
    }

    /// What every kernel took since [`Stream::time`], in order.
    pub fn took(&self) -> Result<Vec<Took>, CudaError> {
        self.synchronize()?;
        let clock = lock(&self.clock).take();
        clock.map_or(Ok(Vec::new()), |clock| clock.read())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Whatever is under way may use memory that goes with us.
        let _ = self.synchronize();
        if self.device.enter().is_ok() {
            // SAFETY: made by `new`, destroyed nowhere else.
            let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
        }
    }
}

fn with_previous() -> CUlaunchAttribute {
    CUlaunchAttribute {
        id: CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: CUlaunchAttributeValue {
            programmaticStreamSerializationAllowed: 1,
        },
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
