//! A state that was bytes goes on as if it had never been: not a bit differs on the executor that
//! it came from, and every executor understands every other's.

use crate::checkpoint::{Converted, FIXTURES, Golden, convert, engines};
use deltad::engine::{BLOCK, CacheType, HostState, Lent, Runner, Snapshot, Want};

const CACHES: [CacheType; 4] = [
    CacheType::F32,
    CacheType::F16,
    CacheType::Bf16,
    CacheType::Q8_0,
];

/// As a file would give it back: bytes that nobody shares.
pub fn through_bytes(snapshot: &Snapshot) -> HostState {
    let copy = |bytes: bytes::Bytes| bytes.to_vec().into();
    let blocks: Vec<bytes::Bytes> = (0..snapshot.blocks())
        .map(|at| copy(snapshot.block(at)))
        .collect();
    assert!(blocks.iter().all(|b| b.len() == snapshot.block_bytes()));
    HostState {
        len: snapshot.len(),
        blocks,
        slot: copy(snapshot.slot()),
        tail: copy(snapshot.tail()),
        lent: Lent::default(),
    }
}

fn prompt(len: usize, n_vocab: usize) -> Vec<u32> {
    (0..len).map(|t| (t * 7 % n_vocab) as u32).collect()
}

fn fits(cache: CacheType, model: &Converted) -> bool {
    let options = crate::checkpoint::options(cache, 64);
    crate::checkpoint::open(&model.path, &options).is_some()
}

#[test]
fn a_state_that_was_bytes_goes_on_bit_by_bit() {
    for name in FIXTURES {
        let model = convert(name, "f16");
        for cache in CACHES {
            // Some fixtures' rows are no whole blocks of q8_0.
            if !fits(cache, &model) {
                continue;
            }
            for (runner, mut engine) in engines(&model, cache, 64) {
                // Nothing, less than a block, a block, and behind two.
                for len in [0, 5, BLOCK, 2 * BLOCK + 9] {
                    let what = format!("{name} {cache:?} {runner:?} {len}");
                    let tokens = prompt(len, engine.model().n_vocab());
                    let mut sequence = engine.sequence().unwrap();
                    engine.feed(&mut sequence, &tokens, Want::Nothing).unwrap();
                    let state = through_bytes(&engine.snapshot(&sequence));
                    let straight = engine.feed(&mut sequence, &[1, 2, 3], Want::All).unwrap();
                    let snapshot = engine.adopt(&state).unwrap();
                    let mut again = engine.restore(&snapshot).unwrap();
                    let resumed = engine.feed(&mut again, &[1, 2, 3], Want::All).unwrap();
                    assert_eq!(resumed, straight, "{what}");
                    // What was adopted was not written by that.
                    let still = through_bytes(&snapshot);
                    assert_eq!(still.blocks, state.blocks, "{what}");
                    assert_eq!(
                        (&still.slot, &still.tail),
                        (&state.slot, &state.tail),
                        "{what}"
                    );
                }
            }
        }
    }
}

#[test]
fn one_executors_bytes_are_every_others() {
    for name in FIXTURES {
        let model = convert(name, "f32");
        let golden = Golden::of(name);
        let tokens = golden.tokens(&format!("tokens.{}", golden.lengths().last().unwrap()));
        let (first, second) = tokens.split_at(tokens.len() - 4);
        let states: Vec<(Runner, HostState)> = engines(&model, CacheType::F32, 512)
            .map(|(runner, mut engine)| {
                let mut sequence = engine.sequence().unwrap();
                engine.feed(&mut sequence, first, Want::Nothing).unwrap();
                (runner, through_bytes(&engine.snapshot(&sequence)))
            })
            .collect();
        for (runner, mut engine) in engines(&model, CacheType::F32, 512) {
            let mut sequence = engine.sequence().unwrap();
            engine.feed(&mut sequence, first, Want::Nothing).unwrap();
            let straight = engine.feed(&mut sequence, second, Want::All).unwrap();
            for (whose, state) in &states {
                let snapshot = engine.adopt(state).unwrap();
                let mut taken = engine.restore(&snapshot).unwrap();
                let resumed = engine.feed(&mut taken, second, Want::All).unwrap();
                for (a, b) in straight.rows().zip(resumed.rows()) {
                    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
                    let off = off.fold(0.0, f32::max);
                    assert!(off < 1e-3, "{name} {runner:?} of {whose:?}: {off:e}");
                }
            }
        }
    }
}

