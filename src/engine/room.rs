//! What memory this process could have, by the word of the machine and of its control group.

use std::path::Path;

/// What can be had without pushing out what others use; caches count as free.
pub fn available() -> u64 {
    let info = text("/proc/meminfo");
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The tightest limit of our control group and those above it.
pub fn limit() -> Option<u64> {
    let groups = text("/proc/self/cgroup");
    let own = groups.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    let above = own.ancestors().take_while(|dir| dir.starts_with(root));
    above
        .filter_map(|dir| text(dir.join("memory.max")).trim().parse().ok())
        .min()
}

/// A file of so many bytes could stay in memory, with an eighth more for what is computed.
pub fn has(bytes: usize) -> bool {
    let room = available().min(limit().unwrap_or(u64::MAX));
    (bytes as u64).saturating_add(bytes as u64 / 8) <= room
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_little_and_none_for_everything() {
        assert!(available() > 0 && has(1 << 20));
        assert!(!has(usize::MAX));
    }
}
