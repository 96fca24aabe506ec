//! ggml's graph: what it is made of, so that nothing of it need leave a device, and that a pass which
//! is kept and run again says what a new one would.

use crate::checkpoint::{Converted, convert, options};
use deltad::engine::{CacheType, Engine, Options, Runner, Sequence, Want};
use quantize::schema::Mixer;

fn stock(model: &Converted, cache: CacheType) -> Engine {
    let options = Options {
        runner: Runner::Stock,
        ..options(cache, 512)
    };
    Engine::open(&model.path, &options).unwrap()
}

fn text(len: usize, n_vocab: usize) -> Vec<u32> {
    (0..len).map(|at| (at * 7 % n_vocab) as u32).collect()
}

fn next(engine: &mut Engine, sequence: &mut Sequence, token: u32) -> Vec<f32> {
    let logits = engine.feed(sequence, &[token], Want::Last).unwrap();
    logits.last().unwrap().to_vec()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    off.fold(0.0, f32::max)
}

/// Names of the operators of one pass.
fn names(engine: &Engine, past: usize, tokens: usize) -> Vec<String> {
    let outline = engine.outline(past, tokens).unwrap().unwrap();
    outline.names().iter().map(|&n| n.to_owned()).collect()
}

/// How often `chain` stands in `all`, one behind the other.
fn count(all: &[String], chain: &[&str]) -> usize {
    all.windows(chain.len()).filter(|w| *w == chain).count()
}

#[test]
fn kept_passes_decode_across_growing_caches_as_our_own_kernels_do() {
    for name in ["uneven", "ling_odd", "ling_small"] {
        let model = convert(name, "f32");
        let mut kept = stock(&model, CacheType::F32);
        let mut own = crate::checkpoint::engine(&model, CacheType::F32, 512);
        let tokens = text(520, own.model().n_vocab());
        let (mut one, mut other) = (kept.sequence().unwrap(), own.sequence().unwrap());
        kept.feed(&mut one, &tokens[..250], Want::Nothing).unwrap();
        own.feed(&mut other, &tokens[..250], Want::Nothing).unwrap();
        // Over 256 and 512 rows, where both the cache and the graph become others.
        for &token in &tokens[250..] {
            let a = next(&mut kept, &mut one, token);
            let b = next(&mut own, &mut other, token);
            let off = largest_difference(&a, &b);
            assert!(off < 1e-3, "{name}, {} tokens: {off:e}", one.len());
        }
    }
}

#[test]
fn lanes_that_take_turns_say_what_each_says_alone() {
    let model = convert("uneven", "f32");
    let mut engine = stock(&model, CacheType::F16);
    let tokens = text(270, engine.model().n_vocab());
    let mut alone = Vec::new();
    for start in [240, 3] {
        let mut sequence = engine.sequence().unwrap();
        let prompt = &tokens[..start];
        engine.feed(&mut sequence, prompt, Want::Nothing).unwrap();
        let said = (0..25).map(|at| next(&mut engine, &mut sequence, tokens[at]));
        alone.push(said.collect::<Vec<_>>());
    }
    let [mut one, mut other] = [240, 3].map(|start| {
        let mut sequence = engine.sequence().unwrap();
        let prompt = &tokens[..start];
        engine.feed(&mut sequence, prompt, Want::Nothing).unwrap();
        sequence
    });
    for at in 0..25 {
        assert_eq!(next(&mut engine, &mut one, tokens[at]), alone[0][at]);
        // A third comes and goes.
        let mut third = engine.sequence().unwrap();
        next(&mut engine, &mut third, 1);
        assert_eq!(next(&mut engine, &mut other, tokens[at]), alone[1][at]);
    }
}

#[test]
fn a_restored_snapshot_decodes_as_the_sequence_that_it_was_taken_from() {
    let model = convert("ling_small", "f32");
    let mut engine = stock(&model, CacheType::F16);
    let tokens = text(300, engine.model().n_vocab());
    let mut sequence = engine.sequence().unwrap();
    engine
        .feed(&mut sequence, &tokens[..253], Want::Nothing)
        .unwrap();
    next(&mut engine, &mut sequence, 5);
    let snapshot = engine.snapshot(&sequence);
    let straight: Vec<_> = (0..6)
        .map(|at| next(&mut engine, &mut sequence, tokens[at]))
        .collect();
    for _ in 0..2 {
        let mut again = engine.restore(&snapshot).unwrap();
        for (at, want) in straight.iter().enumerate() {
            assert_eq!(next(&mut engine, &mut again, tokens[at]), *want);
        }
    }
}

