//! Who else uses the processor while something is measured: a speed beside others is a speed of that
//! company. 0 where the kernel does not say.

use std::time::Instant;

pub struct Company {
    since: Instant,
    others: f64,
}

impl Company {
    pub fn begin() -> Company {
        Company {
            since: Instant::now(),
            others: others(),
        }
    }

    /// Cores that others had on average since it began, the host of a virtual machine among them.
    pub fn end(self) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64();
        ((others() - self.others) / seconds).max(0.0)
    }
}

/// Seconds of processor time that were not ours.
fn others() -> f64 {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    // user nice system idle iowait irq softirq steal, in hundredths, since the machine began.
    let all = text("/proc/stat");
    let line = all.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = numbers(line).collect();
    let busy: f64 = ticks.iter().take(8).sum::<f64>() - ticks.iter().skip(3).take(2).sum::<f64>();
    // What follows the name: state, ten fields, then our user and system time.
    let own = text("/proc/self/stat");
    let own = own.rsplit(") ").next().unwrap_or_default();
    let own: f64 = numbers(own).skip(10).take(2).sum();
    (busy - own) / 100.0
}

fn numbers(line: &str) -> impl Iterator<Item = f64> {
    line.split_whitespace().filter_map(|word| word.parse().ok())
}
