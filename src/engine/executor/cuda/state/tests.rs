//! Passes are played: what a kernel would write is copied to where it would.

use super::*;
use crate::engine::HostState;
use crate::engine::executor::cuda::card::card;

const SHAPE: Shape = Shape {
    kda_layers: 3,
    mla_layers: 2,
    kda_values: 5,
    layer_bytes: BLOCK * 16,
};

struct Card {
    home: Arc<Home>,
    stream: Stream,
}

fn home() -> Option<(Card, impl Sized)> {
    let (device, turn) = card()?;
    let card = Card {
        home: Home::new(&device, SHAPE).unwrap(),
        stream: device.stream().unwrap(),
    };
    Some((card, turn))
}

/// A row of MLA layer `layer` for token `at` of a conversation named `name`.
fn row(name: u8, layer: usize, at: usize) -> [u8; 16] {
    [name, layer as u8, at as u8, (at >> 8) as u8]
        .repeat(4)
        .try_into()
        .unwrap()
}

/// The slot after `len` tokens.
fn slot(name: u8, len: usize) -> Vec<u8> {
    vec![name.wrapping_mul(31).wrapping_add(len as u8); SHAPE.slot_bytes()]
}

/// A pass of `tokens` behind `past`; without `success`, one that fails at its end.
fn pass(card: &Card, state: &mut State, name: u8, past: usize, tokens: usize, success: bool) {
    let open = state.open(past, tokens, &card.stream).unwrap();
    card.stream.synchronize().unwrap();
    let table = state.table.memory.as_ref().unwrap();
    assert_eq!(open.table, table.address());
    let said = table
        .part(0..state.held.blocks.len())
        .unwrap()
        .read()
        .unwrap();
    for at in past..past + tokens {
        let block = &state.held.blocks[at / BLOCK];
        assert_eq!(
            said[at / BLOCK],
            block.address(),
            "a table of where blocks are"
        );
        assert_eq!(
            Arc::strong_count(block),
            1,
            "nobody else's block is written"
        );
        for layer in 0..SHAPE.mla_layers {
            let at_byte = layer * SHAPE.layer_bytes + at % BLOCK * 16;
            let place = block.part().part(at_byte..at_byte + 16).unwrap();
            place.write(&row(name, layer, at)).unwrap();
        }
    }
    let to = match &open.fresh {
        Some(fresh) => fresh.part(),
        None => state.held.slot.part(),
    };
    to.write(&slot(name, past + tokens)).unwrap();
    if success {
        state.close(open);
    }
}

/// Holds `kept` against `len` tokens, of which the first `both` are the conversation `first`'s.
fn check(kept: &Kept, first: u8, both: usize, name: u8, len: usize) {
    let row = |layer, at| row(if at < both { first } else { name }, layer, at);
    for block in 0..len / BLOCK {
        let rows = (0..SHAPE.mla_layers)
            .flat_map(|layer| (0..BLOCK).map(move |r| (layer, block * BLOCK + r)));
        let wanted: Vec<u8> = rows.flat_map(|(layer, at)| row(layer, at)).collect();
        assert_eq!(kept.block(block).unwrap(), wanted, "block {block}");
    }
    let rows = (0..SHAPE.mla_layers)
        .flat_map(|layer| (len / BLOCK * BLOCK..len).map(move |at| (layer, at)));
    let wanted: Vec<u8> = rows.flat_map(|(layer, at)| row(layer, at)).collect();
    assert_eq!(kept.tail(len).unwrap(), wanted);
    let name = if len <= both { first } else { name };
    assert_eq!(kept.slot().unwrap(), slot(name, len));
}

