//! A conversation that was on disk goes on as if the process had never ended: not a bit differs.

use std::path::{Path, PathBuf};

use crate::checkpoint::{convert, engines};
use deltad::engine::{
    BLOCK, CacheType, Engine, Lane, LaneError, Listener, PassError, Runner, StateError, Tap, Want,
};
use deltad::sessions::store::{About, Digest, Id, Identity, Loaded, Quota, Store, Tip, Turn};

fn identity(engine: &Engine, cache: CacheType) -> Identity {
    let digests = engine.model().digests();
    Identity {
        model: Digest(digests.model),
        tokenizer: Digest(digests.tokenizer),
        template: Digest(digests.template),
        cache: format!("{cache:?}"),
    }
}

const QUOTA: Quota = Quota {
    disk: 1 << 30,
    floor: 0,
};

#[test]
fn turns_over_many_processes_are_the_turns_of_one() {
    let quota = QUOTA;
    let cache = CacheType::F16;
    for name in ["tiny", "uneven"] {
        let model = convert(name, "f16");
        for (runner, mut engine) in engines(&model, cache, 64) {
            let dir = tempfile::tempdir().unwrap();
            let about = About {
                note: String::new(),
                name: None,
                identity: identity(&engine, cache),
            };
            let store = Store::open(dir.path(), 1000, quota).unwrap();
            let id = store.create(&about).unwrap();
            drop(store);
            let n_vocab = engine.model().n_vocab();
            let mut straight = engine.sequence().unwrap();
            // Within a block, over its edge, over several.
            for (turn, len) in [5, BLOCK, 3 * BLOCK + 7, 1].into_iter().enumerate() {
                let what = format!("{name} {runner:?} turn {turn}");
                let store = Store::open(dir.path(), 1000, quota).unwrap();
                let opened = store.load(&id, &about.identity).unwrap();
                assert_eq!(opened.behind, 0, "{what}");
                let mut resumed = match &opened.state {
                    Some(state) => engine
                        .restore(&engine.adopt(&state.host()).unwrap())
                        .unwrap(),
                    None => engine.sequence().unwrap(),
                };
                assert_eq!(resumed.len(), straight.len(), "{what}");
                let tokens: Vec<u32> = (0..len)
                    .map(|t| (t * 5 + turn) % n_vocab)
                    .map(|t| t as u32)
                    .collect();
                let wanted = engine.feed(&mut straight, &tokens, Want::All).unwrap();
                let got = engine.feed(&mut resumed, &tokens, Want::All).unwrap();
                assert_eq!(got, wanted, "{what}");
                let said = Turn {
                    kept: opened.tokens.len(),
                    tokens: tokens.clone(),
                    ..Turn::default()
                };
                assert_eq!(store.turn(&id, &said).unwrap().turns(), turn + 1);
                let snapshot = engine.snapshot(&resumed);
                let next = got.last().unwrap();
                let tip = Tip {
                    snapshot: &snapshot,
                    next,
                };
                let all = [opened.tokens, tokens].concat();
                store.checkpoint(&id, &all, &tip).unwrap();
                let state = store.load(&id, &about.identity).unwrap().state.unwrap();
                assert_eq!(state.logits(), next, "{what}");
            }
        }
    }
}

/// A session of two blocks and five tokens more, in a store of its own.
struct Kept {
    dir: tempfile::TempDir,
    store: Store,
    id: Id,
    tokens: Vec<u32>,
}

impl Kept {
    fn new(engine: &mut Engine) -> Kept {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 1000, QUOTA).unwrap();
        let about = About {
            note: String::new(),
            name: None,
            identity: identity(engine, CacheType::F16),
        };
        let id = store.create(&about).unwrap();
        let n_vocab = engine.model().n_vocab() as u32;
        let tokens: Vec<u32> = (0..2 * BLOCK as u32 + 5).map(|t| t * 7 % n_vocab).collect();
        let said = Turn {
            tokens: tokens.clone(),
            ..Turn::default()
        };
        store.turn(&id, &said).unwrap();
        let mut sequence = engine.sequence().unwrap();
        engine.feed(&mut sequence, &tokens, Want::Nothing).unwrap();
        let tip = Tip {
            snapshot: &engine.snapshot(&sequence),
            next: &[],
        };
        store.checkpoint(&id, &tokens, &tip).unwrap();
        Kept {
            dir,
            store,
            id,
            tokens,
        }
    }

    fn loaded(&self) -> Loaded {
        let (state, wrong) = self.store.state(&self.id, &self.tokens).unwrap();
        assert!(wrong.is_empty());
        state.unwrap()
    }

    fn rows(&self) -> PathBuf {
        let session = self.dir.path().join("1000").join(self.id.to_string());
        session.join("rows.0")
    }
}

