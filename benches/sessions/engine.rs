//! An engine whose states are the 48B's and whose weights are few: what it takes to go on from the disk, and to
//! go on from one state many times.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use deltad::engine::{Engine, Options, Sequence, Want};
use deltad::sessions::store::{About, Id, Store};

use crate::store::{Large, identity, store, turn};
use crate::{MIB, median, ms};

/// From the disk to the first token, in an engine whose states are the 48B's and whose weights are few.
pub fn resumed(model: &Path, tokens: usize) {
    let mut engine = Engine::open(model, &Options::default()).expect("the synthetic model");
    let slot = engine.snapshot(&engine.sequence().expect("room")).slot();
    let large = Large {
        tokens,
        slot: slot.len(),
    };
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(dir.path());
    let about = About {
        name: None,
        note: String::new(),
        identity: identity(),
    };
    let id = store.create(&about).expect("room");
    store.turn(&id, &turn(0, tokens)).expect("room");
    let all: Vec<u32> = vec![1; tokens];
    store.checkpoint(&id, &all, &large).expect("room");
    let (mut read, mut firsts, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        let (state, wrong) = store.state(&id, &all).expect("it is whole");
        assert!(wrong.is_empty());
        read.push(ms(start));
        let state = state.expect("a state").host();
        let snapshot = engine.adopt(&state).expect("its sizes are the engine's");
        let mut sequence = engine.restore(&snapshot).expect("it was adopted");
        engine
            .feed(&mut sequence, &[1], Want::Last)
            .expect("a pass");
        let first = ms(start);
        let start = Instant::now();
        engine
            .feed(&mut sequence, &[1], Want::Last)
            .expect("a pass");
        steps.push(ms(start));
        firsts.push(first - ms(start));
    }
    forked(&mut engine, &store, &id, &all);
    println!(
        "an engine with states of the 48B's byte sizes, {tokens} tokens: first token {:.1} ms and one \
         step of {:.1} ms after the session is asked for, of which {:.1} ms read and verify; medians of 5",
        median(firsts),
        median(steps),
        median(read)
    );
}

/// Forks of one state in memory, each of which then reads a token. Aim: a millisecond, and no rows.
fn forked(engine: &mut Engine, store: &Store, id: &Id, tokens: &[u32]) {
    let (state, _) = store.state(id, tokens).expect("it is whole");
    let state = state.expect("a state").host();
    let parent = engine.adopt(&state).expect("its sizes are the engine's");
    let (mut forks, mut times) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let start = Instant::now();
        forks.push(engine.restore(&parent).expect("it was adopted"));
        times.push(ms(start));
    }
    let beside = |forks: &[Sequence], engine: &Engine| -> usize {
        let all = forks
            .iter()
            .map(|f| engine.snapshot(f).bytes_beside(&parent));
        all.sum()
    };
    let fresh = beside(&forks, engine);
    for fork in &mut forks {
        engine.feed(fork, &[1], Want::Last).expect("a pass");
    }
    let most = times.iter().copied().fold(0.0, f64::max);
    println!(
        "a fork in memory of {} tokens: {:.4} ms, median of 8, at most {most:.4}; {fresh} bytes of its own, and {:.1} MiB \
         each once it has read a token: a slot of {:.1} and a block of {:.1}",
        tokens.len(),
        median(times),
        beside(&forks, engine) as f64 / MIB / forks.len() as f64,
        parent.slot().len() as f64 / MIB,
        parent.block_bytes() as f64 / MIB,
    );
}

/// Of random weights. `48b-states`: few of them behind the 48B's states.
pub fn synthetic(shape: &str, layers: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Command::new(env!("CARGO_BIN_EXE_deltad-quantize"))
        .args(["synth", "--shape", shape, "--layers"])
        .args([&layers.to_string(), "--type", "q4_k", "--quiet"])
        .arg(dir.path().join("model.gguf"))
        .status();
    assert!(made.is_ok_and(|s| s.success()), "the synthetic model");
    dir
}
