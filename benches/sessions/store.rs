//! The store by itself: turns, states and forks of the 48B's byte sizes, its files in the page cache and not.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use deltad::engine::BLOCK;
use deltad::sessions::store::{About, Digest, Id, Identity, Quota, State, Store, Turn};

use crate::{MIB, median, ms};

/// A state of so many tokens, in bytes: each block tells where it is from.
pub struct Large {
    pub tokens: usize,
    pub slot: usize,
}

const BLOCK_BYTES: usize = 7 * BLOCK * 576 * 2;
/// Of the whole 48B.
const SLOT_BYTES: usize = 43 << 20;

impl State for Large {
    fn blocks(&self) -> usize {
        self.tokens / BLOCK
    }
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }
    fn block(&self, at: usize) -> Bytes {
        vec![at as u8 & 0x3f; BLOCK_BYTES].into()
    }
    fn slot(&self) -> Bytes {
        vec![7; self.slot].into()
    }
    fn tail(&self) -> Bytes {
        vec![1; self.tokens % BLOCK * BLOCK_BYTES / BLOCK].into()
    }
    fn next(&self) -> Bytes {
        Bytes::new()
    }
}

pub fn identity() -> Identity {
    let digest = Digest([1; 32]);
    Identity {
        model: digest,
        tokenizer: digest,
        template: digest,
        cache: "f16".into(),
    }
}

pub fn turn(kept: usize, new: usize) -> Turn {
    Turn {
        response: "resp_0123456789abcdef0123456789abcdef".into(),
        messages: "x".repeat(new * 5),
        kept,
        tokens: vec![1; new],
        options: "{}".into(),
        at: 0,
    }
}

pub fn store(dir: &Path) -> Store {
    let quota = Quota {
        disk: 1 << 40,
        floor: 0,
    };
    Store::open(dir, 1, quota).expect("ours")
}

/// The store alone, with states of the 48B.
pub fn stored(tokens: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let large = |tokens| Large {
        tokens,
        slot: SLOT_BYTES,
    };
    let about = About {
        name: None,
        note: String::new(),
        identity: identity(),
    };
    println!("the store, states of the 48B's byte sizes, {tokens} tokens:");
    let id = store.create(&about).expect("room");
    store.turn(&id, &turn(0, tokens)).expect("room");
    let all: Vec<u32> = vec![1; tokens + 500];
    let start = Instant::now();
    let first = store
        .checkpoint(&id, &all[..tokens], &large(tokens))
        .expect("room");
    println!(
        "  first checkpoint    {:8.1} ms, {:.1} MiB",
        ms(start),
        first.bytes as f64 / MIB
    );
    let before = store.written();
    let start = Instant::now();
    store.turn(&id, &turn(tokens, 500)).expect("room");
    println!(
        "  a turn of 500       {:8.1} ms, {:.1} KiB",
        ms(start),
        (store.written() - before) as f64 / 1024.0
    );
    let start = Instant::now();
    let more = store
        .checkpoint(&id, &all, &large(tokens + 500))
        .expect("room");
    let fair = SLOT_BYTES + 500 * BLOCK_BYTES / BLOCK;
    println!(
        "  checkpoint after it {:8.1} ms, {:.1} MiB: {:.3} of state and new rows",
        ms(start),
        more.bytes as f64 / MIB,
        more.bytes as f64 / fair as f64
    );
    let loads: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let (state, wrong) = store.state(&id, &all).expect("it is whole");
            assert!(wrong.is_empty() && state.is_some_and(|s| s.tokens == all.len()));
            ms(start)
        })
        .collect();
    println!(
        "  read and verified   {:8.1} ms, page cache warm, median of 5",
        median(loads)
    );
    cold(&store, dir.path(), &id, &all);
    let start = Instant::now();
    for _ in 0..64 {
        store.fork(&id, 2, None).expect("room");
    }
    println!(
        "  a fork on disk      {:8.1} ms, mean of 64",
        ms(start) / 64.0
    );
}

/// The files below, and how large they are.
fn files(dir: &Path, all: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        let about = entry.metadata().expect("a file");
        if about.is_dir() {
            files(&entry.path(), all);
        } else {
            all.push((entry.path(), about.len()));
        }
    }
}

/// Lets the kernel forget what it knows of them.
fn forget(files: &[(PathBuf, u64)]) {
    for (path, _) in files {
        let file = std::fs::File::open(path).expect("a file");
        file.sync_all().expect("it is written");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it is told");
    }
}

/// Bytes that this process had the disk read.
fn fetched() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|l| l.strip_prefix("read_bytes: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Read back from files of which the kernel holds nothing, beside the disk reading the same files from one
/// end to the other. Aim: their bytes by 0.8 of the disk's speed, and 100 ms.
fn cold(store: &Store, dir: &Path, id: &Id, tokens: &[u32]) {
    let mut all = Vec::new();
    files(dir, &mut all);
    // The newest state alone is read.
    let newest = all
        .iter()
        .filter(|(p, _)| is_state(p))
        .map(|(p, _)| p)
        .max()
        .cloned();
    all.retain(|(p, _)| !is_state(p) || Some(p) == newest.as_ref());
    let bytes: u64 = all.iter().map(|(_, n)| n).sum();
    let (mut plain, mut loads, mut read) = (Vec::new(), Vec::new(), 0);
    for _ in 0..3 {
        forget(&all);
        let start = Instant::now();
        let mut piece = vec![0; 4 << 20];
        for (path, _) in &all {
            let mut file = std::fs::File::open(path).expect("a file");
            while file.read(&mut piece).expect("it is read") > 0 {}
        }
        plain.push(ms(start));
        forget(&all);
        let before = fetched();
        let start = Instant::now();
        let (state, wrong) = store.state(id, tokens).expect("it is whole");
        assert!(wrong.is_empty() && state.is_some());
        loads.push(ms(start));
        read = fetched() - before;
    }
    let (plain, load) = (median(plain), median(loads));
    println!(
        "  read and verified   {load:8.1} ms, nothing in the page cache ({:.0} of {:.0} MiB came from the disk); the \
         disk alone {plain:.1} ms, aim {:.1} ms; medians of 3",
        read as f64 / MIB,
        bytes as f64 / MIB,
        plain / 0.8 + 100.0
    );
}

fn is_state(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str());
    name.is_some_and(|n| n.starts_with("state."))
}
