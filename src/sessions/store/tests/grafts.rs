//! Whole pieces in the wrong place: right bytes, wrong session, order or number.

use std::path::PathBuf;

use super::states::{Toy, is_of};
use super::*;

/// A session with a state after each of four turns; `from`: its first token.
fn kept(dir: &Path, from: u32) -> Id {
    let store = store(dir);
    let id = store.create(&about("one")).unwrap();
    for n in 0..4 {
        let tokens = (0..10).map(|t| from + n * 10 + t).collect();
        let turn = Turn {
            tokens,
            ..turn(n as usize)
        };
        store.turn(&id, &turn).unwrap();
        let tokens = store.load(&id, &identity()).unwrap().tokens;
        store.checkpoint(&id, &tokens, &Toy::of(&tokens)).unwrap();
    }
    id
}

fn file(dir: &Path, id: Id, name: &str) -> PathBuf {
    dir.join("1000").join(id.to_string()).join(name)
}

/// What is taken is of the session's own tokens; returns how many it has seen.
fn taken(dir: &Path, id: Id) -> (usize, Vec<String>) {
    let store = store(dir);
    let opened = store.load(&id, &identity()).unwrap();
    let wrong = opened.wrong.iter().map(Refusal::to_string).collect();
    let Some(state) = opened.state else {
        return (0, wrong);
    };
    assert!(is_of(&state, &Toy::of(&opened.tokens[..state.tokens])));
    (state.tokens, wrong)
}

#[test]
fn two_blocks_in_each_others_place_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 0);
    let path = file(dir.path(), id, "rows.0");
    let mut rows = std::fs::read(&path).unwrap();
    let (first, second) = rows.split_at_mut(8192);
    first.swap_with_slice(&mut second[..8192]);
    std::fs::write(&path, rows).unwrap();
    let (tokens, wrong) = taken(dir.path(), id);
    assert_eq!(tokens, 0);
    assert_eq!(
        wrong,
        ["the session's block 0 of rows is damaged at byte 0"; 2]
    );
}

#[test]
fn two_states_in_each_others_place_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 0);
    let [older, newer] = ["state.2", "state.3"].map(|name| file(dir.path(), id, name));
    let aside = file(dir.path(), id, "aside");
    std::fs::rename(&older, &aside).unwrap();
    std::fs::rename(&newer, &older).unwrap();
    std::fs::rename(&aside, &newer).unwrap();
    let (tokens, wrong) = taken(dir.path(), id);
    assert_eq!((tokens, wrong.len()), (0, 2), "{wrong:?}");
}

#[test]
fn another_sessions_rows_and_states_are_refused() {
    for name in ["rows.0", "state.3"] {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (kept(dir.path(), 0), kept(dir.path(), 500));
        std::fs::copy(file(dir.path(), other, name), file(dir.path(), one, name)).unwrap();
        let (tokens, wrong) = taken(dir.path(), one);
        // The state before is as it was.
        let wanted = if name == "state.3" { 30 } else { 0 };
        assert_eq!(tokens, wanted, "{wrong:?}");
        assert_eq!(taken(dir.path(), other), (40, Vec::new()));
    }
}

#[test]
fn a_log_of_an_earlier_day_has_its_own_state_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 0);
    let log = file(dir.path(), id, "log");
    let earlier = std::fs::read(&log).unwrap();
    let first = store(dir.path());
    let other = Turn {
        kept: 20,
        tokens: (900..930).collect(),
        ..turn(4)
    };
    first.turn(&id, &other).unwrap();
    let tokens = first.load(&id, &identity()).unwrap().tokens;
    first.checkpoint(&id, &tokens, &Toy::of(&tokens)).unwrap();
    drop(first);
    std::fs::write(&log, earlier).unwrap();
    let (tokens, wrong) = taken(dir.path(), id);
    assert_eq!((tokens, wrong.len()), (40, 0), "{wrong:?}");
}
