//! Memory of the card, and memory of the host that the card reaches.
//!
//! Neither is ever seen through a Rust reference: the card may be writing it. Values go in and out
//! by copies, so a copy at a bad moment gets old values or new ones, and nothing worse.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use crate::map::GuardedMap;

use super::error::check;
use super::{CudaError, Device};

/// Values that are nothing but their bytes.
///
/// # Safety
/// No padding, and every pattern of bytes is a value.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}

macro_rules! plain {
    ($($ty:ty),*) => {
        $(
            // SAFETY: a number, whatever its bits; or nothing but numbers without gaps.
            unsafe impl Plain for $ty {}
        )*
    };
}
plain!(u8, i8, u16, i16, u32, i32, u64, f32, half::f16, half::bf16);
plain!(
    super::super::weights::Matrix,
    super::super::weights::Acts,
    super::super::weights::Lane,
    super::super::weights::WideLane
);

/// Memory of the card; freed when it drops. Kernels get its address.
#[derive(Debug)]
pub struct Buffer<T> {
    device: Device,
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

/// Some values of a buffer.
#[derive(Debug, Clone, Copy)]
pub struct Part<'b, T> {
    pub(super) device: &'b Device,
    address: u64,
    len: usize,
    of: PhantomData<&'b Buffer<T>>,
}

impl<T: Plain> Buffer<T> {
    fn empty(device: &Device, len: usize) -> Result<Buffer<T>, CudaError> {
        let bytes = bytes_of::<T>(len)?;
        device.enter()?;
        let mut address = 0;
        if bytes > 0 {
            // SAFETY: `address` may be written; the context is current. Freed when it drops.
            let answer = unsafe { sys::cuMemAlloc_v2(&mut address, bytes) };
            if answer == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                let memory = device.memory()?;
                return Err(CudaError::OutOfMemory {
                    bytes: bytes as u64,
                    free: memory.free,
                    total: memory.total,
                });
            }
            check(answer, || format!("taking {bytes} bytes of the card"))?;
        }
        Ok(Buffer {
            device: device.clone(),
            address,
            len,
            of: PhantomData,
        })
    }

    pub(super) fn zeroed(device: &Device, len: usize) -> Result<Buffer<T>, CudaError> {
        let buffer = Self::empty(device, len)?;
        let bytes = buffer.bytes();
        if bytes > 0 {
            // SAFETY: the buffer has so many bytes; zeros are values of `T`.
            let answer =
                unsafe { sys::cuMemsetD8Async(buffer.address, 0, bytes, std::ptr::null_mut()) };
            check(answer, || format!("clearing {bytes} bytes of the card"))?;
            finish()?;
        }
        Ok(buffer)
    }

    pub(super) fn holding(device: &Device, values: &[T]) -> Result<Buffer<T>, CudaError> {
        let buffer = Self::empty(device, values.len())?;
        buffer.write(0, values)?;
        Ok(buffer)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Where it begins, on the card: a multiple of 256. 0 where it is empty.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// All of it.
    pub fn all(&self) -> Part<'_, T> {
        Part {
            device: &self.device,
            address: self.address,
            len: self.len,
            of: PhantomData,
        }
    }

    /// The values of `range`, which must lie inside.
    pub fn part(&self, range: Range<usize>) -> Result<Part<'_, T>, CudaError> {
        self.all().part(range)
    }

    /// Copies `values` to its place `at`, and waits. What streams are doing goes on meanwhile.
    pub fn write(&self, at: usize, values: &[T]) -> Result<(), CudaError> {
        self.part(at..at.saturating_add(values.len()))?
            .write(values)
    }

    /// A copy of all values, once it is there: see [`Buffer::write`].
    pub fn read(&self) -> Result<Vec<T>, CudaError> {
        self.all().read()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.address == 0 || self.device.enter().is_err() {
            return;
        }
        // SAFETY: allocated by `empty`, and freed nowhere else. The driver waits for the kernels
        // under way.
        let answer = unsafe { sys::cuMemFree_v2(self.address) };
        if let Err(why) = check(answer, || "freeing memory of the card".into()) {
            log::debug!("{why}");
        }
    }
}

impl<'b, T: Plain> Part<'b, T> {
    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The values of `range`, which must lie inside.
    pub fn part(&self, range: Range<usize>) -> Result<Part<'b, T>, CudaError> {
        if range.start > range.end || range.end > self.len {
            let wanted = format!("inside 0..{}", self.len);
            let got = format!("{range:?}");
            return Err(CudaError::refused("a buffer", "the range", got, wanted));
        }
        Ok(Part {
            address: self.address + (range.start * size_of::<T>()) as u64,
            len: range.len(),
            ..*self
        })
    }

    /// As [`Buffer::write`]; the lengths must be equal.
    pub fn write(&self, values: &[T]) -> Result<(), CudaError> {
        same_len(values.len(), self.len)?;
        if values.is_empty() {
            return Ok(());
        }
        self.device.enter()?;
        let from = values.as_ptr().cast();
        // SAFETY: both have so many bytes, and `values` is borrowed until the copy is done.
        let answer = unsafe {
            sys::cuMemcpyHtoDAsync_v2(self.address, from, self.bytes(), std::ptr::null_mut())
        };
        check(answer, || {
            format!("copying {} bytes to the card", self.bytes())
        })?;
        finish()
    }

    /// As [`Buffer::read`].
    pub fn read(&self) -> Result<Vec<T>, CudaError> {
        self.device.enter()?;
        fetch(self.device, self.address, self.len)
    }
}

