//! What memory this process holds, by kind, as the kernel counts it. The kernel's file stays open: to
//! open one takes memory of the kernel's, which a control group over its mark waits seconds for.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// In bytes, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// States kept for next turns.
    pub states: u64,
    /// Memory that is no file's, the states among it.
    pub own: u64,
    /// Mapped files, the model's weights and sessions' rows: the kernel can drop them by itself.
    pub files: u64,
}

/// Where the kernel counts it.
#[derive(Debug)]
pub struct Gauge(Option<File>);

impl Gauge {
    pub fn open() -> Gauge {
        Gauge(File::open("/proc/self/status").ok())
    }

    /// Zeros where the kernel does not say.
    pub fn now(&self, states: usize) -> Held {
        let mut room = [0; 4096];
        let read = self.0.as_ref().and_then(|f| f.read_at(&mut room, 0).ok());
        let status = std::str::from_utf8(&room[..read.unwrap_or(0)]).unwrap_or_default();
        let kib = |name: &str| kib(status, name).saturating_mul(1024);
        Held {
            states: states as u64,
            own: kib("RssAnon:"),
            files: kib("RssFile:") + kib("RssShmem:"),
        }
    }
}

fn kib(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something_of_both_kinds() {
        let gauge = Gauge::open();
        let held = gauge.now(7);
        assert_eq!(held.states, 7);
        assert!(held.own > 1 << 16 && held.files > 1 << 16, "{held:?}");
        let more = vec![1_u8; 64 << 20];
        assert!(gauge.now(7).own > held.own + (32 << 20), "{}", more[5]);
        let status = "RssAnon:\t    12 kB\nRssFile:\t  3456 kB\n";
        assert_eq!(
            (kib(status, "RssFile:"), kib(status, "RssShmem:")),
            (3456, 0)
        );
    }
}
