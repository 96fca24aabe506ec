//! What memory this process could have, by the word of the machine and of its control group.

use std::path::Path;

/// What can be had without pushing out what others use; caches count as free.
pub fn available() -> u64 {
    of(&text("/proc/meminfo"))
}

/// In the service's sandbox (`ProcSubset=pid`) that file is not there: all memory then, which is too much
/// and better than nothing.
fn of(info: &str) -> u64 {
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
    kib.map_or_else(all, |kib| kib * 1024)
}

fn all() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

/// The tightest limit or mark of our control group and those above it.
pub fn limit() -> Option<u64> {
    let groups = text("/proc/self/cgroup");
    let own = groups.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    let above = own.ancestors().take_while(|dir| dir.starts_with(root));
    let files = above.flat_map(|dir| ["memory.max", "memory.high"].map(|file| dir.join(file)));
    files
        .filter_map(|file| text(file).trim().parse().ok())
        .min()
}

/// What we could have of it.
pub fn for_us() -> u64 {
    available().min(limit().unwrap_or(u64::MAX))
}

/// A file of so many bytes could stay in memory, with an eighth more for what is computed.
pub fn has(bytes: usize) -> bool {
    (bytes as u64).saturating_add(bytes as u64 / 8) <= for_us()
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

    #[test]
    fn where_the_kernel_hides_its_estimate_there_is_all_of_memory() {
        assert_eq!(of("MemTotal: 9 kB\nMemAvailable:   7 kB\n"), 7 * 1024);
        assert!(of("") >= available());
    }
}
