use quantize::recipe::FileType;

use super::*;
use crate::engine::executor::cuda::card::{card, model};
use crate::engine::layers::{FfnParts, GateParts, MixerParts};

/// The file's row as the kernels read it, by another way than the kernel's.
fn as_on_card(ty: WeightType, row: &[u8], bytes: usize) -> Vec<u8> {
    let (block, d) = match ty {
        WeightType::Q4_0 => (18, 0..2),
        WeightType::Q8_0 => (34, 0..2),
        WeightType::Q6K => (210, 208..210),
        _ => (row.len().max(1), 0..0),
    };
    let mut turned = Vec::new();
    for block in row.chunks(block) {
        turned.extend_from_slice(&block[..d.start]);
        turned.extend_from_slice(&block[d.end..]);
    }
    for block in row.chunks(block) {
        turned.extend_from_slice(&block[d.clone()]);
    }
    turned.resize(bytes, 0);
    turned
}

fn check(model: &Model, layer: Option<usize>, role: Role, stack: &Stack) {
    let name = schema::name(layer, role);
    let tensor = model.tensor(&name).unwrap();
    let rows = stack.count() * stack.rows();
    assert_eq!(rows * stack.cols(), tensor.elements() as usize, "{name}");
    let file = model.file.data(tensor);
    let wanted = wanted(model, layer, role).unwrap();
    let file = match wanted.source {
        Source::File => file.to_vec(),
        Source::Floats => floats(&values(model, layer, role).unwrap()),
        Source::Halves => halves(&values(model, layer, role).unwrap()),
    };
    let turned = file.chunks(file.len() / rows);
    let turned = turned.flat_map(|row| as_on_card(stack.ty(), row, stack.row_bytes()));
    let bytes: Vec<u8> = turned.collect();
    assert!(
        stack.buffer().read().unwrap() == bytes,
        "{name}, {:?}",
        stack.ty()
    );
}

#[test]
fn every_matrix_is_on_the_card_as_the_kernels_read_it() {
    let Some((device, _turn)) = card() else {
        return;
    };
    for to in [
        FileType::F32,
        FileType::Bf16,
        FileType::Q4_0,
        FileType::Q8_0,
        FileType::Q4KM,
        FileType::Q5KM,
        FileType::Q6K,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = model(&dir, to);
        let needed = Needed::of(&model, Place::Card).unwrap();
        let all = Weights::upload(&model, needed, &device).unwrap();
        check(&model, None, Role::TokenEmbd, &all.parts.token_embd);
        check(&model, None, Role::Output, &all.parts.output);
        let norm = values(&model, None, Role::OutputNorm).unwrap();
        assert_eq!(all.parts.output_norm.read().unwrap(), norm);
        for (at, layer) in all.parts.layers.iter().enumerate() {
            let check = |role, stack: &Stack| check(&model, Some(at), role, stack);
            match &layer.mixer {
                MixerParts::Kda(kda) => {
                    check(Role::KdaQ, &kda.q);
                    check(Role::KdaBeta, &kda.beta);
                    let GateParts::Narrow { b, .. } = &kda.decay else {
                        panic!("the shape has narrow gates");
                    };
                    check(Role::KdaFB, b);
                    check(Role::KdaOutput, &kda.output);
                }
                MixerParts::Mla(mla) => {
                    check(Role::MlaKvA, &mla.kv_a);
                    check(Role::MlaKB, &mla.k_b);
                    check(Role::MlaVB, &mla.v_b);
                }
            }
            match &layer.ffn {
                FfnParts::Dense(mlp) => check(Role::FfnDown, &mlp.down),
                FfnParts::Sparse(sparse) => {
                    check(Role::Router, &sparse.router);
                    let experts = sparse.experts.as_ref().unwrap();
                    check(Role::GateExps, &experts.gate);
                    check(Role::DownExps, &experts.down);
                }
            }
        }
    }
}

#[test]
fn rows_of_many_are_expanded_by_matrices_in_f16() {
    let Some((device, _turn)) = card() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, FileType::Q8_0);
    let needed = Needed::of(&model, Place::Card).unwrap();
    let all = Weights::upload(&model, needed, &device).unwrap();
    let mla = &model.hparams().mla;
    let (rank, nope) = (mla.kv_lora_rank, mla.qk_nope);
    let [expanding] = &all.expanding[..] else {
        panic!("one MLA layer, {}", all.expanding.len());
    };
    let floats = |stack: &Stack| -> Vec<f32> {
        let bytes = stack.buffer().read().unwrap();
        let halves = bytes.chunks_exact(2);
        halves
            .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect()
    };
    let (k, v) = (floats(&expanding.k), floats(&expanding.v));
    let k_b = values(&model, Some(3), Role::MlaKB).unwrap();
    let rounded = |x: f32| f16::from_f32(x).to_f32();
    for (head, n, r) in [(0, 0, 0), (1, 5, 7), (2, nope - 1, rank - 1)] {
        let wanted = rounded(k_b[(head * rank + r) * nope + n]);
        assert_eq!(k[(head * nope + n) * rank + r], wanted, "{head}, {n}, {r}");
    }
    let v_b = values(&model, Some(3), Role::MlaVB).unwrap();
    assert!(v_b.iter().zip(&v).all(|(&x, &y)| rounded(x) == y));
}

#[test]
fn memory_is_counted_before_any_is_taken() {
    let Some((device, _turn)) = card() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir, FileType::F16);
    let needed = Needed::of(&model, Place::Card).unwrap();
    let before = device.memory().unwrap();
    let all = Weights::upload(&model, needed, &device).unwrap();
    let used = before.free - device.memory().unwrap().free;
    drop(all);
    assert!(
        used <= needed.weights,
        "{used} taken, {} counted",
        needed.weights
    );
    let more = Needed {
        weights: before.total + 1,
        ..needed
    };
    let why = Weights::upload(&model, more, &device)
        .unwrap_err()
        .to_string();
    assert!(why.contains(&before.total.to_string()), "{why}");
}

#[test]
fn types_without_a_kernel_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let why = Needed::of(&model(&dir, FileType::Iq4Xs), Place::Card).unwrap_err();
    assert!(matches!(why, Unfit::CardType { .. }), "{why}");
}
