//! The card that tests run on.

use ggml_kernels::cuda::driver::{CudaError, Device, FILE};

/// The card that tests find, for one at a time; it may be an emulated one. `DELTAD_KERNELS` names its
/// kernels, or they lie beside the program of the same build.
pub(super) fn card() -> Option<(Device, impl Sized)> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|e| e.into_inner());
    let named = std::env::var_os("DELTAD_KERNELS").map(std::path::PathBuf::from);
    let test = std::env::current_exe().expect("this program has a path");
    let kernels = named.unwrap_or_else(|| test.with_file_name("..").join(FILE));
    match Device::open(0, &kernels) {
        Ok(device) => Some((device, turn)),
        Err(why) if why.is_absence() || matches!(why, CudaError::File { .. }) => {
            eprintln!("skipped: {why}");
            None
        }
        Err(why) => panic!("{why}"),
    }
}
