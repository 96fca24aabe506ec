use super::*;
use ggml_kernels::gguf::{Array, GgufFile, GgufWriter, Layout, Metadata, PlannedTensor, Value};
use ggml_kernels::quant::TensorType;

/// Unequal sizes everywhere, KDA heads apart from MLA heads.
fn uneven() -> Hparams {
    let kinds = [
        (Mixer::Kda, Ffn::Dense),
        (Mixer::Kda, Ffn::Dense),
        (Mixer::Mla, Ffn::Sparse),
        (Mixer::Kda, Ffn::Sparse),
    ];
    let kind = |(mixer, ffn)| LayerKind {
        mixer,
        ffn,
        limits: Clamps::NONE,
    };
    Hparams {
        kin: &KimiLinear,
        hidden: 96,
        vocab: 77,
        context_length: 1000,
        norm_eps: 1e-5,
        dense_ff: 104,
        layers: kinds.map(kind).into(),
        kda: Kda {
            heads: 5,
            head_dim: 16,
            conv: 4,
            gate: GateLaw::Softplus,
            whole_gates: false,
        },
        mla: Mla {
            heads: 3,
            q_lora_rank: None,
            kv_lora_rank: 40,
            qk_nope: 24,
            qk_rope: 8,
            v: 12,
            rope_base: None,
            head_gate: false,
        },
        moe: Moe {
            experts: 6,
            used: 2,
            ff: 48,
            shared: 2,
            shared_ff: 96,
            scale: 2.5,
            groups: 3,
            groups_used: 2,
        },
    }
}

fn metadata(h: &Hparams) -> Metadata {
    let mut metadata = Metadata::default();
    h.write(&mut metadata);
    metadata
}

/// Writes an all-zero file of these tensors.
fn file(h: &Hparams, edit: impl Fn(&mut Vec<PlannedTensor>)) -> GgufFile {
    let plan = |spec: TensorSpec| PlannedTensor {
        name: spec.name,
        ty: TensorType::F32,
        shape: spec.shape,
    };
    let mut plan: Vec<_> = tensors(h).into_iter().map(plan).collect();
    edit(&mut plan);
    let layout = Layout::new(&metadata(h), &plan).unwrap();
    let target = tempfile::NamedTempFile::new().unwrap();
    let mut writer = GgufWriter::new(target.as_file(), layout).unwrap();
    for tensor in &plan {
        writer
            .write(&vec![0; tensor.size().unwrap() as usize])
            .unwrap();
    }
    writer.finish().unwrap();
    GgufFile::open(target.path()).unwrap()
}

fn refusal(h: &Hparams, edit: impl Fn(&mut Vec<PlannedTensor>)) -> String {
    check(&file(h, edit)).unwrap_err().to_string()
}

fn named<'a>(plan: &'a mut [PlannedTensor], name: &str) -> &'a mut PlannedTensor {
    plan.iter_mut().find(|t| t.name == name).unwrap()
}

#[test]
fn sizes_survive_being_written() {
    let mut h = uneven();
    assert_eq!(Hparams::from_metadata(&metadata(&h)), Ok(h.clone()));
    h.kda.heads = h.mla.heads;
    h.moe.groups = 1;
    h.moe.groups_used = 1;
    let metadata = metadata(&h);
    assert_eq!(metadata.u64("kimi-linear.attention.head_count"), Some(3));
    assert_eq!(Hparams::from_metadata(&metadata), Ok(h));
}

#[test]
fn each_key_is_missed_by_name() {
    let whole = metadata(&uneven());
    let optional = [
        "attention.key_length",
        "attention.value_length",
        "expert_group_count",
        "expert_group_used_count",
        "expert_shared_count",
        "expert_weights_norm",
        "expert_weights_scale",
        "leading_dense_block_count",
    ];
    for key in whole.map.keys().filter(|k| k.starts_with("kimi-linear.")) {
        let mut less = whole.clone();
        less.map.remove(key);
        let result = Hparams::from_metadata(&less);
        if optional
            .iter()
            .any(|o| key.ends_with(&format!("kimi-linear.{o}")))
        {
            // Without it other sizes may not fit; it is never an error of its own.
            assert!(
                !matches!(result, Err(SchemaError::MissingKey { .. })),
                "{key}"
            );
        } else {
            let key = key.clone();
            assert_eq!(result, Err(SchemaError::MissingKey { key }));
        }
    }
}

