//! States on a real file system: what is read back is what was written, bit by bit, or is refused.

use std::path::Path;

use bytes::Bytes;

use super::*;

/// A state whose every byte tells what it is of: block `n` is of the tokens that it holds.
pub struct Toy {
    pub tokens: Vec<u32>,
    pub block_bytes: usize,
}

const BLOCK: usize = 8;
const BLOCK_BYTES: usize = 5000;

impl Toy {
    pub fn of(tokens: &[u32]) -> Toy {
        Toy {
            tokens: tokens.to_vec(),
            block_bytes: BLOCK_BYTES,
        }
    }

    fn bytes(&self, tokens: &[u32], salt: u8, len: usize) -> Bytes {
        let mut hash = blake3::Hasher::new();
        hash.update(&[salt]);
        for token in tokens {
            hash.update(&token.to_le_bytes());
        }
        let mut bytes = vec![0; len];
        hash.finalize_xof().fill(&mut bytes);
        bytes.into()
    }
}

impl State for Toy {
    fn blocks(&self) -> usize {
        self.tokens.len() / BLOCK
    }
    fn block_bytes(&self) -> usize {
        self.block_bytes
    }
    fn block(&self, at: usize) -> Bytes {
        // A row depends on everything before it.
        self.bytes(&self.tokens[..(at + 1) * BLOCK], 1, self.block_bytes)
    }
    fn slot(&self) -> Bytes {
        self.bytes(&self.tokens, 2, 3000)
    }
    fn tail(&self) -> Bytes {
        self.bytes(&self.tokens, 3, self.tokens.len() % BLOCK * 100)
    }
    fn next(&self) -> Bytes {
        self.bytes(&self.tokens, 4, 40)
    }
}

/// Bit by bit what an uninterrupted run would hold at that length.
pub fn is_of(loaded: &Loaded, toy: &Toy) -> bool {
    loaded.tokens == toy.tokens.len()
        && loaded.blocks.len() == toy.blocks()
        && (0..toy.blocks()).all(|at| loaded.blocks[at][..] == toy.block(at)[..])
        && loaded.slot[..] == toy.slot()[..]
        && loaded.tail[..] == toy.tail()[..]
        && loaded.next[..] == toy.next()[..]
}

fn take(store: &Store, id: &Id) -> Opened {
    store.load(id, &identity()).unwrap()
}

/// A session of `n` turns with a state after each.
fn kept(dir: &Path, n: usize) -> Id {
    let store = store(dir);
    let id = store.create(&about("one")).unwrap();
    for n in 0..n {
        store.turn(&id, &turn(n)).unwrap();
        let tokens = take(&store, &id).tokens;
        store.checkpoint(&id, &tokens, &Toy::of(&tokens)).unwrap();
    }
    id
}

fn files(dir: &Path, id: Id) -> Vec<std::path::PathBuf> {
    let dir = dir.join("1000").join(id.to_string());
    let entries = std::fs::read_dir(dir).unwrap();
    let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// A state on a device that was lost.
struct Gone(Toy);

impl State for Gone {
    fn blocks(&self) -> usize {
        self.0.blocks()
    }
    fn block_bytes(&self) -> usize {
        self.0.block_bytes
    }
    fn block(&self, _: usize) -> Bytes {
        Bytes::new()
    }
    fn slot(&self) -> Bytes {
        Bytes::new()
    }
    fn tail(&self) -> Bytes {
        Bytes::new()
    }
    fn next(&self) -> Bytes {
        self.0.next()
    }
}

#[test]
fn a_state_that_its_device_no_longer_gives_replaces_none() {
    // With whole blocks, and with none yet.
    for turns in [5, 0] {
        let dir = tempfile::tempdir().unwrap();
        let id = kept(dir.path(), turns);
        let store = store(dir.path());
        store
            .turn(
                &id,
                &Turn {
                    tokens: vec![7; 3],
                    ..turn(turns)
                },
            )
            .unwrap();
        let tokens = take(&store, &id).tokens;
        let gone = store.checkpoint(&id, &tokens, &Gone(Toy::of(&tokens)));
        assert!(gone.is_err(), "{turns} turns");
        let state = take(&store, &id).state;
        assert_eq!(state.map(|s| s.tokens), (turns > 0).then_some(50));
    }
}

#[test]
fn a_state_comes_back_bit_by_bit_and_says_how_far_behind_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 5);
    let store = store(dir.path());
    store.turn(&id, &turn(5)).unwrap();
    let opened = take(&store, &id);
    let state = opened.state.unwrap();
    assert_eq!((state.tokens, opened.behind), (50, 10));
    assert!(is_of(&state, &Toy::of(&opened.tokens[..state.tokens])));
    assert!(opened.wrong.is_empty());
}

