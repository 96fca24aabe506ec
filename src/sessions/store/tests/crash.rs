//! Death of the process and loss of power at every operation, and again while that is mended: what
//! was acknowledged is there, what is there was said, and nothing is left lying about.

use std::collections::{BTreeMap, BTreeSet};

use super::sim::{Dice, Fault, Sim, World};
use super::states::{Toy, is_of};
use super::*;

const UID: u32 = 7;
/// Small blocks: what matters is that there are some.
const BLOCK_BYTES: usize = 500;

/// What the client knows of a session.
#[derive(Debug, Clone, Default)]
struct Said {
    turns: Vec<Turn>,
    /// Tokens of the last state that was acknowledged and that the conversation still begins with.
    saved: usize,
}

type Model = BTreeMap<Id, Said>;

/// What may or may not have happened.
#[derive(Debug, Clone, Default)]
struct Doubt {
    /// One of them may be there, behind what is sure.
    turns: BTreeMap<Id, Vec<Turn>>,
    coming: Vec<Vec<Turn>>,
    going: BTreeSet<Id>,
    shed: BTreeSet<Id>,
    /// The last turn was read after a failure to write it, and nothing was written since.
    fresh: BTreeSet<Id>,
}

impl Said {
    /// Whether `turns` are these, or these and one that may be there.
    fn is(&self, turns: &[Turn], open: &[Turn]) -> bool {
        let more = |t| turns.iter().eq(self.turns.iter().chain([t]));
        turns == self.turns || open.iter().any(more)
    }
}

impl Doubt {
    fn open(&self, id: &Id) -> &[Turn] {
        self.turns.get(id).map_or(&[], Vec::as_slice)
    }
}

#[derive(Debug, Clone)]
enum Doing {
    Create,
    Turn(Id, Turn),
    Partial(Id, Turn),
    Checkpoint(Id),
    Fork(Id, usize),
    Delete(Id),
    Rename(Id, String),
    Shed(Id),
    Open,
}

#[derive(Debug, Default)]
struct Counts {
    images: usize,
    interrupted: usize,
    turns: usize,
    states: usize,
}

fn toy(tokens: &[u32]) -> Toy {
    Toy {
        block_bytes: BLOCK_BYTES,
        ..Toy::of(tokens)
    }
}

fn open(sim: &Sim) -> Result<Store, StoreError> {
    Store::on(Box::new(sim.clone()), UID, AMPLE)
}

fn next(model: &Model, dice: &mut Dice) -> Doing {
    let ids: Vec<Id> = model.keys().copied().collect();
    if ids.is_empty() || (ids.len() < 3 && dice.below(8) == 0) {
        return Doing::Create;
    }
    let id = ids[dice.below(ids.len())];
    let tokens = known::tokens_of(&model[&id].turns).len();
    let turns = model[&id].turns.len();
    let said = |dice: &mut Dice| Turn {
        response: format!("resp_{}", dice.below(1000)),
        messages: "m".repeat(dice.below(300)),
        kept: if dice.below(6) == 0 {
            dice.below(tokens + 1)
        } else {
            tokens
        },
        tokens: (0..dice.below(12)).map(|_| dice.below(50) as u32).collect(),
        options: String::new(),
        at: 5,
    };
    match dice.below(20) {
        0..8 => Doing::Turn(id, said(dice)),
        8..13 => Doing::Checkpoint(id),
        13 | 14 => Doing::Partial(id, said(dice)),
        15 if ids.len() < 4 => Doing::Fork(id, turns - dice.below(turns.min(2) + 1)),
        16 if dice.below(2) == 0 => Doing::Delete(id),
        17 => Doing::Rename(id, format!("name {}", dice.below(9))),
        18 if dice.below(2) == 0 => Doing::Shed(id),
        _ => Doing::Open,
    }
}

fn doubt_of(doing: &Doing, model: &Model) -> Doubt {
    let mut doubt = Doubt::default();
    match doing {
        Doing::Turn(id, turn) => drop(doubt.turns.insert(*id, vec![turn.clone()])),
        Doing::Create => doubt.coming.push(Vec::new()),
        Doing::Fork(id, n) => doubt.coming.push(model[id].turns[..*n].to_vec()),
        Doing::Delete(id) => drop(doubt.going.insert(*id)),
        Doing::Shed(id) => drop(doubt.shed.insert(*id)),
        _ => {}
    }
    doubt
}