fn cut(rows: &Path) {
    let file = std::fs::File::options().write(true).open(rows).unwrap();
    file.set_len(0).unwrap();
}

#[test]
fn rows_that_are_cut_under_a_sequence_cost_that_sequence_and_nobody_else() {
    let model = convert("uneven", "f16");
    for (runner, mut engine) in engines(&model, CacheType::F16, 64) {
        let kept = Kept::new(&mut engine);
        let snapshot = engine.adopt(&kept.loaded().host()).unwrap();
        let mut lent = engine.restore(&snapshot).unwrap();
        let mut own = engine.sequence().unwrap();
        let mut alone = engine.sequence().unwrap();
        for sequence in [&mut own, &mut alone] {
            engine.feed(sequence, &kept.tokens, Want::Nothing).unwrap();
        }
        cut(&kept.rows());
        let want = engine.feed(&mut alone, &[1, 2], Want::All).unwrap();
        if runner == Runner::Stock {
            // It copied them.
            let got = engine.feed(&mut lent, &[1, 2], Want::All).unwrap();
            assert_eq!(got, want);
            continue;
        }
        let mut lanes = [&mut own, &mut lent].map(|sequence| Lane {
            sequence,
            tokens: &[1, 2],
            want: Want::All,
        });
        let refused = engine.forward(&mut lanes).unwrap_err();
        let is_lost = |e: &PassError| {
            matches!(
                e,
                PassError::Refused {
                    lane: 1,
                    why: LaneError::Lost(_)
                }
            )
        };
        assert!(is_lost(&refused), "{refused}");
        assert_eq!(engine.forward(&mut lanes[..1]).unwrap(), [want]);
        assert!(matches!(
            engine.restore(&snapshot),
            Err(StateError::Lost(_))
        ));
        // Zeros do not get to the disk as if they were rows.
        assert!(snapshot.is_lost() && snapshot.block(0).is_empty());
        let tip = Tip {
            snapshot: &engine.snapshot(&lent),
            next: &[],
        };
        assert!(
            kept.store
                .checkpoint(&kept.id, &kept.tokens[..7], &tip)
                .is_err()
        );
        // What is read of the disk from here on is refused by name.
        let (state, wrong) = kept.store.state(&kept.id, &kept.tokens).unwrap();
        assert!(state.is_none());
        assert!(wrong[0].to_string().contains("block 0"), "{}", wrong[0]);
    }
}

/// Cuts a file in the middle of a pass.
struct Cutter(PathBuf);

impl Listener for Cutter {
    fn hear(&mut self, _: Tap<'_>) {
        cut(&self.0);
    }
}

#[test]
fn rows_that_are_cut_in_the_middle_of_a_pass_give_no_logits_and_others_get_theirs() {
    let model = convert("uneven", "f16");
    for (runner, mut engine) in engines(&model, CacheType::F16, 64) {
        if runner == Runner::Stock {
            continue;
        }
        let kept = Kept::new(&mut engine);
        let snapshot = engine.adopt(&kept.loaded().host()).unwrap();
        let mut lent = engine.restore(&snapshot).unwrap();
        let mut own = engine.sequence().unwrap();
        let mut alone = engine.sequence().unwrap();
        for sequence in [&mut own, &mut alone] {
            engine.feed(sequence, &kept.tokens, Want::Nothing).unwrap();
        }
        // More than one pass takes, of both.
        let tokens = vec![3; 70];
        let want = engine.feed(&mut alone, &tokens, Want::Last).unwrap();
        let mut lanes = [&mut lent, &mut own].map(|sequence| Lane {
            sequence,
            tokens: &tokens,
            want: Want::Last,
        });
        let mut cutter = Cutter(kept.rows());
        let got = engine.forward_heard(&mut lanes, &mut cutter).unwrap();
        assert_eq!(got[0].rows().len(), 0, "{runner:?}");
        assert_eq!(got[1], want, "{runner:?}");
        assert!(engine.feed(&mut lent, &[1], Want::Last).is_err());
    }
}
