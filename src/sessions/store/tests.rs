//! What the store promises, on a real file system: sentences about turns, forks, crashes that leave
//! torn tails, damage, and strangers.

mod crash;
mod grafts;
mod handed;
mod kills;
mod sim;
mod states;
mod transfers;

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::*;

const AMPLE: Quota = Quota {
    disk: 1 << 30,
    floor: 0,
};

fn identity() -> Identity {
    Identity {
        model: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        template: Digest([3; 32]),
        cache: "f16".into(),
    }
}

fn about(name: &str) -> About {
    About {
        note: String::new(),
        name: Some(name.into()),
        identity: identity(),
    }
}

/// The `n`-th turn of a conversation, ten tokens long.
fn turn(n: usize) -> Turn {
    Turn {
        response: format!("resp_{n}"),
        messages: format!(r#"[{{"role":"user","content":"question {n}"}}]"#),
        kept: n * 10,
        tokens: (0..10).map(|t| (n * 10 + t) as u32).collect(),
        options: "{}".into(),
        at: 1000 + n as u64,
    }
}

fn store(dir: &Path) -> Store {
    Store::open(dir, 1000, AMPLE).unwrap()
}

fn with_turns(dir: &Path, n: usize) -> Id {
    let store = store(dir);
    let id = store.create(&about("one")).unwrap();
    for n in 0..n {
        assert_eq!(store.turn(&id, &turn(n)).unwrap().turns(), n + 1);
    }
    id
}

fn log_of(dir: &Path, id: Id) -> PathBuf {
    dir.join("1000").join(id.to_string()).join("log")
}

fn turns(store: &Store, id: Id) -> Vec<Turn> {
    store.load(&id, &identity()).unwrap().turns
}

#[test]
fn what_was_acknowledged_is_there_in_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 3);
    let store = store(dir.path());
    let opened = store.load(&id, &identity()).unwrap();
    assert_eq!(opened.turns, [turn(0), turn(1), turn(2)]);
    assert_eq!(opened.tokens, (0..30).collect::<Vec<_>>());
    let listed = &store.list()[0];
    assert_eq!(
        (listed.turns, listed.tokens, listed.used),
        (3, 30, listed.used)
    );
    assert_eq!(listed.name.as_deref(), Some("one"));
}

#[test]
fn a_turn_may_replace_the_end_of_the_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 2);
    let store = store(dir.path());
    let replaced = Turn {
        kept: 13,
        tokens: vec![7, 8],
        ..turn(2)
    };
    store.turn(&id, &replaced).unwrap();
    let opened = store.load(&id, &identity()).unwrap();
    assert_eq!(opened.tokens[10..], [10, 11, 12, 7, 8]);
    let too_many = Turn {
        kept: 16,
        ..turn(3)
    };
    let refused = store.turn(&id, &too_many).unwrap_err().to_string();
    assert_eq!(refused, "16 tokens are to be kept of 15");
}

#[test]
fn a_tail_that_a_crash_left_is_cut_and_the_session_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 3);
    let whole = std::fs::read(log_of(dir.path(), id)).unwrap();
    let last = record::read(&whole).unwrap().records[3].at;
    for keep in last + 1..whole.len() {
        std::fs::write(log_of(dir.path(), id), &whole[..keep]).unwrap();
        let store = store(dir.path());
        assert_eq!(
            turns(&store, id).len(),
            2,
            "{keep} of {} bytes",
            whole.len()
        );
        store.turn(&id, &turn(2)).unwrap();
        assert_eq!(turns(&store, id), [turn(0), turn(1), turn(2)]);
    }
}

#[test]
fn damage_before_the_end_is_refused_by_name_and_the_rest_can_be_had_back() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 3);
    let whole = std::fs::read(log_of(dir.path(), id)).unwrap();
    let records = record::read(&whole).unwrap().records;
    let (second, last) = (records[2].at, records[3].at);
    for at in 0..last {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(log_of(dir.path(), id), &damaged).unwrap();
        let store = store(dir.path());
        let refused = store.load(&id, &identity()).unwrap_err();
        let named = match at {
            0..8 => matches!(refused, Refusal::Foreign { .. }),
            8..10 => matches!(refused, Refusal::Newer { .. } | Refusal::Damaged { .. }),
            _ => matches!(refused, Refusal::Damaged { .. }),
        };
        assert!(named, "byte {at}: {refused}");
        assert!(store.list()[0].unusable.is_some());
        assert!(store.turn(&id, &turn(3)).is_err());
        // Looked at and left alone.
        assert_eq!(std::fs::read(log_of(dir.path(), id)).unwrap(), damaged);
        if at >= second {
            let head = record::Head::of(&damaged).unwrap();
            let had = record::salvage(&damaged, head).len();
            assert_eq!(had, records.len() - 1, "byte {at}");
        }
    }
}

#[test]
fn another_sessions_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (with_turns(dir.path(), 1), with_turns(dir.path(), 2));
    std::fs::copy(log_of(dir.path(), one), log_of(dir.path(), other)).unwrap();
    let store = store(dir.path());
    let refused = store.load(&other, &identity()).unwrap_err();
    assert!(matches!(refused, Refusal::Foreign { .. }), "{refused}");
    assert_eq!(turns(&store, one), [turn(0)]);
}