/// Does it, and tells the model once the store has said that it is done.
fn act(sim: &Sim, store: &mut Store, doing: &Doing, model: &mut Model) -> Result<(), StoreError> {
    match doing {
        Doing::Create => {
            let id = store.create(&about("one"))?;
            model.insert(id, Said::default());
        }
        Doing::Turn(id, turn) => {
            store.turn(id, turn)?;
            let said = model.get_mut(id).unwrap();
            said.turns.push(turn.clone());
            said.saved = if turn.kept < said.saved {
                0
            } else {
                said.saved
            };
        }
        Doing::Partial(id, piece) => store.partial(id, piece, true)?,
        Doing::Checkpoint(id) => {
            let said = model.get_mut(id).unwrap();
            let tokens = known::tokens_of(&said.turns);
            store.checkpoint(id, &tokens, &toy(&tokens))?;
            said.saved = tokens.len();
        }
        Doing::Fork(id, turns) => {
            let child = store.fork(id, *turns, None)?;
            let mut said = model[id].clone();
            said.saved = if *turns == said.turns.len() {
                said.saved
            } else {
                0
            };
            said.turns.truncate(*turns);
            model.insert(child, said);
        }
        Doing::Delete(id) => {
            store.delete(id)?;
            model.remove(id);
        }
        Doing::Rename(id, name) => store.rename(id, Some(name.clone()))?,
        Doing::Shed(id) => {
            store.shed(id)?;
            model.get_mut(id).unwrap().saved = 0;
        }
        Doing::Open => *store = open(sim)?,
    }
    Ok(())
}

/// Opens what is there and holds it against what is known. Returns the turns of every session.
fn examine(sim: &Sim, model: &Model, doubt: &Doubt, counts: &mut Counts) -> (Store, Model) {
    let store = open(sim).unwrap();
    let mut found = Model::new();
    for listed in store.list() {
        assert_eq!(listed.unusable, None, "{}", listed.id);
        let opened = store.load(&listed.id, &identity()).unwrap();
        let turns = &opened.turns;
        match model.get(&listed.id) {
            None => assert!(
                doubt.coming.contains(turns),
                "{} came from nowhere",
                listed.id
            ),
            Some(said) => {
                let open = doubt.open(&listed.id);
                let mut is_there = said.is(turns, open);
                if doubt.fresh.contains(&listed.id) {
                    is_there |= *turns == said.turns[..said.turns.len() - 1];
                }
                assert!(is_there, "{turns:?} of {:?} and {open:?}", said.turns);
                let cut = open.iter().any(|t| t.kept < said.saved);
                let held = opened.state.as_ref().map_or(0, |s| s.tokens);
                if !cut && !doubt.shed.contains(&listed.id) {
                    assert!(
                        held >= said.saved,
                        "{held} of {} {:?}",
                        said.saved,
                        opened.wrong
                    );
                }
            }
        }
        let mut saved = 0;
        if let Some(state) = &opened.state {
            saved = state.tokens;
            assert!(
                is_of(state, &toy(&opened.tokens[..saved])),
                "a state of other tokens"
            );
            counts.states += 1;
        }
        counts.turns += turns.len();
        let turns = opened.turns;
        found.insert(listed.id, Said { turns, saved });
    }
    for id in model.keys().filter(|id| !doubt.going.contains(id)) {
        assert!(found.contains_key(id), "{id} is lost");
    }
    for name in sim.world().names() {
        assert!(!name.starts_with('.'), "{name} was left behind");
        if let Some((dir, file)) = name.split_once('/') {
            let held = store.held(&dir.parse().unwrap()).unwrap();
            let held = user::lock(&held);
            let known = held.as_ref().unwrap().known.names(file);
            let named = known || ["log", "partial"].contains(&file);
            assert!(named, "{name} was left behind");
        }
    }
    counts.images += 1;
    (store, found)
}

/// A moment at which everything stops: what is made of it, and what is done then stays.
fn stop(world: &World, model: &Model, doubt: &Doubt, dice: &mut Dice, counts: &mut Counts) {
    let stop = |world: &mut World, dice: &mut Dice| match dice.below(3) {
        0 => world.death(),
        _ => world.power_cut(dice),
    };
    let mut image = world.clone();
    stop(&mut image, dice);
    // Mending is stopped too, twice.
    for _ in 0..2 {
        let sim = Sim::of(image.clone());
        sim.world().fail_at(dice.below(4), Fault::Death);
        let _ = open(&sim);
        if sim.world().died() {
            counts.interrupted += 1;
            image = sim.world().clone();
            stop(&mut image, dice);
        }
    }
    let sim = Sim::of(image);
    let (store, mut found) = examine(&sim, model, doubt, counts);
    // From here on everything is known again, and holds after another loss of power.
    for (n, (id, said)) in found.iter_mut().enumerate() {
        let turn = Turn {
            kept: known::tokens_of(&said.turns).len(),
            ..turn(n)
        };
        store.turn(id, &turn).unwrap();
        said.turns.push(turn);
    }
    drop(store);
    let mut after = sim.world().clone();
    after.power_cut(dice);
    examine(&Sim::of(after), &found, &Doubt::default(), counts);
}

/// Says what to repeat.
struct Seed(&'static str, u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}({})", self.0, self.1);
        }
    }
}

