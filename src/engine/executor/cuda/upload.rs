//! Brings rows of a file to the card: read into page-locked memory in pieces of several megabytes, a few
//! at a time, and there into the form that the kernels read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ggml_kernels::cuda::driver::{Buffer, CudaError, Device, Pinned, Stream};
use ggml_kernels::cuda::products::{file_row_bytes, repack};
use ggml_kernels::cuda::weights::Stack;
use ggml_kernels::gguf::GgufFile;

/// Of one piece.
const PIECE: usize = 8 << 20;
/// Pieces under way at most: one processor reads some GB/s of a file, a card takes 50.
const MOST_LINES: usize = 12;
/// Between two words about it.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Uploader {
    file: Arc<GgufFile>,
    lines: Vec<Line>,
    progress: Mutex<Progress>,
}

/// The way of one piece.
#[derive(Debug)]
struct Line {
    stream: Stream,
    host: Pinned<u8>,
    /// Rows as the file has them.
    raw: Buffer<u8>,
}

/// Rows of one piece.
struct Piece<'m> {
    rows: usize,
    /// As the file has them.
    bytes: &'m [u8],
    first_row: usize,
}

/// Pieces under way: one for each processor.
fn lines() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.clamp(2, MOST_LINES)
}

impl Uploader {
    /// `total`: bytes that will come, of the file.
    pub fn new(
        file: Arc<GgufFile>,
        device: &Device,
        widest_row: usize,
        total: u64,
    ) -> Result<Uploader, CudaError> {
        let bytes = PIECE.max(widest_row);
        let line = |_| {
            Ok(Line {
                stream: device.stream()?,
                host: Pinned::zeroed(device, bytes)?,
                raw: device.zeroed(bytes)?,
            })
        };
        Ok(Uploader {
            file,
            lines: (0..lines()).map(line).collect::<Result<_, CudaError>>()?,
            progress: Mutex::new(Progress::new(total)),
        })
    }

    /// Bytes of the card that it takes while it lasts.
    pub fn needed(widest_row: usize) -> usize {
        lines() * PIECE.max(widest_row)
    }

    /// Fills `to` with the rows of `bytes`: as the file has them, one behind the other.
    pub fn upload(&self, bytes: &[u8], to: &Stack) -> Result<(), CudaError> {
        let all_rows = to.count() * to.rows();
        let row = file_row_bytes(to.ty(), to.cols()).expect("checked when it was made");
        if bytes.len() != row * all_rows {
            let (what, wanted) = ("bytes", row * all_rows);
            return Err(CudaError::refused("an upload", what, bytes.len(), wanted));
        }
        let per_piece = (PIECE / row.max(1)).max(1);
        let pieces = all_rows.div_ceil(per_piece);
        let next = AtomicUsize::new(0);
        let work = |line: &Line| {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed) * per_piece;
                if at >= all_rows {
                    return Ok(());
                }
                let rows = per_piece.min(all_rows - at);
                let piece = Piece {
                    rows,
                    bytes: &bytes[at * row..(at + rows) * row],
                    first_row: at,
                };
                line.bring(&self.file, &piece, to)?;
                self.say(piece.bytes.len());
            }
        };
        let (first, others) = self.lines.split_first().expect("there are several");
        // Most matrices are one piece.
        let others = &others[..others.len().min(pieces.saturating_sub(1))];
        std::thread::scope(|scope| {
            let others = others.iter().map(|line| scope.spawn(|| work(line)));
            let others: Vec<_> = others.collect();
            let done = work(first);
            others.into_iter().fold(done, |done, other| {
                let other = other
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e));
                done.and(other)
            })
        })
    }

    fn say(&self, bytes: usize) {
        let mut progress = self.progress.lock().unwrap_or_else(|e| e.into_inner());
        progress.come(bytes as u64);
    }
}

impl Line {
    /// Returns when the piece is on the card.
    fn bring(&self, file: &GgufFile, piece: &Piece<'_>, to: &Stack) -> Result<(), CudaError> {
        let raw = self.raw.part(0..piece.bytes.len())?;
        self.host.put_mapped(0, file.map(), piece.bytes)?;
        self.stream.copy_in(&self.host, 0..raw.len(), raw)?;
        repack(&self.stream, raw, to, piece.first_row, piece.rows)?;
        self.stream.synchronize()
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

    fn come(&mut self, bytes: u64) {
        self.come += bytes;
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
