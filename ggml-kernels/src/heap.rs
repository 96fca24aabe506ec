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
