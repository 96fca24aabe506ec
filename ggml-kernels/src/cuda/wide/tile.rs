//! Which tile a product is cut into. One small rule, so that it is easily set anew by what is measured.

use super::super::driver::Device;
use super::super::weights::WeightType;

/// A kernel's block: `rows` of the input by `columns` rows of matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub name: &'static str,
    pub rows: u32,
    pub columns: u32,
    pub threads: u32,
    /// Blocks that a multiprocessor has at a time (`KERNEL_BOUNDS`).
    resident: u32,
    /// How fast a card full of them is; only how they compare matters.
    rate: u32,
}

/// What a card is, as far as tiles are concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Card {
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may have.
    pub shared: u32,
    /// It multiplies by Hopper's warpgroups.
    pub is_hopper: bool,
}

impl Card {
    pub fn of(device: &Device) -> Card {
        Card {
            multiprocessors: device.multiprocessors(),
            shared: device.shared_memory(),
            is_hopper: device.compute() == (9, 0),
        }
    }
}

/// Matrices that a launch meets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Met<'t> {
    pub types: &'t [WeightType],
    /// Gate and up are of two types.
    pub is_mixed: bool,
}

const TILES: [Tile; 4] = [
    tile("wide_2", 2, 2, 4, 142),
    tile("wide_4", 4, 4, 3, 197),
    tile("wide_6", 6, 4, 2, 196),
    tile("wide_8", 8, 4, 2, 159),
];
const EXPERT_TILES: [Tile; 3] = [
    tile("wide_experts_8", 8, 4, 2, 0),
    tile("wide_experts_4", 4, 4, 3, 0),
    tile("wide_experts_2", 2, 2, 4, 0),
];
const HOPPER_TILES: [Tile; 2] = [
    hopper_tile("wide_hopper_64", 64, 350),
    hopper_tile("wide_hopper_128", 128, 500),
];
const HOPPER_EXPERTS: Tile = hopper_tile("wide_hopper_experts", 128, 0);

/// `fragments` x 16 rows by 32 columns for each warp.
const fn tile(name: &'static str, fragments: u32, warps: u32, resident: u32, rate: u32) -> Tile {
    Tile {
        name,
        rows: fragments * 16,
        columns: warps * 32,
        threads: warps * 32,
        resident,
        rate,
    }
}

/// 16 columns for each of 8 warps.
const fn hopper_tile(name: &'static str, rows: u32, rate: u32) -> Tile {
    Tile {
        name,
        rows,
        columns: HOPPER_WARPS * 16,
        threads: HOPPER_WARPS * 32,
        resident: 2,
        rate,
    }
}

impl Tile {
    /// Bytes of shared memory that it is launched with.
    pub fn shared(&self, met: Met<'_>) -> u32 {
        let most = |warp_bytes: fn(WeightType) -> u32| {
            let bytes = met.types.iter().map(|&ty| warp_bytes(ty));
            bytes.max().unwrap_or(0)
        };
        let rows = STAGES * self.rows * STEP * 2;
        let warps = self.threads / 32;
        if self.is_hopper() {
            // The rows' places, and a whole number of what it begins at a multiple of.
            return (rows + HOPPER_OFFSETS + warps * most(hopper_warp_bytes))
                .next_multiple_of(1024);
        }
        if met.is_mixed {
            // What comes of gate waits behind what either may take.
            return rows + warps * (MOST_WARP_BYTES + self.rows * 64);
        }
        rows + warps * most(warp_bytes)
    }

    fn is_hopper(&self) -> bool {
        self.threads == HOPPER_WARPS * 32
    }

    /// What it takes on a card, in no unit: whole turns of all multiprocessors.
    fn cost(&self, rows: u32, columns: u32, multiprocessors: u32) -> u64 {
        let blocks = rows.div_ceil(self.rows) * columns.div_ceil(self.columns);
        let turns = blocks.div_ceil(multiprocessors * self.resident);
        let a_turn = self.resident * self.rows * self.columns;
        u64::from(turns) * u64::from(a_turn) * 1000 / u64::from(self.rate)
    }

