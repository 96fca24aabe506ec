//! Files that change under their maps: zeros and a mark instead of death.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use ggml_kernels::gguf::{GgufFile, GgufWriter, Layout, Metadata, PlannedTensor};
use ggml_kernels::map::{Damaged, map_file};
use ggml_kernels::quant::TensorType;

/// More than a page of any machine.
const PIECE: usize = 1 << 16;
const LEN: usize = 8 * PIECE;

fn file_of_ones() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![1u8; LEN]).unwrap();
    file
}

fn shorten(path: &Path, to: usize) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(to as u64).unwrap();
}

#[test]
fn a_file_shortened_under_its_map_reads_zeros_and_says_so() {
    let (file, other) = (file_of_ones(), file_of_ones());
    let (map, neighbour) = (
        map_file(file.path()).unwrap(),
        map_file(other.path()).unwrap(),
    );
    assert_eq!(map.damaged(), None);
    shorten(file.path(), 2 * PIECE);
    let (kept, lost) = map.split_at(2 * PIECE);
    assert!(kept.iter().all(|&b| b == 1));
    assert!(lost.iter().all(|&b| b == 0));
    let (from, to) = (LEN as u64, 2 * PIECE as u64);
    assert_eq!(map.damaged(), Some(Damaged::Shortened { from, to }));
    assert_eq!(neighbour.damaged(), None);
    assert!(neighbour.iter().all(|&b| b == 1));
}

#[test]
fn a_file_cut_inside_the_last_page_that_was_read_is_damaged_though_nothing_faults() {
    let file = file_of_ones();
    let map = map_file(file.path()).unwrap();
    shorten(file.path(), LEN - 1);
    assert_eq!(map[LEN - 1], 0);
    assert!(matches!(map.damaged(), Some(Damaged::Shortened { .. })));
}

#[test]
fn what_was_read_while_a_file_was_short_stays_damaged_when_it_is_whole_again() {
    let file = file_of_ones();
    let map = map_file(file.path()).unwrap();
    shorten(file.path(), PIECE);
    assert_eq!(map[3 * PIECE], 0);
    std::fs::write(file.path(), vec![1u8; LEN]).unwrap();
    let at = 3 * PIECE;
    assert_eq!(map.damaged(), Some(Damaged::Unreadable { at }));
    assert_eq!(map_file(file.path()).unwrap().damaged(), None);
}

#[test]
fn threads_that_read_while_a_file_is_shortened_all_live() {
    let file = file_of_ones();
    let map = map_file(file.path()).unwrap();
    let rounds = std::sync::Barrier::new(5);
    let sums: Vec<usize> = std::thread::scope(|scope| {
        let read = || {
            rounds.wait();
            let pass = |_| map.iter().map(|&b| usize::from(b)).sum::<usize>();
            (0..200).map(pass).min().unwrap()
        };
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        rounds.wait();
        shorten(file.path(), PIECE);
        readers.into_iter().map(|r| r.join().unwrap()).collect()
    });
    assert!(map.damaged().is_some());
    assert!(sums.iter().all(|&sum| sum >= PIECE));
}

#[test]
fn a_map_that_is_given_back_leaves_nothing_behind() {
    let file = file_of_ones();
    for _ in 0..5000 {
        let map = map_file(file.path()).unwrap();
        assert_eq!(map[0], 1);
    }
}

#[test]
fn a_model_file_shortened_after_it_was_opened_says_so() {
    let planned = [PlannedTensor {
        name: "weights".into(),
        ty: TensorType::F32,
        shape: vec![LEN as u64 / 4],
    }];
    let layout = Layout::new(&Metadata::default(), &planned).unwrap();
    let mut writer = GgufWriter::new(Vec::new(), layout).unwrap();
    writer.write(&vec![1u8; LEN]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), writer.finish().unwrap()).unwrap();
    let model = GgufFile::open(file.path()).unwrap();
    let tensor = model.tensor("weights").unwrap();
    assert!(model.data(tensor).iter().all(|&b| b == 1));
    assert_eq!(model.damaged(), None);
    shorten(file.path(), PIECE);
    assert_eq!(model.data(tensor)[LEN - 1], 0);
    assert!(model.damaged().is_some());
}

/// The signal that ended this program when it ran one of the tests below.
fn end_of(child: &str) -> Option<i32> {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this);
    let output = command.args(["--exact", child, "--ignored"]).output();
    output.unwrap().status.signal()
}

#[test]
fn a_fault_outside_every_guarded_map_still_kills() {
    assert_eq!(end_of("touches_an_unguarded_map"), Some(libc::SIGBUS));
}

#[test]
fn a_signal_that_was_sent_still_kills() {
    assert_eq!(end_of("sends_itself_the_signal"), Some(libc::SIGBUS));
}

#[test]
#[ignore = "dies: another test runs it"]
fn touches_an_unguarded_map() {
    let (file, other) = (file_of_ones(), file_of_ones());
    let guarded = map_file(other.path()).unwrap();
    shorten(other.path(), PIECE);
    assert_eq!(guarded[LEN - 1], 0, "the guard works");
    let handle = std::fs::File::open(file.path()).unwrap();
    // SAFETY: plain bytes, read only; that the file is shortened is the point.
    let map = unsafe { memmap2::Mmap::map(&handle) }.unwrap();
    shorten(file.path(), PIECE);
    println!("{}", map[LEN - 1]);
}

#[test]
#[ignore = "dies: another test runs it"]
fn sends_itself_the_signal() {
    let file = file_of_ones();
    let _guarded = map_file(file.path()).unwrap();
    // SAFETY: a signal to this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGBUS) };
    // Another thread of this program may be the one that takes it.
    std::thread::sleep(std::time::Duration::from_secs(10));
}

#[test]
fn asking_for_bytes_changes_none_of_them_wherever_they_lie() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    std::io::Write::write_all(&mut file, &bytes).unwrap();
    let map = ggml_kernels::map::map_file(file.path()).unwrap();
    for range in [
        0..100_000,
        1..2,
        4095..4097,
        50_000..50_000,
        99_999..100_000,
    ] {
        ggml_kernels::map::ask_for(&map[range]);
    }
    ggml_kernels::map::ask_for(&bytes[17..]);
    assert_eq!(map[..], bytes);
    let before = ggml_kernels::map::FromDisk::so_far();
    let now = ggml_kernels::map::FromDisk::so_far();
    assert!(now.waited_for >= before.waited_for && now.sectors >= before.sectors);
}
