//! What this process holds, as the kernel counts it. 0 where it does not say.

/// Bytes that are no file's: the model's weights, which are mapped, are not among them.
pub fn own() -> u64 {
    status("RssAnon")
}

/// The most that was resident at any moment, files too.
pub fn peak() -> u64 {
    status("VmHWM")
}

fn status(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
