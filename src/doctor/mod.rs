//! `deltad doctor`: what this machine has, what a model needs, whether it fits and what would make it
//! faster. `probe` looks, `judge` judges (`gpu` what computes beside the processor), neither knows the other; here
//! they meet and are printed.

pub mod catalog;
mod gpu;
pub mod judge;
pub mod machine;
mod needs;
mod probe;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use serde_json::json;

use crate::cli::Doctor;
use crate::config::{Config, socket_candidates};
use crate::stdio;
use judge::{Report, Verdict};
pub use probe::processor;

/// Prints what was found; whether all of it works.
pub fn run(flags: &Doctor, socket: Option<PathBuf>, config: &Config) -> io::Result<bool> {
    let sockets = socket.map_or_else(socket_candidates, |s| vec![s]);
    let machine = probe::probe(config, &sockets);
    let path = flags.model.as_ref().or(config.model.path.as_ref());
    let needs = path
        .map(|path| needs::of(path, config).map_err(|why| format!("{}: {why}", path.display())));
    let model = needs.as_ref().map(|n| n.as_ref().map_err(String::as_str));
    let report = judge::judge(&machine, model, config);
    if flags.json {
        let model = needs.as_ref().and_then(|n| n.as_ref().ok());
        let all = json!({
            "machine": machine,
            "model": model,
            "findings": report.findings,
            "fits": report.fits,
            "tokens_per_second_at_most": report.tokens_per_second_at_most,
        });
        stdio::line(format_args!("{all:#}"))?;
    } else {
        stdio::print(page(&report))?;
    }
    Ok(report.is_good())
}

fn page(report: &Report) -> String {
    let mut page = String::new();
    for finding in &report.findings {
        let verdict = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Note => "note",
            Verdict::Bad => "BAD",
        };
        page += &format!("{verdict:5}{:11}{}\n", finding.about, finding.found);
        if let Some(advice) = &finding.advice {
            page += &format!("{:16}{advice}\n", "");
        }
    }
    page
}
