//! Brings rows of a file to the card: read into page-locked memory in pieces of several megabytes, and there
//! into the form that the kernels read. Matrices queue up as they are bound, and lines, each a thread, take
//! the next piece, whichever matrix it is of: so the bus has work from the first matrix to the last.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Pinned, Stream};
use ggml_kernels::cuda::products::{file_row_bytes, repack};
use ggml_kernels::cuda::weights::Stack;
use ggml_kernels::gguf::GgufFile;

#[cfg(test)]
mod tests;

/// Of one piece: half of it would reach 45 of the bus's 55 GB/s, twice as much takes longer to lock.
const PIECE: usize = 4 << 20;
/// Threads that read at most. One reads some 7 GB/s of a file that is in memory.
const MOST_LINES: usize = 8;
/// Pieces of a line: one is read while the other is on its way.
const STAGES: usize = 2;
/// Between two words about it.
const PATIENCE: Duration = Duration::from_secs(2);

/// What matrices come from, and to where.
#[derive(Debug)]
pub(super) struct Uploader {
    file: Arc<GgufFile>,
    device: Device,
    widest_row: usize,
    total: u64,
}

/// The way of one piece.
#[derive(Debug)]
struct Stage {
    stream: Stream,
    host: Pinned<u8>,
    /// Rows as the file has them.
    raw: Buffer<u8>,
}

/// Matrices that are to come, in order.
#[derive(Debug)]
pub(super) struct Queue<'m> {
    state: Mutex<State<'m>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<'m> {
    waiting: VecDeque<Job<'m>>,
    /// No more will be asked for.
    is_closed: bool,
    /// Why a line gave up: nothing more is brought then.
    broken: Option<CudaError>,
    progress: Progress,
}

/// The rows of a matrix or a stack that nobody has taken yet.
#[derive(Debug)]
struct Job<'m> {
    to: Arc<Stack>,
    bytes: Arc<Cow<'m, [u8]>>,
    next_row: usize,
}

/// Some of them.
struct Piece<'m> {
    to: Arc<Stack>,
    bytes: Arc<Cow<'m, [u8]>>,
    first_row: usize,
    rows: usize,
}

fn lines() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.clamp(2, MOST_LINES)
}

impl Uploader {
    /// `total`: bytes that will come, of the file.
    pub fn new(file: Arc<GgufFile>, device: &Device, widest_row: usize, total: u64) -> Uploader {
        Uploader {
            file,
            device: device.clone(),
            widest_row,
            total,
        }
    }

    /// Bytes of the card that it takes while it lasts.
    pub fn needed(widest_row: usize) -> usize {
        lines() * STAGES * PIECE.max(widest_row)
    }

    fn stage(&self) -> Result<Stage, CudaError> {
        let bytes = PIECE.max(self.widest_row);
        Ok(Stage {
            stream: self.device.stream()?,
            host: Pinned::zeroed(&self.device, bytes)?,
            raw: self.device.zeroed(bytes)?,
        })
    }

    /// Brings what `ask` queues up, and returns what `ask` said when all of it is on the card.
    pub fn run<'m, T, E: From<CudaError>>(
        &self,
        ask: impl FnOnce(&Queue<'m>) -> Result<T, E>,
    ) -> Result<T, E> {
        let queue = Queue::new(self.total);
        let asked = std::thread::scope(|scope| {
            for _ in 0..lines() {
                scope.spawn(|| queue.serve(self));
            }
            // However asking ends, the lines do too.
            let _closing = Closing(&queue);
            ask(&queue)
        })?;
        match queue.lock().broken.take() {
            Some(why) => Err(why.into()),
            None => Ok(asked),
        }
    }
}