#[test]
fn a_checkpoint_writes_new_rows_and_the_state_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 5);
    let store = store(dir.path());
    let mut tokens = take(&store, &id).tokens;
    // The first write after opening makes stay what was read.
    store.rename(&id, None).unwrap();
    let again = store.checkpoint(&id, &tokens, &Toy::of(&tokens)).unwrap();
    assert_eq!(again.bytes, 0, "nothing changed");
    store.turn(&id, &turn(5)).unwrap();
    tokens.extend(turn(5).tokens);
    let toy = Toy::of(&tokens);
    let written = store.checkpoint(&id, &tokens, &toy).unwrap().bytes as usize;
    // 50 to 60 tokens: the seventh block of eight.
    let state = 4096 + toy.slot().len() + toy.tail().len() + toy.next().len();
    assert_eq!(written, 2 * 4096 + state + 32 + 64 + 24);
}

#[test]
fn a_conversation_whose_end_was_replaced_has_no_state_until_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 3);
    let store = store(dir.path());
    let replaced = Turn {
        kept: 12,
        tokens: (500..530).collect(),
        ..turn(3)
    };
    store.turn(&id, &replaced).unwrap();
    let opened = take(&store, &id);
    assert!(opened.state.is_none());
    assert_eq!(opened.behind, 42);
    let toy = Toy::of(&opened.tokens);
    store.checkpoint(&id, &opened.tokens, &toy).unwrap();
    assert!(is_of(
        &take(&store, &id).state.unwrap(),
        &Toy::of(&opened.tokens)
    ));
    let beyond = vec![0; 43];
    let refused = store.checkpoint(&id, &beyond, &Toy::of(&beyond));
    assert!(matches!(
        refused,
        Err(StoreError::Ahead { got: 43, have: 42 })
    ));
}

#[test]
fn a_fork_shares_its_parents_rows_and_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 8);
    let store = store(dir.path());
    let before = take(&store, &id);
    let whole = store.list()[0].bytes;
    let child = store.fork(&id, 8, None).unwrap();
    let at_seven = store.fork(&id, 7, None).unwrap();
    assert!(is_of(
        &take(&store, &child).state.unwrap(),
        &Toy::of(&before.tokens)
    ));
    let opened = take(&store, &at_seven);
    assert_eq!(
        (opened.state.as_ref().unwrap().tokens, opened.behind),
        (70, 0)
    );
    // Both go on, each in files of its own.
    for (who, token) in [(id, 1), (child, 2)] {
        let more = Turn {
            tokens: vec![token; 20],
            ..turn(8)
        };
        store.turn(&who, &more).unwrap();
        let tokens = take(&store, &who).tokens;
        store.checkpoint(&who, &tokens, &Toy::of(&tokens)).unwrap();
    }
    for who in [id, child] {
        let opened = take(&store, &who);
        assert!(is_of(&opened.state.unwrap(), &Toy::of(&opened.tokens)));
        assert_eq!(opened.behind, 0);
    }
    store.delete(&id).unwrap();
    drop(store);
    let store = super::store(dir.path());
    let opened = take(&store, &child);
    assert!(is_of(&opened.state.unwrap(), &Toy::of(&opened.tokens)));
    assert!(is_of(
        &take(&store, &at_seven).state.unwrap(),
        &Toy::of(&before.tokens[..70])
    ));
    assert!(whole > 10 * BLOCK_BYTES as u64);
}

