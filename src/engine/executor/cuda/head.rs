//! The output's norm and product, and logits on their way to the host.

use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Part, Pinned, Stream};
use ggml_kernels::cuda::mixers::{MOST_ROWS, To, norm_rows};
use ggml_kernels::cuda::products::{Job, products};
use ggml_kernels::cuda::weights::Activations;
use quantize::schema::Hparams;

use super::Model;

#[derive(Debug)]
pub(super) struct Head {
    normed: Activations,
    /// `[16, vocab]`.
    pub logits: Buffer<f32>,
    here: Pinned<f32>,
    vocab: usize,
}

impl Head {
    pub fn new(device: &Device, h: &Hparams) -> Result<Head, CudaError> {
        let vocab = h.vocab;
        Ok(Head {
            normed: Activations::room(device, MOST_ROWS * h.hidden)?,
            logits: device.zeroed(MOST_ROWS * vocab)?,
            here: Pinned::zeroed(device, MOST_ROWS * vocab)?,
            vocab,
        })
    }

    /// Logits of up to 16 rows, on the card.
    pub fn run(
        &self,
        model: Model<'_>,
        stream: &Stream,
        x: Part<'_, f32>,
    ) -> Result<(), CudaError> {
        let (h, parts) = (model.h, &model.weights.parts);
        let rows = x.len() / h.hidden;
        let acts = self.normed.acts(rows, h.hidden)?;
        let to = To {
            acts: Some(acts),
            ..To::default()
        };
        norm_rows(stream, x, parts.output_norm.all(), h.norm_eps, &to)?;
        let job = Job {
            matrix: &parts.output,
            out: self.logits.part(0..rows * self.vocab)?,
            stride: self.vocab,
            add: false,
        };
        products(stream, &acts, &[job])
    }

    /// The logits of these rows of the last product, once the stream is through.
    pub fn take(&self, stream: &Stream, rows: &[usize]) -> Result<Vec<Vec<f32>>, CudaError> {
        let place = |row: usize| row * self.vocab..(row + 1) * self.vocab;
        for &row in rows {
            let part = self.logits.part(place(row))?;
            stream.copy_out(part, &self.here, row * self.vocab)?;
        }
        stream.synchronize()?;
        rows.iter().map(|&row| self.here.read(place(row))).collect()
    }

    /// The logits of all rows of `x`, 16 at a time.
    pub fn all(
        &self,
        model: Model<'_>,
        stream: &Stream,
        x: Part<'_, f32>,
    ) -> Result<Vec<f32>, CudaError> {
        let hidden = model.h.hidden;
        let rows = x.len() / hidden;
        let mut logits = Vec::with_capacity(rows * self.vocab);
        for start in (0..rows).step_by(MOST_ROWS) {
            let end = rows.min(start + MOST_ROWS);
            self.run(model, stream, x.part(start * hidden..end * hidden)?)?;
            let all = 0..(end - start) * self.vocab;
            stream.copy_out(self.logits.part(all.clone())?, &self.here, 0)?;
            stream.synchronize()?;
            logits.extend(self.here.read(all)?);
        }
        stream.synchronize()?;
        Ok(logits)
    }
}
