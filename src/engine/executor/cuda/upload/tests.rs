use ggml_kernels::cuda::weights::WeightType;
use quantize::recipe::FileType;

use super::*;
use crate::engine::executor::cuda::card::{card, model};

fn uploader(device: &Device) -> Uploader {
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, FileType::F32);
    Uploader::new(model.file.clone(), device, 0, 1)
}

fn stack(device: &Device, rows: usize) -> Arc<Stack> {
    Arc::new(Stack::zeroed(device, WeightType::F32, [1, rows, 1024]).unwrap())
}

fn bytes(rows: usize, salt: usize) -> Vec<u8> {
    let words = (0..rows * 1024).map(|at| (at * 2_654_435_761 + salt) as u32);
    words.flat_map(u32::to_le_bytes).collect()
}

#[test]
fn matrices_of_no_row_of_one_piece_and_of_several_come_whole() {
    let Some((device, _turn)) = card() else {
        return;
    };
    // Of 4096 bytes, so that a piece has 1024.
    let sizes = [3, 0, 2500, 1024, 1, 1025];
    let all: Vec<_> = sizes.iter().map(|&rows| bytes(rows, rows)).collect();
    let asked = uploader(&device).run(|queue| {
        let ask = |bytes: &Vec<u8>| {
            let to = stack(&device, bytes.len() / 4096);
            queue.upload(bytes.clone().into(), to.clone())?;
            Ok::<_, CudaError>(to)
        };
        all.iter().map(ask).collect::<Result<Vec<_>, _>>()
    });
    for (stack, bytes) in asked.unwrap().iter().zip(&all) {
        assert!(stack.buffer().read().unwrap() == *bytes, "{}", bytes.len());
    }
}

#[test]
fn what_asking_ends_with_is_what_the_upload_ends_with() {
    let Some((device, _turn)) = card() else {
        return;
    };
    let (to, whole) = (stack(&device, 2000), bytes(2000, 0));
    let why = uploader(&device).run(|queue| {
        queue.upload(whole.clone().into(), to.clone())?;
        queue.upload(whole[4..].to_vec().into(), to.clone())
    });
    let why = why.unwrap_err().to_string();
    assert!(why.contains(&whole.len().to_string()), "{why}");
    // What was under way was waited for.
    assert!(to.buffer().read().is_ok());
}
