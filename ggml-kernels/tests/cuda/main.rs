//! Kernels of our own on a card, held against their slow twins. Without a card (or without the file
//! of kernels that `make cuda` writes beside the program) every test says so and passes: see
//! `make test-cuda-emulated` for a card that is a processor.

use std::path::PathBuf;

use ggml_kernels::cuda::driver::{CudaError, Device, FILE};

mod attention;
mod draw;
mod driver;
mod mixers;
mod products;
mod wide;

/// The card, where there is one with kernels. Everything but their absence is a failure.
fn device() -> Option<Device> {
    match Device::open(0, &kernels()) {
        Ok(device) => Some(device),
        Err(why @ (CudaError::NoDriver | CudaError::NoDevice { .. } | CudaError::File { .. })) => {
            eprintln!("skipped: {why}");
            None
        }
        Err(why) => panic!("{why}"),
    }
}

/// The file of kernels: what `DELTAD_KERNELS` names, or else beside the program that the same build
/// makes.
fn kernels() -> PathBuf {
    if let Some(named) = std::env::var_os("DELTAD_KERNELS") {
        return named.into();
    }
    let test = std::env::current_exe().expect("this program has a path");
    let built = test.parent().and_then(std::path::Path::parent);
    built.expect("tests are built in deps").join(FILE)
}