#[test]
fn short_passes_of_other_lengths_and_wishes_between_do_not_disturb() {
    let model = convert("uneven", "f32");
    let mut engine = stock(&model, CacheType::F32);
    let tokens = text(400, engine.model().n_vocab());
    let mut mixed = engine.sequence().unwrap();
    let mut at = 0;
    let mut last = Vec::new();
    for turn in 0.. {
        let (step, want) = [
            (1, Want::Last),
            (3, Want::All),
            (1, Want::Nothing),
            (1, Want::Last),
            (9, Want::Nothing),
            (2, Want::Last),
        ][turn % 6];
        if at + step > tokens.len() {
            break;
        }
        let piece = &tokens[at..at + step];
        let logits = engine.feed(&mut mixed, piece, want).unwrap();
        at += step;
        if want != Want::Nothing {
            last = logits.last().unwrap().to_vec();
        }
        if at > 390 && want != Want::Nothing {
            let mut whole = engine.sequence().unwrap();
            let straight = engine.feed(&mut whole, &tokens[..at], Want::Last).unwrap();
            let off = largest_difference(&last, straight.last().unwrap());
            assert!(off < 1e-3, "{at}: {off:e}");
        }
    }
    assert!(!last.is_empty() && at > 390);
}

#[test]
fn one_graph_serves_every_token_of_a_bucket() {
    let model = convert("ling_tiny", "f32");
    let engine = stock(&model, CacheType::F16);
    let outline = |past| engine.outline(past, 1).unwrap().unwrap();
    assert_eq!(outline(0), outline(255), "sizes, strides, order");
    assert_ne!(outline(255), outline(256));
    let attended = |past: usize| {
        let outline = outline(past);
        let attention = outline.operators.iter();
        let mut attention = attention.filter(|o| o.name == "FLASH_ATTN_EXT");
        // Queries, keys, values, and a mask for one token too.
        let sources = attention.next().unwrap().sources.clone();
        assert_eq!(sources.len(), 4);
        assert_eq!(sources[1].ne[1], sources[3].ne[0]);
        sources[1].ne[1]
    };
    assert_eq!(attended(0), 256);
    assert_eq!(attended(300), 512);
    assert_eq!(attended(9000), 9216);
}

/// What ggml-cuda looks for before it runs several operators as one kernel (`ggml-cuda.cu`:
/// `ggml_cuda_topk_moe_fusion`, `ggml_cuda_try_gdn_cache_fusion`, `ggml_cuda_can_fuse`).
#[test]
fn operators_stand_as_kernels_that_do_several_at_once_want_them() {
    for name in ["tiny", "uneven"] {
        let model = convert(name, "q8_0");
        let engine = stock(&model, CacheType::F16);
        let layers = &engine.model().hparams().layers;
        let kda = layers.iter().filter(|l| l.mixer == Mixer::Kda).count();
        let sparse = layers
            .iter()
            .filter(|l| l.ffn == quantize::schema::Ffn::Sparse)
            .count();
        for tokens in [1, 5] {
            let all = names(&engine, 0, tokens);
            let routing = [
                "SIGMOID", "RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS", "RESHAPE", "SUM_ROWS",
                "CLAMP", "DIV", "RESHAPE", "SCALE",
            ];
            let what = format!("{name} {tokens}");
            assert_eq!(count(&all, &routing), sparse, "{what}: {all:?}");
            let state = ["GATED_DELTA_NET", "VIEW", "VIEW", "CPY"];
            assert_eq!(count(&all, &state), kda, "{what}");
            assert_eq!(count(&all, &["SSM_CONV", "SILU"]), 3 * kda, "{what}");
            assert_eq!(count(&all, &["SIGMOID", "MUL"]), kda, "{what}");
            assert_eq!(
                count(&all, &["MUL_MAT_ID", "MUL_MAT_ID", "SWIGLU"]),
                sparse,
                "{what}"
            );
            // The new state goes where the old one was, flat.
            let outline = engine.outline(0, tokens).unwrap().unwrap();
            let (before, after) = (&outline.operators, &outline.operators[3..]);
            for (net, copy) in before.iter().zip(after) {
                if net.name == "GATED_DELTA_NET" {
                    let [d, heads, ..] = net.sources[2].ne;
                    let flat = [d * d * heads, 1, 1, 1];
                    assert_eq!(copy.sources[0].ne, flat);
                    assert_eq!(
                        (copy.sources[1].ne, copy.sources[1].nb[1]),
                        (flat, 4 * flat[0])
                    );
                }
            }
        }
    }
}

#[test]
fn a_pass_on_the_processor_is_one_piece() {
    let model = convert("tiny", "q8_0");
    let engine = stock(&model, CacheType::F16);
    for (past, tokens) in [(0, 1), (700, 1), (0, 64)] {
        let outline = engine.outline(past, tokens).unwrap().unwrap();
        assert_eq!(outline.pieces, 1);
        assert_eq!(outline.elsewhere(engine.device()).count(), 0);
    }
}