/// `len` values of the card, from `address` on, where there must be so many.
pub(super) fn fetch<T: Plain>(
    device: &Device,
    address: u64,
    len: usize,
) -> Result<Vec<T>, CudaError> {
    device.enter()?;
    let mut values: Vec<T> = Vec::with_capacity(len);
    let bytes = bytes_of::<T>(len)?;
    if bytes > 0 {
        let to = values.as_mut_ptr().cast();
        // SAFETY: `values` has room for `len` of `T`, and stays until the copy is done.
        let answer = unsafe { sys::cuMemcpyDtoHAsync_v2(to, address, bytes, std::ptr::null_mut()) };
        check(answer, || format!("copying {bytes} bytes from the card"))?;
        finish()?;
    }
    // SAFETY: all of them were written, and any bytes are values of `T`.
    unsafe { values.set_len(len) };
    Ok(values)
}

/// Waits for what was asked for outside of streams of our own: the copies here, which would
/// otherwise still be under way when such a stream (they wait for nobody) uses what was copied.
fn finish() -> Result<(), CudaError> {
    // SAFETY: the driver's own stream of the current context.
    let answer = unsafe { sys::cuStreamSynchronize(std::ptr::null_mut()) };
    check(answer, || "waiting for a copy".into())
}

pub(super) fn same_len(got: usize, wanted: usize) -> Result<(), CudaError> {
    if got == wanted {
        return Ok(());
    }
    Err(CudaError::refused("a copy", "values", got, wanted))
}

fn bytes_of<T>(len: usize) -> Result<usize, CudaError> {
    let bytes = len.checked_mul(size_of::<T>());
    bytes.ok_or_else(|| CudaError::refused("a buffer", "its length", len, "less"))
}

/// Memory of the host that the card copies from and to by itself, page-locked. Clones are the same
/// memory; streams and graphs that copy hold one.
#[derive(Debug, Clone)]
pub struct Pinned<T> {
    pub(super) held: Arc<Locked>,
    len: usize,
    of: PhantomData<T>,
}

/// Until it drops, at the same place.
#[derive(Debug)]
pub(super) struct Locked {
    pub device: Device,
    pub at: *mut u8,
}

// SAFETY: memory that is reached by copies of bytes through raw pointers only.
unsafe impl Send for Locked {}
// SAFETY: as above; copies at the same time are of plain bytes that nobody has a reference to.
unsafe impl Sync for Locked {}

impl<T: Plain> Pinned<T> {
    /// All zeros.
    pub fn zeroed(device: &Device, len: usize) -> Result<Pinned<T>, CudaError> {
        let bytes = bytes_of::<T>(len)?.max(1);
        device.enter()?;
        let mut at = std::ptr::null_mut();
        // SAFETY: `at` may be written; the context is current. Freed when it drops.
        let answer = unsafe { sys::cuMemAllocHost_v2(&mut at, bytes) };
        check(answer, || format!("locking {bytes} bytes of memory"))?;
        // SAFETY: so many bytes were allocated.
        unsafe { std::ptr::write_bytes(at.cast::<u8>(), 0, bytes) };
        Ok(Pinned {
            held: Arc::new(Locked {
                device: device.clone(),
                at: at.cast(),
            }),
            len,
            of: PhantomData,
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts `values` at place `at`, where they must fit. Copies that are under way get them or not.
    pub fn put(&self, at: usize, values: &[T]) -> Result<(), CudaError> {
        self.check(&(at..at.saturating_add(values.len())))?;
        // SAFETY: inside, as just checked; `values` is ours, so not the same memory.
        unsafe {
            self.place(at)
                .copy_from_nonoverlapping(values.as_ptr(), values.len())
        };
        Ok(())
    }

    /// A copy of the values from `at` on, as many as `values` has.
    pub fn get(&self, at: usize, values: &mut [T]) -> Result<(), CudaError> {
        self.check(&(at..at.saturating_add(values.len())))?;
        // SAFETY: as above.
        unsafe {
            self.place(at)
                .copy_to_nonoverlapping(values.as_mut_ptr(), values.len())
        };
        Ok(())
    }

    /// A copy of the values of `range`.
    pub fn read(&self, range: Range<usize>) -> Result<Vec<T>, CudaError> {
        self.check(&range)?;
        let mut values = Vec::with_capacity(range.len());
        // SAFETY: inside, as just checked; there is room for so many, and all are written.
        unsafe {
            self.place(range.start)
                .copy_to_nonoverlapping(values.as_mut_ptr(), range.len());
            values.set_len(range.len());
        }
        Ok(values)
    }

    /// Where place `at` is, which must be inside.
    pub(super) fn place(&self, at: usize) -> *mut T {
        self.held.at.cast::<T>().wrapping_add(at)
    }

    pub(super) fn check(&self, range: &Range<usize>) -> Result<(), CudaError> {
        if range.start > range.end || range.end > self.len {
            let (got, wanted) = (format!("{range:?}"), format!("inside 0..{}", self.len));
            return Err(CudaError::refused(
                "pinned memory",
                "the range",
                got,
                wanted,
            ));
        }
        Ok(())
    }
}

impl Pinned<u8> {
    /// Puts `bytes` at place `at`, where they must fit; from the file, where they are `map`'s.
    pub fn put_mapped(&self, at: usize, map: &GuardedMap, bytes: &[u8]) -> Result<(), CudaError> {
        self.check(&(at..at.saturating_add(bytes.len())))?;
        // SAFETY: inside, as just checked. No reference to this memory exists, and copies that are under way get
        // the bytes or not.
        if unsafe { map.read(bytes, self.place(at)) } {
            return Ok(());
        }
        // A file that was shortened: the map says so.
        self.put(at, bytes)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if self.device.enter().is_ok() {
            // SAFETY: allocated by `Pinned::zeroed`; copies under way hold it.
            let _ = unsafe { sys::cuMemFreeHost(self.at.cast()) };
        }
    }
}