#[test]
fn a_damaged_state_costs_reading_again_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 5);
    let (mut refused, mut older) = (0, 0);
    for path in files(dir.path(), id) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name == "log" {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(509) {
            for cut in [false, true] {
                let mut damaged = whole.clone();
                if cut {
                    damaged.truncate(at);
                } else {
                    damaged[at] ^= 4;
                }
                std::fs::write(&path, damaged).unwrap();
                let store = store(dir.path());
                let opened = take(&store, &id);
                assert_eq!(opened.tokens.len(), 50);
                refused += opened.wrong.len();
                match &opened.state {
                    Some(state) => {
                        older += usize::from(state.tokens < 50);
                        assert!(
                            is_of(state, &Toy::of(&opened.tokens[..state.tokens])),
                            "{name} {at}"
                        );
                    }
                    None => assert_eq!(opened.wrong.len(), 2, "{name} {at}"),
                }
            }
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert!(refused > 50, "{refused}");
    assert!(older > 10, "{older}");
}

#[test]
fn rows_that_were_damaged_are_not_built_upon() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 5);
    let rows = files(dir.path(), id)
        .into_iter()
        .find(|f| f.ends_with("rows.0"));
    let rows = rows.unwrap();
    let mut bytes = std::fs::read(&rows).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&rows, bytes).unwrap();
    let store = store(dir.path());
    let opened = take(&store, &id);
    assert!(opened.state.is_none());
    assert_eq!(
        opened.wrong[0].to_string(),
        "the session's block 0 of rows is damaged at byte 0"
    );
    let toy = Toy::of(&opened.tokens);
    store.checkpoint(&id, &opened.tokens, &toy).unwrap();
    let healed = take(&store, &id);
    assert!(is_of(&healed.state.unwrap(), &Toy::of(&opened.tokens)));
}

#[test]
fn what_is_shed_is_gone_and_the_transcript_stays() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 5);
    store(dir.path()).shed(&id).unwrap();
    assert_eq!(files(dir.path(), id).len(), 1, "the log alone");
    let store = store(dir.path());
    let opened = take(&store, &id);
    assert!(opened.state.is_none());
    assert_eq!(opened.turns.len(), 5);
    store
        .checkpoint(&id, &opened.tokens, &Toy::of(&opened.tokens))
        .unwrap();
    assert!(is_of(
        &take(&store, &id).state.unwrap(),
        &Toy::of(&opened.tokens)
    ));
}

#[test]
fn a_session_can_be_rebuilt_from_what_is_readable() {
    let dir = tempfile::tempdir().unwrap();
    let id = kept(dir.path(), 3);
    let path = log_of(dir.path(), id);
    let mut bytes = std::fs::read(&path).unwrap();
    let second = record::read(&bytes).unwrap().records[3].at;
    bytes[second + 50] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let store = store(dir.path());
    assert!(store.load(&id, &identity()).is_err());
    let rebuilt = store.rebuild(&id, &identity()).unwrap();
    let opened = take(&store, &rebuilt);
    let said: Vec<&str> = opened.turns.iter().map(|t| t.messages.as_str()).collect();
    assert_eq!(said, [turn(0).messages, turn(2).messages]);
    assert_eq!(
        opened.tokens,
        [] as [u32; 0],
        "the lost turn's are missing before the last one's"
    );
    // For another model the words remain.
    let other = Identity {
        model: Digest([9; 32]),
        ..identity()
    };
    let swapped = store.rebuild(&rebuilt, &other).unwrap();
    assert_eq!(store.load(&swapped, &other).unwrap().turns.len(), 2);
}
