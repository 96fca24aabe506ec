//! How a launch of products is cut into blocks. The order in which a row's parts are added depends on
//! the matrices, the card and whether the rows are few or several ([`tensor::FROM`]) alone.

use super::super::weights::WeightType;
use super::{STAGED, tensor};

/// Warps of a block.
const WARPS: u32 = 8;
/// Bytes of shared memory that a warp has for itself, narrow or twice as high.
const OWN: [u32; 2] = [4032, 5888];
/// Bytes of a block's sums of a row, at most.
const PARTS: u32 = WARPS * 8 * 4;

/// How matrices of one input are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub kernel: &'static str,
    /// Rows of the input that a block takes; the grid's y has as many batches as there are.
    pub batch: u32,
    /// Warps of a block.
    pub warps: u32,
    /// Warps that share a unit's columns.
    pub splits: u32,
    /// Superblocks of columns that each of them has.
    pub share: u32,
    /// Blocks of each matrix; its tiles where blocks have several matrices'.
    pub blocks: Vec<u32>,
    /// Blocks of them all.
    pub grid: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// A matrix to be planned for.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub ty: WeightType,
    pub rows: u32,
}

/// The card's part of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Card {
    pub multiprocessors: u32,
    /// Bytes that a block may have.
    pub shared: u32,
}

/// `rows` rows of `cols` with matrices of these sizes.
pub fn plan(sizes: &[Size], rows: u32, cols: u32, card: Card) -> Plan {
    let superblocks = cols.div_ceil(256);
    if let Some(plan) = tensor::plan(sizes, rows, superblocks, card) {
        return plan;
    }
    let cut = cut(sizes, superblocks, card.multiprocessors);
    let shared = |batch: u32| superblocks * batch * STAGED + WARPS * OWN[cut.twice];
    let fits = |&batch: &u32| shared(batch) + PARTS * batch <= card.shared;
    let most = rows.next_power_of_two().min(8);
    let batches = [8, 4, 2].into_iter().filter(|&batch| batch <= most);
    let batch = batches.into_iter().find(fits).unwrap_or(1);
    let blocks: Vec<u32> = sizes.iter().map(|size| cut.blocks(size)).collect();
    Plan {
        kernel: kernel(cut.twice, batch),
        batch,
        warps: WARPS,
        splits: cut.splits,
        share: superblocks.div_ceil(cut.splits),
        grid: blocks.iter().sum(),
        blocks,
        shared: shared(batch),
    }
}

/// How a matrix is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// 1: a warp has twice the rows.
    twice: usize,
    splits: u32,
}

impl Cut {
    fn blocks(self, size: &Size) -> u32 {
        let lanes = if size.ty == WeightType::Q8_0 { 2 } else { 4 };
        let units = size.rows.div_ceil(lanes << self.twice);
        units.div_ceil(WARPS / self.splits)
    }
}

/// Matrices with too few rows to fill the card are cut along their columns too. The limits are where one or the
/// other was faster on an H200, with matrices of 576 to 12,576 rows.
fn cut(sizes: &[Size], superblocks: u32, multiprocessors: u32) -> Cut {
    let whole = Cut {
        twice: 0,
        splits: 1,
    };
    let blocks: u32 = sizes.iter().map(|size| whole.blocks(size)).sum();
    if blocks * 2 >= multiprocessors * 5 || superblocks < 2 {
        return whole;
    }
    let halves = blocks >= multiprocessors || superblocks < 4;
    Cut {
        twice: 1,
        splits: if halves { 2 } else { 4 },
    }
}

fn kernel(twice: usize, batch: u32) -> &'static str {
    let names = [
        [
            "products_n5_b1",
            "products_n5_b2",
            "products_n5_b4",
            "products_n5_b8",
        ],
        [
            "products_n4_b1",
            "products_n4_b2",
            "products_n4_b4",
            "products_n4_b8",
        ],
    ];
    names[twice][batch.ilog2() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: Card = Card {
        multiprocessors: 132,
        shared: 227 * 1024,
    };

    fn size(rows: u32) -> Size {
        let ty = WeightType::Q4K;
        Size { ty, rows }
    }

    #[test]
    fn fewer_rows_are_split_more() {
        let cut = |rows, cols| {
            let plan = plan(&[size(rows)], 1, cols, CARD);
            (plan.kernel, plan.splits, plan.blocks[0])
        };
        assert_eq!(cut(12_288, 2304), ("products_n5_b1", 1, 12_288 / 32));
        assert_eq!(cut(6720, 2304), ("products_n4_b1", 2, 6720 / 32));
        assert_eq!(cut(2304, 4096), ("products_n4_b1", 4, 2304 / 16));
        assert_eq!(cut(4096, 128), ("products_n5_b1", 1, 4096 / 32));
    }

    #[test]
    fn the_cut_is_the_same_for_any_number_of_rows() {
        for sizes in [vec![size(2304)], vec![size(12288), size(32)], vec![size(5)]] {
            for (one, all) in [(1, 2..tensor::FROM), (tensor::FROM, tensor::FROM..17)] {
                let one = plan(&sizes, one, 2304, CARD);
                for rows in all {
                    let many = plan(&sizes, rows, 2304, CARD);
                    assert_eq!((many.splits, &many.blocks), (one.splits, &one.blocks));
                    assert_eq!(many.kernel[..11], one.kernel[..11]);
                }
            }
        }
    }

    #[test]
    fn floats_alone_are_taken_as_many_at_a_time_as_fit() {
        let ty = WeightType::F16;
        let long = plan(&[Size { ty, rows: 2304 }], 16, 18_432, CARD);
        assert_eq!((long.kernel, long.batch), ("products_n4_b4", 4));
        assert!(long.shared < CARD.shared);
    }
}
