//! A whole conversion (read, widen, quantize, write, sync) against ggml's row quantizer alone on
//! values that are already in memory, and against ours, with the same threads.
//!
//! `cargo bench -p quantize [-- TYPE...]`. The ratio is the conversion's speed to that of ggml's
//! quantizer, which llama.cpp's cannot pass.

use ggml_kernels::gguf::GgufFile;
use ggml_kernels::quant::{TensorType, dequantize, quantize_rows};
use ggml_kernels::rival;
use quantize::convert::{Conversion, Input, Options, Silent};
use quantize::recipe::{FileType, Override};
use quantize::synth::{self, Shape};
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Values per call of the plain quantizer.
const BLOCK: usize = 1 << 18;

fn main() {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let types = if asked.is_empty() {
        [
            "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "q3_k", "iq4_nl", "iq4_xs", "mxfp4",
        ]
        .map(str::to_owned)
        .to_vec()
    } else {
        asked
    };
    let home = tempfile::tempdir().expect("a directory for temporary files");
    let from = home.path().join("bf16.gguf");
    let never = AtomicBool::new(false);
    let h = Shape::Edge.hparams(4, false);
    synth::write(&h, FileType::Bf16, &from, false, &never, &mut Silent).expect("a random model");
    let threads = rayon::current_num_threads();
    println!("{threads} threads; M values/s");
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>7}",
        "type", "ggml alone", "rows alone", "conversion", "ratio"
    );
    for name in types {
        let ty: TensorType = name.parse().expect("a tensor type");
        let [ggml, alone] = alone(&from, ty);
        let whole = conversion(&from, &home.path().join("out.gguf"), ty);
        println!(
            "{:>8} {:>12.1} {:>12.1} {:>12.1} {:>7.2}",
            ty.name(),
            ggml / 1e6,
            alone / 1e6,
            whole / 1e6,
            whole / ggml
        );
    }
}

/// Quantizes rows of so many values.
type Rows = fn(TensorType, &[f32], usize, &mut [u8]);

/// Values per second of ggml's quantizer and of ours on one tensor's values, in memory.
fn alone(from: &Path, ty: TensorType) -> [f64; 2] {
    let file = GgufFile::open(from).expect("the random model");
    let tensor = file.tensor("blk.1.ffn_up_exps.weight").expect("experts");
    let row = tensor.ne[0] as usize;
    let mut values = vec![0.0; tensor.elements() as usize];
    dequantize(tensor.ty, file.data(tensor), &mut values).expect("bf16");
    let row_bytes = ty.row_bytes(row).expect("rows of 1024");
    let mut out = vec![0; tensor.rows() as usize * row_bytes];
    let by: [Rows; 2] = [
        |ty, values, row, out| rival::quantize_rows(ty, values, row, None, out),
        |ty, values, row, out| quantize_rows(ty, values, row, None, out).expect("finite"),
    ];
    by.map(|quantize| {
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let start = Instant::now();
            let pieces = out.par_chunks_mut(BLOCK / row * row_bytes);
            let pieces = values.par_chunks(BLOCK).zip(pieces);
            pieces.for_each(|(values, out)| quantize(ty, values, row, out));
            best = best.min(start.elapsed().as_secs_f64());
        }
        values.len() as f64 / best
    })
}

/// Values per second of a whole conversion with (nearly) every tensor of that type.
fn conversion(from: &Path, target: &Path, ty: TensorType) -> f64 {
    let input = Input::open(from).expect("the random model");
    let all = Override {
        pattern: regex::Regex::new("weight").expect("a pattern"),
        ty,
    };
    let options = Options {
        to: FileType::Q8_0,
        overrides: vec![all],
    };
    let plan = Conversion::plan(&input, &options).expect("a plan");
    let never = AtomicBool::new(false);
    let mut best = f64::INFINITY;
    for _ in 0..2 {
        let start = Instant::now();
        plan.write(target, true, None, &never, &mut Silent)
            .expect("a file");
        best = best.min(start.elapsed().as_secs_f64());
    }
    plan.values() as f64 / best
}
