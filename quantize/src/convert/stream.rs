//! The pipeline: batches of row blocks converted in parallel here, written by one thread there,
//! with two batches at most between them.

use super::Step;
use crate::error::Error;
use crate::imatrix::Importance;
use crate::output::Output;
use ggml_kernels::gguf::{GgufWriter, Layout};
use ggml_kernels::quant::{QuantError, first_broken_block, quantize_rows};
use rayon::prelude::*;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Values per block of rows: 256 KiB as f32, so that a block stays in a core's cache.
const BLOCK_VALUES: usize = 1 << 16;
/// Blocks per batch and thread: enough that no core waits long for the last of a batch.
const BLOCKS_PER_THREAD: usize = 16;

/// Runs `fill` while another thread writes what it sends. Returns the finished output.
pub fn write(
    output: Output,
    target: &Path,
    layout: Layout,
    fill: impl FnOnce(&Sink) -> Result<(), Error>,
) -> Result<Output, Error> {
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(2);
        let (give_back, spent) = channel();
        let writer = scope.spawn(move || drain(output, layout, receive, give_back));
        let filled = fill(&Sink { send, spent });
        // The channel is closed now, so the writer ends. Its own failure explains ours.
        let written = match writer.join() {
            Ok(written) => written.map_err(|e| Error::io(target, e)),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (filled, written) {
            (Err(Error::Io { .. }), Err(cause)) => Err(cause),
            (Err(why), _) => Err(why),
            (Ok(()), written) => written,
        }
    })
}

fn drain(
    output: Output,
    layout: Layout,
    batches: Receiver<Vec<u8>>,
    spent: Sender<Vec<u8>>,
) -> io::Result<Output> {
    let mut writer = GgufWriter::new(output, layout)?;
    for batch in batches {
        writer.write(&batch)?;
        // Used again, since fresh pages cost more than what is put into them. At the end nobody
        // wants it any more.
        let _ = spent.send(batch);
    }
    writer.finish()
}

/// Takes tensors in the order of the layout.
pub struct Sink {
    send: SyncSender<Vec<u8>>,
    spent: Receiver<Vec<u8>>,
}

/// Rows `first..first + n` of a tensor, all of one matrix.
#[derive(Clone, Copy)]
struct Block {
    matrix: usize,
    first: usize,
    n: usize,
}

impl Sink {
    /// Converts one tensor, reporting values as they are done.
    pub fn tensor(
        &self,
        step: &Step<'_>,
        importance: Option<&Importance>,
        done: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let row = step.spec.shape[0] as usize;
        let row_bytes = step.ty.row_bytes(row).unwrap_or(0);
        let rows = step.spec.shape[1..].iter().product::<u64>() as usize;
        let matrices = step.spec.shape.get(2).map_or(1, |&n| n as usize);
        // Only the stacked experts have more than one; convolutions have 4 dimensions too, but
        // their third is the channels, whose rows are as good a matrix as any.
        let in_matrix = rows / matrices;
        let per_block = (BLOCK_VALUES / row).clamp(1, in_matrix.max(1));
        let blocks = (0..matrices).flat_map(|matrix| {
            let starts = (0..in_matrix).step_by(per_block);
            starts.map(move |at| Block {
                matrix,
                first: matrix * in_matrix + at,
                n: per_block.min(in_matrix - at),
            })
        });
        let per_batch = BLOCKS_PER_THREAD * rayon::current_num_threads();
        let mut blocks = blocks.peekable();
        let mut batch = Vec::with_capacity(per_batch);
        while blocks.peek().is_some() {
            batch.clear();
            // Tensors of many small matrices fill a batch too.
            let mut batch_rows = 0;
            let mut least = 0;
            while (least < per_batch || batch_rows * row < BLOCK_VALUES)
                && let Some(block) = blocks.next()
            {
                batch_rows += block.n;
                least += 1;
                batch.push(block);
            }
            let mut out = self.spent.try_recv().unwrap_or_default();
            out.resize(batch_rows * row_bytes, 0);
            let mut rest = out.as_mut_slice();
            let mut parts = Vec::with_capacity(batch.len());
            for block in &batch {
                let (part, after) = rest.split_at_mut(block.n * row_bytes);
                parts.push((*block, part));
                rest = after;
            }
            parts
                .into_par_iter()
                .try_for_each_init(Vec::new, |values, (block, part)| {
                    let weights = importance.map(|i| i.of_matrix(block.matrix));
                    convert_block(step, block, row, weights, values, part)
                })?;
            let lost = || Error::io(Path::new(&step.spec.name), io::ErrorKind::BrokenPipe.into());
            self.send.send(out).map_err(|_| lost())?;
            done((batch_rows * row) as u64)?;
        }
        Ok(())
    }
}

fn convert_block(
    step: &Step<'_>,
    block: Block,
    row: usize,
    weights: Option<&[f32]>,
    values: &mut Vec<f32>,
    out: &mut [u8],
) -> Result<(), Error> {
    let failed = |source| Error::Values {
        tensor: step.spec.name.clone(),
        row: block.first as u64,
        source,
    };
    // Bytes that are already what is wanted are copied, not rounded a second time.
    if step.source.ty == step.ty
        && let Some(bytes) = step.source.bytes()
    {
        let start = block.first * out.len() / block.n;
        out.copy_from_slice(&bytes[start..start + out.len()]);
        let ty = step.ty;
        return match first_broken_block(ty, out) {
            None => Ok(()),
            Some(block) => Err(failed(QuantError::NotFiniteBlock { ty, block })),
        };
    }
    values.resize(block.n * row, 0.0);
    step.source.read(block.first, row, values).map_err(failed)?;
    quantize_rows(step.ty, values, row, weights, out).map_err(failed)
}
