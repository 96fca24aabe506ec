//! The card that tests run on, and a model for it.

use std::sync::atomic::AtomicBool;

use ggml_kernels::cuda::driver::{CudaError, Device, FILE};
use quantize::convert::Silent;
use quantize::recipe::FileType;
use quantize::synth::{self, Shape};

use crate::engine::Options;
use crate::engine::model::Model;

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

/// A small model of the real shape's parts.
pub(super) fn model(dir: &tempfile::TempDir, to: FileType) -> Model {
    let mut h = Shape::Full48b.hparams(4, false);
    (h.hidden, h.vocab, h.dense_ff) = (256, 300, 512);
    (h.kda.heads, h.mla.heads) = (2, 3);
    (h.moe.experts, h.moe.ff, h.moe.shared_ff) = (9, 256, 256);
    let path = dir.path().join("small.gguf");
    let never = AtomicBool::new(false);
    synth::write(&h, to, &path, false, &never, &mut Silent).unwrap();
    Model::open(&path, &Options::default()).unwrap()
}
