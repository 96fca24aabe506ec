//! A stream's work, recorded once and run often: one call starts it all.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUstreamCaptureMode};

use super::error::check;
use super::memory::Locked;
use super::stream::lock;
use super::{CudaError, Device, Stream};

/// Recorded work. Buffers that it uses must be kept as long; host memory that it copies, it holds.
#[derive(Debug)]
pub struct Graph {
    device: Device,
    raw: CUgraphExec,
    held: Vec<Arc<Locked>>,
}

// SAFETY: a handle, used after `enter` only; nothing changes it.
unsafe impl Send for Graph {}
// SAFETY: as above.
unsafe impl Sync for Graph {}

impl Stream {
    /// Records what `work` does on this stream, instead of doing it. Nothing in it may wait for the
    /// card; a kernel should have run once before (its code is loaded then).
    pub fn record<E: From<CudaError>>(
        &self,
        work: impl FnOnce(&Stream) -> Result<(), E>,
    ) -> Result<Graph, E> {
        let mut recording = Recording::begin(self)?;
        work(self)?;
        Ok(recording.end()?.run_by(self.device())?)
    }

    /// Starts what was recorded. What it uses is as when it was recorded, but for the bytes.
    pub fn run(&self, graph: &Graph) -> Result<(), CudaError> {
        if !self.device().is(&graph.device) {
            let (got, wanted) = (graph.device.name(), self.device().name());
            return Err(CudaError::refused(
                "a stream",
                "a graph's device",
                got,
                wanted,
            ));
        }
        self.device().enter()?;
        // SAFETY: a graph and a stream of this device; its host memory is held.
        let answer = unsafe { sys::cuGraphLaunch(graph.raw, self.raw) };
        check(answer, || "running a graph".into())?;
        lock(&self.held).extend(graph.held.iter().cloned());
        Ok(())
    }
}

/// A stream that records. Ends when it drops, whatever happened.
struct Recording<'s> {
    stream: &'s Stream,
    is_open: bool,
    /// Held by the stream for what it was doing before.
    before: Vec<Arc<Locked>>,
}

impl<'s> Recording<'s> {
    fn begin(stream: &'s Stream) -> Result<Recording<'s>, CudaError> {
        stream.device().enter()?;
        // Other streams may do what they like meanwhile, such as loading kernels.
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: a stream of ours.
        let answer = unsafe { sys::cuStreamBeginCapture_v2(stream.raw, mode) };
        check(answer, || "beginning to record".into())?;
        Ok(Recording {
            stream,
            is_open: true,
            before: std::mem::take(&mut *lock(&stream.held)),
        })
    }

    fn end(&mut self) -> Result<Recorded, CudaError> {
        self.is_open = false;
        let before = std::mem::take(&mut self.before);
        let held = std::mem::replace(&mut *lock(&self.stream.held), before);
        self.stream.device().enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` may be written; the stream records.
        let answer = unsafe { sys::cuStreamEndCapture(self.stream.raw, &mut raw) };
        // What was recorded in vain may be there all the same.
        let recorded = Recorded { raw, held };
        check(answer, || "recording".into())?;
        Ok(recorded)
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if self.is_open {
            let _ = self.end();
        }
    }
}

struct Recorded {
    raw: CUgraph,
    held: Vec<Arc<Locked>>,
}

impl Recorded {
    fn run_by(mut self, device: &Device) -> Result<Graph, CudaError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` may be written; a graph that was recorded just now. Destroyed with `Graph`.
        let answer = unsafe { sys::cuGraphInstantiateWithFlags(&mut raw, self.raw, 0) };
        check(answer, || "making a graph ready".into())?;
        Ok(Graph {
            device: device.clone(),
            raw,
            held: std::mem::take(&mut self.held),
        })
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: came from the end of a recording, destroyed nowhere else.
            let _ = unsafe { sys::cuGraphDestroy(self.raw) };
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.device.enter().is_ok() {
            // SAFETY: made by `run_by`, destroyed nowhere else; one that runs ends first.
            let _ = unsafe { sys::cuGraphExecDestroy(self.raw) };
        }
    }
}
