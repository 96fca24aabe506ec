//! Memory, streams and graphs, before any kernel.

use ggml_kernels::cuda::ceiling::copy_rate;
use ggml_kernels::cuda::driver::{CudaError, Device, Pinned};
use ggml_kernels::cuda::products::repack;
use ggml_kernels::cuda::weights::{Stack, WeightType};
use ggml_kernels::map::{Damaged, map_file};

use crate::{device, kernels};

#[test]
fn what_goes_in_comes_out() {
    let Some(device) = device() else { return };
    let values: Vec<u32> = (0..1000).collect();
    let buffer = device.upload(&values).unwrap();
    assert_eq!(buffer.address() % 256, 0);
    assert_eq!(buffer.read().unwrap(), values);
    buffer.write(10, &[7, 8]).unwrap();
    assert_eq!(buffer.part(9..13).unwrap().read().unwrap(), [9, 7, 8, 12]);
    assert_eq!(device.zeroed::<f32>(3).unwrap().read().unwrap(), [0.0; 3]);
    assert!(device.upload::<u8>(&[]).unwrap().read().unwrap().is_empty());
}

#[test]
fn what_lies_outside_is_refused() {
    let Some(device) = device() else { return };
    let buffer = device.zeroed::<u16>(8).unwrap();
    let why = buffer.part(3..9).unwrap_err().to_string();
    assert_eq!(why, "a buffer: the range is 3..9, wanted inside 0..8");
    assert!(buffer.write(usize::MAX, &[1, 2]).is_err());
    assert!(buffer.part(2..4).unwrap().write(&[1]).is_err());
    let stream = device.stream().unwrap();
    let pinned = Pinned::<u16>::zeroed(&device, 4).unwrap();
    assert!(stream.copy_in(&pinned, 0..5, buffer.all()).is_err());
    assert!(stream.copy_in(&pinned, 0..4, buffer.all()).is_err());
    assert!(stream.copy_out(buffer.all(), &pinned, 0).is_err());
    let (one, other) = (buffer.part(0..4).unwrap(), buffer.part(2..6).unwrap());
    assert!(stream.copy(one, other).is_err());
}

#[test]
fn a_mapped_file_is_read_into_page_locked_memory_and_a_shortened_one_says_so() {
    let Some(device) = device() else { return };
    let bytes: Vec<u8> = (0..40_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let map = map_file(file.path()).unwrap();
    let pinned = Pinned::<u8>::zeroed(&device, bytes.len()).unwrap();
    for (at, range) in [(0, 0..40_000), (9, 4_097..20_001), (3, 40_000..40_000)] {
        pinned.put_mapped(at, &map, &map[range.clone()]).unwrap();
        let mut got = vec![0; range.len()];
        pinned.get(at, &mut got).unwrap();
        assert_eq!(got, bytes[range]);
    }
    // What is no part of the map is copied as it is.
    pinned.put_mapped(1, &map, b"elsewhere").unwrap();
    let mut got = [0; 9];
    pinned.get(1, &mut got).unwrap();
    assert_eq!(&got, b"elsewhere");
    assert!(pinned.put_mapped(1, &map, &map[..]).is_err());
    assert_eq!(map.damaged(), None);
    file.as_file().set_len(100).unwrap();
    pinned.put_mapped(0, &map, &map[..30_000]).unwrap();
    let (from, to) = (40_000, 100);
    assert_eq!(map.damaged(), Some(Damaged::Shortened { from, to }));
}

#[test]
fn a_stream_copies_in_order() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let pinned = Pinned::<f32>::zeroed(&device, 6).unwrap();
    pinned.put(0, &[1.0, 2.0, 3.0]).unwrap();
    let buffer = device.zeroed::<f32>(5).unwrap();
    let part = |range| buffer.part(range).unwrap();
    stream.copy_in(&pinned, 0..3, part(0..3)).unwrap();
    stream.copy(part(1..3), part(3..5)).unwrap();
    stream.clear(part(1..2)).unwrap();
    stream.copy_out(part(0..5), &pinned, 1).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(pinned.read(0..6).unwrap(), [1.0, 1.0, 0.0, 3.0, 2.0, 3.0]);
}