#[test]
fn absurd_and_contradictory_sizes_are_refused() {
    let wrong: &[(&str, Value)] = &[
        ("block_count", Value::U32(0)),
        ("block_count", Value::U64(u64::MAX)),
        ("block_count", Value::Str("4".into())),
        ("block_count", Value::U32(3)),
        ("embedding_length", Value::I32(-1)),
        ("embedding_length", Value::U32(u32::MAX)),
        (
            "attention.head_count",
            Value::Array(Array::U32(vec![5, 4, 3, 5])),
        ),
        ("attention.head_count", Value::U32(1 << 30)),
        ("attention.head_count_kv", Value::Array(Array::U32(vec![0]))),
        ("attention.key_length", Value::U32(49)),
        ("attention.key_length_mla", Value::U32(8)),
        ("attention.q_lora_rank", Value::U32(64)),
        ("attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
        ("expert_used_count", Value::U32(7)),
        ("expert_group_count", Value::U32(4)),
        ("expert_group_used_count", Value::U32(4)),
        ("expert_gating_func", Value::U32(1)),
        ("expert_weights_norm", Value::Bool(false)),
        ("expert_weights_scale", Value::F32(f32::INFINITY)),
        ("leading_dense_block_count", Value::U32(5)),
    ];
    for (key, value) in wrong {
        let mut metadata = metadata(&uneven());
        let key = format!("kimi-linear.{key}");
        metadata.set(&key, value.clone());
        let result = Hparams::from_metadata(&metadata);
        assert!(
            matches!(result, Err(SchemaError::Key { .. })),
            "{key} = {value:?}: {result:?}"
        );
    }
}

#[test]
fn another_architecture_is_refused_by_name() {
    let mut metadata = metadata(&uneven());
    metadata.set("general.architecture", "llama");
    let refused = Hparams::from_metadata(&metadata).unwrap_err().to_string();
    assert_eq!(
        refused,
        "`general.architecture` is `llama`, this program runs `kimi-linear`, `bailingmoe3`"
    );
}

#[test]
fn a_whole_file_is_accepted_and_its_tensors_listed() {
    let h = uneven();
    let (read, held) = check(&file(&h, |_| ())).unwrap();
    assert_eq!(read, h);
    assert_eq!(held, tensors(&h));
}

#[test]
fn a_wrong_shape_says_what_where_got_and_wanted() {
    let message = refusal(&uneven(), |plan| {
        named(plan, "blk.3.ssm_a").shape = vec![32, 128]
    });
    assert_eq!(
        message,
        "blk.3.ssm_a: shape [32, 128], the model wants [1, 5]"
    );
    let message = refusal(&uneven(), |plan| {
        named(plan, "blk.2.attn_k_b.weight").shape.swap(0, 1);
    });
    assert_eq!(
        message,
        "blk.2.attn_k_b.weight: shape [40, 24, 3], the model wants [24, 40, 3]"
    );
}

#[test]
fn trailing_ones_may_be_left_out() {
    let held = file(&uneven(), |plan| {
        named(plan, "blk.0.ssm_a").shape.truncate(2);
        named(plan, "blk.0.ssm_conv1d_q.weight").shape.truncate(3);
    });
    check(&held).unwrap();
}

#[test]
fn a_missing_tensor_is_named_and_a_missing_output_is_tied() {
    let message = refusal(&uneven(), |plan| {
        plan.retain(|t| t.name != "blk.2.ffn_up_exps.weight")
    });
    assert_eq!(message, "tensor `blk.2.ffn_up_exps.weight` is missing");
    let tied = file(&uneven(), |plan| plan.retain(|t| t.name != "output.weight"));
    let (_, held) = check(&tied).unwrap();
    assert!(held.iter().all(|spec| spec.role != Role::Output));
}

#[test]
fn an_old_file_holds_one_tensor_in_place_of_two() {
    let old = file(&uneven(), |plan| {
        plan.retain(|t| t.name != "blk.2.attn_v_b.weight");
        let kb = named(plan, "blk.2.attn_k_b.weight");
        kb.name = "blk.2.attn_kv_b.weight".into();
        kb.shape = vec![40, 3 * (24 + 12)];
    });
    let (_, held) = check(&old).unwrap();
    assert!(held.iter().any(|spec| spec.role == Role::MlaKvB));
    assert!(
        held.iter()
            .all(|spec| !matches!(spec.role, Role::MlaKB | Role::MlaVB))
    );
}

#[test]
fn small_tensors_are_f32_in_every_file() {
    let message = refusal(&uneven(), |plan| {
        named(plan, "blk.0.ssm_norm.weight").ty = TensorType::F16;
    });
    assert_eq!(
        message,
        "blk.0.ssm_norm.weight: type f16, the model wants f32"
    );
}
