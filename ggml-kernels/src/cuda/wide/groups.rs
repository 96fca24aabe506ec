//! Rows by expert, and what comes back of them summed by rank.

use super::super::driver::{Buffer, CudaError, Device, Overlap, Part, Plain, Stream};
use super::{count, fits, hold};

/// Positions of one expert that go together, and experts that are told apart: as in `grouped.cuh`.
pub(super) const GROUP_ROWS: usize = 128;
const GROUP_THREADS: u32 = 1024;
const MOST_EXPERTS: usize = 1024;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Tile {
    expert: u32,
    first: u32,
    count: u32,
    pad: u32,
}
// SAFETY: four numbers without gaps.
unsafe impl Plain for Tile {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct GroupArgs {
    ids: u64,
    order: u64,
    offsets: u64,
    tiles: u64,
    done: u64,
    pairs: u32,
    experts: u32,
    tiles_at_most: u32,
    pad: u32,
}
// SAFETY: numbers without gaps: five of 8 bytes, four of 4.
unsafe impl Plain for GroupArgs {}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct CombineArgs {
    x: u64,
    rows: u64,
    weights: u64,
    shared: u64,
    tokens: u32,
    used: u32,
    hidden: u32,
    pad: u32,
}
// SAFETY: numbers without gaps: four of 8 bytes, four of 4.
unsafe impl Plain for CombineArgs {}

/// Room for choices sorted by expert; one for each stream.
#[derive(Debug)]
pub struct Groups {
    pub(super) order: Buffer<u32>,
    offsets: Buffer<u32>,
    pub(super) tiles: Buffer<Tile>,
    done: Buffer<u32>,
    pub(super) experts: usize,
}

impl Groups {
    /// For up to `pairs` choices, a token's every rank being one.
    pub fn new(device: &Device, pairs: usize, experts: usize) -> Result<Groups, CudaError> {
        const PLACE: &str = "groups of rows";
        let known = (1..=MOST_EXPERTS).contains(&experts);
        hold(known, PLACE, "experts", experts, "1 to 1024")?;
        let tiles = tiles_at_most(pairs, experts);
        // A tile is a block in the grid's second direction.
        hold(tiles <= 65535, PLACE, "choices", pairs, "fewer")?;
        Ok(Groups {
            order: device.zeroed(pairs)?,
            offsets: device.zeroed(experts + 1)?,
            tiles: device.zeroed(tiles)?,
            done: device.zeroed(1)?,
            experts,
        })
    }
}

/// Tiles that `pairs` choices come to, whoever chooses whom.
fn tiles_at_most(pairs: usize, experts: usize) -> usize {
    (pairs / GROUP_ROWS + experts).min(pairs)
}

/// Choices that [`group_rows`] sorted, or will have by the time that the stream comes to their next user.
/// Position: a choice's place in that order. Pair: token * `used` + rank.
#[derive(Debug, Clone, Copy)]
pub struct Grouped<'g> {
    pub(super) groups: &'g Groups,
    pub(super) pairs: usize,
    used: usize,
}

impl Grouped<'_> {
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    pub fn used(&self) -> usize {
        self.used
    }

    pub fn tokens(&self) -> usize {
        self.pairs / self.used
    }

    pub(super) fn tiles_at_most(&self) -> usize {
        tiles_at_most(self.pairs, self.groups.experts)
    }
}

/// Sorts `ids [tokens, used]`, an expert's choices in their own order.
pub fn group_rows<'g>(
    stream: &Stream,
    ids: Part<'_, u32>,
    used: usize,
    groups: &'g Groups,
) -> Result<Grouped<'g>, CudaError> {
    const PLACE: &str = "group_rows";
    let pairs = ids.len();
    let whole = used > 0 && pairs.is_multiple_of(used);
    hold(whole, PLACE, "ids", pairs, format!("some tokens' {used}"))?;
    let room = groups.order.len();
    hold(
        pairs <= room,
        PLACE,
        "ids",
        pairs,
        format!("at most {room}"),
    )?;
    let grouped = Grouped {
        groups,
        pairs,
        used,
    };
    if pairs == 0 {
        return Ok(grouped);
    }
    let args = GroupArgs {
        ids: ids.address(),
        order: groups.order.address(),
        offsets: groups.offsets.address(),
        tiles: groups.tiles.address(),
        done: groups.done.address(),
        pairs: count(PLACE, "ids", pairs)?,
        experts: groups.experts as u32,
        tiles_at_most: tiles_at_most(pairs, groups.experts) as u32,
        pad: 0,
    };
    let kernel = stream.device().kernel("wide_group")?;
    let grid = [args.experts, 1, 1];
    // SAFETY: ids has `pairs`, the groups have room for as many and their tiles; an id that is no
    // expert's gets no position.
    unsafe {
        stream.launch(
            &kernel,
            grid,
            GROUP_THREADS,
            0,
            Overlap::WithPrevious,
            &args,
        )?;
    }
    Ok(grouped)
}

/// Adds to `x [tokens, hidden]` the sum over ranks of weight * row, and the shared expert's row.
#[derive(Debug, Clone, Copy)]
pub struct Combined<'b> {
    pub x: Part<'b, f32>,
    /// `[pairs, hidden]` by pair.
    pub rows: Part<'b, f32>,
    /// `[tokens, used]`.
    pub weights: Part<'b, f32>,
    /// `[tokens, hidden]`.
    pub shared: Option<Part<'b, f32>>,
    pub used: usize,
    pub hidden: usize,
}

/// Ranks one after the other, then the shared row, then `x`.
pub fn combine(stream: &Stream, to: &Combined<'_>) -> Result<(), CudaError> {
    const PLACE: &str = "combine";
    const THREADS: u32 = 192;
    let (used, hidden) = (to.used, to.hidden);
    let whole = hidden > 0 && hidden.is_multiple_of(4);
    hold(whole, PLACE, "hidden", hidden, "a multiple of 4")?;
    hold(used > 0, PLACE, "used experts", used, "at least 1")?;
    let tokens = to.weights.len() / used;
    let len = to.weights.len();
    hold(len == tokens * used, PLACE, "weights", len, tokens * used)?;
    // A token is a block in the grid's second direction.
    hold(tokens <= 65535, PLACE, "tokens", tokens, "at most 65535")?;
    let shared = to.shared.map(|s| ("the shared rows", s, tokens));
    let parts = [("x", to.x, tokens), ("rows", to.rows, tokens * used)];
    for (what, part, rows) in parts.into_iter().chain(shared) {
        fits(PLACE, what, part.len(), rows, hidden, hidden)?;
        let got = format!("at {:#x}", part.address());
        let wanted = "aligned to 16 bytes";
        hold(part.address().is_multiple_of(16), PLACE, what, got, wanted)?;
    }
    let args = CombineArgs {
        x: to.x.address(),
        rows: to.rows.address(),
        weights: to.weights.address(),
        shared: to.shared.map_or(0, |s| s.address()),
        tokens: tokens as u32,
        used: count(PLACE, "used experts", used)?,
        hidden: count(PLACE, "hidden", hidden)?,
        pad: 0,
    };
    let kernel = stream.device().kernel("wide_combine")?;
    let grid = [(args.hidden / 4).div_ceil(THREADS), args.tokens, 1];
    // SAFETY: all parts have as many rows of `hidden` as `tokens` and `used` say (checked).
    unsafe { stream.launch(&kernel, grid, THREADS, 0, Overlap::WithPrevious, &args) }
}
