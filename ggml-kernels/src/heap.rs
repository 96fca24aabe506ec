//! The C library's heap, which Rust's allocations are in. It keeps what is freed for the next to ask,
//! and where others lie between, it never gives it back by itself.

/// Gives free pages back to the kernel. Whatever is in use stays where it is.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no memory of ours: a number of bytes to leave at the heap's end. The C library holds
    // its own locks meanwhile, and touches only what nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    fn own() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        kib.expect("a figure") << 10
    }

    #[test]
    fn what_lies_between_things_in_use_goes_back_to_the_kernel() {
        // Below the size of those that the C library has maps of their own for.
        const EACH: usize = 64 << 10;
        let mut all: Vec<Vec<u8>> = (0..1024).map(|n| vec![n as u8; EACH]).collect();
        let mut n = 0;
        all.retain(|_| {
            n += 1;
            n % 2 == 0
        });
        let before = own();
        trim();
        let after = own();
        assert!(before - after > 24 << 20, "{before} then {after}");
        assert!(all.iter().all(|some| some.iter().all(|b| *b == some[0])));
    }
}
