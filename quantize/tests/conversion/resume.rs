//! What a conversion that was killed leaves, and what the next one makes of it.

use crate::checkpoint::Copy;
use quantize::convert::{self, Conversion, Input, Observer, Options, Silent};
use quantize::recipe::FileType;
use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What an observer is told; makes a copy of what there is when a tensor begins, as if the process had
/// been killed there.
struct Witness<'a> {
    tensors: RefCell<Vec<String>>,
    resumed: Vec<usize>,
    copy_at: Option<(&'a str, &'a Path, &'a Path)>,
}

impl Witness<'_> {
    fn new() -> Self {
        Self {
            tensors: RefCell::default(),
            resumed: Vec::new(),
            copy_at: None,
        }
    }
}

impl Observer for Witness<'_> {
    fn resumed(&mut self, _: &Path, tensors: usize, _: usize) {
        self.resumed.push(tensors);
    }
    fn tensor(&mut self, name: &str) {
        self.tensors.borrow_mut().push(name.to_owned());
        if let Some((at, from, to)) = self.copy_at
            && at == name
        {
            fs::copy(from, to).unwrap();
        }
    }
    fn advance(&mut self, _: u64) {}
}

fn part(copy: &Copy) -> PathBuf {
    copy.target().with_file_name(".out.gguf.part")
}

fn write(copy: &Copy, to: FileType, observer: &mut dyn Observer) {
    let input = Input::open(&copy.path("")).unwrap();
    let options = Options {
        to,
        overrides: Vec::new(),
    };
    let plan = Conversion::plan(&input, &options).unwrap();
    let never = AtomicBool::new(false);
    plan.write(&copy.target(), true, None, &never, observer)
        .unwrap();
}

/// A finished file, and beside it what a process leaves that is killed when all tensors are finished
/// but three; and how many there are.
fn killed(to: FileType) -> (Copy, Vec<u8>, usize) {
    let copy = Copy::of("tiny");
    let mut witness = Witness::new();
    write(&copy, to, &mut witness);
    let whole = fs::read(copy.target()).unwrap();
    let tensors = witness.tensors.borrow().len();
    // Bytes go out in steps of 4 MiB, and this file has fewer: only the plan is there yet of what a
    // process leaves, and the rest is put beside it by hand.
    let left = part(&copy);
    let aside = copy.path("aside");
    let last = witness.tensors.borrow().last().unwrap().clone();
    let mut witness = Witness::new();
    witness.copy_at = Some((&last, &left, &aside));
    write(&copy, to, &mut witness);
    let file = File::options().write(true).open(&aside).unwrap();
    file.write_all_at(&whole, 0).unwrap();
    let gguf = ggml_kernels::gguf::GgufFile::open(copy.target()).unwrap();
    let size = whole.len() as u64;
    for (at, tensor) in gguf.tensors()[..tensors - 3].iter().enumerate() {
        let digest = blake3::hash(gguf.data(tensor));
        let place = size + 32 * (at as u64 + 1);
        file.write_all_at(digest.as_bytes(), place).unwrap();
    }
    file.set_len(size + 32 * (tensors as u64 - 2)).unwrap();
    fs::rename(&aside, &left).unwrap();
    (copy, whole, tensors)
}

#[test]
fn what_a_killed_process_finished_is_not_done_again() {
    let (copy, whole, tensors) = killed(FileType::Q8_0);
    let mut witness = Witness::new();
    write(&copy, FileType::Q8_0, &mut witness);
    assert_eq!(witness.resumed, [tensors - 3]);
    assert_eq!(witness.tensors.borrow().len(), 3);
    assert!(fs::read(copy.target()).unwrap() == whole);
    assert_eq!(copy.beside_target(), ["in", "out.gguf"]);
}

#[test]
fn what_is_not_whole_is_done_again() {
    let (copy, whole, tensors) = killed(FileType::Q8_0);
    let gguf = ggml_kernels::gguf::GgufFile::open(copy.target()).unwrap();
    let tensor = &gguf.tensors()[tensors / 2];
    let at = gguf.data(tensor).as_ptr() as usize - gguf.map().as_ptr() as usize;
    let file = File::options().write(true).open(part(&copy)).unwrap();
    file.write_all_at(&[whole[at] ^ 1], at as u64).unwrap();
    let mut witness = Witness::new();
    write(&copy, FileType::Q8_0, &mut witness);
    assert_eq!(witness.resumed, [tensors / 2]);
    assert!(fs::read(copy.target()).unwrap() == whole);
}

#[test]
fn another_plan_or_another_input_begins_anew() {
    let anew = |copy: &Copy, to| {
        let mut witness = Witness::new();
        write(copy, to, &mut witness);
        assert!(witness.resumed.is_empty());
        assert_eq!(copy.beside_target(), ["in", "out.gguf"]);
        fs::read(copy.target()).unwrap()
    };
    let (copy, whole, _) = killed(FileType::Q8_0);
    assert!(anew(&copy, FileType::F16) != whole);
    let (copy, whole, _) = killed(FileType::Q8_0);
    let shard = copy.path("model.safetensors");
    fs::write(&shard, fs::read(&shard).unwrap()).unwrap();
    assert!(anew(&copy, FileType::Q8_0) == whole);
    // Nonsense under that name, longer than the file to be and shorter.
    for length in [1, 3 * whole.len()] {
        fs::write(part(&copy), vec![0x5a; length]).unwrap();
        assert!(anew(&copy, FileType::Q8_0) == whole);
    }
}

#[test]
fn two_processes_do_not_write_one_file() {
    let copy = Copy::of("tiny");
    let held = File::create(part(&copy)).unwrap();
    held.lock().unwrap();
    let input = Input::open(&copy.path("")).unwrap();
    let options = Options {
        to: FileType::F16,
        overrides: Vec::new(),
    };
    let plan = Conversion::plan(&input, &options).unwrap();
    let never = AtomicBool::new(false);
    let refused = plan.write(&copy.target(), false, None, &never, &mut Silent);
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("another process"), "{refused}");
    assert!(part(&copy).exists() && !copy.target().exists());
}

#[test]
fn several_files_in_one_reading_are_what_each_alone_is() {
    let copy = Copy::of("uneven");
    let input = Input::open(&copy.path("")).unwrap();
    let plan = |to| {
        let overrides = Vec::new();
        Conversion::plan(&input, &Options { to, overrides }).unwrap()
    };
    let types = [FileType::Q8_0, FileType::F16, FileType::Q4KM];
    let plans = types.map(plan);
    let path = |kind: &str, to: FileType| copy.path(&format!("{kind}-{to}.gguf"));
    let together = types.map(|to| path("together", to));
    let all: Vec<_> = plans
        .iter()
        .zip(&together)
        .map(|(p, t)| (p, &**t))
        .collect();
    let never = AtomicBool::new(false);
    convert::write(&all, false, None, &never, &mut Silent).unwrap();
    for (to, plan) in types.into_iter().zip(&plans) {
        let alone = path("alone", to);
        plan.write(&alone, false, None, &never, &mut Silent)
            .unwrap();
        let same = fs::read(&alone).unwrap() == fs::read(path("together", to)).unwrap();
        assert!(same, "{to}");
    }
}
