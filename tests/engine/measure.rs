//! What is measured on a text: importance against plain sums over observed activations, and the
//! divergence of a model from itself and from a lighter one.

use std::collections::BTreeMap;

use crate::checkpoint::{Converted, FIXTURES, convert, engine};
use deltad::engine::{CacheType, Engine, Lane, Listener, Point, Tap, Want};
use deltad::measure::{self, Text};
use deltad::text::{Specials, Tokenizer};
use ggml_kernels::gguf::GgufFile;
use quantize::imatrix::{Imatrix, Record, Sums, write};
use quantize::schema::{self, Role};

const CHUNK: usize = 48;

/// Enough words for some chunks, the same in every vocabulary of bytes.
fn words() -> String {
    (0..60)
        .map(|i| format!("word {} of {i}; ", i * i))
        .collect()
}

fn tokenizer(engine: &Engine) -> Tokenizer {
    Tokenizer::from_metadata(engine.model().metadata()).unwrap()
}

fn text(engine: &Engine) -> Text {
    let context = engine.model().context();
    Text::new(&tokenizer(engine), &words(), CHUNK, context)
        .unwrap()
        .at_most(3)
}

fn collected(engine: &mut Engine) -> BTreeMap<String, Sums> {
    let text = text(engine);
    let sums = measure::collect(engine, &text, &mut |_| true).unwrap();
    sums.into_iter().map(|s| (s.name.clone(), s)).collect()
}

/// What meets some weights, and the rows before the head, pass after pass.
struct Watch {
    weights: Vec<(Option<usize>, Role)>,
    /// Heads and experts one after another, as they come.
    seen: BTreeMap<(Option<usize>, Role), Vec<f32>>,
    normed: Vec<f32>,
}

impl Listener for Watch {
    fn hear(&mut self, tap: Tap<'_>) {
        match tap {
            Tap::Input {
                layer, role, rows, ..
            } if self.weights.contains(&(layer, role)) => {
                self.seen.entry((layer, role)).or_default().extend(rows);
            }
            Tap::Hidden {
                at: Point::OutputNorm,
                rows,
            } => self.normed.extend(rows),
            _ => {}
        }
    }
}

/// The same tokens as [`text`]'s, read plainly.
fn watched(engine: &mut Engine, weights: Vec<(Option<usize>, Role)>) -> Watch {
    let tokens = tokenizer(engine).encode(&words(), Specials::Parse);
    let mut watch = Watch {
        weights,
        seen: BTreeMap::new(),
        normed: Vec::new(),
    };
    for chunk in tokens.chunks_exact(CHUNK).take(3) {
        let mut sequence = engine.sequence().unwrap();
        let lane = Lane {
            sequence: &mut sequence,
            tokens: chunk,
            want: Want::All,
        };
        engine.forward_heard(&mut [lane], &mut watch).unwrap();
    }
    watch
}

/// The product of `x` with the F32 weight `name`, in plain sums.
fn queries(model: &Converted, x: &[f32], name: &str) -> Vec<f32> {
    let file = GgufFile::open(&model.path).unwrap();
    let tensor = file.tensor(name).unwrap();
    let width = tensor.ne[0] as usize;
    let values = file.data(tensor).chunks_exact(4);
    let values: Vec<f32> = values
        .map(|v| f32::from_le_bytes(v.try_into().unwrap()))
        .collect();
    let dot = |x: &[f32], w: &[f32]| {
        let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
        products.sum::<f64>() as f32
    };
    let rows = x.chunks_exact(width);
    rows.flat_map(|x| values.chunks_exact(width).map(move |w| dot(x, w)))
        .collect()
}

fn squares(rows: &[f32], row: usize) -> Vec<f64> {
    let mut sums = vec![0.0; row];
    for x in rows.chunks_exact(row) {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x).powi(2);
        }
    }
    sums
}

fn assert_close(what: &str, got: &[f64], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (at, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let off = (got - wanted).abs() / wanted.abs().max(1e-12);
        assert!(off < 1e-5, "{what}[{at}]: got {got}, wanted {wanted}");
    }
}