#[test]
fn a_graph_does_again_what_was_recorded() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let pinned = Pinned::<u32>::zeroed(&device, 2).unwrap();
    let buffer = device.zeroed::<u32>(1).unwrap();
    let recorded = stream.record(|stream| {
        stream.copy_in(&pinned, 0..1, buffer.all())?;
        stream.copy_out(buffer.all(), &pinned, 1)
    });
    let graph = recorded.unwrap();
    assert_eq!(pinned.read(1..2).unwrap(), [0], "recorded, not done");
    for value in [5, 6] {
        pinned.put(0, &[value]).unwrap();
        stream.run(&graph).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(pinned.read(1..2).unwrap(), [value]);
    }
    let failed = stream.record(|_| Err(CudaError::NoDriver));
    assert!(matches!(failed, Err(CudaError::NoDriver)));
    stream.run(&graph).unwrap();
    stream.synchronize().unwrap();
}

#[test]
fn kernels_are_timed_one_by_one_and_only_when_asked() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let to = Stack::zeroed(&device, WeightType::Q8_0, [1, 2, 32]).unwrap();
    let raw = device.upload(&[1u8; 68]).unwrap();
    let run = || repack(&stream, raw.all(), &to, 0, 2).unwrap();
    run();
    stream.time().unwrap();
    run();
    run();
    let took = stream.took().unwrap();
    let names: Vec<_> = took.iter().map(|t| t.kernel).collect();
    assert_eq!(names, ["repack", "repack"]);
    run();
    assert!(stream.took().unwrap().is_empty());
}

#[test]
fn copies_on_a_card_have_a_speed() {
    let Some(device) = device() else { return };
    let rate = copy_rate(&device).unwrap();
    // Between a slow processor that plays a card and what no card will do for long.
    assert!((1e8..1e15).contains(&rate), "{rate:e}");
}

#[test]
fn a_device_is_used_from_any_thread() {
    let Some(device) = device() else { return };
    let buffer = device.upload(&[1u8, 2, 3]).unwrap();
    let moved = std::thread::spawn(move || {
        let stream = device.stream().unwrap();
        stream.clear(buffer.part(0..1).unwrap()).unwrap();
        stream.synchronize().unwrap();
        buffer.read().unwrap()
    });
    assert_eq!(moved.join().unwrap(), [0, 2, 3]);
}

#[test]
fn more_memory_than_there_is_is_refused_with_figures() {
    let Some(device) = device() else { return };
    let total = device.memory().unwrap().total;
    let len = usize::try_from(total).unwrap() * 2;
    match device.zeroed::<u8>(len).unwrap_err() {
        CudaError::OutOfMemory {
            bytes, total: of, ..
        } => {
            assert_eq!((bytes, of), (len as u64, total));
        }
        other => panic!("{other}"),
    }
    assert!(device.zeroed::<u8>(1).is_ok(), "and the card goes on");
    assert!(device.zeroed::<u64>(usize::MAX / 4).is_err());
}

#[test]
fn a_kernel_that_is_not_there_is_named() {
    let Some(device) = device() else { return };
    let why = device.kernel("no_such_kernel").unwrap_err().to_string();
    assert_eq!(why, "the file of kernels has no kernel no_such_kernel");
}

#[test]
fn a_wrong_file_of_kernels_is_refused() {
    let Some(_) = device() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernels.fatbin");
    let missing = Device::open(0, &path).unwrap_err();
    assert!(matches!(missing, CudaError::File { .. }), "{missing}");
    std::fs::write(&path, b"nothing that a card runs").unwrap();
    let refused = Device::open(0, &path).unwrap_err().to_string();
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
}

#[test]
fn a_card_that_is_not_there_is_counted() {
    let Some(_) = device() else { return };
    let why = Device::open(1000, &kernels()).unwrap_err();
    assert!(
        matches!(why, CudaError::NoDevice { index: 1000, .. }),
        "{why}"
    );
}
