//! What a conversion writes, and what it leaves alone.

use crate::checkpoint::{Copy, convert, fixture};
use ggml_kernels::gguf::GgufFile;
use ggml_kernels::quant::{TensorType, dequantize};
use quantize::convert::{Conversion, Input, Observer, Options, Silent};
use quantize::error::Error;
use quantize::recipe::FileType;
use quantize::schema;
use safetensors::SafeTensors;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn values(file: &GgufFile, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap();
    let mut values = vec![0.0; tensor.elements() as usize];
    dequantize(tensor.ty, file.data(tensor), &mut values).unwrap();
    values
}

/// An f32 tensor of a single-file fixture.
pub fn hub(dir: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(dir.join("model.safetensors")).unwrap();
    let tensor = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensor.tensor(name).unwrap();
    let words = tensor.data().as_chunks::<4>().0;
    words.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

#[test]
fn an_f32_file_holds_exactly_the_checkpoints_values() {
    let copy = Copy::of("apart");
    let file = copy.convert(FileType::F32).unwrap();
    let dir = fixture("apart");
    let same = [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output.weight", "lm_head.weight"),
        (
            "blk.0.attn_k.weight",
            "model.layers.0.self_attn.k_proj.weight",
        ),
        (
            "blk.0.ssm_conv1d_v.weight",
            "model.layers.0.self_attn.v_conv1d.weight",
        ),
        ("blk.0.ssm_dt.bias", "model.layers.0.self_attn.dt_bias"),
        (
            "blk.0.ffn_down.weight",
            "model.layers.0.mlp.down_proj.weight",
        ),
        (
            "blk.1.attn_kv_a_mqa.weight",
            "model.layers.1.self_attn.kv_a_proj_with_mqa.weight",
        ),
        (
            "blk.1.exp_probs_b.bias",
            "model.layers.1.block_sparse_moe.gate.e_score_correction_bias",
        ),
        (
            "blk.3.ffn_up_shexp.weight",
            "model.layers.3.block_sparse_moe.shared_experts.up_proj.weight",
        ),
    ];
    for (ours, theirs) in same {
        assert_eq!(values(&file, ours), hub(&dir, theirs), "{ours}");
    }
}

#[test]
fn experts_are_stacked_in_order_and_gate_down_up_are_w1_w2_w3() {
    let copy = Copy::of("apart");
    let file = copy.convert(FileType::F32).unwrap();
    for (ours, theirs) in [("gate", "w1"), ("down", "w2"), ("up", "w3")] {
        let stack = values(&file, &format!("blk.2.ffn_{ours}_exps.weight"));
        for (expert, values) in stack.chunks_exact(72 * 24).enumerate() {
            let name = format!("model.layers.2.block_sparse_moe.experts.{expert}.{theirs}.weight");
            assert_eq!(
                values,
                hub(&fixture("apart"), &name),
                "{ours} of expert {expert}"
            );
        }
    }
}

#[test]
fn the_decay_is_stored_as_the_negative_exponential_of_its_logarithm() {
    let copy = Copy::of("apart");
    let file = copy.convert(FileType::Q4KM).unwrap();
    let a = values(&file, "blk.0.ssm_a");
    let log = hub(&fixture("apart"), "model.layers.0.self_attn.A_log");
    assert_eq!(a.len(), 5);
    assert!(a.iter().zip(&log).all(|(a, log)| *a == -log.exp()));
}

#[test]
fn the_latent_projection_is_split_by_head_with_its_key_part_transposed() {
    let copy = Copy::of("apart");
    let file = copy.convert(FileType::F32).unwrap();
    let kv_b = hub(
        &fixture("apart"),
        "model.layers.1.self_attn.kv_b_proj.weight",
    );
    let (heads, nope, v, rank) = (3, 28, 36, 20);
    let source =
        |head: usize, row: usize, column: usize| kv_b[(head * (nope + v) + row) * rank + column];
    let (k_b, v_b) = (
        values(&file, "blk.1.attn_k_b.weight"),
        values(&file, "blk.1.attn_v_b.weight"),
    );
    for head in 0..heads {
        for r in 0..rank {
            for i in 0..nope {
                assert_eq!(k_b[(head * rank + r) * nope + i], source(head, i, r));
            }
            for i in 0..v {
                assert_eq!(v_b[(head * v + i) * rank + r], source(head, nope + i, r));
            }
        }
    }
}

#[test]
fn sharded_bf16_widens_exactly() {
    let copy = Copy::of("uneven");
    let wide = copy.convert(FileType::F32).unwrap();
    let target = copy.target().with_extension("bf16");
    convert(&copy.path(""), &target, FileType::Bf16, false, None).unwrap();
    let narrow = GgufFile::open(&target).unwrap();
    for tensor in wide.tensors() {
        assert_eq!(
            values(&wide, &tensor.name),
            values(&narrow, &tensor.name),
            "{}",
            tensor.name
        );
    }
}

#[test]
fn every_file_type_gives_a_file_that_the_schema_accepts() {
    for name in [
        "tiny",
        "uneven",
        "apart",
        "ling_tiny",
        "ling_small",
        "ling_odd",
    ] {
        let from = fixture(name);
        let home = tempfile::tempdir().unwrap();
        for to in FileType::ALL {
            let target = home.path().join(to.name());
            match convert(&from, &target, to, false, None) {
                // Where rows are whole blocks of the types that cannot be made without one.
                Err(Error::NoImportance { .. }) if to.needs_importance() => continue,
                done => done.unwrap(),
            }
            let file = GgufFile::open(&target).unwrap();
            schema::check(&file).unwrap_or_else(|e| panic!("{name} {to}: {e}"));
            assert_eq!(
                file.metadata().u64("general.file_type"),
                Some(to.id().into())
            );
            // The same plan gives the same bytes, however the threads ran.
            let again = home.path().join("again");
            convert(&from, &again, to, true, None).unwrap();
            assert!(
                fs::read(&target).unwrap() == fs::read(&again).unwrap(),
                "{name} {to}"
            );
        }
    }
}

#[test]
fn end_of_turn_ids_and_the_template_come_from_the_tokenizer_and_the_generation_config() {
    let copy = Copy::of("tiny");
    fs::write(copy.path("chat_template.jinja"), "of its own").unwrap();
    copy.edit_json("generation_config.json", |c| {
        c["eos_token_id"] = vec![512, 519].into()
    });
    let file = copy.convert(FileType::F16).unwrap();
    let id = |key: &str| {
        file.metadata()
            .u64(&format!("tokenizer.ggml.{key}_token_id"))
    };
    assert_eq!(
        (id("bos"), id("eos"), id("eot"), id("eom")),
        (Some(510), Some(511), Some(512), Some(519))
    );
    assert_eq!(
        file.metadata().str("tokenizer.chat_template"),
        Some("of its own")
    );
}

#[test]
fn tied_embeddings_leave_the_output_out() {
    let copy = Copy::of("tiny");
    copy.edit_json("config.json", |c| c["tie_word_embeddings"] = true.into());
    copy.edit_shard("model.safetensors", |header, _| {
        let head = header.remove("lm_head.weight").unwrap();
        header.insert("unused.weight".into(), head);
    });
    let file = copy.convert(FileType::F16).unwrap();
    assert!(file.tensor("output.weight").is_none());
    schema::check(&file).unwrap();
}

#[test]
fn requantizing_copies_what_is_already_right_and_converts_the_rest() {
    let copy = Copy::of("tiny");
    let first = copy.convert(FileType::Q8_0).unwrap();
    let target = copy.target().with_extension("again");
    convert(&copy.target(), &target, FileType::Q8_0, false, None).unwrap();
    let again = GgufFile::open(&target).unwrap();
    for tensor in first.tensors() {
        let same = again.tensor(&tensor.name).unwrap();
        assert!(first.data(tensor) == again.data(same), "{}", tensor.name);
    }
    assert_eq!(first.metadata(), again.metadata());
    convert(&copy.target(), &target, FileType::Q4_0, true, None).unwrap();
    let smaller = GgufFile::open(&target).unwrap();
    assert_eq!(
        smaller.tensor("blk.0.attn_q.weight").unwrap().ty,
        TensorType::Q4_0
    );
    assert_eq!(smaller.metadata().u64("general.file_type"), Some(2));
}

#[test]
fn an_existing_target_is_replaced_only_on_request() {
    let copy = Copy::of("tiny");
    fs::write(copy.target(), "precious").unwrap();
    let error = copy.convert(FileType::F16).err().unwrap();
    assert!(matches!(error, Error::Exists { .. }));
    assert_eq!(error.exit_code(), 4);
    assert_eq!(fs::read(copy.target()).unwrap(), b"precious");
    convert(&copy.path(""), &copy.target(), FileType::F16, true, None).unwrap();
    GgufFile::open(copy.target()).unwrap();
    assert_eq!(copy.beside_target(), ["in", "out.gguf"]);
}

#[test]
fn an_interrupted_conversion_leaves_the_old_file_and_nothing_else() {
    struct InterruptAfter<'a>(&'a AtomicBool);
    impl Observer for InterruptAfter<'_> {
        fn tensor(&mut self, name: &str) {
            if name == "blk.2.ffn_norm.weight" {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        fn advance(&mut self, _: u64) {}
    }
    let copy = Copy::of("tiny");
    fs::write(copy.target(), "precious").unwrap();
    let input = Input::open(&copy.path("")).unwrap();
    let to = FileType::F16;
    let options = Options {
        to,
        overrides: Vec::new(),
    };
    let plan = Conversion::plan(&input, &options).unwrap();
    let flag = AtomicBool::new(false);
    let error = plan.write(
        &copy.target(),
        true,
        None,
        &flag,
        &mut InterruptAfter(&flag),
    );
    assert_eq!(error.unwrap_err().exit_code(), 130);
    assert_eq!(fs::read(copy.target()).unwrap(), b"precious");
    assert_eq!(copy.beside_target(), ["in", "out.gguf"]);
}

#[test]
fn a_disk_without_room_is_noticed_before_the_first_byte() {
    let home = tempfile::tempdir().unwrap();
    let error = quantize::output::Output::create(&home.path().join("f"), u64::MAX, false);
    let error = error.err().unwrap();
    assert!(matches!(
        error,
        Error::NoSpace {
            needed: u64::MAX,
            ..
        }
    ));
    assert_eq!(error.exit_code(), 5);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn overrides_win_and_the_last_one_counts() {
    let input = Input::open(&fixture("tiny")).unwrap();
    let overrides = [
        "attn_q=f16",
        r"blk\.0\.attn_q=q8_0",
        "ssm_norm=q8_0",
        "nonsense=f16",
    ];
    let overrides = overrides.map(|o| o.parse().unwrap()).into();
    let to = FileType::Q4_0;
    let plan = Conversion::plan(&input, &Options { to, overrides }).unwrap();
    let step = |name: &str| plan.steps.iter().find(|s| s.spec.name == name).unwrap();
    assert_eq!(step("blk.0.attn_q.weight").ty, TensorType::Q8_0);
    assert_eq!(step("blk.1.attn_q.weight").ty, TensorType::F16);
    assert_eq!(step("blk.1.attn_k.weight").ty, TensorType::Q4_0);
    assert_eq!(step("blk.0.ssm_norm.weight").ty, TensorType::F32);
    assert_eq!(
        step("blk.0.ssm_norm.weight").note.as_deref(),
        Some("always f32")
    );
    assert!(plan.notes.iter().any(|note| note.contains("nonsense")));
}

#[test]
fn rows_that_a_type_cannot_hold_fall_back_and_say_so() {
    let input = Input::open(&fixture("uneven")).unwrap();
    let to = FileType::Q4KM;
    let overrides = Vec::new();
    let plan = Conversion::plan(&input, &Options { to, overrides }).unwrap();
    let step = |name: &str| plan.steps.iter().find(|s| s.spec.name == name).unwrap();
    let gate = step("blk.2.ffn_gate_exps.weight");
    assert_eq!(gate.ty, TensorType::Q5_0);
    assert_eq!(
        gate.note.as_deref(),
        Some("q4_k wants rows of 256 x, got 128")
    );
    // 40 values are no whole number of blocks of 32 either.
    assert_eq!(step("blk.2.ffn_down_exps.weight").ty, TensorType::F16);
}

/// An importance matrix of one stack of tokens `[1000, 0, 1000, 1, ...]`: expert 0 cares for even
/// columns, expert 1 saw nothing, expert 3 one token that was far from the others'.
#[test]
fn a_verified_file_is_good_until_a_scale_breaks() {
    let copy = Copy::of("tiny");
    let file = copy.convert(FileType::Q8_0).unwrap();
    let never = AtomicBool::new(false);
    let verify = || quantize::verify::verify(&copy.target(), &never, &mut |_, _| ()).unwrap();
    let good = verify();
    assert!(good.is_good());
    let mut bytes = fs::read(copy.target()).unwrap();
    assert_eq!(good.digest, blake3::hash(&bytes));
    let at = file.tensor("blk.4.attn_v.weight").unwrap().offset + 3 * 34;
    bytes[at..at + 2].copy_from_slice(&0x7e00u16.to_le_bytes());
    fs::write(copy.target(), bytes).unwrap();
    let bad = verify();
    let broken: Vec<_> = bad.tensors.iter().filter(|t| t.broken.is_some()).collect();
    assert_eq!((broken.len(), broken[0].broken), (1, Some(3)));
    assert_eq!(broken[0].name, "blk.4.attn_v.weight");
}

#[test]
fn a_synthetic_model_is_whole_and_always_the_same() {
    let home = tempfile::tempdir().unwrap();
    let mut h = quantize::synth::Shape::Edge.hparams(5, false);
    h.vocab = 512;
    h.moe.experts = 6;
    let never = AtomicBool::new(false);
    let write = |name: &str| {
        let path = home.path().join(name);
        quantize::synth::write(&h, FileType::Q4KS, &path, false, &never, &mut Silent).unwrap();
        path
    };
    let (one, two) = (write("one"), write("two"));
    assert!(fs::read(&one).unwrap() == fs::read(two).unwrap());
    let report = quantize::verify::verify(&one, &never, &mut |_, _| ()).unwrap();
    assert!(report.is_good(), "{report:?}");
    let (read, _) = schema::check(&GgufFile::open(&one).unwrap()).unwrap();
    assert_eq!(read, h);
}

#[test]
fn a_hub_tokenizer_gives_the_same_vocabulary_as_tiktokens() {
    let copy = Copy::of("tiny");
    let first = copy.convert(FileType::F16).unwrap();
    let metadata = first.metadata();
    let tokens = metadata.strs("tokenizer.ggml.tokens").unwrap();
    let types = metadata.u64s("tokenizer.ggml.token_type").unwrap();
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, (token, ty)) in tokens.iter().zip(types).enumerate() {
        match ty {
            1 => drop(vocab.insert(token.clone(), id.into())),
            _ => added.push(serde_json::json!({ "id": id, "content": token, "special": true })),
        }
    }
    let merges = metadata.strs("tokenizer.ggml.merges").unwrap();
    let merges: Vec<Vec<&str>> = merges.iter().map(|m| m.split(' ').collect()).collect();
    let json = serde_json::json!({
        "model": { "type": "BPE", "vocab": vocab, "merges": merges },
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": r"[\p{Han}]+" } },
        "added_tokens": added,
    });
    fs::write(copy.path("tokenizer.json"), json.to_string()).unwrap();
    fs::remove_file(copy.path("tiktoken.model")).unwrap();
    fs::remove_file(copy.target()).unwrap();
    let second = copy.convert(FileType::F16).unwrap();
    assert_eq!(first.metadata(), second.metadata());
}
