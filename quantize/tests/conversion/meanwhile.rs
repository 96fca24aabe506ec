//! Inputs that are shortened while they are read: an error that names the file, never zeros.

use crate::checkpoint::Copy;
use quantize::convert::{Conversion, Input, Observer, Options};
use quantize::error::Error;
use quantize::recipe::FileType;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Keeps the first page, so that the map faults behind it.
fn shorten(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(4096).unwrap();
}

/// Shortens a file once the first tensor has begun.
struct Vandal(Option<PathBuf>);

impl Observer for Vandal {
    fn tensor(&mut self, _: &str) {
        if let Some(path) = self.0.take() {
            shorten(&path);
        }
    }
    fn advance(&mut self, _: u64) {}
}

#[track_caller]
fn names(error: &Error, path: &Path) {
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(message.contains("to 4096 bytes"), "{message}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn a_file_is_not_called_good_when_it_was_shortened_meanwhile() {
    let copy = Copy::of("tiny");
    copy.convert(FileType::F16).unwrap();
    let never = AtomicBool::new(false);
    let mut once = Some(copy.target());
    let verified = quantize::verify::verify(&copy.target(), &never, &mut |_, _| {
        if let Some(path) = once.take() {
            shorten(&path);
        }
    });
    names(&verified.unwrap_err(), &copy.target());
}

#[test]
fn nothing_is_written_from_an_input_that_was_shortened_meanwhile() {
    let from_gguf = Copy::of("tiny");
    from_gguf.convert(FileType::F32).unwrap();
    let gguf = from_gguf.path("model.gguf");
    fs::rename(from_gguf.target(), &gguf).unwrap();
    let from_shards = Copy::of("uneven");
    let shard = from_shards.path("model-00001-of-00003.safetensors");
    for (copy, input, victim) in [
        (&from_gguf, gguf.clone(), gguf.clone()),
        (&from_shards, from_shards.path(""), shard),
    ] {
        let input = Input::open(&input).unwrap();
        let options = Options {
            to: FileType::F16,
            overrides: Vec::new(),
        };
        let plan = Conversion::plan(&input, &options).unwrap();
        let mut vandal = Vandal(Some(victim.clone()));
        let never = AtomicBool::new(false);
        let done = plan.write(&copy.target(), false, None, &never, &mut vandal);
        names(&done.unwrap_err(), &victim);
        assert_eq!(copy.beside_target(), ["in"]);
    }
}
