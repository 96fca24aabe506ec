//! Routed experts that the processor computes: what goes down to it, and what comes up again. Their
//! matrices are not on the card, which has everything else of their layer.

use ggml_kernels::cpu::experts::Routes;
use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Part, Pinned, Stream};
use ggml_kernels::cuda::wide::{Combined, combine};
use quantize::schema::Hparams;

use crate::engine::executor::cpu::Routed;

#[derive(Debug)]
pub(super) struct Aside {
    experts: Routed,
    down: Down,
    /// What the experts made, `[rows, hidden]`: here, where the card reaches it, and on the card.
    sums: Vec<f32>,
    sums_up: Pinned<f32>,
    sums_there: Buffer<f32>,
    /// The sums are weighted already.
    ones: Buffer<f32>,
    hidden: usize,
    used: usize,
}

/// What experts are told, where the card writes it and where the processor reads it.
#[derive(Debug)]
struct Down {
    normed: Lent<f32>,
    ids: Lent<u32>,
    weights: Lent<f32>,
}

#[derive(Debug)]
struct Lent<T> {
    pinned: Pinned<T>,
    here: Vec<T>,
}

/// What the card found for a layer's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'b> {
    /// `[rows, hidden]`.
    pub normed: Part<'b, f32>,
    /// `[rows, used]`, as are the weights.
    pub ids: Part<'b, u32>,
    pub weights: Part<'b, f32>,
}

impl Aside {
    /// For up to `rows` rows.
    pub fn new(
        device: &Device,
        h: &Hparams,
        rows: usize,
        experts: Routed,
    ) -> Result<Aside, CudaError> {
        let (hidden, used) = (h.hidden, h.moe.used);
        Ok(Aside {
            experts,
            down: Down {
                normed: Lent::new(device, rows * hidden)?,
                ids: Lent::new(device, rows * used)?,
                weights: Lent::new(device, rows * used)?,
            },
            sums: vec![0.0; rows * hidden],
            sums_up: Pinned::zeroed(device, rows * hidden)?,
            sums_there: device.zeroed(rows * hidden)?,
            ones: device.upload(&vec![1.0; rows])?,
            hidden,
            used,
        })
    }

    /// Bytes of the card that it takes.
    pub fn bytes(h: &Hparams, rows: usize) -> usize {
        rows * (h.hidden + 1) * size_of::<f32>()
    }

    /// `x += experts`, of layer `at`. What `meanwhile` asks of the card, it does while the processor
    /// computes.
    pub fn add(
        &mut self,
        stream: &Stream,
        at: usize,
        found: Found<'_>,
        x: Part<'_, f32>,
        meanwhile: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let Down {
            normed,
            ids,
            weights,
        } = &mut self.down;
        normed.ask(stream, found.normed)?;
        ids.ask(stream, found.ids)?;
        weights.ask(stream, found.weights)?;
        // Sums of the layer before have gone up by then, too.
        stream.synchronize()?;
        meanwhile()?;
        let routes = Routes {
            ids: ids.take(found.ids.len())?,
            weights: weights.take(found.weights.len())?,
            used: self.used,
        };
        let normed = normed.take(found.normed.len())?;
        let sums = &mut self.sums[..normed.len()];
        self.experts.run(at, normed, routes, sums);
        self.sums_up.put(0, sums)?;
        let there = self.sums_there.part(0..sums.len())?;
        stream.copy_in(&self.sums_up, 0..sums.len(), there)?;
        let sum = Combined {
            x,
            rows: there,
            weights: self.ones.part(0..sums.len() / self.hidden)?,
            shared: None,
            used: 1,
            hidden: self.hidden,
        };
        combine(stream, &sum)
    }

    /// After each pass.
    pub fn look(&mut self) {
        self.experts.look();
    }
}

impl<T: ggml_kernels::cuda::driver::Plain + Default> Lent<T> {
    fn new(device: &Device, len: usize) -> Result<Lent<T>, CudaError> {
        Ok(Lent {
            pinned: Pinned::zeroed(device, len)?,
            here: vec![T::default(); len],
        })
    }

    /// Has the card copy values, once it has them.
    fn ask(&self, stream: &Stream, from: Part<'_, T>) -> Result<(), CudaError> {
        stream.copy_out(from, &self.pinned, 0)
    }

    /// Those that came.
    fn take(&mut self, len: usize) -> Result<&[T], CudaError> {
        self.pinned.get(0, &mut self.here[..len])?;
        Ok(&self.here[..len])
    }
}
