//! The pipeline: batches of row blocks converted in parallel here, written by one thread for each file
//! there, with two batches at most between them. Whatever is wanted of a batch's rows is made of them
//! while they are at hand, so that the input is read once, however many files come of it.

use super::Step;
use crate::error::Error;
use crate::imatrix::Importance;
use crate::output::{Output, Part, Record};
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
/// Finished bytes that whoever interrupts is left with; fewer are made again in no time.
const WORTH_KEEPING: u64 = 64 << 20;

/// A file to be.
pub struct File<'a> {
    pub part: Part,
    pub layout: Layout,
    pub target: &'a Path,
}

/// Runs `fill` while other threads write what it sends, one for each file. What was finished when it
/// was interrupted is kept where it is much.
pub fn write(
    files: Vec<File<'_>>,
    fill: impl FnOnce(&[Sink]) -> Result<(), Error>,
) -> Result<Vec<Output>, Error> {
    std::thread::scope(|scope| {
        let mut sinks = Vec::with_capacity(files.len());
        let mut writers = Vec::with_capacity(files.len());
        for file in files {
            let (send, receive) = sync_channel(2);
            let (give_back, spent) = channel();
            sinks.push(Sink { send, spent });
            let target = file.target;
            let writer = scope.spawn(move || drain(file, receive, give_back));
            writers.push((target, writer));
        }
        let filled = fill(&sinks);
        // The channels are closed then, so the writers end. A failure of theirs explains ours.
        drop(sinks);
        let (mut written, mut cause) = (Vec::new(), None);
        for (target, writer) in writers {
            match writer.join() {
                Ok(Ok(writer)) => written.push((target, writer)),
                Ok(Err(why)) => cause = Some(Error::io(target, why)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        match (filled, cause) {
            (Err(Error::Io { .. }) | Ok(()), Some(cause)) => Err(cause),
            (Err(Error::Interrupted), None) => Err(keep(written)?),
            (Err(why), _) => Err(why),
            (Ok(()), None) => {
                let finish = |(target, writer): (&Path, GgufWriter<Output>)| {
                    writer.finish().map_err(|e| Error::io(target, e))
                };
                written.into_iter().map(finish).collect()
            }
        }
    })
}

/// Leaves what is finished, if it is much, and says where.
fn keep(written: Vec<(&Path, GgufWriter<Output>)>) -> Result<Error, Error> {
    let much = |(_, writer): &(&Path, GgufWriter<Output>)| writer.finished_bytes() >= WORTH_KEEPING;
    let some = written.into_iter().filter(much);
    let parts = some.map(|(_, writer)| writer.unfinished().keep());
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    if parts.is_empty() {
        return Ok(Error::Interrupted);
    }
    Ok(Error::Kept { parts })
}

fn drain(
    file: File<'_>,
    batches: Receiver<Vec<u8>>,
    spent: Sender<Vec<u8>>,
) -> io::Result<GgufWriter<Output>> {
    let Part {
        output,
        mut record,
        finished,
    } = file.part;
    let mut writer = match finished {
        0 => GgufWriter::new(output, file.layout)?,
        first => GgufWriter::resume(output, file.layout, first),
    };
    let mut hasher = blake3::Hasher::new();
    for batch in batches {
        let before = writer.finished();
        writer.write(&batch)?;
        hasher.update(&batch);
        // A batch is of one tensor.
        if writer.finished() > before {
            note(&mut record, &mut hasher)?;
        }
        // Used again, since fresh pages cost more than what is put into them. At the end nobody
        // wants it any more.
        let _ = spent.send(batch);
    }
    Ok(writer)
}

fn note(record: &mut Record, hasher: &mut blake3::Hasher) -> io::Result<()> {
    record.finished(&hasher.finalize())?;
    hasher.reset();
    Ok(())
}

/// What a tensor becomes in one of the files.
pub struct Wanted<'a> {
    pub step: &'a Step<'a>,
    pub importance: Option<Importance>,
    pub sink: &'a Sink,
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

/// Converts one tensor to whatever is wanted of it, reporting values as they are done.
pub fn tensor(
    wanted: &[Wanted<'_>],
    done: &mut dyn FnMut(u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(first) = wanted.first() else {
        return Ok(());
    };
    let shape = &first.step.spec.shape;
    let row = shape[0] as usize;
    let rows = shape[1..].iter().product::<u64>() as usize;
    let matrices = shape.get(2).map_or(1, |&n| n as usize);
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
        for wanted in wanted {
            wanted.sink.send(wanted, &batch, batch_rows)?;
            done((batch_rows * row) as u64)?;
        }
    }
    Ok(())
}

impl Sink {
    /// Converts blocks of rows and sends them off.
    fn send(&self, wanted: &Wanted<'_>, batch: &[Block], rows: usize) -> Result<(), Error> {
        let (step, importance) = (wanted.step, wanted.importance.as_ref());
        let row = step.spec.shape[0] as usize;
        let row_bytes = step.ty.row_bytes(row).unwrap_or(0);
        let mut out = self.spent.try_recv().unwrap_or_default();
        out.resize(rows * row_bytes, 0);
        let mut rest = out.as_mut_slice();
        let mut parts = Vec::with_capacity(batch.len());
        for block in batch {
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
        self.send.send(out).map_err(|_| lost())
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