#[test]
fn what_is_kept_stays_when_a_sequence_goes_on() {
    let Some((card, _turn)) = home() else { return };
    let mut one = State::new(&card.home);
    pass(&card, &mut one, 1, 0, 70, true);
    let kept = one.keep();
    check(&kept, 1, 70, 1, 70);
    assert_eq!(kept.bytes(), SHAPE.bytes(70));
    pass(&card, &mut one, 1, 70, 1, true);
    pass(&card, &mut one, 1, 71, 200, true);
    check(&one.keep(), 1, 271, 1, 271);
    let mut other = kept.taken_up(&card.home).unwrap().unwrap();
    pass(&card, &mut other, 2, 70, 64, true);
    check(&kept, 1, 70, 1, 70);
    check(&other.keep(), 1, 70, 2, 134);
    check(&one.keep(), 1, 271, 1, 271);
    let beside = other.keep().bytes_beside(&kept);
    assert_eq!(
        beside,
        SHAPE.bytes(134) - SHAPE.block_bytes(),
        "one block is shared"
    );
}

#[test]
fn a_pass_that_fails_beside_somebody_never_was() {
    let Some((card, _turn)) = home() else { return };
    let mut state = State::new(&card.home);
    pass(&card, &mut state, 1, 0, 3, false);
    let zeros = vec![0; SHAPE.slot_bytes()];
    assert_eq!(state.keep().slot().unwrap(), zeros, "nor at the beginning");
    pass(&card, &mut state, 1, 0, 70, true);
    let kept = state.keep();
    pass(&card, &mut state, 9, 70, 100, false);
    check(&kept, 1, 70, 1, 70);
    check(&state.keep(), 1, 70, 1, 70);
    drop(kept);
    let open = state.open(70, 1, &card.stream).unwrap();
    assert!(open.is_in_place(), "nobody else has it now");
}

#[test]
fn a_state_comes_from_the_hosts_memory_and_goes_there() {
    let Some((card, _turn)) = home() else { return };
    let mut state = State::new(&card.home);
    pass(&card, &mut state, 4, 0, 130, true);
    let kept = state.keep();
    let host = HostState {
        len: 130,
        blocks: (0..2).map(|at| kept.block(at).unwrap()).collect(),
        slot: kept.slot().unwrap().into(),
        tail: kept.tail(130).unwrap().into(),
        lent: crate::engine::Lent::default(),
    };
    let adopted = Kept::adopted(&card.home, &host).unwrap();
    check(&adopted, 4, 130, 4, 130);
    let mut taken = adopted.taken_up(&card.home).unwrap().unwrap();
    check(&taken.keep(), 4, 130, 4, 130);
    pass(&card, &mut taken, 5, 130, 1, true);
    check(&taken.keep(), 4, 130, 5, 131);
    let again = adopted.taken_up(&card.home).unwrap().unwrap();
    check(&again.keep(), 4, 130, 4, 130);
    assert!(
        Arc::ptr_eq(&again.held.blocks[0], &taken.held.blocks[0]),
        "brought once"
    );
    let longer = HostState {
        len: 131,
        ..host.clone()
    };
    assert!(Kept::adopted(&card.home, &longer).is_none());
    let elsewhere = Home::new(&card.home.device, SHAPE).unwrap();
    assert!(adopted.taken_up(&elsewhere).is_none());
}

#[test]
fn memory_comes_back_and_new_rows_are_zeros() {
    let Some((card, _turn)) = home() else { return };
    for round in 0..3 {
        let mut states: Vec<_> = (0..5).map(|_| State::new(&card.home)).collect();
        for state in &mut states {
            let open = state.open(0, 20 * BLOCK, &card.stream).unwrap();
            card.stream.synchronize().unwrap();
            for block in &state.held.blocks {
                assert!(block.part().read().unwrap().iter().all(|&b| b == 0));
                block
                    .part()
                    .write(&vec![0xff; SHAPE.block_bytes()])
                    .unwrap();
            }
            state.close(open);
        }
        assert_eq!(card.home.blocks.slabs(), 2, "101 blocks, round {round}");
    }
    assert!(card.home.blocks.slabs() <= 2);
}

#[test]
fn lanes_of_nobody_have_somewhere_to_write() {
    let Some((card, _turn)) = home() else { return };
    let (nobody, state) = (card.home.nobody(), State::new(&card.home));
    assert_eq!(nobody.from, state.held.slot.address());
    assert_ne!(nobody.to, nobody.from);
    assert_ne!(nobody.table, 0);
}
