//! The program's own pages. They are a file's, so a control group that holds more than its mark loses
//! them first, and then every step of the program waits for the disk and for the kernel's leave: also
//! those steps that would give memory back.

use rustix::mm::{MlockAllFlags, mlockall};

/// Keeps what is mapped by now in memory: the program and its libraries, if this is called before the
/// model is mapped and before there are threads. Only a control group's mark takes them away, so
/// without a manager that has us watch one nothing is kept.
pub fn keep() {
    if std::env::var_os("MEMORY_PRESSURE_WATCH").is_none() {
        return;
    }
    if let Err(e) = mlockall(MlockAllFlags::CURRENT) {
        // A user's manager may allow less than the unit asks for.
        log::info!(
            "the program's own pages may be taken when memory is short: {e} (LimitMEMLOCK=)"
        );
    }
}