    fn has_room(&self, card: Card, met: Met<'_>) -> bool {
        self.shared(met) + STATIC <= card.shared
    }
}

/// The best for `rows` x `columns` of results, of those whose blocks have room; the smallest where none has.
pub(super) fn choose((rows, columns): (u32, u32), card: Card, met: Met<'_>) -> Tile {
    let cost = |tile: &&Tile| tile.cost(rows, columns, card.multiprocessors);
    let tiles: &[Tile] = if card.is_hopper && !met.is_mixed {
        &HOPPER_TILES
    } else {
        &TILES
    };
    let best = tiles.iter().filter(|tile| tile.has_room(card, met));
    *best.min_by_key(cost).unwrap_or(&tiles[0])
}

/// The largest for experts that has room.
pub(super) fn choose_for_experts(card: Card, met: Met<'_>) -> Tile {
    if card.is_hopper && !met.is_mixed {
        return HOPPER_EXPERTS;
    }
    let found = EXPERT_TILES.iter().find(|tile| tile.has_room(card, met));
    *found.unwrap_or(&EXPERT_TILES[2])
}

/// As in `tile.cuh`, `warpgroup.cuh` and `unpack.cuh`. `STATIC`: the rows' places, beside what is dynamic.
const STAGES: u32 = 3;
const STEP: u32 = 64;
const STATIC: u32 = 512;
const MOST_WARP_BYTES: u32 = 16384;
const HOPPER_WARPS: u32 = 8;
const HOPPER_OFFSETS: u32 = 512;

/// `WarpBytes`: spans of a row and their scales, for all rows of a warp.
fn warp_bytes(ty: WeightType) -> u32 {
    let (spans, stride, table) = match ty {
        WeightType::F32 | WeightType::F16 | WeightType::Bf16 => (4, 128, 0),
        WeightType::Q4_0 | WeightType::Q4K => (2, 144, 32),
        WeightType::Q8_0 => (3, 144, 32),
        WeightType::Q5K => (2, 176, 32),
        WeightType::Q6K => (2, 208, 32),
    };
    32 * (spans * stride + table)
}

fn hopper_warp_bytes(ty: WeightType) -> u32 {
    warp_bytes(ty) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q4: Met<'static> = Met {
        types: &[WeightType::Q4K],
        is_mixed: false,
    };

    fn card(shared: u32, is_hopper: bool) -> Card {
        Card {
            multiprocessors: 132,
            shared,
            is_hopper,
        }
    }

    #[test]
    fn few_results_are_cut_small_and_many_large() {
        for is_hopper in [false, true] {
            let card = card(232_448, is_hopper);
            let rows = |rows, columns| choose((rows, columns), card, Q4).rows;
            assert!(rows(128, 2304) < rows(4096, 12288), "{is_hopper}");
        }
    }

    #[test]
    fn a_tile_that_has_no_room_is_never_chosen() {
        for is_mixed in [false, true] {
            let types = &[WeightType::F16, WeightType::Q6K];
            let (met, card) = (Met { types, is_mixed }, card(101_376, false));
            for rows in [1, 64, 100, 2048, 8192] {
                assert!(choose((rows, 12288), card, met).has_room(card, met));
            }
            assert!(choose_for_experts(card, met).has_room(card, met));
        }
    }

    #[test]
    fn two_blocks_of_a_warpgroup_tile_have_room_on_a_multiprocessor() {
        for ty in [WeightType::F16, WeightType::Q8_0, WeightType::Q6K] {
            let met = Met {
                types: &[ty],
                is_mixed: false,
            };
            // 228 KiB, of which each block takes one more.
            assert!(2 * (HOPPER_EXPERTS.shared(met) + 1024) <= 228 * 1024);
        }
    }
}
