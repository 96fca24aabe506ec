//! Sessions on no disk, whose files somebody else holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use super::states::{Toy, is_of};
use super::*;

/// As a service manager: it has what it was sent, and takes without a word what it has no place for.
#[derive(Debug, Clone, Default)]
struct Manager {
    held: Arc<Mutex<BTreeMap<String, File>>>,
    places: usize,
}

impl Keeper for Manager {
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        let mut held = self.held.lock().expect("one process");
        if held.len() < self.places {
            held.insert(name.to_owned(), file.try_clone_to_owned()?.into());
        }
        Ok(())
    }

    fn let_go(&self, name: &str) {
        self.held.lock().expect("one process").remove(name);
    }

    fn places(&self) -> usize {
        self.places
    }
}

impl Manager {
    fn of(places: usize) -> Manager {
        Manager {
            places,
            ..Manager::default()
        }
    }

    /// The next process, of the files that are held.
    fn hands(&self) -> Arc<Hands> {
        let held = self.held.lock().expect("one process");
        let came = held.iter();
        let came = came.map(|(name, file)| (name.clone(), file.try_clone().expect("one more")));
        let came = came.collect();
        drop(held);
        let hands = Hands::take_up(Box::new(self.clone()), came, 1 << 20);
        Arc::new(hands.expect("memory"))
    }

    fn store(&self) -> Store {
        on(&self.hands(), 1000)
    }

    fn bytes(&self) -> u64 {
        let held = self.held.lock().expect("one process");
        let sizes = held.values().map(|f| f.metadata().expect("a file").len());
        sizes.sum()
    }
}

fn on(hands: &Arc<Hands>, uid: u32) -> Store {
    let hands = hands.clone();
    let quota = Quota {
        disk: 1 << 20,
        floor: 0,
    };
    Store::on(Box::new(InHands { hands, uid }), uid, quota).unwrap()
}

#[test]
fn what_is_held_by_another_is_there_in_the_next_process_with_its_states_and_its_forks() {
    let manager = Manager::of(64);
    let store = manager.store();
    let id = store.create(&about("one")).unwrap();
    for n in 0..3 {
        store.turn(&id, &turn(n)).unwrap();
    }
    let tokens: Vec<_> = (0..30).collect();
    store.checkpoint(&id, &tokens, &Toy::of(&tokens)).unwrap();
    let fork = store.fork(&id, 3, None).unwrap();
    let other = on(&manager.hands(), 1001);
    assert_eq!(other.list().len(), 0, "another user's are elsewhere");
    drop((store, other));
    for _ in 0..2 {
        let store = manager.store();
        for id in [id, fork] {
            let opened = store.load(&id, &identity()).unwrap();
            assert_eq!(opened.turns, [turn(0), turn(1), turn(2)]);
            assert!(is_of(&opened.state.expect("a state"), &Toy::of(&tokens)));
        }
    }
    // What they share stays until neither has it.
    let store = manager.store();
    store.delete(&id).unwrap();
    let opened = manager.store().load(&fork, &identity()).unwrap();
    assert_eq!(opened.state.map(|s| s.tokens), Some(30));
    store.delete(&fork).unwrap();
    assert_eq!(manager.store().list().len(), 0);
    let names: Vec<_> = manager.held.lock().unwrap().keys().cloned().collect();
    assert_eq!(names, ["deltad-index-0", "deltad-index-1"]);
}

#[test]
fn a_process_that_died_while_it_wrote_the_index_left_the_one_before() {
    // Of the newest page, so many bytes are left.
    for left in [0, 7, 31, 32, 60] {
        let manager = Manager::of(64);
        let store = manager.store();
        let ids = ["one", "two"].map(|name| store.create(&about(name)).unwrap());
        store.turn(&ids[0], &turn(0)).unwrap();
        let page = |n: usize| {
            let held = manager.held.lock().unwrap();
            held[&format!("deltad-index-{n}")].try_clone().unwrap()
        };
        let number = |page: &File| {
            let mut bytes = [0; 8];
            std::os::unix::fs::FileExt::read_exact_at(page, &mut bytes, 8).unwrap();
            u64::from_le_bytes(bytes)
        };
        let [one, two] = [page(0), page(1)];
        let newest = if number(&one) > number(&two) {
            one
        } else {
            two
        };
        assert!(newest.metadata().unwrap().len() > 60);
        newest.set_len(left).unwrap();
        // Its last word was where the second one lies: that was being made.
        let store = manager.store();
        assert_eq!(turns(&store, ids[0]), [turn(0)]);
        assert_eq!(store.list().len(), 1, "{left} bytes were left");
    }
}

#[test]
fn there_are_never_more_files_than_places_and_the_oldest_make_room() {
    let manager = Manager::of(12);
    let store = manager.store();
    for n in 0..40 {
        let id = store.create(&about(&n.to_string())).unwrap();
        let spoken = Turn {
            at: n + 1,
            ..turn(0)
        };
        store.turn(&id, &spoken).unwrap();
        assert_eq!(turns(&store, id).len(), 1);
    }
    assert!(manager.held.lock().unwrap().len() < 12);
    let left = manager.store().list();
    assert!(left.len() > 4, "{}", left.len());
    let is_last = |l: &Listed| l.name.as_deref() == Some("39");
    assert!(left.iter().any(is_last), "the newest stays");
    // Of another user, who has as much of it as anybody, and there is no more.
    let other = on(&manager.hands(), 1001);
    let made = (0..12).map(|n| other.create(&about(&n.to_string())));
    let refused = made.filter_map(Result::err).next().expect("no place");
    assert!(refused.to_string().starts_with("making a session failed"));
    assert!(manager.held.lock().unwrap().len() <= 12);
}

#[test]
fn what_goes_is_given_back_although_it_came_from_elsewhere() {
    let manager = Manager::of(64);
    let id = manager.store().create(&about("one")).unwrap();
    let large = Turn {
        messages: "x".repeat(1 << 18),
        ..turn(0)
    };
    manager.store().turn(&id, &large).unwrap();
    // As a descriptor that nobody can close any more.
    let open: Vec<File> = {
        let held = manager.held.lock().unwrap();
        held.values().map(|f| f.try_clone().unwrap()).collect()
    };
    assert!(manager.bytes() > 1 << 18);
    manager.store().delete(&id).unwrap();
    let left: u64 = open.iter().map(|f| f.metadata().unwrap().len()).sum();
    assert!(left < 1 << 12, "{left}");
}
