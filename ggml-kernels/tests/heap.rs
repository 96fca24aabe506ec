//! What the heap gives back, in a process where nobody else asks it for memory meanwhile.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use ggml_kernels::heap::trim;

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
