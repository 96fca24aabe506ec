//! How a launch of products is cut into blocks. The order in which a row's parts are added depends on
//! the matrices and the card alone, never on how many rows there are.

use super::super::weights::WeightType;

/// Warps of a block.
const WARPS: u32 = 8;
/// Bytes of shared memory: of a superblock of an input row, of a warp's own, and of a block's sums of a row.
const STAGED: u32 = 352;
const OWN: [u32; 2] = [6720, 5888];
const PARTS: u32 = WARPS * 4 * 4;
/// Blocks that a multiprocessor holds at a time.
const RESIDENT: u32 = 3;

/// How matrices of one input are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub kernel: &'static str,
    /// Rows of the input that a block takes; the grid's y has as many batches as there are.
    pub batch: u32,
    /// Warps that share a unit's columns.
    pub splits: u32,
    /// Blocks of each matrix.
    pub blocks: Vec<u32>,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// A matrix to be planned for.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub ty: WeightType,
    pub rows: u32,
    pub bytes: u64,
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
    let narrow = Cut {
        twice: 0,
        splits: 1,
    };
    let whole = sizes.iter().map(|size| narrow.blocks(size)).sum::<u32>();
    // Matrices with too few rows to fill the card are cut along their columns too.
    let cut = if whole >= card.multiprocessors {
        narrow
    } else {
        let splits = match superblocks {
            0..2 => 1,
            2..4 => 2,
            _ => 4,
        };
        Cut { twice: 1, splits }
    };
    let shared = |batch: u32| superblocks * batch * STAGED + WARPS * OWN[cut.twice];
    let fits = |&batch: &u32| shared(batch) + PARTS * 2 * batch <= card.shared;
    let most = rows.next_power_of_two().min(8);
    let batches = [8, 4, 2].into_iter().filter(|&batch| batch <= most);
    let batch = batches.into_iter().find(fits).unwrap_or(1);
    Plan {
        kernel: kernel(cut.twice, batch),
        batch,
        splits: cut.splits,
        blocks: blocks(sizes, cut, RESIDENT * card.multiprocessors),
        shared: shared(batch),
    }
}

/// How a matrix is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// 1: a warp has twice the rows, and fewer columns in flight.
    twice: usize,
    splits: u32,
}

impl Cut {
    /// Blocks that have all of a matrix, each unit once.
    fn blocks(self, size: &Size) -> u32 {
        let lanes = if size.ty == WeightType::Q8_0 { 2 } else { 4 };
        let units = size.rows.div_ceil(lanes << self.twice);
        units.div_ceil(WARPS / self.splits)
    }
}

/// Where there are more than the card holds at a time, whole units are walked over instead: each matrix has
/// blocks by its bytes.
fn blocks(sizes: &[Size], cut: Cut, resident: u32) -> Vec<u32> {
    let all: Vec<u32> = sizes.iter().map(|size| cut.blocks(size)).collect();
    if cut.splits > 1 || all.iter().sum::<u32>() <= resident {
        return all;
    }
    let bytes: u64 = sizes.iter().map(|size| size.bytes).sum();
    let to_share = u64::from(resident.saturating_sub(sizes.len() as u32));
    let share = |(size, &n): (&Size, &u32)| {
        let blocks = (size.bytes * to_share / bytes.max(1)) as u32 + 1;
        n.div_ceil(n.div_ceil(blocks).max(1))
    };
    sizes.iter().zip(&all).map(share).collect()
}

fn kernel(twice: usize, batch: u32) -> &'static str {
    let names = [
        [
            "products_n9_b1",
            "products_n9_b2",
            "products_n9_b4",
            "products_n9_b8",
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
        Size {
            ty: WeightType::Q4K,
            rows,
            bytes: u64::from(rows) * 1296,
        }
    }

    #[test]
    fn many_rows_are_walked_over_and_few_are_split() {
        let head = plan(&[size(163_840)], 1, 2304, CARD);
        assert_eq!((head.kernel, head.splits), ("products_n9_b1", 1));
        assert!(head.blocks[0] <= 3 * 132 && head.blocks[0] > 2 * 132);
        let out = plan(&[size(2304)], 1, 4096, CARD);
        assert_eq!((out.kernel, out.splits), ("products_n4_b1", 4));
        assert_eq!(out.blocks, [2304 / 16]);
    }

    #[test]
    fn the_cut_is_the_same_for_any_number_of_rows() {
        for sizes in [vec![size(2304)], vec![size(12288), size(32)], vec![size(5)]] {
            let one = plan(&sizes, 1, 2304, CARD);
            for rows in 2..=16 {
                let many = plan(&sizes, rows, 2304, CARD);
                assert_eq!((many.splits, &many.blocks), (one.splits, &one.blocks));
                assert_eq!(many.kernel[..11], one.kernel[..11]);
            }
        }
    }

    #[test]
    fn rows_too_long_for_eight_at_a_time_are_taken_fewer_at_a_time() {
        let long = plan(&[size(2304)], 16, 18_432, CARD);
        assert_eq!(long.batch, 4);
        assert!(long.shared < CARD.shared);
    }
}