struct Closing<'q, 'm>(&'q Queue<'m>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl<'m> Queue<'m> {
    fn new(total: u64) -> Queue<'m> {
        Queue {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                is_closed: false,
                broken: None,
                progress: Progress::new(total),
            }),
            changed: Condvar::new(),
        }
    }

    /// Fills `to` with the rows of `bytes`, as the file has them, one behind the other: by the end of
    /// [`Uploader::run`].
    pub fn upload(&self, bytes: Cow<'m, [u8]>, to: Arc<Stack>) -> Result<(), CudaError> {
        let (got, wanted) = (bytes.len(), row_bytes(&to) * to.count() * to.rows());
        if got != wanted {
            return Err(CudaError::refused("an upload", "bytes", got, wanted));
        }
        let mut state = self.lock();
        if let Some(why) = state.broken.take() {
            return Err(why);
        }
        if wanted > 0 {
            state.waiting.push_back(Job {
                to,
                bytes: Arc::new(bytes),
                next_row: 0,
            });
            drop(state);
            self.changed.notify_all();
        }
        Ok(())
    }

    /// One line's work: pieces until there are no more.
    fn serve(&self, uploader: &Uploader) {
        let Err(why) = self.bring(uploader) else {
            return;
        };
        let mut state = self.lock();
        state.waiting.clear();
        state.broken.get_or_insert(why);
    }

    fn bring(&self, uploader: &Uploader) -> Result<(), CudaError> {
        // To lock memory takes a while; others are on their way meanwhile.
        let line: [Stage; STAGES] = [uploader.stage()?, uploader.stage()?];
        let mut turns = line.iter().cycle();
        while let Some(piece) = self.next() {
            let stage = turns.next().expect("two stages go round for ever");
            stage.bring(&uploader.file, &piece)?;
            self.lock().progress.come(piece.bytes().len());
        }
        line.iter().try_for_each(|stage| stage.stream.synchronize())
    }

    fn next(&self) -> Option<Piece<'m>> {
        let mut state = self.lock();
        loop {
            if state.broken.is_some() {
                return None;
            }
            if let Some(job) = state.waiting.front_mut() {
                let piece = job.take();
                if job.next_row == job.to.count() * job.to.rows() {
                    state.waiting.pop_front();
                }
                return Some(piece);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'m>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Of the file.
fn row_bytes(stack: &Stack) -> usize {
    file_row_bytes(stack.ty(), stack.cols()).expect("checked when it was made")
}

impl<'m> Job<'m> {
    fn take(&mut self) -> Piece<'m> {
        let per_piece = (PIECE / row_bytes(&self.to).max(1)).max(1);
        let (first_row, all_rows) = (self.next_row, self.to.count() * self.to.rows());
        let rows = per_piece.min(all_rows - first_row);
        self.next_row += rows;
        Piece {
            to: self.to.clone(),
            bytes: self.bytes.clone(),
            first_row,
            rows,
        }
    }
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        let row = row_bytes(&self.to);
        &self.bytes[self.first_row * row..(self.first_row + self.rows) * row]
    }
}

impl Stage {
    /// Sends the piece on its way, when the one before it is through.
    fn bring(&self, file: &GgufFile, piece: &Piece<'_>) -> Result<(), CudaError> {
        let bytes = piece.bytes();
        let raw = self.raw.part(0..bytes.len())?;
        self.stream.synchronize()?;
        self.host.put_mapped(0, file.map(), bytes)?;
        self.stream.copy_in(&self.host, 0..raw.len(), raw)?;
        repack(&self.stream, raw, &piece.to, piece.first_row, piece.rows)
    }
}

/// What has come, said now and then.
#[derive(Debug)]
struct Progress {
    total: u64,
    come: u64,
    began: Instant,
    said: Instant,
}

impl Progress {
    fn new(total: u64) -> Progress {
        let now = Instant::now();
        Progress {
            total,
            come: 0,
            began: now,
            said: now,
        }
    }

    fn come(&mut self, bytes: usize) {
        self.come += bytes as u64;
        if self.said.elapsed() >= PATIENCE {
            self.said = Instant::now();
            log::info!("{self}");
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let (come, total) = (gigabytes(self.come), gigabytes(self.total));
        let speed = come / self.began.elapsed().as_secs_f64().max(1e-9);
        write!(
            f,
            "{come:.1} of {total:.1} GB of weights are on the card, {speed:.1} GB/s"
        )
    }
}
