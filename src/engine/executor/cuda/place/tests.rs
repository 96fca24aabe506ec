use quantize::recipe::FileType;

use super::*;
use crate::engine::executor::cuda::card::{card, model};
use crate::engine::layers::EXPERTS;

const ROWS: usize = 32;

/// Takes all but `left` bytes of the card, or nearly.
fn crowd(device: &Device, left: u64) -> ggml_kernels::cuda::driver::Buffer<u8> {
    let free = device.memory().unwrap().free;
    device.zeroed((free - left) as usize).unwrap()
}

/// Bytes that a model takes with its experts at this place.
fn taken(model: &Model, device: &Device, place: Place) -> u64 {
    let memory = device.memory().unwrap();
    let Fit::Wanted(bytes) = fit(model, device, memory, (place, memory.free), ROWS).unwrap() else {
        panic!("nothing fits beside all that is free");
    };
    bytes - memory.free
}

#[test]
fn experts_are_on_a_card_that_has_room_and_else_with_the_processor() {
    let Some((device, _turn)) = card() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, FileType::F32);
    let place = |wish| settle(&model, &device, wish, ROWS).map(|settled| settled.place);
    assert_eq!(place(Experts::Auto).unwrap(), Place::Card);
    assert_eq!(place(Experts::Cpu).unwrap(), Place::Processor);
    let all = taken(&model, &device, Place::Card) + foreseen(&model);
    let crowded = crowd(&device, all - 1);
    assert_eq!(place(Experts::Auto).unwrap(), Place::Processor);
    // Nobody is told how long conversations may be who asks for it.
    assert_eq!(place(Experts::Device).unwrap(), Place::Card);
    drop(crowded);
    assert_eq!(place(Experts::Auto).unwrap(), Place::Card);
}

#[test]
fn what_fits_at_neither_place_is_refused_with_the_figures_of_both() {
    let Some((device, _turn)) = card() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, FileType::F32);
    let _crowded = crowd(&device, 8 << 20);
    let free = device.memory().unwrap().free;
    for wish in [Experts::Auto, Experts::Device, Experts::Cpu] {
        let why = settle(&model, &device, wish, ROWS).unwrap_err();
        let Unfit::CardMemory {
            needed,
            without,
            free: told,
            ..
        } = why
        else {
            panic!("{why}");
        };
        assert!(needed > free && told == free, "{why}");
        assert_eq!(without.is_some(), wish == Experts::Auto, "{why}");
        assert!(without.is_none_or(|bytes| bytes > free && bytes < needed));
    }
}

#[test]
fn experts_with_the_processor_are_not_counted() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, FileType::Q8_0);
    let of = |place| Needed::of(&model, place).unwrap().weights;
    let sparse = model.specs.iter().filter(|s| EXPERTS.contains(&s.role));
    let bytes = sparse.map(|s| model.file.data(model.tensor(&s.name).unwrap()).len() as u64);
    assert!(of(Place::Card) >= of(Place::Processor) + bytes.sum::<u64>());
}
