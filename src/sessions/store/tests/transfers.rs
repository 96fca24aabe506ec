//! Sessions carried from one store to another, and what strangers make of such files.

use super::states::{Toy, is_of};
use super::*;

fn import(store: &Store, file: &[u8], want: &Identity) -> Result<Id, StoreError> {
    let received = examine(&file, want)?;
    let (name, note) = (received.name.clone(), received.note.clone());
    store.import(&received, name, note)
}

/// An exported session of three turns with a state of the first two.
fn exported(dir: &Path) -> Vec<u8> {
    let store = store(dir);
    let id = store.create(&about("one")).unwrap();
    for n in 0..3 {
        store.turn(&id, &turn(n)).unwrap();
        if n == 1 {
            let tokens: Vec<u32> = (0..20).collect();
            store.checkpoint(&id, &tokens, &Toy::of(&tokens)).unwrap();
        }
    }
    let mut file = Vec::new();
    let bytes = store.carry(&id).unwrap().write(&mut file).unwrap();
    assert_eq!(bytes, file.len() as u64);
    file
}

#[test]
fn an_exported_session_goes_on_elsewhere() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = exported(here.path());
    let store = store(there.path());
    let id = import(&store, &file, &identity()).unwrap();
    let opened = store.load(&id, &identity()).unwrap();
    assert_eq!(opened.turns, [turn(0), turn(1), turn(2)]);
    assert_eq!((opened.name.as_deref(), opened.behind), (Some("one"), 10));
    assert!(is_of(
        &opened.state.unwrap(),
        &Toy::of(&opened.tokens[..20])
    ));
}

#[test]
fn any_reader_of_safetensors_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = exported(dir.path());
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let toy = Toy::of(&(0..20).collect::<Vec<_>>());
    let blocks = tensors.tensor("blocks").unwrap();
    assert_eq!(blocks.shape(), [2, toy.block_bytes]);
    assert_eq!(blocks.data()[..toy.block_bytes], toy.block(0));
    assert_eq!(tensors.tensor("slot").unwrap().data(), toy.slot());
    assert_eq!(
        tensors.tensor("next").unwrap().dtype(),
        safetensors::Dtype::F32
    );
    let (_, head) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let about = head.metadata().clone().unwrap();
    let turns: serde_json::Value = serde_json::from_str(&about["turns"]).unwrap();
    assert_eq!(turns[2]["response"], "resp_2");
}

#[test]
fn a_file_that_was_changed_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = exported(dir.path());
    let there = tempfile::tempdir().unwrap();
    let store = store(there.path());
    let head = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize + 8;
    let name = file.windows(8).position(|w| w == br#""name":""#).unwrap() + 8;
    let padding = file[..head].iter().rposition(|b| *b != b' ').unwrap() + 1;
    for at in (0..file.len()).step_by(7) {
        // The name, or none, is anybody's to choose, and spaces behind the head say nothing.
        if (name - 8..name + 4).contains(&at) || (padding..head).contains(&at) {
            continue;
        }
        let mut changed = file.clone();
        changed[at] ^= 1;
        let refused = import(&store, &changed, &identity());
        assert!(refused.is_err(), "byte {at} of {} ({head})", file.len());
        let cut = import(&store, &file[..at], &identity());
        assert!(matches!(cut, Err(StoreError::Refused(_))), "{at}");
    }
    assert!(store.list().is_empty(), "nothing of it was kept");
    let other = Identity {
        model: Digest([9; 32]),
        ..identity()
    };
    let refused = import(&store, &file, &other).unwrap_err().to_string();
    assert!(refused.contains("another model"), "{refused}");
}
