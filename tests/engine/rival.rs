//! Files that we wrote, read by another engine: llama.cpp from the same library.

use crate::checkpoint::{FIXTURES, Golden, convert, engine, options};
use deltad::engine::{CacheType, Engine, Want};
use ggml_kernels::rival::{self, Llama, RivalCache};

/// Two engines in f32 that sum in different orders. Measured: 1.2e-4 (`ling_small`) to 8.4e-4
/// (`uneven`), and 7.8e-3 (`ling_odd`, whose logits are the largest).
const TOLERANCE: f32 = 2e-2;

#[test]
fn llama_cpp_reads_our_files_and_agrees() {
    for name in FIXTURES {
        // Its KDA heads are its MLA heads: it cannot express `apart`.
        if name == "apart" {
            continue;
        }
        let golden = Golden::of(name);
        let n = *golden.lengths().last().unwrap();
        let tokens = golden.tokens(&format!("tokens.{n}"));
        let model = convert(name, "f32");
        let mut rival = Llama::open(&model.path, 1, 512, 512, RivalCache::F32).unwrap();
        let theirs = rival.feed(&tokens).unwrap();
        let mut engine = engine(&model, CacheType::F32, 512);
        let mut sequence = engine.sequence().unwrap();
        let ours = engine.feed(&mut sequence, &tokens, Want::Last).unwrap();
        let off = ours.last().unwrap().iter().zip(&theirs);
        let off = off.fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        println!("{name}: largest difference of logits {off:e}");
        assert!(off < TOLERANCE, "{name}: {off:e}");
    }
}

#[test]
fn a_rivals_sequence_is_stretched_to_a_depth_that_it_did_not_read() {
    let golden = Golden::of("ling_small");
    let tokens = golden.tokens(&format!("tokens.{}", golden.lengths().last().unwrap()));
    let model = convert("ling_small", "f32");
    let mut rival = Llama::open(&model.path, 1, 512, 512, RivalCache::F32).unwrap();
    rival.feed(&tokens[..20]).unwrap();
    let short = rival.state(0).unwrap();
    let next = rival.feed(&tokens[20..21]).unwrap();
    rival.clear();
    rival.set_state(0, &short).unwrap();
    rival.stretch(0, 20).unwrap();
    assert_eq!(rival.state(0).unwrap(), short, "to the same length");
    assert_eq!(rival.feed(&tokens[20..21]).unwrap(), next);
    rival.clear();
    rival.set_state(0, &short).unwrap();
    rival.stretch(0, 403).unwrap();
    let far = rival.feed(&tokens[20..21]).unwrap();
    assert!(far != next && far.iter().all(|x| x.is_finite()));
    let why = rival.stretch(0, 100).unwrap_err().to_string();
    assert!(why.contains("404 cells, wanted at most 100"), "{why}");
}

#[test]
fn files_that_llama_cpp_wrote_run_here_as_ours_do() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = dir.path().join("theirs.gguf");
    for name in ["uneven", "ling_tiny", "ling_small"] {
        let golden = Golden::of(name);
        let n = *golden.lengths().last().unwrap();
        let tokens = golden.tokens(&format!("tokens.{n}"));
        let ours = convert(name, "f32");
        // Their F32 and Q8_0, under their metadata and in their order.
        for (file_type, is_exact) in [(0, true), (7, false)] {
            rival::quantize(&ours.path, &theirs, file_type, &[], 1).unwrap();
            let options = options(CacheType::F32, 512);
            let mut their = Engine::open(&theirs, &options).unwrap();
            let mut sequence = their.sequence().unwrap();
            let got = their.feed(&mut sequence, &tokens, Want::Last).unwrap();
            assert!(got.last().unwrap().iter().all(|x| x.is_finite()), "{name}");
            let mut own = engine(&ours, CacheType::F32, 512);
            let mut sequence = own.sequence().unwrap();
            let wanted = own.feed(&mut sequence, &tokens, Want::Last).unwrap();
            // The same values meet the same kernels.
            assert_eq!(got == wanted, is_exact, "{name} of type {file_type}");
        }
    }
}
