//! Our quantizer beside llama.cpp's: the same F16 file, the same importance, both results read by
//! the same engine and held against the F16 file. A program, not a harness: it prints a table.
//!
//! `cargo bench --bench quality [-- [F16.gguf TEXT] [--imatrix F.gguf] [--text FILE] [--types T,T]
//! [--matrix-only] [--keep DIR]]`
//! Without arguments: the demo model, its held-out text, and an importance matrix made from its
//! calibration text. `--keep` leaves the files in a directory, and beside them `files.json`, which says
//! what each is and what was measured (`demo/beside.py` asks them the held-out questions).
//! `-- quantize SOURCE TARGET TYPE` is llama.cpp's quantizer and nothing else.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use deltad::engine::{CacheType, Engine, Options};
use deltad::measure::{self, Summary, Text};
use deltad::text::Tokenizer;
use ggml_kernels::gguf::GgufFile;
use ggml_kernels::rival;
use quantize::convert::{Conversion, Input, Silent};
use quantize::imatrix::{Imatrix, Record};
use quantize::recipe::FileType;
use quantize::schema;
use serde_json::json;

const CHUNK: usize = 512;

fn main() {
    // cargo passes `--bench` of its own.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [what, from, to, ty] = args.as_slice()
        && what == "quantize"
    {
        let ty: FileType = ty.parse().expect("a file type");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        return rival::quantize(Path::new(from), Path::new(to), ty.id(), &[], cores)
            .expect("a file");
    }
    let value = |name: &str| {
        let at = args.iter().position(|a| a == name)?;
        args.get(at + 1).cloned()
    };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let home = tempfile::tempdir().expect("a directory");
    let named = args.iter().take_while(|a| !a.starts_with("--"));
    let (f16, text, imatrix) = match named.collect::<Vec<_>>().as_slice() {
        [f16, text] => (
            PathBuf::from(f16),
            PathBuf::from(text),
            value("--imatrix").map(PathBuf::from),
        ),
        [] => {
            let f16 = home.path().join("f16.gguf");
            convert(&demo.join("model"), &f16, FileType::F16, None);
            let imatrix = home.path().join("importance.gguf");
            collect(&f16, &demo.join("calibration.txt"), &imatrix);
            let text = value("--text").map_or(demo.join("eval.txt"), PathBuf::from);
            (f16, text, Some(imatrix))
        }
        _ => panic!("wanted: [F16.gguf TEXT] [--imatrix F.gguf] [--types T,T] and so on"),
    };
    let keep = value("--keep").map(PathBuf::from);
    let matrix_only = args.iter().any(|a| a == "--matrix-only");
    let mut kept = Vec::new();
    let types = value("--types").unwrap_or_else(|| "q4_k_m,q3_k_m".into());
    let types = types
        .split(',')
        .map(|t| t.parse::<FileType>().expect("a file type"));
    let imatrix = imatrix.map(|path| Imatrix::open(&path).expect("an importance matrix"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);

    println!("type    importance  by         bytes     bits  mean KL            99.9 % KL  top-1");
    for to in types {
        for imatrix in [None, imatrix.as_ref()] {
            if imatrix.is_none() && (to.needs_importance() || matrix_only) {
                continue;
            }
            let with = if imatrix.is_some() { "yes" } else { "no" };
            let place = keep.as_deref().unwrap_or(home.path());
            let name = |by: &str| place.join(format!("{to}-{with}-{by}.gguf"));
            let (ours, theirs) = (name("deltad"), name("llama.cpp"));
            convert(&f16, &ours, to, imatrix);
            let importance = imatrix.map_or(Vec::new(), |i| all_of(i, &f16));
            rival::quantize(&f16, &theirs, theirs_id(to), &importance, cores).expect("a file");
            for (by, file) in [("deltad", &ours), ("llama.cpp", &theirs)] {
                let (bytes, bits) = size(file);
                let s = divergence(&f16, file, &text);
                println!(
                    "{to:7} {with:10}  {by:9} {bytes:9}  {bits:6.3}  {:.5} ± {:.5}  {:9.4}  {:.2} %",
                    s.kl.mean,
                    s.kl.error,
                    s.kl_999,
                    100.0 * s.top_1
                );
                kept.push(json!({
                    "file": file.file_name().map(|name| name.to_string_lossy()),
                    "type": to.name(), "importance": with, "by": by, "bytes": bytes, "bits": bits,
                    "kl": s.kl.mean, "error": s.kl.error, "kl_999": s.kl_999, "top_1": s.top_1,
                }));
                if keep.is_none() {
                    std::fs::remove_file(file).expect("the file");
                }
            }
        }
    }
    if let Some(dir) = keep {
        let all = serde_json::to_vec_pretty(&kept).expect("plain values");
        std::fs::write(dir.join("files.json"), all).expect("a list");
    }
}

/// llama.cpp's mix of the same bulk: its IQ2_S has one of `iq2_xs`, its IQ2_M that of ours.
fn theirs_id(to: FileType) -> u32 {
    const IQ2_M: u32 = 29;
    match to {
        FileType::Iq2S => IQ2_M,
        other => other.id(),
    }
}

fn convert(from: &Path, to: &Path, ty: FileType, imatrix: Option<&Imatrix>) {
    let input = Input::open(from).expect("a model");
    let options = quantize::convert::Options {
        to: ty,
        overrides: Vec::new(),
    };
    let conversion = Conversion::plan(&input, &options).expect("a plan");
    let never = AtomicBool::new(false);
    conversion
        .write(to, true, imatrix, &never, &mut Silent)
        .expect("a file");
}

/// Every importance that a file of this model can use.
fn all_of(imatrix: &Imatrix, model: &Path) -> Vec<rival::RivalImportance> {
    let file = GgufFile::open(model).expect("a model");
    let (_, specs) = schema::check(&file).expect("a kimi-linear model");
    let of = |spec: schema::TensorSpec| {
        let importance = imatrix.of(&spec).expect("the same shapes")?;
        Some((spec.name, importance.values().to_vec()))
    };
    specs.into_iter().filter_map(of).collect()
}

/// Bytes of the file; bits of tensor data per weight.
fn size(path: &Path) -> (u64, f64) {
    let file = GgufFile::open(path).expect("a model");
    let bytes: usize = file.tensors().iter().map(|t| t.size).sum();
    let weights: u64 = file.tensors().iter().map(|t| t.elements()).sum();
    (file.map().len() as u64, 8.0 * bytes as f64 / weights as f64)
}

fn engine(path: &Path) -> Engine {
    let options = Options {
        cache_type: CacheType::F32,
        ..Options::default()
    };
    Engine::open(path, &options).expect("a model")
}

fn read(text: &Path, engine: &Engine) -> Text {
    let tokenizer = Tokenizer::from_metadata(engine.model().metadata()).expect("a tokenizer");
    let words = std::fs::read_to_string(text).expect("a text");
    Text::new(&tokenizer, &words, CHUNK, engine.model().context()).expect("a text of a chunk")
}

fn divergence(a: &Path, b: &Path, text: &Path) -> Summary {
    let (mut a, mut b) = (engine(a), engine(b));
    let text = read(text, &a);
    measure::compare(&mut a, &mut b, &text, &mut |_| true).expect("two passes")
}

fn collect(model: &Path, text: &Path, target: &Path) {
    let mut engine = engine(model);
    let text = read(text, &engine);
    let record = Record {
        datasets: vec!["calibration".into()],
        chunks: text.chunks() as u32,
        chunk_size: CHUNK as u32,
        tensors: measure::collect(&mut engine, &text, &mut |_| true).expect("a pass"),
    };
    quantize::imatrix::write(&record, target, true).expect("a file");
}
