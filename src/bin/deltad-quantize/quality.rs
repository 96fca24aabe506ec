//! `quality`: two models, one text, and how far they are apart.

use crate::args::Quality;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};
use crate::{reading, table};
use deltad::engine::Engine;
use deltad::interrupt;
use deltad::measure::{self, Estimate, Summary, Text};
use deltad::stdio;
use ggml_kernels::gguf::Metadata;
use quantize::convert::Observer;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::Ordering;

pub fn run(args: &Quality) -> Result<(), Failure> {
    let mut a = reading::engine(&args.a, &args.reading)?;
    let mut b = reading::engine(&args.b, &args.reading)?;
    let text = reading::text(&args.text, &args.a, &a, &args.reading)?;
    if let Some(what) = other_vocabulary(&a, &b) {
        let what = format!("not the vocabulary of {}: {what}", args.a.display());
        return Err(Failure::input(&args.b, what));
    }
    let interrupted = interrupt::flag().map_err(|e| Failure::io(&args.text, e))?;
    let quiet = args.reading.quiet || args.json;
    let mut progress = Progress::new(text.tokens() as u64, Unit::Tokens, quiet);
    let compared = measure::compare(&mut a, &mut b, &text, &mut |tokens| {
        progress.advance(tokens);
        !interrupted.load(Ordering::Relaxed)
    });
    let seconds = progress.finish();
    let summary = compared?;
    let sides = [side(&args.a, &a)?, side(&args.b, &b)?];
    if args.json {
        let whole = as_json(args, &sides, &text, &summary);
        stdio::line(format_args!("{whole:#}")).map_err(Failure::Output)?;
    } else {
        let page = show(&sides, &text, &summary);
        stdio::print(page).map_err(Failure::Output)?;
        if !quiet {
            stdio::remark(format_args!("{seconds:.1} s"));
        }
    }
    Ok(())
}

/// Size of a file and of its weights.
struct Side {
    bytes: u64,
    bits_per_weight: f64,
}

fn side(path: &Path, engine: &Engine) -> Result<Side, Failure> {
    let bytes = std::fs::metadata(path)
        .map_err(|e| Failure::io(path, e))?
        .len();
    let weights: u64 = quantize::schema::tensors(engine.model().hparams())
        .iter()
        .map(quantize::source::elements)
        .sum();
    let bits_per_weight = 8.0 * bytes as f64 / weights as f64;
    Ok(Side {
        bytes,
        bits_per_weight,
    })
}

/// The first difference that makes token ids mean different things.
fn other_vocabulary(a: &Engine, b: &Engine) -> Option<String> {
    let (n_a, n_b) = (a.model().n_vocab(), b.model().n_vocab());
    if n_a != n_b {
        return Some(format!("{n_b} tokens, wanted {n_a}"));
    }
    let tokens = |m: &Metadata| m.strs("tokenizer.ggml.tokens").map(<[String]>::to_vec);
    let (a, b) = (tokens(a.model().metadata()), tokens(b.model().metadata()));
    // Only A's tokenizer is used: a B without one is compared all the same.
    let (Some(a), Some(b)) = (a, b) else {
        return None;
    };
    let at = a.iter().zip(&b).position(|(a, b)| a != b)?;
    Some(format!("token {at} is {:?}, wanted {:?}", b[at], a[at]))
}

fn as_json(args: &Quality, sides: &[Side; 2], text: &Text, s: &Summary) -> Value {
    let estimate = |e: Estimate| json!({ "value": e.mean, "error": e.error });
    let side = |path: &Path, side: &Side, perplexity| {
        json!({
            "file": path,
            "bytes": side.bytes,
            "bits_per_weight": side.bits_per_weight,
            "perplexity": estimate(perplexity),
        })
    };
    json!({
        "a": side(&args.a, &sides[0], s.perplexity_a),
        "b": side(&args.b, &sides[1], s.perplexity_b),
        "text": {
            "file": args.text,
            "chunks": text.chunks(),
            "chunk": text.chunk(),
            "positions": s.positions,
        },
        "perplexity_ratio": estimate(s.ratio),
        "kl": {
            "mean": s.kl.mean,
            "error": s.kl.error,
            "median": s.kl_median,
            "p99": s.kl_99,
            "p999": s.kl_999,
            "max": s.kl_most,
        },
        "top_1": s.top_1,
    })
}

fn show(sides: &[Side; 2], text: &Text, s: &Summary) -> String {
    let estimate = |e: Estimate| format!("{:.5} ± {:.5}", e.mean, e.error);
    let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
    let [a, b] = sides;
    let rows = [
        row(["", "A", "B"]),
        row(["size", &table::bytes(a.bytes), &table::bytes(b.bytes)]),
        row([
            "bits per weight",
            &format!("{:.2}", a.bits_per_weight),
            &format!("{:.2}", b.bits_per_weight),
        ]),
        row([
            "perplexity",
            &estimate(s.perplexity_a),
            &estimate(s.perplexity_b),
        ]),
    ];
    let page = table::of(&rows, &[]) + "\n";
    let row = |what: &str, value: String| vec![what.to_owned(), value];
    let rows = [
        row("perplexity of B over A", estimate(s.ratio)),
        row("KL divergence, mean", estimate(s.kl)),
        row("               median", format!("{:.5}", s.kl_median)),
        row("               99 %", format!("{:.5}", s.kl_99)),
        row("               99.9 %", format!("{:.5}", s.kl_999)),
        row("               worst", format!("{:.5}", s.kl_most)),
        row("same first token", format!("{:.2} %", 100.0 * s.top_1)),
        row(
            "positions",
            format!(
                "{} ({} chunks of {})",
                s.positions,
                text.chunks(),
                text.chunk()
            ),
        ),
    ];
    page + &table::of(&rows, &[])
}
