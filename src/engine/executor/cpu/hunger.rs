//! Whether weights are missing from memory, as they are where a model is larger than it. While they
//! are, the kernel is asked for the chosen experts as soon as the router has named them: it reads
//! exactly those, many at once, where each touch alone would wait for its own and for whatever the
//! kernel guesses lies around it. In memory the asking would cost some hundredths of a pass for
//! nothing.

use std::collections::BTreeSet;

use ggml_kernels::map::{ask_for, pages_waited_for};

use super::weights::Held;
use crate::engine::layers::Mlp;

/// Passes that ask after one that had to wait: asking itself leaves nothing to wait for.
const PASSES: u32 = 256;
/// Pages of a pass that are no sign of a lack: a program's own code comes from a file too.
const FEW: u64 = 16;

#[derive(Debug, Default)]
pub(super) struct Hunger {
    waited_for: u64,
    passes_left: u32,
}

impl Hunger {
    /// After each pass.
    pub fn look(&mut self) {
        self.note(pages_waited_for());
    }

    /// `waited_for`: pages, since the process began.
    fn note(&mut self, waited_for: u64) {
        let more = waited_for.saturating_sub(self.waited_for);
        self.waited_for = waited_for;
        self.passes_left = if more > FEW {
            PASSES
        } else {
            self.passes_left.saturating_sub(1)
        };
    }

    pub fn is_felt(&self) -> bool {
        self.passes_left > 0
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

    #[test]
    fn hunger_begins_with_a_pass_that_waited_and_lasts_some_passes_without() {
        let mut hunger = Hunger::default();
        assert!(!hunger.is_felt());
        hunger.note(FEW);
        assert!(!hunger.is_felt());
        hunger.note(2 * FEW + 1);
        for pass in 0..PASSES {
            assert!(hunger.is_felt(), "{pass}");
            hunger.note(2 * FEW + 1);
        }
        assert!(!hunger.is_felt());
    }
}
