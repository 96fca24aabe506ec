//! A sequence of 262,144 tokens. The model is as thin as a model of this kind can be, and its one
//! MLA layer is the last: tokens whose logits nobody wants do not attend there, so that reading takes
//! time in proportion to the length, and a decoded token attends to all of it.

use std::sync::atomic::AtomicBool;

use deltad::engine::{CacheType, Engine, LaneError, Options, PassError, Want};
use quantize::convert::Silent;
use quantize::recipe::FileType;
use quantize::schema::Mixer;
use quantize::synth::{self, Shape};

use crate::checkpoint::options;

const TOKENS: usize = 1 << 18;

fn thin(dir: &tempfile::TempDir) -> std::path::PathBuf {
    let mut h = Shape::Edge.hparams(2, false);
    (h.hidden, h.vocab, h.dense_ff) = (32, 1024, 32);
    (h.kda.heads, h.kda.head_dim) = (1, 32);
    (h.mla.heads, h.mla.kv_lora_rank) = (2, 32);
    (h.mla.qk_nope, h.mla.qk_rope, h.mla.v) = (32, 32, 32);
    (h.moe.experts, h.moe.used) = (4, 2);
    (h.moe.ff, h.moe.shared_ff) = (32, 32);
    (h.layers[0].mixer, h.layers[1].mixer) = (Mixer::Kda, Mixer::Mla);
    let path = dir.path().join("thin.gguf");
    let never = AtomicBool::new(false);
    synth::write(&h, FileType::F16, &path, false, &never, &mut Silent).unwrap();
    path
}

/// Its logits after all tokens but the last were read in pieces of `chunk`, and the sequence's
/// bytes.
fn read(path: &std::path::Path, chunk: usize, threads: usize) -> (Vec<u32>, usize) {
    let options = Options {
        threads: Some(threads),
        context: Some(TOKENS),
        ..options(CacheType::F16, chunk)
    };
    let mut engine = Engine::open(path, &options).unwrap();
    let tokens: Vec<u32> = (0..TOKENS)
        .map(|at| (at * 7919 + 13) as u32 % 1024)
        .collect();
    let mut sequence = engine.sequence().unwrap();
    let empty = engine.state_bytes(0);
    let (last, before) = tokens.split_last().unwrap();
    for piece in before.chunks(1 << 14) {
        engine.feed(&mut sequence, piece, Want::Nothing).unwrap();
        // What is promised before a sequence begins is what it takes: a block of 64 rows of one
        // layer, 64 columns of two bytes, for each 64 tokens.
        assert_eq!(sequence.bytes(), engine.state_bytes(sequence.len()));
        let rows = sequence.len().div_ceil(64) * 64;
        assert_eq!(sequence.bytes(), empty + rows * 64 * 2);
    }
    let logits = engine.feed(&mut sequence, &[*last], Want::Last).unwrap();
    assert_eq!(sequence.len(), TOKENS);
    let more = engine.feed(&mut sequence, &[1], Want::Last).unwrap_err();
    let full = LaneError::ContextFull {
        have: TOKENS,
        more: 1,
        limit: TOKENS,
    };
    assert!(matches!(more, PassError::Refused { why, .. } if why == full));
    let bits = logits.last().unwrap().iter().map(|x| x.to_bits());
    (bits.collect(), sequence.bytes())
}

#[test]
fn a_quarter_of_a_million_tokens_take_the_bytes_that_were_promised_and_say_the_same_in_any_pieces()
{
    let dir = tempfile::tempdir().unwrap();
    let path = thin(&dir);
    let (logits, bytes) = read(&path, 512, 2);
    println!("{TOKENS} tokens: {bytes} bytes");
    assert!(logits.iter().all(|x| f32::from_bits(*x).is_finite()));
    assert!((logits, bytes) == read(&path, 2000, 1));
}

/// The same rows with their logits wanted or not, alone and beside a lane that wants others.
#[test]
fn what_a_row_says_does_not_depend_on_whose_logits_are_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let path = thin(&dir);
    let mut engine = Engine::open(&path, &options(CacheType::F16, 512)).unwrap();
    let tokens: Vec<u32> = (0..200).map(|at| (at * 7919 + 13) as u32 % 1024).collect();
    let mut sequence = engine.sequence().unwrap();
    let wanted = engine.feed(&mut sequence, &tokens, Want::All).unwrap();
    let rows: Vec<&[f32]> = wanted.rows().collect();
    for want in [Want::Last, Want::Nothing, Want::All] {
        let (mut one, mut other) = (engine.sequence().unwrap(), engine.sequence().unwrap());
        for (from, to) in [(0, 70), (70, 71), (71, 200)] {
            let mut lanes = [(&mut other, want), (&mut one, Want::Last)].map(|(sequence, want)| {
                deltad::engine::Lane {
                    sequence,
                    tokens: &tokens[from..to],
                    want,
                }
            });
            let logits = engine.forward(&mut lanes).unwrap();
            assert!(logits[1].rows().eq([rows[to - 1]]), "{want:?} {from}..{to}");
            let others = match want {
                Want::Nothing => &rows[0..0],
                Want::Last | Want::Drawn(_) => &rows[to - 1..to],
                Want::All => &rows[from..to],
            };
            assert!(
                logits[0].rows().eq(others.iter().copied()),
                "{want:?} {from}..{to}"
            );
        }
    }
}
