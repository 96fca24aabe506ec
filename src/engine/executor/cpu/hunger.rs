//! Whether weights are missing from memory, as they are where a model is larger than it. While they
//! are, the kernel is asked for the chosen experts as soon as the router has named them: it reads
//! exactly those, many at once, where each touch alone would wait for its own and for whatever the
//! kernel guesses lies around it. In memory the asking would cost some hundredths of a pass for
//! nothing, so it ends soon after it brought nothing from the disk.
//!
//! A model that memory has room for is not asked for: it is read once, in large pages, which pieces
//! asked for one by one would not come in.

use std::collections::BTreeSet;

use ggml_kernels::map::{FromDisk, GuardedMap, ask_for};

use super::weights::Held;
use crate::engine::layers::Mlp;

/// Passes that ask after the last one that had to wait, or whose asking read something.
const PASSES: u32 = 8;
/// Pages, or the sectors of as many, that are no sign of a lack: a program's own code comes from a
/// file too.
const FEW: u64 = 16;
/// Sectors of the smallest page.
const SECTORS: u64 = 8;

#[derive(Debug, Default)]
pub(super) struct Hunger {
    /// Memory has room for all weights.
    has_room: bool,
    so_far: FromDisk,
    passes_left: u32,
}

impl Hunger {
    /// Of a model's file, which memory `has_room` for or not.
    pub fn of(map: &GuardedMap, has_room: bool) -> Hunger {
        if has_room {
            map.in_large_pages();
        }
        Hunger {
            has_room,
            ..Hunger::default()
        }
    }

    /// After each pass.
    pub fn look(&mut self) {
        self.note(FromDisk::so_far());
    }

    fn note(&mut self, now: FromDisk) {
        let waited_for = now.waited_for.saturating_sub(self.so_far.waited_for);
        let sectors = now.sectors.saturating_sub(self.so_far.sectors);
        self.so_far = now;
        let lacking = waited_for > FEW || self.is_felt() && sectors > FEW * SECTORS;
        self.passes_left = if lacking {
            PASSES
        } else {
            self.passes_left.saturating_sub(1)
        };
    }

    pub fn is_felt(&self) -> bool {
        !self.has_room && self.passes_left > 0
    }
}

/// Asks for the experts of these numbers.
pub(super) fn experts(parts: &Mlp<Held>, map: &[u8], ids: &[u32]) {
    let ids: BTreeSet<u32> = ids.iter().copied().collect();
    for stack in [&parts.gate, &parts.up, &parts.down] {
        for &id in &ids {
            ask_for(stack.one(map, id as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggml_kernels::map::map_file;

    fn from_disk(waited_for: u64, sectors: u64) -> FromDisk {
        FromDisk {
            waited_for,
            sectors,
        }
    }

    #[test]
    fn hunger_begins_with_a_pass_that_waited_and_lasts_some_passes_without() {
        let mut hunger = Hunger::default();
        assert!(!hunger.is_felt());
        hunger.note(from_disk(FEW, 0));
        assert!(!hunger.is_felt());
        hunger.note(from_disk(2 * FEW + 1, 0));
        for pass in 0..PASSES {
            assert!(hunger.is_felt(), "{pass}");
            hunger.note(from_disk(2 * FEW + 1, 0));
        }
        assert!(!hunger.is_felt());
    }

    #[test]
    fn hunger_lasts_while_asking_brings_something_and_reading_alone_does_not_begin_it() {
        let mut hunger = Hunger::default();
        // A file that another part of the program reads.
        hunger.note(from_disk(0, 1 << 20));
        assert!(!hunger.is_felt());
        hunger.note(from_disk(FEW + 1, 1 << 20));
        for pass in 1..10 * u64::from(PASSES) {
            // Nobody waits: it was asked for in time.
            hunger.note(from_disk(FEW + 1, (1 << 20) + pass * (FEW * SECTORS + 1)));
            assert!(hunger.is_felt(), "{pass}");
        }
    }

    #[test]
    fn a_model_that_memory_has_room_for_is_not_asked_for_piece_by_piece() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 10_000]).unwrap();
        let map = map_file(file.path()).unwrap();
        for has_room in [true, false] {
            let mut hunger = Hunger::of(&map, has_room);
            hunger.note(from_disk(2 * FEW + 1, 0));
            assert_eq!(hunger.is_felt(), !has_room);
        }
        assert_eq!(map[9_999], 7);
    }
}
