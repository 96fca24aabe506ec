//! Sessions on disk, and sessions that strangers send.

use std::path::Path;

use bytes::Bytes;
use deltad::sessions::store::{
    About, Digest, Id, Identity, Opened, Quota, State, Store, Turn, examine,
};
use serde_json::Value;

use super::Run;
use super::words::WORDS;
use crate::dice::Dice;

const UID: u32 = 1000;
const QUOTA: Quota = Quota {
    disk: 1 << 26,
    floor: 0,
};

/// A few blocks of bytes that tell where they are from.
struct Toy(usize);

impl State for Toy {
    fn blocks(&self) -> usize {
        self.0 / 8
    }
    fn block_bytes(&self) -> usize {
        700
    }
    fn block(&self, at: usize) -> Bytes {
        vec![at as u8 + 1; 700].into()
    }
    fn slot(&self) -> Bytes {
        vec![self.0 as u8; 400].into()
    }
    fn tail(&self) -> Bytes {
        vec![9; self.0 % 8 * 10].into()
    }
    fn next(&self) -> Bytes {
        vec![7; 40].into()
    }
}

fn identity() -> Identity {
    Identity {
        model: Digest([1; 32]),
        tokenizer: Digest([2; 32]),
        template: Digest([3; 32]),
        cache: "f16".into(),
    }
}

fn turns() -> Vec<Turn> {
    let turn = |n: usize| Turn {
        response: format!("resp_{n}"),
        messages: format!(r#"[{{"role":"user","content":"{n}"}}]"#),
        kept: n * 7,
        tokens: (0..7).map(|t| (n * 7 + t) as u32).collect(),
        options: "{}".into(),
        at: 1,
    };
    (0..5).map(turn).collect()
}

/// A session with two checkpoints.
fn made(store: &Store) -> Id {
    let name = Some("one".to_owned());
    let identity = identity();
    let about = About {
        name,
        note: String::new(),
        identity,
    };
    let id = store.create(&about).expect("room");
    for (n, turn) in turns().iter().enumerate() {
        store.turn(&id, turn).expect("room");
        if n > 2 {
            let tokens: Vec<u32> = (0..(n as u32 + 1) * 7).collect();
            let state = Toy(tokens.len());
            store.checkpoint(&id, &tokens, &state).expect("room");
        }
    }
    id
}

fn changed(dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + dice.below(3) {
        match dice.below(4) {
            0 => bytes.truncate(dice.below(bytes.len() + 1)),
            _ => dice.bytes(&mut bytes),
        }
    }
    bytes
}

fn holds(opened: &Opened) {
    if let Some(state) = &opened.state {
        let toy = Toy(state.tokens);
        assert_eq!(state.blocks.len(), toy.blocks());
        for (at, block) in state.blocks.iter().enumerate() {
            assert_eq!(*block, toy.block(at));
        }
        assert_eq!((&state.slot, &state.tail), (&toy.slot(), &toy.tail()));
    }
}

/// A damaged session is refused, or holds what was said up to some turn and a state of that.
pub fn session(dir: &Path) -> Run {
    let home = dir.join("sessions");
    let store = Store::open(&home, UID, QUOTA).expect("a directory");
    let id = made(&store);
    drop(store);
    let at = home.join(UID.to_string()).join(id.to_string());
    let files: Vec<(String, Vec<u8>)> = ["log", "rows.0", "state.0", "state.1"]
        .iter()
        .map(|name| {
            (
                (*name).to_owned(),
                std::fs::read(at.join(name)).expect(name),
            )
        })
        .collect();
    let said = turns();
    Box::new(move |dice| {
        let bad = dice.below(files.len());
        for (n, (name, bytes)) in files.iter().enumerate() {
            let bytes = if n == bad {
                changed(dice, bytes)
            } else {
                bytes.clone()
            };
            std::fs::write(at.join(name), &bytes).expect("room for a file");
            if n == bad {
                dice.made(&bytes);
            }
        }
        let store = Store::open(&home, UID, QUOTA).expect("one bad session is not all of them");
        if let Ok(opened) = store.load(&id, &identity()) {
            assert!(said.starts_with(&opened.turns));
            holds(&opened);
        }
        if let Ok(rebuilt) = store.rebuild(&id, &identity()) {
            let opened = store.load(&rebuilt, &identity()).expect("it was made now");
            let known = |t: &Turn| said.iter().any(|s| s.messages == t.messages);
            assert!(opened.turns.iter().all(known));
            store.delete(&rebuilt).expect("it was made now");
        }
    })
}

/// Changes the head of an exported session and digests its turns again, as a stranger would.
fn forged(dice: &mut Dice, file: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (head, data) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
    let mut head: Value = serde_json::from_slice(head).ok()?;
    let other = head.clone();
    let about = head.get_mut("__metadata__")?;
    let mut turns: Value = serde_json::from_str(about["turns"].as_str()?).ok()?;
    let words = [&WORDS[..], &["kept", "tokens", "at", "slot", "next"][..]].concat();
    dice.json(&mut turns, &other, &words);
    let turns = turns.to_string();
    let mut digests: Value = serde_json::from_str(about["blake3"].as_str()?).ok()?;
    digests["turns"] = blake3::hash(turns.as_bytes()).to_hex().as_str().into();
    about["turns"] = turns.into();
    about["blake3"] = digests.to_string().into();
    if dice.one_in(2) {
        dice.json(&mut head, &other, &words);
    }
    let head = head.to_string();
    let length = (head.len() as u64).to_le_bytes();
    Some([&length, head.as_bytes(), data].concat())
}

/// What is taken can be loaded, and goes on.
pub fn import(dir: &Path) -> Run {
    let store = Store::open(&dir.join("sessions"), UID, QUOTA).expect("a directory");
    let id = made(&store);
    let mut file = Vec::new();
    let carried = store.carry(&id).expect("it was made now");
    carried.write(&mut file).expect("room");
    store.delete(&id).expect("it was made now");
    Box::new(move |dice| {
        let bytes = match forged(dice, &file) {
            Some(forged) if !dice.one_in(3) => forged,
            _ => changed(dice, &file),
        };
        dice.made(&bytes);
        let taken = examine(&&bytes[..], &identity()).and_then(|received| {
            let (name, note) = (received.name.clone(), received.note.clone());
            store.import(&received, name, note)
        });
        if let Ok(id) = taken {
            let opened = store.load(&id, &identity()).expect("it was made now");
            let turn = Turn {
                kept: opened.tokens.len(),
                ..Turn::default()
            };
            store.turn(&id, &turn).expect("it was made now");
            store.delete(&id).expect("it was made now");
        }
        assert!(store.list().is_empty(), "something of it stayed");
    })
}
