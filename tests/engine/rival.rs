//! Files that we wrote, read by another engine: llama.cpp from the same library.

use crate::checkpoint::{FIXTURES, Golden, convert, engine};
use deltad::engine::{CacheType, Want};
use ggml_kernels::rival::{Llama, RivalCache};

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
