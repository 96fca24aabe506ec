use super::*;
use crate::gguf::{GgufWriter, Layout, PlannedTensor};
use std::io::Write;

fn sample() -> Vec<u8> {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", "kimi-linear");
    metadata.set("a.bool", true);
    metadata.set("a.float", 1.5f32);
    metadata.set("a.strings", Array::Str(vec!["x".into(), "ÿ".into()]));
    metadata.set("a.numbers", Array::I32(vec![-1, 2, 3]));
    let tensors = [
        ("one.weight", TensorType::Q8_0, vec![64, 3]),
        ("two.weight", TensorType::F32, vec![3, 1, 2, 1]),
    ];
    let tensors = tensors.map(|(name, ty, shape)| PlannedTensor {
        name: name.into(),
        ty,
        shape,
    });
    let layout = Layout::new(&metadata, &tensors).unwrap();
    let size = layout.file_size();
    let mut writer = GgufWriter::new(Vec::new(), layout).unwrap();
    writer.write(&[7; 100]).unwrap();
    writer.write(&[7; 104]).unwrap();
    writer.write(&[0; 24]).unwrap();
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, size);
    bytes
}

fn open(bytes: &[u8]) -> Result<GgufFile, GgufError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    GgufFile::open(file.path())
}

/// `bytes` with the first occurrence of `from` replaced by `to`, of the same length.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes
}

#[test]
fn what_was_written_is_read_back() {
    let file = open(&sample()).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.architecture"), Some("kimi-linear"));
    assert_eq!(metadata.bool("a.bool"), Some(true));
    assert_eq!(metadata.f32("a.float"), Some(1.5));
    assert_eq!(metadata.strs("a.strings").unwrap()[1], "ÿ");
    assert_eq!(metadata.u64s("a.numbers"), None, "-1 is no unsigned number");
    assert_eq!(metadata.u64("general.alignment"), Some(32));
    let one = file.tensor("one.weight").unwrap();
    assert_eq!((one.ty, one.shape()), (TensorType::Q8_0, &[64, 3][..]));
    assert_eq!(file.data(one), [7; 204]);
    let two = file.tensor("two.weight").unwrap();
    assert_eq!((two.n_dims, two.ne), (4, [3, 1, 2, 1]));
    assert_eq!(two.offset, file.data_start() + 224);
    assert_eq!(file.data(two), &file.map()[two.offset..two.offset + 24]);
    assert!(file.tensor("three.weight").is_none());
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample();
    // The last 8 bytes are padding.
    for len in 0..bytes.len() - 8 {
        assert!(open(&bytes[..len]).is_err(), "{len} bytes were accepted");
    }
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let bytes = sample();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            if let Ok(file) = open(&changed) {
                for tensor in file.tensors() {
                    assert_eq!(file.data(tensor).len(), tensor.size);
                }
            }
        }
    }
}

#[test]
fn counts_beyond_the_file_are_refused_before_anything_is_allocated() {
    let bytes = sample();
    for at in [8, 16] {
        let mut changed = bytes.clone();
        changed[at..at + 8].copy_from_slice(&(u64::MAX / 13).to_le_bytes());
        assert!(matches!(open(&changed), Err(GgufError::Truncated { .. })));
    }
    let changed = patched(
        &bytes,
        &[5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        &[5, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f],
    );
    let refused = open(&changed).unwrap_err().to_string();
    assert!(refused.starts_with("a.numbers at byte"), "{refused}");
}

#[test]
fn foreign_and_contradictory_files_are_refused_by_name() {
    let bytes = sample();
    let refuse = |from: &[u8], to: &[u8]| open(&patched(&bytes, from, to)).unwrap_err();
    assert!(matches!(refuse(b"GGUF", b"GGJT"), GgufError::Magic { .. }));
    assert!(matches!(
        refuse(&[3, 0, 0, 0], &[0, 0, 0, 3]),
        GgufError::Version { got: 0x0300_0000 }
    ));
    assert!(matches!(
        refuse(b"two.weight", b"one.weight"),
        GgufError::DuplicateTensor { .. }
    ));
    assert!(matches!(
        refuse(b"a.strings", b"a.numbers"),
        GgufError::DuplicateKey { .. }
    ));
    assert!(matches!(
        refuse(
            &[b"general.alignment", &[4, 0, 0, 0, 32][..]].concat(),
            &[b"general.alignment", &[4, 0, 0, 0, 33][..]].concat()
        ),
        GgufError::Alignment { .. }
    ));
    let mut entry = b"two.weight".to_vec();
    entry.extend(4u32.to_le_bytes());
    let with = |dims: [u64; 4], ty: u32, offset: u64| {
        let mut e = entry.clone();
        dims.iter().for_each(|d| e.extend(d.to_le_bytes()));
        e.extend(ty.to_le_bytes());
        e.extend(offset.to_le_bytes());
        e
    };
    let from = with([3, 1, 2, 1], 0, 224);
    let refuse = |to: Vec<u8>| refuse(&from, &to);
    assert!(matches!(
        refuse(with([3, 1, 0, 1], 0, 224)),
        GgufError::Shape { .. }
    ));
    assert!(matches!(
        refuse(with([1 << 40, 1 << 40, 1, 1], 0, 224)),
        GgufError::Shape { .. }
    ));
    assert!(matches!(
        refuse(with([3, 1, 2, 1], 8, 224)),
        GgufError::RowLength { .. }
    ));
    assert!(matches!(
        refuse(with([3, 1, 2, 1], 4, 224)),
        GgufError::TensorType { got: 4, .. }
    ));
    assert!(matches!(
        refuse(with([3, 1, 2, 1], 0, 225)),
        GgufError::Misaligned { .. }
    ));
    assert!(matches!(
        refuse(with([3, 1, 2, 1], 0, 1 << 40)),
        GgufError::BeyondFile { .. }
    ));
    assert!(matches!(
        refuse(with([3, 1, 2, 1], 0, u64::MAX - 31)),
        GgufError::BeyondFile { .. }
    ));
    let overlap = refuse(with([3, 1, 2, 1], 0, 192));
    assert_eq!(
        overlap.to_string(),
        "the data of one.weight and two.weight overlap"
    );
}

#[test]
fn a_missing_or_empty_file_says_so_and_leaves_the_path_to_the_caller() {
    let missing = GgufFile::open("/nonexistent/model.gguf").unwrap_err();
    assert!(missing.to_string().starts_with("No such file"));
    assert!(
        open(&[])
            .unwrap_err()
            .to_string()
            .ends_with("the file is empty")
    );
}
