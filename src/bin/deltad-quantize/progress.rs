//! How far a long command is: a bar on a terminal, now and then a line elsewhere, nothing when
//! quiet.

use deltad::stdio;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quantize::convert::Observer;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is counted, and how its rate is shown.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Values or bytes, in millions.
    Values,
    Tokens,
}

impl Unit {
    fn rate(self, per_second: f64) -> String {
        match self {
            Unit::Values => format!("{:.0} M/s", per_second / 1e6),
            Unit::Tokens => format!("{per_second:.0} tokens/s"),
        }
    }
}

pub struct Progress {
    style: Style,
    unit: Unit,
    what: String,
    total: u64,
    done: u64,
    started: Instant,
    last_line: Instant,
}

enum Style {
    Bar(ProgressBar),
    Lines,
    Quiet,
}

const BETWEEN_LINES: Duration = Duration::from_secs(10);

impl Progress {
    pub fn new(total: u64, unit: Unit, quiet: bool) -> Self {
        let style = if quiet {
            Style::Quiet
        } else if std::io::stderr().is_terminal() {
            let bar =
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template(
                "{wide_bar} {percent:>3}%  {rate}  {eta_precise} left  {msg}",
            );
            let rate = move |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                // Nothing can be done about a terminal that refuses text.
                let _ = out.write_str(&unit.rate(state.per_sec()));
            };
            match style {
                Ok(style) => bar.set_style(style.with_key("rate", rate)),
                Err(e) => log::debug!("progress bar: {e}"),
            }
            Style::Bar(bar)
        } else {
            Style::Lines
        };
        let now = Instant::now();
        Self {
            style,
            unit,
            what: String::new(),
            total,
            done: 0,
            started: now,
            last_line: now,
        }
    }

    /// Clears the bar and returns the seconds since the start.
    pub fn finish(self) -> f64 {
        if let Style::Bar(bar) = &self.style {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }
}

impl Observer for Progress {
    fn resumed(&mut self, target: &Path, tensors: usize, of: usize) {
        if !matches!(self.style, Style::Quiet) {
            let target = target.display();
            stdio::remark(format_args!(
                "{target}: {tensors} of {of} tensors were finished before"
            ));
        }
    }

    fn tensor(&mut self, what: &str) {
        self.what.clear();
        self.what.push_str(what);
        if let Style::Bar(bar) = &self.style {
            bar.set_message(self.what.clone());
        }
    }

    fn advance(&mut self, by: u64) {
        self.done += by;
        match &self.style {
            Style::Bar(bar) => bar.inc(by),
            Style::Lines if self.last_line.elapsed() >= BETWEEN_LINES => {
                self.last_line = Instant::now();
                let seconds = self.started.elapsed().as_secs_f64();
                let rate = self.done as f64 / seconds;
                let left = self.total.saturating_sub(self.done) as f64 / rate;
                let percent = 100.0 * self.done as f64 / self.total.max(1) as f64;
                let rate = self.unit.rate(rate);
                stdio::remark(format_args!(
                    "{percent:3.0}%  {rate}  {left:.0} s left  {}",
                    self.what
                ));
            }
            _ => {}
        }
    }
}
