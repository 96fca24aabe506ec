//! How a launch of several rows is cut: tiles of 16 rows of weights, for tensor cores.
//!
//! A small matrix's bytes are all asked for at once: its tiles' columns are shared among as many warps as the card
//! has room for, and a block's warps have tiles of any matrix. Where there are more tiles than warps, a warp goes from
//! tile to tile of one.

use super::super::weights::WeightType;
use super::plan::{Card, Plan, Size};

/// Rows of a pass from which on these kernels take it.
pub const FROM: u32 = 3;
/// Warps of a block, and blocks of a multiprocessor, at most. Where a block takes 16 rows of the input, there is room
/// for these once: it has both blocks' warps then.
const WARPS: u32 = 9;
const BLOCKS: u32 = 2;
const MOST_BATCH: u32 = 16;
/// Rows of weights.
const TILE: u32 = 16;
/// Bytes of shared memory: a warp's own, and a superblock of an input row.
const OWN: u32 = 8848;
const STAGED: u32 = 320;

/// Nothing where the old way is to be taken: for few rows, for floats alone and for rows that do not fit.
pub fn plan(sizes: &[Size], rows: u32, superblocks: u32, card: Card) -> Option<Plan> {
    let quantized = |size: &Size| {
        !matches!(
            size.ty,
            WeightType::F32 | WeightType::F16 | WeightType::Bf16
        )
    };
    if rows < FROM || !sizes.iter().any(quantized) {
        return None;
    }
    let tiles: Vec<u32> = sizes.iter().map(|size| size.rows.div_ceil(TILE)).collect();
    let all: u32 = tiles.iter().sum();
    let (share, splits) = split(all, superblocks, card.multiprocessors);
    let shared = |batch: u32, warps: u32| superblocks * batch * STAGED + warps * OWN;
    // Groups of warps that fit, for as many as there should be, or half of them.
    let groups = |batch: u32| {
        let least = WARPS / splits;
        let most = if batch == MOST_BATCH {
            BLOCKS * WARPS / splits
        } else {
            least
        };
        let fits = |&groups: &u32| shared(batch, groups * splits) <= card.shared;
        (least..=most).rev().find(fits)
    };
    let least = rows.next_power_of_two().clamp(4, MOST_BATCH);
    let mut batches = [MOST_BATCH, 8, 4]
        .into_iter()
        .filter(|&batch| batch <= least);
    let (batch, groups) = batches.find_map(|batch| Some((batch, groups(batch)?)))?;
    let warps = groups * splits;
    let (blocks, grid) = if splits > 1 {
        (tiles, all.div_ceil(groups))
    } else {
        let blocks = tiles.iter().map(|tiles| tiles.div_ceil(groups)).collect();
        let at_once = if batch == MOST_BATCH { 1 } else { BLOCKS };
        let blocks = resident(blocks, at_once * card.multiprocessors);
        let grid = blocks.iter().sum();
        (blocks, grid)
    };
    let kernel = if batch == MOST_BATCH {
        "products_tensor_16"
    } else {
        "products_tensor_8"
    };
    Some(Plan {
        kernel,
        batch,
        warps,
        splits,
        share,
        blocks,
        grid,
        shared: shared(batch, warps),
    })
}

/// Superblocks to a warp, and warps to a tile.
fn split(tiles: u32, superblocks: u32, multiprocessors: u32) -> (u32, u32) {
    let room = multiprocessors * BLOCKS * WARPS;
    let work = u64::from(tiles) * u64::from(superblocks);
    let share = work.div_ceil(u64::from(room)).max(1);
    let share = share.min(u64::from(superblocks)) as u32;
    let share = share.max(superblocks.div_ceil(WARPS));
    let splits = superblocks.div_ceil(share);
    (superblocks.div_ceil(splits), splits)
}

/// As many blocks as the card holds at a time, if there are more, to each matrix its part.
fn resident(mut blocks: Vec<u32>, most: u32) -> Vec<u32> {
    let all: u32 = blocks.iter().sum();
    if all > most {
        for blocks in &mut blocks {
            *blocks = (u64::from(*blocks) * u64::from(most) / u64::from(all)).max(1) as u32;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: Card = Card {
        multiprocessors: 132,
        shared: 227 * 1024,
    };

    fn of(rows: &[u32], cols: u32, pass: u32) -> Plan {
        let size = |&rows| Size {
            ty: WeightType::Q4K,
            rows,
        };
        let sizes: Vec<Size> = rows.iter().map(size).collect();
        plan(&sizes, pass, cols.div_ceil(256), CARD).unwrap()
    }

    #[test]
    fn a_small_matrix_is_on_its_way_at_once_and_a_great_one_tile_after_tile() {
        let cut = |rows: &[u32], cols| {
            let plan = of(rows, cols, 8);
            assert!(plan.splits * plan.share >= cols.div_ceil(256));
            (plan.splits, plan.share, plan.warps, plan.blocks, plan.grid)
        };
        assert_eq!(cut(&[12_288, 288], 2304), (3, 3, 9, vec![768, 18], 262));
        assert_eq!(cut(&[2304], 4096), (8, 2, 8, vec![144], 144));
        assert_eq!(cut(&[163_840], 2304), (1, 9, 9, vec![264], 264));
        assert_eq!(cut(&[163_840, 16], 2304), (1, 9, 9, vec![263, 1], 264));
        assert_eq!(cut(&[5], 32), (1, 1, 9, vec![1], 1));
    }

    #[test]
    fn rows_too_long_for_all_at_a_time_are_taken_fewer_at_a_time() {
        let batch = |cols, rows| of(&[2304], cols, rows).batch;
        assert_eq!((batch(2304, 3), batch(2304, 5), batch(2304, 9)), (4, 8, 16));
        assert_eq!(batch(18_432, 16), 4);
        let block = |rows: &[u32], cols| {
            let plan = of(rows, cols, 16);
            assert!(plan.shared <= CARD.shared);
            (plan.batch, plan.splits, plan.share, plan.warps, plan.grid)
        };
        assert_eq!(block(&[12_288, 288], 2304), (16, 3, 3, 18, 131));
        assert_eq!(block(&[2304], 4096), (16, 8, 2, 16, 72));
        assert_eq!(block(&[163_840], 2304), (16, 1, 9, 18, 132));
        assert!(plan(&[], 16, 72, CARD).is_none());
    }
}
