//! Many that go on from one: what they hold, counted by where it lies, and what becomes of the one.

use std::collections::HashSet;

use crate::checkpoint::{FIXTURES, convert, engines};
use crate::host::through_bytes;
use deltad::engine::{BLOCK, CacheType, Engine, Lane, Runner, Sequence, Snapshot, Want};

const FORKS: usize = 64;

/// Bytes of rows that they hold together. One who holds a block has it in one place.
fn rows<'s>(all: impl Iterator<Item = &'s Snapshot>) -> usize {
    let (mut places, mut bytes) = (HashSet::new(), 0);
    for snapshot in all {
        for at in 0..snapshot.blocks() {
            let block = snapshot.block(at);
            if places.insert(block.as_ptr()) {
                bytes += block.len();
            }
        }
    }
    bytes
}

fn moments(engine: &Engine, forks: &[Sequence]) -> Vec<Snapshot> {
    forks.iter().map(|fork| engine.snapshot(fork)).collect()
}

#[test]
fn sixty_four_that_go_on_from_one_hold_its_rows_once_and_a_slot_each_and_change_nothing_of_it() {
    for name in ["uneven", "ling_odd"] {
        let model = convert(name, "f16");
        for (runner, mut engine) in engines(&model, CacheType::F16, 512) {
            // ggml's graph has its rows in one piece, which it copies.
            if runner == Runner::Stock {
                continue;
            }
            // The next token is a block's first: what a fork adds is in a block of its own.
            let depth = 12 * BLOCK;
            let n_vocab = engine.model().n_vocab();
            let tokens: Vec<u32> = (0..depth).map(|t| (t * 7 % n_vocab) as u32).collect();
            let mut parent = engine.sequence().unwrap();
            engine.feed(&mut parent, &tokens, Want::Nothing).unwrap();
            let moment = engine.snapshot(&parent);
            let before = through_bytes(&moment);
            let (slot, block) = (before.slot.len(), moment.block_bytes());
            assert_eq!(parent.bytes(), slot + depth / BLOCK * block);
            let mut forks: Vec<Sequence> = (0..FORKS)
                .map(|_| engine.restore(&moment).unwrap())
                .collect();

            // A fork takes nothing.
            let what = format!("{name} {runner:?}");
            let fresh = moments(&engine, &forks);
            assert!(fresh.iter().all(|f| f.bytes_beside(&moment) == 0), "{what}");
            assert_eq!(rows(fresh.iter().chain([&moment])), depth / BLOCK * block);

            // Each goes its own way, all of them in the same passes, for a block.
            let mut ways: Vec<u32> = (0..FORKS as u32).collect();
            for _ in 0..BLOCK {
                let lanes = forks.iter_mut().zip(&ways);
                let mut lanes: Vec<Lane<'_>> = lanes
                    .map(|(sequence, token)| Lane {
                        sequence,
                        tokens: std::slice::from_ref(token),
                        want: Want::Last,
                    })
                    .collect();
                engine.forward(&mut lanes).unwrap();
                ways.iter_mut().for_each(|t| *t = (*t * 3 + 1) % 300);
            }
            let gone = moments(&engine, &forks);
            for fork in &gone {
                assert_eq!(fork.bytes_beside(&moment), slot + block, "{what}");
            }
            let all = rows(gone.iter().chain([&moment]));
            assert_eq!(all, (depth / BLOCK + FORKS) * block, "{what}");

            // The one that they came from is what it was, and goes on as if they had never been.
            let after = through_bytes(&engine.snapshot(&parent));
            assert_eq!(after.blocks, before.blocks, "{what}");
            assert_eq!((&after.slot, &after.tail), (&before.slot, &before.tail));
            let mut alone = engine.sequence().unwrap();
            engine.feed(&mut alone, &tokens, Want::Nothing).unwrap();
            let wanted = engine.feed(&mut alone, &[1, 2, 3], Want::All).unwrap();
            let got = engine.feed(&mut parent, &[1, 2, 3], Want::All).unwrap();
            assert_eq!(got, wanted, "{what}");
        }
    }
}

#[test]
fn what_a_state_takes_is_told_before_it_is_there() {
    let caches = [
        CacheType::F32,
        CacheType::F16,
        CacheType::Bf16,
        CacheType::Q8_0,
    ];
    for name in FIXTURES {
        let model = convert(name, "f16");
        for cache in caches {
            let options = crate::checkpoint::options(cache, 512);
            let Some(mut engine) = crate::checkpoint::open(&model.path, &options) else {
                assert_eq!(cache, CacheType::Q8_0, "{name}");
                continue;
            };
            let size = deltad::scheduler::Size::new(&engine);
            for len in [0, 1, 63, 64, 65, 511, 700] {
                let mut sequence = engine.sequence().unwrap();
                engine
                    .feed(&mut sequence, &vec![1; len], Want::Nothing)
                    .unwrap();
                let moment = engine.snapshot(&sequence);
                let held: usize = (0..moment.blocks()).map(|at| moment.block(at).len()).sum();
                let last = (len % BLOCK).min(1) * moment.block_bytes();
                let held = held + last + moment.slot().len();
                let what = format!("{name} {cache:?} {len}");
                assert_eq!((size.of(len), sequence.bytes()), (held, held), "{what}");
            }
        }
    }
}
