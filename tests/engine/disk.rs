//! A conversation that was on disk goes on as if the process had never ended: not a bit differs.

use crate::checkpoint::{convert, engines};
use deltad::engine::{BLOCK, CacheType, Engine, Want};
use deltad::sessions::store::{About, Digest, Identity, Limits, Store, Tip, Turn};

fn identity(engine: &Engine, cache: CacheType) -> Identity {
    let digests = engine.model().digests();
    Identity {
        model: Digest(digests.model),
        tokenizer: Digest(digests.tokenizer),
        template: Digest(digests.template),
        cache: format!("{cache:?}"),
    }
}

#[test]
fn turns_over_many_processes_are_the_turns_of_one() {
    let limits = Limits {
        disk: 1 << 30,
        floor: 0,
    };
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
            let store = Store::open(dir.path(), 1000, limits).unwrap();
            let id = store.create(&about).unwrap();
            drop(store);
            let n_vocab = engine.model().n_vocab();
            let mut straight = engine.sequence().unwrap();
            // Within a block, over its edge, over several.
            for (turn, len) in [5, BLOCK, 3 * BLOCK + 7, 1].into_iter().enumerate() {
                let what = format!("{name} {runner:?} turn {turn}");
                let store = Store::open(dir.path(), 1000, limits).unwrap();
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