/// A random life of some sessions, stopped at every operation.
fn life(seed: u64, counts: &mut Counts) {
    let _seed = Seed("life", seed);
    let mut dice = Dice(seed);
    let (sim, mut model) = (Sim::default(), Model::new());
    let mut store = open(&sim).unwrap();
    for _ in 0..25 {
        let doing = next(&model, &mut dice);
        let (before, doubt) = (model.clone(), doubt_of(&doing, &model));
        sim.world().record();
        act(&sim, &mut store, &doing, &mut model).unwrap();
        let images = sim.world().recorded();
        for image in images {
            stop(&image, &before, &doubt, &mut dice, counts);
        }
        let after = sim.world().clone();
        stop(&after, &model, &Doubt::default(), &mut dice, counts);
    }
}

/// A random life in which one operation fails; then everything stops.
fn misfortune(seed: u64, counts: &mut Counts) {
    let _seed = Seed("misfortune", seed);
    let mut dice = Dice(seed);
    let faults = [Fault::Io, Fault::Full, Fault::Short, Fault::Sync];
    let (sim, mut model, mut doubt) = (Sim::default(), Model::new(), Doubt::default());
    let mut store = open(&sim).unwrap();
    for at in 0..25 {
        if at % 6 == 3 {
            let fault = faults[dice.below(faults.len())];
            sim.world().fail_at(dice.below(8), fault);
        }
        let doing = next(&model, &mut dice);
        let (before, maybe) = (model.clone(), doubt_of(&doing, &model));
        match act(&sim, &mut store, &doing, &mut model) {
            Ok(()) => {
                if let Doing::Turn(id, _) | Doing::Checkpoint(id) = &doing {
                    doubt.turns.remove(id);
                    doubt.fresh.remove(id);
                }
                if let Doing::Open = &doing {
                    settle(&store, &mut model, &mut doubt);
                }
                if let Doing::Fork(..) = &doing {
                    // Where a link failed, the child reads its turns again.
                    let children = model.iter_mut().filter(|(id, _)| !before.contains_key(id));
                    children.for_each(|(_, said)| said.saved = 0);
                }
            }
            Err(_) => {
                if let Doing::Open = &doing {
                    // Nothing was opened; the next attempt meets no fault.
                    store = open(&sim).unwrap();
                    settle(&store, &mut model, &mut doubt);
                }
                for (id, turns) in maybe.turns {
                    doubt.turns.entry(id).or_default().extend(turns);
                }
                doubt.coming.extend(maybe.coming);
                doubt.going.extend(maybe.going);
                for id in maybe.shed {
                    model.get_mut(&id).unwrap().saved = 0;
                }
            }
        }
    }
    let world = sim.world().clone();
    stop(&world, &model, &doubt, &mut dice, counts);
}

/// A process that starts anew finds out what became of what failed.
fn settle(store: &Store, model: &mut Model, doubt: &mut Doubt) {
    let mut found = Model::new();
    for listed in store.list() {
        let turns = store.load(&listed.id, &identity()).unwrap().turns;
        let saved = model.get(&listed.id).map_or(0, |said| said.saved);
        if let Some(said) = model.get(&listed.id) {
            assert!(said.is(&turns, doubt.open(&listed.id)));
        } else {
            assert!(doubt.coming.contains(&turns));
        }
        let cut = doubt.open(&listed.id).iter().any(|t| t.kept < saved);
        let saved = if cut { 0 } else { saved };
        found.insert(listed.id, Said { turns, saved });
    }
    for id in model.keys() {
        assert!(
            found.contains_key(id) || doubt.going.contains(id),
            "{id} is lost"
        );
    }
    let grown = |(id, said): &(&Id, &Said)| {
        let before = model.get(id).map(|s| s.turns.len());
        doubt.fresh.contains(id) || before.is_some_and(|n| n < said.turns.len())
    };
    let fresh = found.iter().filter(grown).map(|(id, _)| *id).collect();
    *doubt = Doubt {
        fresh,
        ..Doubt::default()
    };
    *model = found;
}

fn sweep(images: usize, threads: u64) -> Counts {
    let run = move |thread: u64| {
        let mut counts = Counts::default();
        let mut seed = thread << 32;
        while counts.images < images / threads as usize {
            life(seed, &mut counts);
            for more in 0..200 {
                misfortune(seed * 1000 + more, &mut counts);
            }
            seed += 1;
        }
        counts
    };
    let threads: Vec<_> = (0..threads)
        .map(|t| std::thread::spawn(move || run(t)))
        .collect();
    let mut all = Counts::default();
    for thread in threads {
        let counts = thread.join().unwrap();
        all.images += counts.images;
        all.interrupted += counts.interrupted;
        all.turns += counts.turns;
        all.states += counts.states;
    }
    println!(
        "{} crash images, {} interrupted mendings; {} turns and {} states compared",
        all.images, all.interrupted, all.turns, all.states
    );
    all
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    let counts = sweep(20_000, 2);
    assert!(
        counts.interrupted > 100 && counts.states > 1000,
        "{counts:?}"
    );
}

#[test]
#[ignore = "minutes; `make crash` runs it"]
fn no_crash_of_a_million_loses_what_was_acknowledged() {
    sweep(1_000_000, 2);
}
