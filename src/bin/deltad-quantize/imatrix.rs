//! `imatrix`: reads a text with a model and writes what met its weights.

use crate::args::Imatrix;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};
use crate::reading;
use deltad::interrupt;
use deltad::measure;
use deltad::stdio;
use quantize::convert::Observer;
use quantize::error::Error;
use quantize::imatrix::{FEW, Record, Sums, write};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

pub fn run(args: &Imatrix) -> Result<(), Failure> {
    // Before minutes of work, not after.
    if !args.overwrite && args.output.symlink_metadata().is_ok() {
        let path = args.output.clone();
        return Err(Error::Exists { path }.into());
    }
    let dir = args.output.parent().filter(|d| !d.as_os_str().is_empty());
    if let Some(Err(e)) = dir.map(std::fs::metadata) {
        return Err(Failure::io(&args.output, e));
    }
    let mut engine = reading::engine(&args.model, &args.reading)?;
    let text = reading::text(&args.text, &args.model, &engine, &args.reading)?;
    let interrupted = interrupt::flag().map_err(|e| Failure::io(&args.output, e))?;
    let quiet = args.reading.quiet;
    let mut progress = Progress::new(text.tokens() as u64, Unit::Tokens, quiet);
    let collected = measure::collect(&mut engine, &text, &mut |tokens| {
        progress.advance(tokens);
        !interrupted.load(Ordering::Relaxed)
    });
    let seconds = progress.finish();
    let name = |path: &std::path::Path| path.display().to_string();
    let record = Record {
        datasets: vec![name(&args.text)],
        chunks: text.chunks() as u32,
        chunk_size: text.chunk() as u32,
        tensors: collected?,
    };
    write(&record, &args.output, args.overwrite)?;
    if !quiet {
        for note in scarce(&record.tensors) {
            stdio::remark(format_args!("note: {note}"));
        }
        stdio::remark(format_args!(
            "{}: {} tensors, {} chunks of {} tokens, {seconds:.1} s",
            name(&args.output),
            record.tensors.len(),
            record.chunks,
            record.chunk_size,
        ));
    }
    Ok(())
}

/// A line for each layer with experts that saw too little. Its three stacks see the same tokens.
fn scarce(tensors: &[Sums]) -> Vec<String> {
    let stacks = tensors.iter().filter(|sums| sums.counts.len() > 1);
    let layers: BTreeMap<(usize, &str), &[u64]> = stacks
        .filter_map(|sums| {
            let layer = sums.name.strip_suffix(".ffn_down_exps.weight")?;
            Some(((layer.len(), layer), sums.counts.as_slice()))
        })
        .collect();
    let note = |((_, layer), counts): ((usize, &str), &[u64])| {
        let few = counts.iter().filter(|&&n| (n as f32) < FEW).count();
        let none = counts.iter().filter(|&&n| n == 0).count();
        let all = counts.len();
        (few > 0).then(|| {
            format!("{layer}: {few} of {all} experts saw fewer than {FEW} tokens, {none} none; a longer text would know more")
        })
    };
    layers.into_iter().filter_map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_that_saw_few_tokens_are_counted_by_layer_in_order() {
        let sums = |name: &str, counts: &[u64]| Sums {
            name: name.into(),
            squares: vec![0.0; counts.len()],
            counts: counts.into(),
        };
        let notes = scarce(&[
            sums("blk.10.ffn_down_exps.weight", &[0, 15, 16]),
            sums("blk.10.ffn_up_exps.weight", &[0, 15, 16]),
            sums("blk.9.ffn_down_exps.weight", &[40, 40, 1]),
            sums("blk.8.ffn_down_exps.weight", &[40, 40, 40]),
            sums("blk.8.attn_q.weight", &[3]),
        ]);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("blk.9: 1 of 3 experts saw fewer than 16 tokens, 0 none"));
        assert!(notes[1].starts_with("blk.10: 2 of 3 experts saw fewer than 16 tokens, 1 none"));
    }
}
