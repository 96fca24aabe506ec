//! The output's norm and product, and what of the logits comes to the host: a token, few, or all.

use ggml_kernels::cuda::draw::Draws;
use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Part, Pinned, Stream};
use ggml_kernels::cuda::mixers::{MOST_ROWS, To, norm_rows};
use ggml_kernels::cuda::products::{Job, products};
use ggml_kernels::cuda::weights::Activations;
use quantize::schema::Hparams;

use super::Model;
use super::draw::{enough, wish};
use crate::engine::Want;
use crate::engine::executor::Came;

#[derive(Debug)]
pub(super) struct Head {
    normed: Activations,
    /// `[16, vocab]`.
    pub logits: Buffer<f32>,
    here: Pinned<f32>,
    draws: Draws,
    vocab: usize,
}

impl Head {
    pub fn new(device: &Device, h: &Hparams) -> Result<Head, CudaError> {
        let vocab = h.vocab;
        Ok(Head {
            normed: Activations::room(device, MOST_ROWS * h.hidden)?,
            logits: device.zeroed(MOST_ROWS * vocab)?,
            here: Pinned::zeroed(device, MOST_ROWS * vocab)?,
            draws: Draws::new(device, MOST_ROWS, vocab)?,
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

    /// What the rows of the next [`Head::draw`] are for.
    pub fn ask(&mut self, wants: &[Want]) -> Result<(), CudaError> {
        let wishes: Vec<_> = wants.iter().map(wish).collect();
        self.draws.ask(&wishes)
    }

    /// Chooses tokens of the logits of so many rows, on the card.
    pub fn draw(&self, stream: &Stream, rows: usize) -> Result<(), CudaError> {
        self.draws
            .run(stream, self.logits.part(0..rows * self.vocab)?)
    }

    /// What is wanted of the rows of the last product, once the stream is through.
    pub fn take(&self, stream: &Stream, wants: &[Want]) -> Result<Vec<Came>, CudaError> {
        let place = |row: usize| row * self.vocab..(row + 1) * self.vocab;
        let copy = |row: usize| {
            let part = self.logits.part(place(row))?;
            stream.copy_out(part, &self.here, row * self.vocab)
        };
        let drawn = self.draws.take(stream)?;
        let drawn = wants.iter().zip(drawn);
        let drawn: Vec<_> = drawn.map(|(want, found)| enough(want, found?)).collect();
        let is_copied = |row: usize| drawn[row].is_none() && wants[row] != Want::Nothing;
        for row in (0..wants.len()).filter(|&row| is_copied(row)) {
            copy(row)?;
        }
        stream.synchronize()?;
        let mut came = Vec::with_capacity(wants.len());
        for (row, drawn) in drawn.iter().enumerate() {
            came.push(match drawn {
                Some(drawn) => Came::Drawn(drawn.clone()),
                None if is_copied(row) => Came::Logits(self.here.read(place(row))?),
                None => Came::Logits(Vec::new()),
            });
        }
        Ok(came)
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