#[test]
fn another_models_session_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 1);
    let store = store(dir.path());
    let others = [
        Identity {
            model: Digest([9; 32]),
            ..identity()
        },
        Identity {
            tokenizer: Digest([9; 32]),
            ..identity()
        },
        Identity {
            template: Digest([9; 32]),
            ..identity()
        },
        Identity {
            cache: "f32".into(),
            ..identity()
        },
    ];
    let names = ["model", "tokenizer", "chat template", "cache type"];
    for (other, name) in others.iter().zip(names) {
        let refused = store.load(&id, other).unwrap_err().to_string();
        assert!(refused.contains(&format!("another {name} (")), "{refused}");
    }
    assert_eq!(turns(&store, id).len(), 1, "swapped back");
}

#[test]
fn a_fork_has_its_parents_turns_and_goes_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 3);
    let store = store(dir.path());
    let child = store.fork(&id, 2, None).unwrap();
    let other = Turn {
        tokens: vec![99],
        ..turn(2)
    };
    store.turn(&child, &other).unwrap();
    assert_eq!(turns(&store, child), [turn(0), turn(1), other]);
    assert_eq!(turns(&store, id), [turn(0), turn(1), turn(2)]);
    assert_eq!(
        store.load(&child, &identity()).unwrap().parent,
        Some((id, 2))
    );
    store.delete(&id).unwrap();
    assert_eq!(turns(&store, child).len(), 3);
    let beyond = store.fork(&child, 4, None).unwrap_err().to_string();
    assert_eq!(beyond, "turn 4 is beyond the session's 3 turns");
}

#[test]
fn what_was_deleted_stays_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 1);
    store(dir.path()).delete(&id).unwrap();
    let store = store(dir.path());
    assert!(store.list().is_empty());
    assert!(matches!(
        store.load(&id, &identity()),
        Err(Refusal::Absent(_))
    ));
    let left = std::fs::read_dir(dir.path().join("1000")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn names_and_pins_last() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 1);
    let first = store(dir.path());
    first.rename(&id, Some("manual".into())).unwrap();
    first.pin(&id, true).unwrap();
    let before = first.written();
    first.pin(&id, true).unwrap();
    assert_eq!(
        first.written(),
        before,
        "nothing changed, nothing is written"
    );
    drop(first);
    let listed = &store(dir.path()).list()[0];
    assert_eq!(
        (listed.name.as_deref(), listed.pinned),
        (Some("manual"), true)
    );
}

#[test]
fn a_cut_off_answer_is_there_until_its_turn_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 1);
    let piece = |n| Turn {
        tokens: vec![n],
        ..turn(1)
    };
    let first = store(dir.path());
    first.partial(&id, &piece(8), true).unwrap();
    first.partial(&id, &piece(9), true).unwrap();
    first.partial(&id, &piece(10), false).unwrap();
    drop(first);
    let store = store(dir.path());
    let opened = store.load(&id, &identity()).unwrap();
    assert_eq!(opened.partial, [piece(9), piece(10)]);
    store.turn(&id, &turn(1)).unwrap();
    assert!(store.load(&id, &identity()).unwrap().partial.is_empty());
}

#[test]
fn nothing_is_open_to_others_and_one_daemon_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    let log = log_of(dir.path(), id);
    assert_eq!(mode(&log), 0o600);
    assert_eq!(mode(log.parent().unwrap()), 0o700);
    assert_eq!(mode(&dir.path().join("1000")), 0o700);
    let first = store(dir.path());
    let second = Store::open(dir.path(), 1000, AMPLE);
    assert!(matches!(second, Err(StoreError::InUse(_))));
    assert!(Store::open(dir.path(), 1001, AMPLE).is_ok());
    drop(first);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path().join("1000"), open).unwrap();
    let refused = Store::open(dir.path(), 1000, AMPLE);
    assert!(matches!(refused, Err(StoreError::NotPrivate(..))));
}

#[test]
fn a_link_in_a_files_place_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let id = with_turns(dir.path(), 1);
    let (log, away) = (log_of(dir.path(), id), dir.path().join("away"));
    std::fs::rename(&log, &away).unwrap();
    symlink(&away, &log).unwrap();
    let refused = store(dir.path()).load(&id, &identity()).unwrap_err();
    assert!(matches!(refused, Refusal::Unreadable { .. }), "{refused}");
}

#[test]
fn the_session_used_longest_ago_makes_room_unless_it_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let quota = Quota {
        disk: 20_000,
        floor: 0,
    };
    let store = Store::open(dir.path(), 1000, quota).unwrap();
    let long = |n| Turn {
        options: " ".repeat(6000),
        at: u64::MAX - 9 + n,
        ..turn(0)
    };
    let ids: Vec<Id> = (0..3)
        .map(|n| {
            let id = store.create(&about("")).unwrap();
            store.turn(&id, &long(n)).unwrap();
            id
        })
        .collect();
    store.pin(&ids[0], true).unwrap();
    let more = store.create(&about("")).unwrap();
    store.turn(&more, &long(4)).unwrap();
    let left: Vec<Id> = store.list().iter().map(|l| l.id).collect();
    assert_eq!(left, [more, ids[2], ids[0]]);
    for id in &left {
        store.pin(id, true).unwrap();
    }
    let refused = store.turn(&more, &Turn { kept: 0, ..long(5) }).unwrap_err();
    assert!(matches!(refused, StoreError::Quota { .. }), "{refused}");
    assert_eq!(turns(&store, more).len(), 1);
}
