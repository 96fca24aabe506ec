//! Rows from the file's form into the card's, and rows of a table by token.

use super::super::driver::{CudaError, Overlap, Part, Plain, Stream};
use super::super::weights::{Lane, Matrix, Stack, WeightType};
use super::{hold, same};

/// Bytes of a row of `cols` values in a file. `None`: no row of this type has so many.
pub fn file_row_bytes(ty: WeightType, cols: usize) -> Option<usize> {
    let (values, bytes) = match ty {
        WeightType::F32 => (1, 4),
        WeightType::F16 | WeightType::Bf16 => (1, 2),
        WeightType::Q4_0 => (32, 18),
        WeightType::Q8_0 => (32, 34),
        WeightType::Q4K => (256, 144),
        WeightType::Q5K => (256, 176),
        WeightType::Q6K => (256, 210),
    };
    cols.is_multiple_of(values).then_some(cols / values * bytes)
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RepackArgs {
    from: u64,
    to: u64,
    rows: u64,
    ty: u32,
    cols: u32,
    from_bytes: u32,
    to_bytes: u32,
}
// SAFETY: numbers without gaps: three of 8 bytes, four of 4.
unsafe impl Plain for RepackArgs {}

/// Moves `rows` rows as they are in a file, from any address on, to rows `first_row..` of `to`, counted
/// through all its matrices.
pub fn repack(
    stream: &Stream,
    raw: Part<'_, u8>,
    to: &Stack,
    first_row: usize,
    rows: usize,
) -> Result<(), CudaError> {
    const PLACE: &str = "repack";
    let from_bytes = file_row_bytes(to.ty(), to.cols()).expect("checked when it was made");
    same(PLACE, "bytes", raw.len(), rows * from_bytes)?;
    let to_bytes = to.row_bytes();
    let range = first_row * to_bytes..first_row.saturating_add(rows) * to_bytes;
    let place = to.buffer().part(range)?;
    if raw.is_empty() {
        return Ok(());
    }
    let moved = matches!(
        to.ty(),
        WeightType::Q4_0 | WeightType::Q8_0 | WeightType::Q6K
    );
    if !moved && from_bytes == to_bytes {
        return stream.copy(raw, place);
    }
    let args = RepackArgs {
        from: raw.address(),
        to: place.address(),
        rows: rows as u64,
        ty: to.ty() as u32,
        cols: to.cols() as u32,
        from_bytes: from_bytes as u32,
        to_bytes: to_bytes as u32,
    };
    let device = stream.device();
    let kernel = device.kernel(PLACE)?;
    let words = (rows as u64 * u64::from(args.to_bytes / 4)).div_ceil(256);
    let blocks = words.min(u64::from(device.multiprocessors()) * 16) as u32;
    // SAFETY: `rows` rows are in `raw` and have room in the stack (checked).
    unsafe { stream.launch(&kernel, [blocks, 1, 1], 256, 0, Overlap::Alone, &args) }
}

/// Whose rows are wanted.
#[derive(Debug, Clone, Copy)]
pub enum Tokens<'b> {
    /// Each lane's own token.
    Lanes(Part<'b, Lane>),
    Ids(Part<'b, u32>),
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct EmbedArgs {
    table: Matrix,
    lanes: u64,
    tokens: u64,
    out: u64,
}
// SAFETY: numbers without gaps: a matrix of 24 bytes, three of 8.
unsafe impl Plain for EmbedArgs {}

/// The rows of `table` of every token, one after the other. Tokens are below its rows by their word.
pub fn embed(
    stream: &Stream,
    table: &Stack,
    tokens: Tokens<'_>,
    out: Part<'_, f32>,
) -> Result<(), CudaError> {
    const PLACE: &str = "embed";
    /// Of a grid's second size.
    const MOST: usize = 65_535;
    let (lanes, ids, rows) = match tokens {
        Tokens::Lanes(lanes) => (lanes.address(), 0, lanes.len()),
        Tokens::Ids(ids) => (0, ids.address(), ids.len()),
    };
    hold(
        rows <= MOST,
        PLACE,
        "tokens",
        rows,
        format!("at most {MOST}"),
    )?;
    same(PLACE, "values of out", out.len(), rows * table.cols())?;
    let args = EmbedArgs {
        table: table.matrix(),
        lanes,
        tokens: ids,
        out: out.address(),
    };
    let kernel = stream.device().kernel(PLACE)?;
    let grid = [args.table.cols.div_ceil(256), rows as u32, 1];
    // SAFETY: `out` has a row of the table for every token (checked); tokens by their word.
    unsafe { stream.launch(&kernel, grid, 256, 0, Overlap::WithPrevious, &args) }
}
