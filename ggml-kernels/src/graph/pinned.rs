//! Memory of the host that a device writes to by itself, for what is read after every pass.

use std::ptr::NonNull;

use ggml_sys as sys;

use crate::backend::Backend;

#[derive(Debug)]
pub(super) struct Pinned {
    buffer: NonNull<sys::ggml_backend_buffer>,
    floats: usize,
}

impl Pinned {
    /// `None` where the device has no such memory, or no more of it.
    pub fn new(backend: &Backend, floats: usize) -> Option<Self> {
        let place = backend.pinned_buffer_type()?;
        // SAFETY: a kind of memory that the device offers; a null result is checked.
        let buffer = unsafe { sys::ggml_backend_buft_alloc_buffer(place, floats * 4) };
        let buffer = NonNull::new(buffer)?;
        Some(Self { buffer, floats })
    }

    pub fn holds(&self, floats: usize) -> bool {
        floats <= self.floats
    }

    /// The values of `raw`.
    ///
    /// # Safety
    /// `raw` is a computed contiguous F32 tensor of `floats` values, for which this has room, on
    /// `device`, which nobody else uses meanwhile.
    pub unsafe fn fetch(
        &mut self,
        device: sys::ggml_backend_t,
        raw: &sys::ggml_tensor,
        floats: usize,
    ) -> Vec<f32> {
        // SAFETY: as the caller says; the buffer is the host's own memory, written before the
        // device says that it is done.
        unsafe {
            let base = sys::ggml_backend_buffer_get_base(self.buffer.as_ptr());
            sys::ggml_backend_tensor_get_async(device, raw, base, 0, floats * 4);
            sys::ggml_backend_synchronize(device);
            std::slice::from_raw_parts(base.cast::<f32>(), floats).to_vec()
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { sys::ggml_backend_buffer_free(self.buffer.as_ptr()) };
    }
}
