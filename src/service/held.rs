//! What memory this process holds, by kind, as the kernel counts it.

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

impl Held {
    /// Zeros where the kernel does not say.
    pub fn now(states: usize) -> Held {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |name: &str| kib(&status, name).saturating_mul(1024);
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
        let held = Held::now(7);
        assert_eq!(held.states, 7);
        assert!(held.own > 1 << 16 && held.files > 1 << 16, "{held:?}");
        let status = "RssAnon:\t    12 kB\nRssFile:\t  3456 kB\n";
        assert_eq!(
            (kib(status, "RssFile:"), kib(status, "RssShmem:")),
            (3456, 0)
        );
    }
}
