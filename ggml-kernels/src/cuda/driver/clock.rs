//! What each kernel of a stream takes, by the card's own clock.

use std::ffi::c_void;
use std::time::Duration;

use cudarc::driver::sys::{self, CUevent};

use super::error::check;
use super::{CudaError, Device, Stream};

/// One run of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Took {
    pub kernel: &'static str,
    pub time: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Clock {
    began: Option<Event>,
    runs: Vec<(&'static str, Event, Event)>,
}

/// For so long the card waits before the first kernel that is timed, and the host is ahead of it from
/// then on: a card that waits between a moment and its kernel counts that as the kernel's.
const HEAD_START: Duration = Duration::from_millis(10);

unsafe extern "C" fn wait(_: *mut c_void) {
    std::thread::sleep(HEAD_START);
}

impl Clock {
    /// Nothing is timed yet.
    pub fn start(stream: &Stream) -> Result<Clock, CudaError> {
        stream.device().enter()?;
        // SAFETY: a stream of this device. `wait` looks at nothing and asks no driver.
        let answer = unsafe { sys::cuLaunchHostFunc(stream.raw, Some(wait), std::ptr::null_mut()) };
        check(answer, || "holding the card back".into())?;
        Ok(Clock::default())
    }

    pub fn begin(&mut self, stream: &Stream) -> Result<(), CudaError> {
        self.began = Some(Event::now(stream)?);
        Ok(())
    }

    pub fn end(&mut self, stream: &Stream, kernel: &'static str) -> Result<(), CudaError> {
        if let Some(began) = self.began.take() {
            self.runs.push((kernel, began, Event::now(stream)?));
        }
        Ok(())
    }

    /// Once the stream is through.
    pub fn read(&self) -> Result<Vec<Took>, CudaError> {
        let took = |(kernel, began, ended): &(&'static str, Event, Event)| {
            let mut ms = 0.0;
            // SAFETY: `ms` may be written; both events were recorded.
            let answer = unsafe { sys::cuEventElapsedTime(&mut ms, began.raw, ended.raw) };
            check(answer, || format!("asking what {kernel} took"))?;
            Ok(Took {
                kernel,
                time: Duration::from_secs_f32(ms.max(0.0) / 1e3),
            })
        };
        self.runs.iter().map(took).collect()
    }
}

/// A moment of a stream.
#[derive(Debug)]
struct Event {
    device: Device,
    raw: CUevent,
}

// SAFETY: a handle, used after `enter` only.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    fn now(stream: &Stream) -> Result<Event, CudaError> {
        stream.device().enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` may be written; the context is current. Destroyed when it drops.
        let answer = unsafe { sys::cuEventCreate(&mut raw, 0) };
        check(answer, || "making an event".into())?;
        let event = Event {
            device: stream.device().clone(),
            raw,
        };
        // SAFETY: an event and a stream of this device.
        let answer = unsafe { sys::cuEventRecord(raw, stream.raw) };
        check(answer, || "recording an event".into())?;
        Ok(event)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.device.enter().is_ok() {
            // SAFETY: made by `now`, destroyed nowhere else.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}
