//! A sequence is its tokens: however they came in, the same continuation.

use crate::checkpoint::{FIXTURES, Golden, convert, engine, executors, fixture, options};
use deltad::engine::{CacheType, Cause, Engine, LaneError, Options, PassError, Want};

/// Passes of other widths take other paths through the matrix kernels; the sums differ in order.
const PATH_TOLERANCE: f32 = 1e-3;

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    off.fold(0.0, f32::max)
}

#[test]
fn a_restored_snapshot_goes_on_as_if_nothing_had_happened() {
    for name in FIXTURES {
        let golden = Golden::of(name);
        let n = *golden.lengths().last().unwrap();
        let tokens = golden.tokens(&format!("tokens.{n}"));
        let model = convert(name, "f32");
        let mut engine = engine(&model, CacheType::F16, 64);
        let (first, second) = tokens.split_at(n / 2);
        let mut sequence = engine.sequence().unwrap();
        engine.feed(&mut sequence, first, Want::Nothing).unwrap();
        let snapshot = engine.snapshot(&sequence);
        let straight = engine.feed(&mut sequence, second, Want::Last).unwrap();
        for _ in 0..2 {
            let mut again = engine.restore(&snapshot).unwrap();
            assert_eq!(again.len(), first.len());
            let resumed = engine.feed(&mut again, second, Want::Last).unwrap();
            // The same passes over the same state: not a bit differs.
            assert_eq!(resumed, straight, "{name}");
        }
    }
}

#[test]
fn neighbours_do_not_change_a_sequence() {
    let golden = Golden::of("uneven");
    let n = *golden.lengths().last().unwrap();
    let tokens = golden.tokens(&format!("tokens.{n}"));
    let model = convert("uneven", "f32");
    let mut engine = engine(&model, CacheType::F16, 64);
    let mut alone = engine.sequence().unwrap();
    let mut among = engine.sequence().unwrap();
    let mut other = engine.sequence().unwrap();
    let reversed: Vec<u32> = tokens.iter().rev().copied().collect();
    for (chunk, noise) in tokens.chunks(9).zip(reversed.chunks(9)) {
        let quiet = engine.feed(&mut alone, chunk, Want::Last).unwrap();
        engine.feed(&mut other, noise, Want::Last).unwrap();
        let noisy = engine.feed(&mut among, chunk, Want::Last).unwrap();
        assert_eq!(quiet, noisy);
    }
}

#[test]
fn memory_grows_with_the_text_and_keeps_what_it_held() {
    let model = convert("uneven", "f32");
    let mut engine = engine(&model, CacheType::F32, 512);
    let tokens: Vec<u32> = (0..700).map(|t| t * 7 % 300).collect();
    let mut grown = engine.sequence().unwrap();
    let small = grown.bytes();
    let mut last = None;
    for chunk in tokens.chunks(100) {
        last = Some(engine.feed(&mut grown, chunk, Want::Last).unwrap());
    }
    assert!(grown.bytes() > small);
    assert!(grown.bytes() < small * 8, "{} from {small}", grown.bytes());
    let mut whole = engine.sequence().unwrap();
    let at_once = engine.feed(&mut whole, &tokens, Want::Last).unwrap();
    let off = largest_difference(at_once.last().unwrap(), last.unwrap().last().unwrap());
    assert!(off < PATH_TOLERANCE, "{off:e}");
}

#[test]
fn wrong_tokens_and_full_contexts_are_refused_and_change_nothing() {
    let model = convert("tiny", "f32");
    let options = Options {
        context: Some(16),
        ..crate::checkpoint::options(CacheType::F16, 4)
    };
    let mut engine = Engine::open(&model.path, &options).unwrap();
    let n_vocab = engine.model().n_vocab();
    let mut sequence = engine.sequence().unwrap();
    engine.feed(&mut sequence, &[1; 10], Want::Last).unwrap();
    let outside = engine.feed(&mut sequence, &[1, n_vocab as u32], Want::Last);
    assert!(matches!(
        outside,
        Err(PassError::Refused {
            lane: 0,
            why: LaneError::NoSuchToken { .. }
        })
    ));
    let full = engine.feed(&mut sequence, &[1; 7], Want::Last);
    assert!(matches!(
        full,
        Err(PassError::Refused {
            lane: 0,
            why: LaneError::ContextFull {
                have: 10,
                more: 7,
                limit: 16
            }
        })
    ));
    assert_eq!(sequence.len(), 10);
    engine.feed(&mut sequence, &[1; 6], Want::Last).unwrap();
}

#[test]
fn a_snapshot_of_another_model_is_refused() {
    let (tiny, uneven) = (convert("tiny", "f32"), convert("uneven", "f32"));
    let one = engine(&tiny, CacheType::F16, 64);
    let other = engine(&uneven, CacheType::F16, 64);
    let snapshot = one.snapshot(&one.sequence().unwrap());
    assert!(other.restore(&snapshot).is_err());
}

#[test]
fn what_is_no_model_is_refused_with_its_path() {
    let path = fixture("tiny").join("config.json");
    let refused = Engine::open(&path, &Options::default()).unwrap_err();
    assert!(refused.to_string().contains("config.json"), "{refused}");
}

#[test]
fn a_model_file_that_is_shortened_under_the_engine_fails_the_pass_by_name() {
    for runner in executors() {
        let model = convert("tiny", "f16");
        let options = Options {
            runner,
            ..options(CacheType::F16, 64)
        };
        let mut engine = Engine::open(&model.path, &options).unwrap();
        let mut sequence = engine.sequence().unwrap();
        engine.feed(&mut sequence, &[1, 2, 3], Want::Last).unwrap();
        assert!(engine.damaged().is_none());
        let file = std::fs::File::options().write(true).open(&model.path);
        file.unwrap().set_len(4096).unwrap();
        let failed = engine.feed(&mut sequence, &[4], Want::Last).unwrap_err();
        let words = failed.to_string();
        assert!(matches!(failed, PassError::Failed(Cause::Damaged { .. })));
        assert!(words.contains(&model.path.display().to_string()), "{words}");
        assert!(words.contains("to 4096 bytes"), "{words}");
        // What it remembers came of zeros.
        let after = engine.feed(&mut sequence, &[4], Want::Last).unwrap_err();
        let broken = LaneError::Broken;
        assert!(matches!(after, PassError::Refused { why, .. } if why == broken));
    }
}