#[test]
fn bytes_of_another_shape_are_refused() {
    let (tiny, uneven) = (convert("tiny", "f32"), convert("uneven", "f32"));
    for ((_, mut one), (_, other)) in
        engines(&tiny, CacheType::F16, 64).zip(engines(&uneven, CacheType::F16, 64))
    {
        let mut sequence = one.sequence().unwrap();
        one.feed(&mut sequence, &[1; BLOCK + 3], Want::Nothing)
            .unwrap();
        let state = through_bytes(&one.snapshot(&sequence));
        assert!(one.adopt(&state).is_ok());
        assert!(other.adopt(&state).is_err());
        let mut short = state.clone();
        short.slot.truncate(state.slot.len() - 4);
        assert!(one.adopt(&short).is_err());
        let mut short = state.clone();
        short.tail.truncate(1);
        assert!(one.adopt(&short).is_err());
        let mut short = state.clone();
        short.blocks.pop();
        assert!(one.adopt(&short).is_err());
    }
}

#[test]
fn every_part_of_a_state_matters() {
    let model = convert("uneven", "f32");
    for (runner, mut engine) in engines(&model, CacheType::F32, 64) {
        let tokens = prompt(BLOCK + 9, engine.model().n_vocab());
        let mut sequence = engine.sequence().unwrap();
        engine.feed(&mut sequence, &tokens, Want::Nothing).unwrap();
        let state = through_bytes(&engine.snapshot(&sequence));
        let mut go_on = |state: &HostState| {
            let snapshot = engine.adopt(state).unwrap();
            let mut sequence = engine.restore(&snapshot).unwrap();
            engine.feed(&mut sequence, &[1, 2, 3], Want::All).unwrap()
        };
        let straight = go_on(&state);
        let swapped = |bytes: &bytes::Bytes| {
            let half = bytes.len() / 8 * 4;
            [&bytes[half..2 * half], &bytes[..half], &bytes[2 * half..]]
                .concat()
                .into()
        };
        let kda = &engine_shape(&model);
        let tail = 3 * (kda.conv - 1) * kda.d_inner() * 4;
        let head = kda.head_dim * kda.head_dim * 4;
        let turned = |at: usize, len: usize| {
            let mut bytes = state.slot.to_vec();
            bytes[at..at + len].rotate_left(4);
            bytes.into()
        };
        let (mut rows, mut last) = (state.clone(), state.clone());
        rows.blocks[0] = swapped(&state.blocks[0]);
        last.tail = swapped(&state.tail);
        let (mut tails, mut one_head) = (state.clone(), state.clone());
        tails.slot = turned(0, tail);
        one_head.slot = turned(tail, head);
        for (what, bad) in [
            ("rows", rows),
            ("tail", last),
            ("convolution", tails),
            ("S", one_head),
        ] {
            assert_ne!(go_on(&bad), straight, "{runner:?} {what}");
        }
    }
}

fn engine_shape(model: &Converted) -> quantize::schema::Kda {
    let engine = crate::checkpoint::engine(model, CacheType::F32, 64);
    engine.model().hparams().kda
}

#[test]
fn a_models_digests_are_of_its_file_and_tell_others_apart() {
    let digests = |model: &Converted| {
        let engine = crate::checkpoint::engine(model, CacheType::F16, 64);
        engine.model().digests()
    };
    let (one, again) = (convert("tiny", "f16"), convert("tiny", "f16"));
    assert_eq!(digests(&one), digests(&again));
    let quantized = digests(&convert("tiny", "q8_0"));
    assert_ne!(digests(&one).model, quantized.model);
    assert_eq!(digests(&one).tokenizer, quantized.tokenizer);
    assert_eq!(digests(&one).template, quantized.template);
    // The same shape with another weight.
    let mut bytes = std::fs::read(&one.path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&one.path, bytes).unwrap();
    assert_ne!(digests(&one).model, digests(&again).model);
}