#[test]
fn importance_is_the_sum_of_the_squares_that_met_each_column() {
    for name in FIXTURES {
        let model = convert(name, "f32");
        let mut engine = engine(&model, CacheType::F32, 512);
        let h = engine.model().hparams().clone();
        let sums = collected(&mut engine);
        let at = h.layers.iter().position(|l| l.mixer == schema::Mixer::Mla);
        let mla = |role| schema::name(at, role);
        // The weight that queries come out of, and its width.
        let (last, width) = match h.mla.q_lora_rank {
            None => (Role::MlaQ, h.hidden),
            Some(rank) => (Role::MlaQB, rank),
        };
        let mla_q = (at, last);
        let watch = watched(&mut engine, vec![mla_q]);
        let wanted = squares(&watch.normed, h.hidden);
        assert_close("output.weight", &sums["output.weight"].squares, &wanted);
        let wanted = squares(&watch.seen[&mla_q], width);
        assert_close("attn_q", &sums[&mla(last)].squares, &wanted);
        // What meets head h of k_b is its part of the query, without the shared columns.
        let queries = queries(&model, &watch.seen[&mla_q], &mla(last));
        let (qk, nope) = (h.mla.qk(), h.mla.qk_nope);
        let by_head = squares(&queries, h.mla.heads * qk);
        let wanted = by_head.chunks_exact(qk).flat_map(|head| &head[..nope]);
        let wanted: Vec<f64> = wanted.copied().collect();
        let k_b = &sums[&mla(Role::MlaKB)];
        assert_close("attn_k_b", &k_b.squares, &wanted);
        assert_eq!(k_b.counts, [3 * CHUNK as u64]);
        // Experts share out what the router sees, and so does the shared one.
        let sparse = h.layers.iter().position(|l| l.ffn == schema::Ffn::Sparse);
        let of = |role| &sums[&schema::name(sparse, role)];
        let router = &of(Role::Router).squares;
        let used: Vec<f64> = router.iter().map(|x| x * h.moe.used as f64).collect();
        for role in [Role::GateExps, Role::UpExps] {
            let mut all = vec![0.0; h.hidden];
            for expert in of(role).squares.chunks_exact(h.hidden) {
                all.iter_mut().zip(expert).for_each(|(a, x)| *a += x);
            }
            assert_close("gate and up", &all, &used);
        }
        let shared = h.moe.shared > 0;
        if shared {
            assert_close("shared", &of(Role::GateShexp).squares, router);
        }
        for role in [Role::GateExps, Role::UpExps, Role::DownExps] {
            let counts = &of(role).counts;
            assert_eq!(counts.len(), h.moe.experts, "{name}");
            let taken = counts.iter().sum::<u64>();
            assert_eq!(taken, (3 * CHUNK * h.moe.used) as u64, "{name}");
            assert_eq!(counts, &of(Role::GateExps).counts, "{name}");
        }
    }
}

#[test]
fn every_weight_that_can_be_quantized_has_an_importance_that_the_converter_takes() {
    let home = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        let model = convert(name, "f16");
        let mut engine = engine(&model, CacheType::F32, 512);
        let sums = collected(&mut engine);
        let path = home.path().join(name);
        let record = Record {
            datasets: vec!["words".into()],
            chunks: 3,
            chunk_size: CHUNK as u32,
            tensors: sums.values().cloned().collect(),
        };
        write(&record, &path, false).unwrap();
        let imatrix = Imatrix::open(&path).unwrap();
        for spec in schema::tensors(engine.model().hparams()) {
            let of = imatrix.of(&spec).unwrap();
            let multiplied = !spec.role.is_always_f32() && spec.role != Role::TokenEmbd;
            assert_eq!(of.is_some(), multiplied, "{name} {}", spec.name);
            let Some(of) = of else { continue };
            let sums = &sums[&spec.name];
            if let [n] = sums.counts[..] {
                let means = sums.squares.iter().map(|x| (x / n as f64) as f32);
                let got = of.values().iter().zip(means);
                let off = got.fold(0f32, |m, (a, b)| m.max((a - b).abs() / b.max(1e-12)));
                assert!(off < 1e-6, "{name} {}: {off:e}", spec.name);
            }
        }
        let file = GgufFile::open(&path).unwrap();
        assert_eq!(file.metadata().u64("imatrix.chunk_count"), Some(3));
        assert_eq!(
            file.metadata().u64("imatrix.chunk_size"),
            Some(CHUNK as u64)
        );
    }
}

fn compare(a: &Converted, b: &Converted) -> measure::Summary {
    let (mut a, mut b) = (
        engine(a, CacheType::F32, 512),
        engine(b, CacheType::F32, 512),
    );
    let text = text(&a);
    measure::compare(&mut a, &mut b, &text, &mut |_| true).unwrap()
}

#[test]
fn a_model_does_not_diverge_from_itself_and_less_precision_diverges_more() {
    let file = |to| convert("tiny", to);
    let (f32, q8, q4) = (file("f32"), file("q8_0"), file("q4_0"));
    let same = compare(&f32, &f32);
    assert_eq!((same.kl.mean, same.kl_most, same.top_1), (0.0, 0.0, 1.0));
    assert_eq!(same.perplexity_a, same.perplexity_b);
    assert_eq!(same.positions, 3 * (CHUNK / 2 - 1));
    let (near, far) = (compare(&f32, &q8), compare(&f32, &q4));
    assert!(0.0 < near.kl.mean && near.kl.mean < far.kl.mean);
    assert_eq!(near.perplexity_a, same.perplexity_a);
}

#[test]
fn work_on_a_text_stops_when_asked_to() {
    let model = convert("tiny", "f32");
    let mut engine = engine(&model, CacheType::F32, 512);
    let text = text(&engine);
    let mut done = 0;
    let stopped = measure::collect(&mut engine, &text, &mut |tokens| {
        done += tokens;
        false
    });
    assert!(matches!(stopped, Err(measure::MeasureError::Interrupted)));
    assert_eq!(done, CHUNK as u64);
}
