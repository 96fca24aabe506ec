//! `verify`: reads every byte, prints digests and the verdict. A bad file is exit code 3.

use crate::args::Verify;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};
use deltad::interrupt;
use deltad::stdio;
use quantize::convert::Observer;
use quantize::error::Error;
use quantize::verify::{Report, verify};
use serde_json::json;

pub fn run(args: &Verify) -> Result<(), Failure> {
    let io = |source| Error::Io {
        path: args.file.clone(),
        source,
    };
    let bytes = std::fs::metadata(&args.file).map_err(io)?.len();
    let interrupted = interrupt::flag().map_err(io)?;
    let mut progress = Progress::new(2 * bytes, Unit::Values, args.quiet || args.json);
    let report = verify(&args.file, &interrupted, &mut |what, n| {
        progress.tensor(what);
        progress.advance(n);
    });
    let seconds = progress.finish();
    let report = report?;
    if args.json {
        print_json(&report).map_err(Failure::Output)?;
    } else {
        let mut lines = String::new();
        for tensor in report.tensors.iter().filter(|_| !args.quiet) {
            lines.push_str(&format!("{}  {}\n", tensor.digest.to_hex(), tensor.name));
        }
        let whole = format!("{}  {}", report.digest.to_hex(), args.file.display());
        stdio::line(lines + &whole).map_err(Failure::Output)?;
    }
    let broken = report.tensors.iter().filter_map(|t| Some((t, t.broken?)));
    let broken = broken.map(|(t, at)| format!("{}: block {at} is not finite", t.name));
    let refusal = report.refusal.as_ref().map(ToString::to_string);
    let faults: Vec<String> = refusal.into_iter().chain(broken).collect();
    if !faults.is_empty() {
        return Err(Error::Input {
            path: args.file.clone(),
            what: faults.join("; "),
        }
        .into());
    }
    if !args.json && !args.quiet {
        stdio::remark(format_args!("good, {seconds:.1} s"));
    }
    Ok(())
}

fn print_json(report: &Report) -> std::io::Result<()> {
    let tensor = |t: &quantize::verify::Verdict| json!({ "name": t.name, "blake3": t.digest.to_hex().as_str(), "broken_block": t.broken });
    let whole = json!({
        "good": report.is_good(),
        "blake3": report.digest.to_hex().as_str(),
        "refusal": report.refusal.as_ref().map(ToString::to_string),
        "tensors": report.tensors.iter().map(tensor).collect::<Vec<_>>(),
    });
    stdio::line(format_args!("{whole:#}"))
}
