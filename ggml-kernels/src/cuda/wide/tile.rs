//! Which tile a product is cut into. One small rule, so that it is easily set anew by what is measured.

use super::super::weights::WeightType;

/// A kernel: `fragments` x 16 rows by 32 columns for each warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub name: &'static str,
    pub fragments: u32,
    pub warps: u32,
    /// Blocks that a multiprocessor has at a time (`KERNEL_BOUNDS`).
    resident: u32,
    /// TFLOP/s of an H100 full of them (q4_k, 4096 rows, 12288 columns): only how they compare matters.
    rate: u32,
}

/// Smallest first.
pub(super) const TILES: [Tile; 4] = [
    tile("wide_2", 2, 2, 4, 142),
    tile("wide_4", 4, 4, 2, 197),
    tile("wide_6", 6, 4, 2, 196),
    tile("wide_8", 8, 4, 2, 159),
];

/// The tile of `wide_experts`: as many rows as a group has at most.
pub(super) const EXPERTS: Tile = tile("wide_experts", 8, 4, 2, 159);

const fn tile(name: &'static str, fragments: u32, warps: u32, resident: u32, rate: u32) -> Tile {
    Tile {
        name,
        fragments,
        warps,
        resident,
        rate,
    }
}

impl Tile {
    pub fn rows(&self) -> u32 {
        self.fragments * 16
    }

    /// Rows of matrices in it.
    pub fn columns(&self) -> u32 {
        self.warps * 32
    }

    /// Bytes of shared memory. `types`: all that are met; `mixed`: gate and up differ somewhere.
    pub fn shared(&self, types: &[WeightType], mixed: bool) -> u32 {
        let rows = STAGES * self.rows() * STEP * 2;
        if mixed {
            let waiting = self.fragments * self.warps * 1024;
            return rows + self.warps * MOST_WARP_BYTES + waiting;
        }
        let most = types.iter().map(|&ty| warp_bytes(ty)).max();
        rows + self.warps * most.unwrap_or(0)
    }

    /// What it takes on a card, in no unit: whole turns of all multiprocessors.
    fn cost(&self, rows: u32, columns: u32, multiprocessors: u32) -> u64 {
        let blocks = rows.div_ceil(self.rows()) * columns.div_ceil(self.columns());
        let turns = blocks.div_ceil(multiprocessors * self.resident);
        let a_turn = self.resident * self.rows() * self.columns();
        u64::from(turns) * u64::from(a_turn) * 1000 / u64::from(self.rate)
    }
}

/// The best for `rows` x `columns` of results on a card of so many `multiprocessors`, of those whose
/// blocks have room in its `shared` memory; the smallest where none has.
pub(super) fn choose(
    (rows, columns): (u32, u32),
    (multiprocessors, shared): (u32, u32),
    (types, mixed): (&[WeightType], bool),
) -> Tile {
    let has_room = |tile: &&Tile| tile.shared(types, mixed) + STATIC <= shared;
    let cost = |tile: &&Tile| tile.cost(rows, columns, multiprocessors);
    let best = TILES.iter().filter(has_room).min_by_key(cost);
    *best.unwrap_or(&TILES[0])
}

/// As in `tile.cuh` and `unpack.cuh`. `STATIC`: the rows' places, beside what is dynamic.
const STAGES: u32 = 3;
const STEP: u32 = 64;
const STATIC: u32 = 512;
const MOST_WARP_BYTES: u32 = 16384;

/// `WarpBytes`: the spans of a warp's 32 rows, and their scales.
fn warp_bytes(ty: WeightType) -> u32 {
    let (spans, stride, table) = match ty {
        WeightType::F32 | WeightType::F16 | WeightType::Bf16 => (4, 128, 0),
        WeightType::Q4_0 | WeightType::Q4K => (2, 144, 1024),
        WeightType::Q8_0 => (3, 144, 1024),
        WeightType::Q5K => (2, 176, 1024),
        WeightType::Q6K => (2, 208, 1024),
    };
    spans * 32 * stride + table
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: (u32, u32) = (132, 232_448);

    #[test]
    fn few_results_are_cut_small_and_many_large() {
        let q4 = (&[WeightType::Q4K][..], false);
        assert_eq!(choose((128, 2304), H100, q4).name, "wide_2");
        assert_ne!(choose((4096, 12288), H100, q4).name, "wide_2");
    }

    #[test]
    fn a_tile_that_has_no_room_is_never_chosen() {
        let f16 = (&[WeightType::F16][..], false);
        for rows in [1, 64, 100, 2048, 8192] {
            for mixed in [false, true] {
                let tile = choose((rows, 12288), (84, 101_376), (f16.0, mixed));
                assert!(tile.shared(f16.0, mixed) + STATIC <= 101_376, "{rows}");
            }
        }
    }
}
